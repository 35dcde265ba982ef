"""A collection on a Raspberry Pi that is not there (tests/support/pi.py): the same answers there."""

import json
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from pi import Pi, need_pi

from device_bench.devices import reach
from export.pack import zipped
from runtimes.bundle import open_bundle, seal
from runtimes.collection import golden_of

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.device]


@pytest.fixture(scope="module")
def pi(tmp_path_factory):
    """A Pi 4 with nothing on it but Debian's Python."""
    need_pi()
    one = Pi(tmp_path_factory.mktemp("pi") / "bare", "cortex-a72")
    try:
        yield one.make()
    finally:
        one.off()


def check(pi, bundle, folder):
    command = [sys.executable, "-m", "apps.cli", "check", str(bundle), "--on", pi.address, "--json"]
    env = pi.client(folder)
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)


def test_the_gate_passes_there_and_tells_the_memory(pi, tiny_answers, tmp_path):
    done = check(pi, tiny_answers, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)[pi.address]
    assert found["golden"]["agreement"] == 1 and found["golden"]["max_confidence"] < 0.02
    assert found["emulated"] and 10 < found["opened_mb"] <= found["peak_rss_mb"]
    assert not pi.left()


def test_the_zip_answers_there_as_the_folder_does(pi, tiny_answers, tmp_path, monkeypatch):
    packed = tmp_path / "answers.zip"
    packed.write_bytes(zipped(tiny_answers))
    golden = golden_of(open_bundle(packed, parts=True))
    monkeypatch.setenv("PATH", pi.client(tmp_path)["PATH"])
    with reach(pi.address) as device:
        assert device.provide(["onnx"]) == ["onnx"]
        device.push({"answers.zip": packed})
        request = {"do": "ask", "bundle": device.path("answers.zip"), "threads": 1}
        told = device.run({**request, "questions": [one.question for one in golden]})
    assert told["about"]["index"]["passages"] == 6
    for one, other in zip(golden, told["golden"], strict=True):
        assert other == {**asdict(one), "confidence": pytest.approx(one.confidence, abs=0.02)}


def test_another_index_fails_the_gate_there(pi, tiny_answers, tmp_path):
    copy = Path(shutil.copytree(tiny_answers, tmp_path / "tiny.bundle"))
    manifest = json.loads((copy / "bundle.json").read_text())
    with sqlite3.connect(copy / "index.sqlite") as connection:
        connection.execute("UPDATE passages SET start = start + 1")
    seal(copy, manifest, manifest["files"])
    done = check(pi, copy, tmp_path)
    assert done.returncode == 3 and "does not answer as where it was packed" in done.stderr

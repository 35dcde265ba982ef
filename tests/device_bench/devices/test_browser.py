"""`--on browser` in a real Chromium: bench, check, and every way in which it can go wrong."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browsers import chromium, lacking, need_browser, need_packages

from device_bench.devices import browser, pages
from device_bench.rows import open_rows
from runtimes.errors import DeviceError

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def _needed() -> None:
    need_browser()
    need_packages()


def edgewise(*words: object, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "apps.cli", *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip


def ended(running: "subprocess.Popen[str]", code: int) -> tuple[str, str]:
    out, err = running.communicate(timeout=300)
    assert running.returncode == code, err[-2000:]
    return out, err


def left_behind() -> list[str]:
    """Profiles of ours and processes that use one."""
    profiles = [str(path) for path in Path(tempfile.gettempdir()).glob("edgewise-browser-*")]
    for commands in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"edgewise-browser-" in commands.read_bytes():
                profiles.append(str(commands))
    return profiles


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = set(left_behind())
    yield
    until = time.monotonic() + 10
    while set(left_behind()) - before and time.monotonic() < until:
        time.sleep(0.1)  # the kernel reaps what was killed
    assert set(left_behind()) <= before


def test_check_proves_parity_in_the_browser(tiny_bundle: Path) -> None:
    out, _ = ended(edgewise("check", tiny_bundle, "--on", "browser", "--json"), 0)
    checked = json.loads(out)["browser"]["variants"]
    names = ["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic_wi8_afp32"]
    assert list(checked) == names
    assert checked["tflite-fp32"]["golden"]["max_abs"] < 1e-3


@pytest.mark.parametrize(("threads", "names"), [(1, ["onnx-int8"]), (2, ["onnx-int8", "tflite-fp32"])])
def test_bench_gives_rows_of_the_usual_schema(
    tiny_bundle: Path, tmp_path: Path, threads: int, names: list[str]
) -> None:
    data = tmp_path / "rows.csv"
    labels = json.loads((tiny_bundle / "bundle.json").read_bytes())["labels"]
    lines = [f"exports of month {row} rise,{labels[row % 2]}\n" for row in range(24)]
    data.write_text("".join(["text,label\n", *lines]))
    variants = [word for name in names for word in ("--variant", name)]
    out = tmp_path / "rows.jsonl"
    words = ["bench", tiny_bundle, "--on", "browser", *variants, "--data", data, "--threads", threads]
    ended(edgewise(*words, "--quick", "--out", out), 0)
    rows = [row for row in open_rows(out) if row["providers"] == ["wasm"]]
    assert [(row["variant"], row["tokenization"]) for row in rows] == [
        (name, tokenized) for name in names for tokenized in (True, False)
    ]
    for row in rows:
        assert row["threads"] == threads
        assert row["emulated"] is False
        assert row["engine"] == ("onnxruntime-web" if "onnx" in row["variant"] else "@litertjs/core")
        assert row["engine_version"] in ("1.30.0", "2.5.3")
        assert row["device"]["browser"] in row["device"]["name"]
        assert row["device"]["cores"] >= 1
        assert row["latency_ms"]["p50"] > 0 and row["n"] > 1 and row["cold_start_ms"] > 0
        assert row["metric"]["n"] == len(lines)
        assert row["parity"]["agreement"] == 1.0
        assert ("memory: " in row["note"]) and "energy: a page cannot read a sensor" in row["note"]
        assert row["peak_rss_mb"] is None or row["peak_rss_mb"] * 2**20 > row["size_bytes"]
        assert threads == 1 or row["peak_rss_mb"] is None


def test_a_browser_that_is_killed_ends_with_5(tiny_bundle: Path, tmp_path: Path) -> None:
    running = edgewise("bench", tiny_bundle, "--on", "browser", "--out", tmp_path / "rows.jsonl")
    until_it_opens(running)
    os.kill(_child_of(running.pid), signal.SIGKILL)
    _, err = ended(running, 5)
    assert err.strip().splitlines()[-1].startswith("edgewise: browser: the browser ended")
    assert not (tmp_path / "rows.jsonl").exists()


def until_it_opens(running: "subprocess.Popen[str]") -> None:
    assert running.stderr is not None
    for line in running.stderr:
        if "bench: opening" in line:
            return
    raise AssertionError("the bench did not start")


def test_nothing_is_left_when_the_command_is_killed(tiny_bundle: Path, tmp_path: Path) -> None:
    running = edgewise("bench", tiny_bundle, "--on", "browser", "--out", tmp_path / "rows.jsonl")
    until_it_opens(running)
    assert left_behind()
    running.kill()
    running.communicate()


def _child_of(parent: int) -> int:
    """The browser that a command started: its child with a profile of ours."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            process = status.parent
            if int(status.read_text().rpartition(")")[2].split()[1]) != parent:
                continue
            if b"--user-data-dir=" in (process / "cmdline").read_bytes():
                return int(process.name)
    raise AssertionError("no browser was started")


def script(folder: Path, text: str) -> str:
    path = folder / "a-browser"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_browser_that_does_not_start_ends_with_5(tiny_bundle: Path, tmp_path: Path) -> None:
    binary = script(tmp_path, "exit 3")
    _, err = ended(edgewise("check", tiny_bundle, "--on", "browser", EDGEWISE_BROWSER=binary), 5)
    assert "browser: the browser ended (code 3)" in err.strip().splitlines()[-1]
    missing = edgewise("check", tiny_bundle, "--on", "browser", EDGEWISE_BROWSER="no-such-browser")
    assert "EDGEWISE_BROWSER=no-such-browser is no program" in ended(missing, 5)[1]


def test_a_page_that_never_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_BROWSER", script(tmp_path, "sleep 60"))
    monkeypatch.setattr(browser, "START_SECONDS", 0.5)
    device = browser.open()
    try:
        with pytest.raises(DeviceError, match=r"no page opened within 0\.5 s; open http://127"):
            device.describe()
    finally:
        device.close()


def test_the_address_is_printed_where_no_browser_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EDGEWISE_BROWSER", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(browser, "BROWSERS", ("chromium",))
    device = browser.open()
    device.close()
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert f"no Chrome, Chromium or Edge is found; open {device.url}" in told.err


def test_a_missing_engine_is_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    environment = {"EDGEWISE_CACHE": str(tmp_path), "EDGEWISE_BROWSER": need_browser(), "PATH": "/nowhere"}
    _, err = ended(edgewise("check", tiny_bundle, "--on", "browser", **environment), 2)
    assert "npm is not installed" in err.strip().splitlines()[-1]


def test_a_variant_that_the_engine_cannot_open_is_left_out(tiny_bundle: Path, tmp_path: Path) -> None:
    from runtimes.bundle import open_bundle, seal

    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny.bundle"))
    manifest = open_bundle(bundle).manifest
    odd = {"onnx-int4": "onnx-int8", "tflite-full_int8": "tflite-dynamic_wi8_afp32"}
    variants = {}
    for name, like in odd.items():
        file = f"variants/{name}/{Path(manifest['variants'][like]['file']).name}"
        (bundle / file).parent.mkdir()
        (bundle / file).write_bytes(b"no graph" * 100)
        variants[name] = {**manifest["variants"][like], "file": file, "size_bytes": 800}
    manifest["variants"] = {**variants, **{like: manifest["variants"][like] for like in odd.values()}}
    files = [about["file"] for about in manifest["variants"].values()]
    seal(bundle, manifest, ["tokenizer.json", "golden.npz", "parity.json", *files])
    out, err = ended(edgewise("check", bundle, "--on", "browser", "--json"), 0)
    assert list(json.loads(out)["browser"]["variants"]) == list(odd.values())
    for name in odd:
        assert f"browser: left out: {name}: " in err
    words = ["bench", bundle, "--on", "browser", "--variant", "tflite-full_int8", "--out", tmp_path / "rows"]
    _, err = ended(edgewise(*words), 2)
    assert "tflite-full_int8 does not run there: @litertjs/core cannot open" in err.strip().splitlines()[-1]


def test_software_webgpu_gives_parity_and_no_times(small_bundle: Path, tmp_path: Path) -> None:
    flags = "--enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --enable-features=Vulkan"
    binary = script(tmp_path, f'exec {need_browser()} {flags} "$@"')
    out = tmp_path / "rows.jsonl"
    words = ["bench", small_bundle, "--on", "browser", "--quick", "--out", out]
    ended(edgewise(*words, EDGEWISE_BROWSER=binary), 0)
    rows = [row for row in open_rows(out) if row["providers"] == ["webgpu"]]
    if not rows:
        lacking("this Chromium has no software WebGPU")
    for row in rows:
        assert (row["entry"], row["latency_ms"], row["cold_start_ms"]) == ("onnx-fp32 webgpu", None, None)
        assert row["parity"]["max_abs"] < 1e-3
        assert row["note"].startswith("WebGPU here is software")


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Any]]:
    """Opens the device's page in a tab of the given context, as a phone's browser would."""
    devices = []

    def start(context: Any) -> Any:
        tab = context.new_page()
        device = browser.open("adb:test", opener=lambda url: tab.goto(url, wait_until="commit"))
        devices.append(device)
        return device, tab

    yield start
    for device in devices:
        device.close()


def test_somebody_else_opens_the_page(opened: Any, tiny_bundle: Path) -> None:
    from device_bench.remote import answers_on
    from runtimes.bundle import open_bundle

    with chromium() as context:
        device, tab = opened(context)
        about = device.describe()
        assert about["isolated"] is True and about["emulated"] is False
        assert about["device"]["soc"] is None  # it may be another machine
        second = context.new_page()
        second.goto(device.url)
        second.get_by_text("Another page runs this bench already").wait_for()
        told = answers_on(device, open_bundle(tiny_bundle), ["onnx-int8"], ["grain exports rise"])
        assert len(told["onnx-int8"]["outputs"][0]) == 4
        assert device.pull("bundle/tokenizer.json") == (tiny_bundle / "tokenizer.json").read_bytes()
        device.close()
        tab.get_by_text("Done: the bench has ended.").wait_for()


def test_a_tab_that_is_closed(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SILENCE_SECONDS", 4.0)
    with chromium() as context:
        device, tab = opened(context)
        device.describe()
        tab.close()
        with pytest.raises(DeviceError, match="the page no longer answers"):
            device.run({"do": "answers", "bundle": "bundle", "variants": [], "texts": [], "threads": 1})


@pytest.fixture
def served() -> Iterator[pages.Page]:
    page = pages.Page("test", {"a.js": b"1"})
    yield page
    page.close()


def asked(page: pages.Page, path: str, host: str | None = None, body: bytes | None = None) -> Any:
    connection = HTTPConnection("127.0.0.1", page.port, timeout=10)
    headers = {"Host": host or f"127.0.0.1:{page.port}"}
    if body is not None:
        headers["Content-Length"] = str(len(body))
    connection.request("GET" if body is None else "POST", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_the_server_gives_files_to_those_who_know_the_address(served: pages.Page) -> None:
    secret = urlsplit(served.url).path
    answer = asked(served, f"{secret}a.js")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/javascript")
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for path in ("/a.js", "/wrong/a.js", f"{secret}b.js", f"{secret}../../etc/passwd", "/"):
        assert asked(served, path).status == 404, path
    assert asked(served, f"{secret}a.js", host="example.org").status == 404


def test_a_post_that_is_too_large_is_refused(served: pages.Page, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = urlsplit(served.url).path
    monkeypatch.setattr(pages, "MAX_POST_BYTES", 10)
    assert asked(served, f"{secret}answer", body=b" " * 11).status == 400
    assert asked(served, f"{secret}nothing", body=b"").status == 400

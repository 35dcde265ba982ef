"""The runner and the protocol, on this machine as the device."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_bench import remote, runner
from device_bench.bench import BenchConfig
from device_bench.devices import host, kind_of, local, reach
from runtimes.bundle import open_bundle
from runtimes.errors import DeviceError, EngineError, InputError

QUICK = BenchConfig(quick=True, rounds=3, cold_starts=1)


@pytest.fixture
def device():
    with reach("local") as opened:
        yield opened


def folder(device) -> Path:
    return Path(device.path(""))


def test_addresses():
    assert [kind_of(one) for one in ("local", "browser", "adb:0123", "pi@host", "host:22", "[::1]:22")] == [
        "local", "browser", "adb", "ssh", "ssh", "ssh",
    ]  # fmt: skip
    for bad in ("", "-oProxyCommand=x", "a b", "a\nb"):
        with pytest.raises(InputError, match="name one as local"):
            kind_of(bad)


def test_describe_push_run_pull_and_nothing_stays(device):
    about = device.describe()
    assert about["device"]["name"] and not about["emulated"] and "onnx" in about["engines"]
    device.push({"a/b.txt": b"bytes"})
    assert device.pull("a/b.txt") == b"bytes"
    work = folder(device)
    assert work.is_dir()
    device.close()
    assert not work.exists()


def test_rows_and_answers_from_a_pushed_bundle(device, small_bundle):
    bundle = open_bundle(small_bundle)
    texts = [str(text) for text in bundle.golden()["texts"]]
    rows = remote.bench_on(device, bundle, None, texts, [0, 1, 0], QUICK)
    assert [row["tokenization"] for row in rows] == [True, False]
    assert rows[0]["parity"]["agreement"] == 1 and rows[0]["metric"]["n"] == 3 and rows[0]["default"]
    answers = remote.answers_on(device, bundle, ["onnx-fp32"], texts)
    assert answers["onnx-fp32"]["outputs"] == bundle.golden()["logits"].tolist()


def test_variants_of_two_bundles_stand_beside_each_other(device, small_bundle, monkeypatch):
    bundle = open_bundle(small_bundle)
    entries = {"first": (bundle, "onnx-fp32"), "second": (bundle, "onnx-fp32")}
    found = remote.compare_on(device, entries, ["goal", "a vote"], 5, 10.0)
    assert found["first"]["speed"] == 1 and found["second"]["n"] == 5 and found["second"]["p50_ms"] > 0
    monkeypatch.setitem(device.describe(), "emulated", True)
    with pytest.raises(DeviceError, match="emulated, so its times say nothing"):
        remote.compare_on(device, entries, ["goal"], 5, 10.0)


def test_the_runner_needs_no_edgewise_there(small_bundle, tmp_path):
    """The pushed archive alone, in an interpreter without site-packages of ours: describe works."""
    (tmp_path / "runner.zip").write_bytes(host.code())
    (tmp_path / "q.json").write_text(json.dumps({"do": "describe"}))
    command = [sys.executable, "-I", "-S", "-c",
               "import sys, runpy; sys.path.insert(0, 'runner.zip'); sys.argv[1:] = ['q.json', 'a.json'];"
               "runpy.run_module('device_bench.runner', run_name='__main__')"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, stdin=subprocess.DEVNULL)
    assert json.loads((tmp_path / "a.json").read_text())["python"]


def test_a_bundle_is_cut_down_to_the_variants(tiny_bundle, tmp_path):
    bundle = open_bundle(tiny_bundle)
    for name, data in remote.part_of(bundle, ["onnx-int8"]).items():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data if isinstance(data, bytes) else data.read_bytes())
    cut = open_bundle(tmp_path / "bundle")
    assert list(cut.variants) == ["onnx-int8"] and cut.defaults["*"] == "onnx-int8"
    assert not [name for name in cut.manifest["files"] if "tflite" in name or "fp32" in name]


def test_an_engine_that_is_not_there(device, tiny_bundle, monkeypatch):
    bundle, about = open_bundle(tiny_bundle), device.describe()
    monkeypatch.setitem(about, "engines", {"onnx": about["engines"]["onnx"]})
    monkeypatch.setattr(host.wheels, "missing", lambda about, engines, progress: (None, ["onnx"]))
    with pytest.raises(EngineError, match="no engine 'litert' for tflite-fp32 there"):
        remote.answers_on(device, bundle, ["tflite-fp32"], ["oil"])
    assert set(remote.answers_on(device, bundle, None, ["oil"])) == {"onnx-fp32", "onnx-int8"}


def test_errors_keep_their_class_and_one_line(device):
    with pytest.raises(InputError, match="local: runner: no action 'dance'"):
        device.run({"do": "dance"})
    with pytest.raises(DeviceError, match="No such file"):
        device.run({"do": "unpack", "archive": "/nowhere.zip", "folder": "/nowhere"})
    with pytest.raises(InputError, match="no such bundle"):
        device.run({"do": "answers", "bundle": "/nowhere", "variants": ["x"], "texts": [], "threads": 1})


def test_a_runner_that_dies_is_told(device, monkeypatch):
    device.describe()
    monkeypatch.setattr(device._channel, "python", ("sh", "-c", "echo last words >&2; exit 9"))
    with pytest.raises(EngineError, match="code 9 and no answer: last words"):
        device.run({"do": "describe"})
    monkeypatch.setattr(device._channel, "python", ("sh", "-c", "exit 137"))
    with pytest.raises(EngineError, match="too little memory"):
        device.run({"do": "describe"})


@pytest.mark.parametrize("answer", ["[1]", "{", "3", '{"error": "__name__"}', '{"error": ["x"]}'])
def test_a_device_that_answers_nonsense_is_one_line(device, monkeypatch, answer):
    device.describe()
    monkeypatch.setattr(device._channel, "get", lambda name: answer.encode())
    with pytest.raises(EngineError, match="^local: "):
        device.run({"do": "describe"})


@pytest.mark.parametrize("told", [{}, {"rows": []}, {"rows": ["x"]}, {"rows": [{"variant": 1}]}])
def test_rows_that_are_none_are_refused(device, small_bundle, monkeypatch, told):
    bundle = open_bundle(small_bundle)
    device.describe()
    monkeypatch.setattr(device, "run", lambda request, progress: told)
    with pytest.raises((DeviceError, InputError), match="local: (it gave no rows|row 1)"):
        remote.bench_on(device, bundle, None, ["a"], None, QUICK)
    with pytest.raises(DeviceError, match="it gave no answers of onnx-fp32"):
        remote.answers_on(device, bundle, None, ["a"])


def test_an_old_python_is_told(monkeypatch):
    monkeypatch.setattr(local.LocalChannel, "python", ("sh", "-c", "echo 3 7"))
    with (
        reach("local") as device,
        pytest.raises(EngineError, match=r"3\.7 there; edgewise needs Python 3\.11"),
    ):
        device.describe()


def test_a_full_disk_is_told(device):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (folder(device) / "full").symlink_to("/dev/full")
    with pytest.raises(DeviceError, match="full was not written: No space left on device"):
        device.push({"full": b"x" * 100_000})


def test_the_lease_ends_the_runner_and_cleans_up(tmp_path):
    """Standard input ends, as when a cable is pulled: the work folder goes and so does the process."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "runner.zip").write_bytes(host.code())
    request = {"do": "wait", "lease": str(work)}
    (work / "q.json").write_text(json.dumps(request))
    code = (
        f"import sys, time; sys.path.insert(0, {str(work / 'runner.zip')!r});"
        "from device_bench import runner; runner.ACTIONS['wait'] = lambda request: time.sleep(60);"
        f"sys.argv[1:] = [{str(work / 'q.json')!r}, {str(work / 'a.json')!r}]; print('on', flush=True);"
        "runner.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert child.poll() is None and work.is_dir()
        child.stdin.close()
        assert child.wait(timeout=30) == 1
    assert not work.exists()


def test_a_command_that_takes_too_long():
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"no answer within 0\.5 s"):
        local.follow(["sleep", "30"], 0.5, lambda line: None, "local")
    assert time.monotonic() - started < 20


def test_actions_are_the_documented_ones():
    assert set(runner.ACTIONS) == {"describe", "unpack", "bench", "answers", "ask", "compare"}

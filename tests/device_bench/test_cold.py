import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_bench import child, cold
from runtimes.errors import BundleError, EngineError

ROOT = Path(__file__).parents[2]
READ = "import sys, json, os; request = json.load(sys.stdin); "


def start(code: str, repeats: int = 1, timeout: float = 60.0) -> cold.ColdStart:
    request = {"path": "x", "engine": None, "variant": None, "threads": 1, "texts": ["a"]}
    return cold.cold_start("tiny", request, repeats, command=[sys.executable, "-c", code], timeout=timeout)


def test_median_of_fresh_processes(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    counter.write_text("0")
    code = (
        READ + f"path = {str(counter)!r}; n = int(open(path).read()) + 1; open(path, 'w').write(str(n)); "
        "print(json.dumps({'cold_start_ms': [0, 5, 900, 6][n], 'peak_rss_mb': n}))"
    )
    assert start(code, repeats=3) == cold.ColdStart(ms=6, peak_rss_mb=2, repeats=3)


def test_memory_of_loading_and_of_answering_are_medians_too() -> None:
    told = "{'cold_start_ms': 1, 'peak_rss_mb': 9, 'load_mb': 9, 'run_mb': 7}"
    got = start(READ + f"print(json.dumps({told}))")
    assert (got.load_mb, got.run_mb) == (9, 7)


class Lengths:
    answers = staticmethod(len)


def test_the_peak_of_loading_is_not_that_of_answering() -> None:
    code = (
        "import json, edgewise; from device_bench import child\n"
        "def load(*_, **__):\n"
        "    held = bytearray(b'x') * (80 << 20)\n"
        '    return type("Model", (), {"answers": staticmethod(len)})\n'
        "edgewise.load = load\n"
        "about = dict(path='', engine=None, variant=None, threads=1, texts=['a'])\n"
        "print(json.dumps(child.measure(about)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    got = json.loads(done.stdout)
    assert got["load_mb"] > got["run_mb"] + 60
    assert got["peak_rss_mb"] == got["load_mb"]


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("os.kill(os.getpid(), 9)", EngineError, r"tiny: .* was killed \(SIGKILL\): often too little memory"),
        ("os.abort()", EngineError, "tiny: .* died with SIGABRT: the engine crashed"),
        ("sys.exit('out of luck')", EngineError, "ended with code 1 and no figures: out of luck"),
        ("print('not JSON')", EngineError, "ended with code 0 and no figures"),
        ("print('[1]')", EngineError, "ended with code 0 and no figures"),
        (
            "print(json.dumps({'error': 'BundleError', 'message': 'x: altered'})); sys.exit(1)",
            BundleError, "^tiny: x: altered$",
        ),
        (
            "print(json.dumps({'error': 'KeyError', 'message': 'k'})); sys.exit(1)",
            EngineError, "^tiny: failed in a fresh process: KeyError: k$",
        ),
    ],
)  # fmt: skip
def test_a_child_that_fails_is_one_clear_line(code: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        start(READ + code)
    assert "\n" not in str(caught.value)


def test_a_child_that_hangs_is_stopped() -> None:
    with pytest.raises(EngineError, match=r"no first answer within 0\.2 s"):
        start("import time; time.sleep(60)", timeout=0.2)


def test_the_longest_text_is_answered_too() -> None:
    texts = ["a"] * 100 + ["the longest"]
    assert cold.sample(texts) == ["a"] * 32 + ["the longest"]


def test_peak_memory_is_that_of_this_program_not_of_its_parent(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t 900 kB\nVmHWM:\t  20480 kB\n")
    assert child.peak_rss_mb(status) == 20.0
    assert child.peak_rss_mb(tmp_path / "none") > 1
    status.write_text("VmHWM:\t  20480 kB\nVmRSS:\t  10240 kB\n")
    assert child.rss_mb(status) == 10.0


def test_a_real_bundle_in_a_real_child(small_bundle: Path) -> None:
    request = {"path": str(small_bundle), "engine": None, "variant": None, "threads": 1, "texts": ["a goal"]}
    got = cold.cold_start("small", request, 1)
    assert got.ms > 1
    assert 10 < got.peak_rss_mb < 2000
    assert got.load_mb and got.run_mb
    assert got.peak_rss_mb >= max(got.load_mb, got.run_mb)


def test_a_damaged_bundle_in_a_real_child(tmp_path: Path) -> None:
    request: dict[str, Any] = {
        "path": str(tmp_path), "engine": None, "variant": None, "threads": 1, "texts": ["a"],
    }  # fmt: skip
    with pytest.raises(BundleError, match=r"^gone: "):
        cold.cold_start("gone", request, 1)


def test_the_child_answers_in_one_json_line(
    monkeypatch: pytest.MonkeyPatch, small_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import edgewise

    monkeypatch.setattr(edgewise, "load", lambda *_, **__: print("noise") or Lengths, raising=False)
    got = child.measure({"path": "x", "engine": None, "variant": None, "threads": 1, "texts": ["a"]})
    assert json.dumps(got)
    assert got["cold_start_ms"] >= got["load_ms"]
    capfd.readouterr()

"""The demos, as they are started: a recording that runs again, and this machine."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from monitor_client import wait_for
from tiny_detector import waves

from apps.monitor.demo import name_of, recorded
from apps.web.listening import listen
from runtimes.errors import InputError


def first_series(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}series", timeout=30) as reply:
        found: list[dict[str, Any]] = json.load(reply)["series"]
    return found[0] if found else {"points": 0, "name": "", "channels": [], "learned": None}


@pytest.mark.parametrize("what", ["replay", "machine"])
def test_a_demo_prints_where_it_is_and_is_fed(what: str, detector_folder: Path, tmp_path: Path) -> None:
    lines = [f"2024-01-01T{at // 60:02d}:{at % 60:02d}:00Z,{v:.3f}\n" for at, (v,) in enumerate(waves(600))]
    (tmp_path / "pump.csv").write_text("time,pressure\n" + "".join(lines))
    if what == "machine":
        pytest.importorskip("psutil")
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
    how = ["--machine"] if what == "machine" else ["--replay", str(tmp_path / "pump.csv"), "--speed", "20000"]
    command = [sys.executable, "-W", "ignore", "-m", "apps.monitor.demo", *how]
    with subprocess.Popen(
        [*command, "--bundle", str(detector_folder), "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            assert url == f"http://127.0.0.1:{port}/"
            if what == "machine":
                found = wait_for(lambda: (one := first_series(url))["points"] >= 2 and one, 30)
                assert found["name"] == "this-machine" and "cpu_percent" in found["channels"]
            else:
                found = wait_for(lambda: (one := first_series(url))["points"] == 600 and one, 30)
                assert found["name"] == "pump" and found["channels"] == ["pressure"] and found["learned"]
        finally:
            process.terminate()


def test_what_can_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        recorded(str(tmp_path / "nothing.csv"))
    assert name_of("real Known/Cause: x.csv") == "real-Known-Cause-x.csv"
    assert name_of("///") == "series" and len(name_of("x" * 200)) == 64

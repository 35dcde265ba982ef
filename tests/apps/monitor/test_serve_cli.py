"""edgewise serve --series: what goes with what, and a real start."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from apps.cli.main import run


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--series", "s", "--documents", "d"], "--series goes with a detector"),
        (["--private-webhooks"], "--private-webhooks goes with --series FOLDER"),
        (["--series", "s", "--host", "0.0.0.0"], "no API key is set"),
        ([], "a detector with --series FOLDER"),
    ],
)
def test_options_that_do_not_fit(
    detector_folder: Path, more: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [str(tmp_path / word) if word in ("s", "d") else word for word in more]
    assert run(["serve", str(detector_folder), *more]) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


def test_a_real_start_and_a_good_end(detector_folder: Path, tmp_path: Path) -> None:
    from apps.web.listening import listen

    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
    command = ["serve", str(detector_folder), "--series", str(tmp_path / "s"), "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "apps.cli", *command], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        assert any(f"open http://127.0.0.1:{port}/" in line for line in process.stderr)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as reply:
            assert json.load(reply)["ready"]
        process.terminate()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode in (0, -15) and (tmp_path / "s" / "monitor.sqlite").is_file()

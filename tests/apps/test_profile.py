"""`edgewise bench` with a profile and for minutes, end to end on the tiny bundle."""

import json
from pathlib import Path

import pytest
from control_groups import left_behind, need_control_groups

from apps.cli.main import run
from device_bench.devices import profiles

pytestmark = pytest.mark.slow


def bench(bundle: Path, out: Path, *more: str) -> int:
    return run(["bench", str(bundle), "--quick", "--out", str(out), *more])


def test_a_sustained_run_takes_the_default_variant(tiny_bundle, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert bench(tiny_bundle, out, "--sustained", "0.02") == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    default = json.loads((tiny_bundle / "bundle.json").read_text())["defaults"]["*"]
    assert {row["variant"] for row in rows} == {default}
    assert len(rows[0]["sustained"]["slices"]) == 6
    assert "sustained: 0.02 min" in capsys.readouterr().out
    assert bench(tiny_bundle, out, "--sustained", "-1") == 2


def test_a_profile(tiny_bundle, tmp_path, capsys, monkeypatch):
    need_control_groups()
    monkeypatch.setitem(profiles.PROFILES, "pi4", profiles.Profile("a quick one", 1, 400, 0.5))
    before = left_behind()
    out = tmp_path / "rows.jsonl"
    assert bench(tiny_bundle, out, "--profile", "pi4", "--variant", "onnx-int8") == 0
    row = json.loads(out.read_text().splitlines()[0])
    assert (row["simulated_profile"], row["device"]["memory_mb"]) == ("pi4", 400)
    assert "simulated: profile pi4" in capsys.readouterr().out
    assert left_behind() == before


@pytest.mark.parametrize(
    ("more", "code", "line"),
    [
        (["--profile", "pi3"], 2, "profile 'pi3': there is pi-zero, pi4, phone-low"),
        (["--profile", "pi4", "--on", "pi@host"], 2, "--profile limits this machine; leave out --on"),
        (["--profile", "pi4", "--reference", "x"], 2, "leave out --on and --profile"),
        (
            ["--sustained", "1", "--on", "browser"],
            2,
            "--sustained runs where Python does; leave it out",
        ),
    ],
)
def test_what_does_not_go_together(tiny_bundle, tmp_path, capsys, more, code, line):
    assert bench(tiny_bundle, tmp_path / "rows.jsonl", *more) == code
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1

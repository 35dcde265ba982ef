"""The memory of the methods side by side, on a tiny model."""

import json
from pathlib import Path

import pytest
from tiny_generator import make_generator

from apps.language.memory import METHODS, main, table

OURS = ("dpo-copy", "dpo", "orpo", "ppo")


def test_a_second_model_costs_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_generator(tmp_path / "base")
    arguments = ["--base", str(base), "--batch", "1", "--length", "16", "--device", "cpu"]
    rows = []
    for method in OURS:
        assert main([*arguments, "--child", method, "on"]) == 0
        rows.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert [row["method"] for row in rows] == [METHODS[method] for method in OURS]
    assert rows[0]["weights_mb"] == pytest.approx(2 * rows[1]["weights_mb"], abs=0.2)
    lines = table(
        [{**row, "peak_mb": peak} for row, peak in zip(rows, (200, 120, 100, 130), strict=True)]
    ).splitlines()
    assert lines[0].startswith("1 pairs (2 sequences) of 16 tokens, LoRA, fp32, cpu")
    assert "| ORPO | on |" in lines[6] and "| 100 | 0.50 |" in lines[6]


def test_a_base_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--base", str(tmp_path / "no"), "--child", "orpo", "off"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

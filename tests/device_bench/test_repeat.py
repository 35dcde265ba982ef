from pathlib import Path

import pytest
from bench_fakes import row

from device_bench import repeat
from device_bench.repeat import compare, main, overhead_ms


def test_two_runs_side_by_side() -> None:
    first = [
        row("a", p50=10.0, entry="a"),
        row("b", p50=10.0, entry="b"),
        row("c", entry="c", latency_ms=None),
    ]
    noted = row("b", p50=11.0, entry="b", note="quick: 200 rounds; busy machine: half; rerun: p50 +9.0%; x")
    found = compare(first, [noted, row("a", p50=10.4, entry="a"), row("c", entry="c"), row("d", entry="d")])
    assert [(one["key"], one["alike"]) for one in found] == [
        ("a with tokenization", True), ("b with tokenization", False),
    ]  # fmt: skip
    assert found[0]["difference"] == pytest.approx(0.04)
    assert found[1]["notes"] == ["second run: busy machine: half", "second run: rerun: p50 +9.0%"]


def test_the_harness_costs_under_a_hundredth_of_a_5_ms_model() -> None:
    assert 0 < overhead_ms(5.0, rounds=40) < 0.05


def test_a_real_bundle_twice(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(small_bundle), "--quick"]) in (0, 1)  # alike or not: that is the machine's
    out = capsys.readouterr().out
    assert "onnx-fp32 with tokenization" in out
    assert "onnx-fp32 without tokenization" in out
    assert "of a call that takes 5 ms" in out


def test_runs_that_differ_exit_with_1(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = iter([[row("a", p50=10.0)], [row("a", p50=12.0)], [row("a", p50=10.0)], [row("a", p50=10.1)]])
    monkeypatch.setattr(repeat, "_run", lambda *_: next(runs))
    monkeypatch.setattr(repeat, "overhead_ms", lambda: 0.001)
    assert main([str(small_bundle)]) == 1
    out = capsys.readouterr().out
    assert "+20.0%  not alike" in out
    assert "nothing in either run says why" in out
    assert main([str(small_bundle)]) == 0
    assert "harness: 1.0 µs of a call that takes 5 ms, 0.020%" in capsys.readouterr().out


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "no such bundle" in capsys.readouterr().err

"""The table on small made sets: its rows, its going on after a stop, its folds, its words."""

import ast
from pathlib import Path

import numpy as np
import pytest

from apps.monitor import benchmark
from apps.monitor.benchmark import ROOT, code_of, run, time_fold
from apps.monitor.table import report
from trainers.detector import DetectorConfig
from trainers.series import Series

SMALL = DetectorConfig(window=32, patch=8, width=16, depth=1, steps=20, batch=32)


def made(name: str, family: str, seed: int, anomaly: bool = True) -> Series:
    generator = np.random.default_rng(seed)
    values = np.sin(np.arange(900)[:, None] * 2 * np.pi / 25) + 0.05 * generator.normal(size=(900, 1))
    labels = np.zeros(900, bool)
    if anomaly:
        for start in (500, 650, 800):
            labels[start : start + 20] = True
        values[labels] += generator.normal(size=(60, 1))
    return Series(name, family, np.arange(900) * 60.0, values, ("x",), labels, 400, 60.0)


@pytest.fixture(autouse=True)
def sets(monkeypatch: pytest.MonkeyPatch):
    every = {
        "nab": [made("a", "first", 0), made("b", "first", 1)],
        "ucr": [made("c", "second", 2), made("calm", "second", 3, anomaly=False)],
    }
    monkeypatch.setattr(benchmark, "read_set", every.__getitem__)


def test_rows_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["random", "sub-pca", "transformer"]
    first = run(["nab", "ucr"], names, [], tmp_path, config=SMALL)
    assert len(first) == 4 * 3
    means = {
        name: np.mean([r["vus_pr"] for r in first if r["detector"] == name and r["events"]]) for name in names
    }
    assert means["random"] < 0.4 < means["sub-pca"]
    assert means["transformer"] > 0.4
    log = tmp_path / "rows.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:5], lines[5][:40]]))  # stopped in the middle of a line
    asked = []
    real = benchmark.judged
    monkeypatch.setattr(benchmark, "judged", lambda judge, one: asked.append(one.name) or real(judge, one))
    again = run(["nab", "ucr"], names, [], tmp_path, config=SMALL)
    assert len(asked) == 12 - 5
    strip = lambda rows: [{k: v for k, v in row.items() if k != "key"} for row in rows]  # noqa: E731
    assert strip(again) == strip(first)


def test_other_settings_are_measured_anew(tmp_path: Path) -> None:
    run(["nab"], ["random"], [], tmp_path)
    shorter = run(["nab"], ["random"], [], tmp_path, points=700)
    assert shorter[0]["points"] == 350
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 4


def imported(file: Path) -> set[Path]:
    """The project's own modules that a file imports, and those that they import."""
    found: set[Path] = set()
    ahead = [file]
    while ahead:
        path = ahead.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [f"{names[0]}.{alias.name}" for alias in node.names] if names else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            places = [ROOT / f"{name.replace('.', '/')}.py" for name in names]
            ahead += [place for place in places if place.is_file()]
    return found


READING = {f"trainers/{name}.py" for name in ("files", "readers", "series_files", "series_sets", "sources")}
"""What reads the points: they are part of the key."""
BESIDE = {f"trainers/{name}.py" for name in ("data", "gguf", "model", "texts")}
"""What reads texts and finds base models, in the same files: a series has neither."""


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("sub-pca", ["trainers/detectors.py", "trainers/detection_metrics.py", "runtimes/thresholds.py"]),
        ("transformer", ["trainers/detector.py", "runtimes/engines/torch.py", "trainers/series_sets.py"]),
        ("transformer@onnx-int8", ["apps/monitor/exported.py", "runtimes/engines/onnx.py"]),
    ],
)
def test_a_row_is_measured_anew_when_any_code_behind_it_changes(name: str, entries: list[str]) -> None:
    covered = {path for pattern in code_of(name) for path in ROOT.glob(pattern)}
    assert ROOT / "apps/monitor/benchmark.py" in covered
    for entry in entries:
        left = {path.relative_to(ROOT).as_posix() for path in imported(ROOT / entry) - covered}
        assert left <= READING | BESIDE


def test_other_points_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(["nab"], ["random"], [], tmp_path)
    monkeypatch.setattr(benchmark, "read_set", lambda _: [made("a", "first", 5), made("b", "first", 1)])
    after = run(["nab"], ["random"], [], tmp_path)
    assert not {row["key"] for row in before} & {row["key"] for row in after}


def test_folds_go_forward_in_time(tmp_path: Path) -> None:
    series = made("a", "first", 0)
    parts = [time_fold(series, fold, 3) for fold in range(3)]
    assert [(part.train_end, len(part)) for part in parts] == [(400, 566), (566, 733), (733, 900)]
    rows = run(["nab"], ["sub-pca"], [], tmp_path, folds=3)
    assert sorted({row["fold"] for row in rows}) == [0, 1, 2]
    assert "part 3" in report(rows)


def test_the_report_has_families_intervals_and_differences(tmp_path: Path) -> None:
    rows = run(["nab", "ucr"], ["random", "sub-pca"], [], tmp_path)
    text = report(rows)
    assert "| first | 2 |" in text
    assert "| second | 1 |" in text  # the calm one has nothing to find
    assert "| 95% interval |" in text
    assert "| random | -0." in text
    assert text.count("of 9 |") == 2  # events
    for table in text.split("\n\n"):
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.slow
def test_variants_and_bundles_are_measured_beside_their_checkpoint(tmp_path: Path) -> None:
    names = ["sub-pca", "subspace", "subspace@onnx-int8"]
    rows = run(["ucr"], names, [], tmp_path, config=SMALL)
    by_name = {name: [row["vus_pr"] for row in rows if row["detector"] == name] for name in names}
    assert by_name["subspace@onnx-int8"][0] == pytest.approx(by_name["subspace"][0], abs=0.05)
    assert by_name["subspace@onnx-int8"] != by_name["subspace"]
    assert "| VUS-PR less that of subspace | mean |" in report(rows)
    (variant,) = tmp_path.rglob("onnx-int8/model.onnx")
    before = variant.stat().st_mtime_ns
    (tmp_path / "rows.jsonl").unlink()
    assert run(["ucr"], names[2:], [], tmp_path, config=SMALL)[0]["vus_pr"] == by_name[names[2]][0]
    assert variant.stat().st_mtime_ns == before


def test_a_set_that_is_nowhere_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from trainers import series_sets

    monkeypatch.setattr(benchmark, "read_set", series_sets.read_set)
    monkeypatch.setenv("EDGEWISE_MIRROR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", ["benchmark", "--sets", "smd", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        benchmark.main()
    assert caught.value.code == 2
    assert "'netmanaiops/smd' was not found" in capsys.readouterr().err

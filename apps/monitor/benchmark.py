"""The table: how well detectors find the labelled anomalies of published sets.

    python -m apps.monitor.benchmark                        # all sets, all baselines, our Transformer
    python -m apps.monitor.benchmark --sets nab ucr --detectors sub-pca transformer
    python -m apps.monitor.benchmark --variants onnx-int8 tflite-full_int8  # and ours as exported
    python -m apps.monitor.benchmark --bundle runs/monitor/monitor.bundle   # each of its variants
    python -m apps.monitor.benchmark --cross-validate 3     # later and later parts of each series

Ours are trained once a family, on the training parts of its series; then each series gets its own profile
from its own training part. All are judged on what comes after that part. Rows are kept in OUT/rows.jsonl, so
that a run that was stopped goes on where it was.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from apps.monitor.exported import exported
from apps.monitor.table import report
from export.variant import KNOWN
from runtimes.bundle import open_bundle
from runtimes.errors import EdgewiseError, InputError
from runtimes.load import load
from runtimes.thresholds import RISK, pot
from trainers.detection_metrics import BUFFER, measure
from trainers.detector import DetectorConfig, gather, train_detector
from trainers.detectors import detectors
from trainers.files import digest_files, digest_of
from trainers.series import Series
from trainers.series_sets import read_set, set_names

POINTS = 50_000
OURS = ("transformer",)
Judge = Callable[[Series], tuple[np.ndarray, float]]
"""A series to its scores (n,) and the threshold of an alarm."""


def main() -> None:
    kinds = list(get_args(get_type_hints(DetectorConfig)["kind"]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=set_names(), choices=set_names())
    parser.add_argument(
        "--detectors", nargs="*", default=[*detectors(), *OURS], choices=[*detectors(), *kinds]
    )
    parser.add_argument(
        "--variants", nargs="*", default=[], choices=list(KNOWN), help="export ours, and measure these too"
    )
    parser.add_argument("--bundle", type=Path, nargs="*", default=[], help="measure each variant of it too")
    parser.add_argument("--points", type=int, default=POINTS, help="cut longer series to their first points")
    parser.add_argument("--cross-validate", type=int, default=0, metavar="FOLDS")
    parser.add_argument("--out", type=Path, default=Path("runs/monitor-benchmark"))
    options = parser.parse_args()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    folds: int = options.cross_validate
    try:
        mine = [
            f"{kind}@{variant}" for kind in kinds if kind in options.detectors for variant in options.variants
        ]
        rows = run(
            options.sets, [*options.detectors, *mine], options.bundle, options.out, options.points, folds
        )
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(report(rows))


def run(
    sets: Sequence[str],
    names: Sequence[str],
    bundles: Sequence[Path],
    out: Path,
    points: int = POINTS,
    folds: int = 0,
    config: DetectorConfig | None = None,
) -> list[dict[str, Any]]:
    """One row a series, detector and fold, measured or taken from an earlier run with the same settings."""
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    config = config or DetectorConfig()
    work = list(_work(sets, points, folds))
    variants = [f"{path}:{name}" for path in bundles for name in open_bundle(path).variants]
    log, done = out / "rows.jsonl", _kept(out / "rows.jsonl")
    found: list[dict[str, Any]] = []
    every = [*names, *variants]
    with tqdm(total=sum(len(group) for _, _, group in work) * len(every), unit="series") as bar:
        for family, fold, group in work:
            for name in every:
                bar.set_description(f"{family} {Path(name).name}")
                settings = _settings(name, group, points, config)
                for one in _rows(name, family, fold, group, settings, done, out, config):
                    if one["key"] not in done:
                        with log.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(one) + "\n")
                    found.append(one)
                    bar.update()
    return found


def _work(sets: Sequence[str], points: int, folds: int) -> Iterator[tuple[str, int, list[Series]]]:
    """(family, fold, its series): the series up to the end of the fold, its training part all before it."""
    families: dict[str, list[Series]] = {}
    for name in sets:
        for series in read_set(name):
            cut = (
                series if len(series) <= points else series.cut(0, points, min(series.train_end, points // 2))
            )
            families.setdefault(series.family, []).append(cut)
    for family, group in families.items():
        for fold in range(max(folds, 1)):
            yield family, fold, [time_fold(series, fold, folds) if folds else series for series in group]


def time_fold(series: Series, fold: int, folds: int) -> Series:
    """Fold 0 … folds - 1 in the order of time: what follows the training part is cut into equal parts; each
    is judged after training on all that came before it, anomalies and all, as it would be in life."""
    edges = np.linspace(series.train_end, len(series), folds + 1).astype(int)
    return series.cut(0, int(edges[fold + 1]), int(edges[fold]))


def _kept(log: Path) -> dict[str, dict[str, Any]]:
    """The rows of earlier runs by their key; a last line that was cut short is none."""
    rows: dict[str, dict[str, Any]] = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        try:
            row = json.loads(line)
            rows[row["key"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return rows


def _settings(name: str, group: Sequence[Series], points: int, config: DetectorConfig) -> str:
    """A digest of what a row depends on beside its detector: all series of its family, the configuration,
    and the code that reads, scores and measures."""
    told: dict[str, Any] = {
        "points": points,
        "series": [(one.name, one.train_end, _points(one)) for one in group],
        "code": _code(*code_of(name)),
    }
    if ":" in name:
        told["bundle"] = open_bundle(Path(name.rpartition(":")[0])).manifest["sha256"]
    elif name not in detectors():
        told["config"] = asdict(replace(config, kind=name.partition("@")[0]))  # type: ignore[arg-type]
    return digest_of({"settings": json.dumps(told, sort_keys=True)})[:12]


def _points(one: Series) -> str:
    labels = b"" if one.labels is None else one.labels.tobytes()
    return sha256(one.times.tobytes() + one.values.tobytes() + labels).hexdigest()


ROOT = Path(__file__).parents[2]
_MEASURES = (
    "apps/monitor/benchmark.py", "trainers/series.py", "trainers/detection_metrics.py", "runtimes/*.py",
)  # fmt: skip
_OURS = (
    "trainers/detector.py", "trainers/made.py", "trainers/injections.py", "trainers/checkpoint.py",
    "runtimes/engines/*.py", "runtimes/tasks/*.py",
)  # fmt: skip
_EXPORTS = ("apps/monitor/exported.py", "compress/*.py", "export/*.py")


def code_of(name: str) -> tuple[str, ...]:
    """Patterns of the files that the rows of a detector depend on, rather too many than too few. What reads
    the sets is not among them: the points themselves are part of a row's key."""
    if name in detectors():
        return (*_MEASURES, "trainers/detectors.py")
    return (*_MEASURES, *_OURS, *(_EXPORTS if "@" in name else ()))


@cache
def _code(*patterns: str) -> str:
    return digest_files(ROOT, sorted({path for pattern in patterns for path in ROOT.glob(pattern)}))


def _rows(
    name: str,
    family: str,
    fold: int,
    group: list[Series],
    settings: str,
    done: dict[str, dict[str, Any]],
    out: Path,
    config: DetectorConfig,
) -> Iterator[dict[str, Any]]:
    judge: Judge | None = None
    for series in group:
        key = f"{name}|{family}|{series.name}|{fold}|{settings}"
        if key in done:
            yield done[key]
            continue
        judge = judge or _judge(name, family, group, out / "checkpoints" / settings, config)
        told = {"key": key, "detector": name.rpartition("/")[2], "family": family, "series": series.name}
        yield {**told, "fold": fold, **judged(judge, series)}


def judged(judge: Judge, series: Series) -> dict[str, Any]:
    """All measures of a judge on what comes after the training part of `series`."""
    if series.labels is None:
        raise InputError(f"series {series.name}: has no labels to judge by")
    scores, threshold = judge(series)
    test = slice(series.train_end, None)
    return measure(series.labels[test], scores[test], threshold, series.step, BUFFER)


def _judge(name: str, family: str, group: list[Series], checkpoint: Path, config: DetectorConfig) -> Judge:
    """The detector of that name: a baseline, one of ours trained on the family, or a bundle's variant."""
    if name in detectors():
        score = detectors()[name]
        return lambda series: _with_threshold(series, score(series))
    if ":" in name:
        path, _, variant = name.rpartition(":")
        return judge_of(load(Path(path), variant=variant, threads=1))
    kind, _, variant = name.partition("@")
    place = checkpoint / f"{family}-{kind}"
    config = replace(config, kind=kind)  # type: ignore[arg-type]
    if not (place / "checkpoint.json").is_file():
        train_detector(group, config, place)
    if not variant:
        return judge_of(load(place, threads=1))
    windows = gather([series.train for series in group], config)[:, : config.window]
    return judge_of(exported(place, variant, windows, checkpoint / f"{family}-{kind}-variants"))


def _with_threshold(series: Series, scores: np.ndarray) -> tuple[np.ndarray, float]:
    return scores, pot(scores[: series.train_end]).threshold(RISK)


def judge_of(model: Any) -> Judge:
    """Judges each series by a profile fitted on its own training part."""

    def judge(series: Series) -> tuple[np.ndarray, float]:
        profile = model.fit(series.train, series.names, step=series.step)
        return model.score(series.values, profile).score, profile.threshold

    return judge


if __name__ == "__main__":
    main()

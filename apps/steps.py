"""What each step of `edgewise build` does: read what earlier steps wrote, call one function, write `out`."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.recipe import Recipe
from runtimes.bundle import NUMBERS
from runtimes.files import writing
from runtimes.generation import TASK as GENERATION
from trainers.adopt import ENCODER
from trainers.reader import TASK as READER


@dataclass(frozen=True)
class Step:
    """One result: `make` writes `path`, whole or not at all. `key` is all that went in."""

    name: str
    path: Path
    key: dict[str, Any]
    make: Callable[[Path], Any]

    @property
    def done(self) -> bool:
        return self.path.exists()


Steps = dict[str, Step]


def data_of(data: Step) -> Any:
    """The prepared data: labelled texts, questions, series, or running text."""
    from trainers.data import open_data
    from trainers.series_data import is_series, open_series
    from trainers.squad import is_questions, open_questions
    from trainers.texts import is_texts, open_texts

    if is_texts(data.path):
        return open_texts(data.path)
    if is_series(data.path):
        return open_series(data.path)
    return open_questions(data.path) if is_questions(data.path) else open_data(data.path)


def make_data(recipe: Recipe, out: Path) -> None:
    from trainers.data import load_data, save_data
    from trainers.prepare import prepare
    from trainers.series_data import prepare_series, save_series
    from trainers.squad import prepare_questions, save_questions
    from trainers.texts import running_texts, save_texts

    if recipe.task == GENERATION:
        save_texts(running_texts(recipe.data.name, recipe.data.text), out)
        return
    if recipe.task == NUMBERS:
        save_series(prepare_series(recipe.data.name, recipe.series), out)
        return
    if recipe.task == READER:
        save_questions(prepare_questions(recipe.data.name, recipe.questions), out)
        return

    dataset = load_data(recipe.data.name, text=recipe.data.text, label=recipe.data.label)
    save_data(prepare(dataset, recipe.prepare), out)


def make_baselines(recipe: Recipe, data: Step, out: Path) -> None:
    from trainers import baselines
    from trainers.files import write_json
    from trainers.squad import QuestionSet

    dataset = data_of(data)
    found: list[dict[str, Any]]
    if recipe.task in (ENCODER, GENERATION):
        found = []
    elif recipe.task == NUMBERS:
        from export.judge import judge_baselines

        found = judge_baselines(dataset, recipe.detector.window)
    elif isinstance(dataset, QuestionSet):
        found = [baselines.nearest_sentence(dataset), baselines.silence(dataset)]
    else:
        found = [baselines.tfidf_svc(dataset), baselines.majority(dataset)]
    write_json(out, {one["name"].removesuffix(" class"): one for one in found})


def make_teacher(recipe: Recipe, data: Step, out: Path) -> None:
    from trainers.adopt import adopt_encoder
    from trainers.finetune import finetune
    from trainers.reader import train_reader
    from trainers.sources import find

    if recipe.task == NUMBERS:
        from trainers.detector import train_detector

        train_detector(data_of(data).series, recipe.detector, out)
        return
    source = find(recipe.base.name, "model")
    base = source.path
    origin = {"name": recipe.base.name, "place": source.place, "digest": source.digest}
    if recipe.task == GENERATION:
        from trainers.generator import adopt_generator

        adopt_generator(base, out, recipe.base.max_tokens, origin)
        return
    if recipe.task == ENCODER:
        adopt_encoder(base, out, recipe.train.max_tokens, origin)
        return
    train: Any = train_reader if recipe.task == READER else finetune
    train(data_of(data), base, out, recipe.train)


def make_vocabulary(recipe: Recipe, data: Step, teacher: Step, start: Step, out: Path) -> None:
    from compress.vocabulary import trim_vocabulary
    from trainers.checkpoint import open_checkpoint
    from trainers.data import open_data

    assert recipe.vocabulary is not None
    texts = open_data(data.path).splits["train"].texts
    trim_vocabulary(open_checkpoint(start.path), texts, out, recipe.vocabulary)


def make_pruned(recipe: Recipe, data: Step, teacher: Step, start: Step, out: Path) -> None:
    from compress.prune import prune
    from trainers.checkpoint import open_checkpoint

    assert recipe.prune is not None
    dataset = data_of(data)
    prune(open_checkpoint(teacher.path), open_checkpoint(start.path), dataset, out, recipe.prune)


def make_student(recipe: Recipe, data: Step, teacher: Step, start: Step, out: Path) -> None:
    from trainers.checkpoint import open_checkpoint
    from trainers.distil import distil

    assert recipe.distil is not None
    dataset = data_of(data)
    distil(open_checkpoint(teacher.path), open_checkpoint(start.path), dataset, out, recipe.distil)


def make_small_detector(recipe: Recipe, data: Step, teacher: Step, start: Step, out: Path) -> None:
    from trainers.checkpoint import open_checkpoint
    from trainers.detector import distil_detector

    assert recipe.student is not None
    distil_detector(open_checkpoint(teacher.path), data_of(data).series, out, recipe.student)


def make_slim_detector(recipe: Recipe, data: Step, teacher: Step, start: Step, out: Path) -> None:
    from compress.prune_detector import prune_detector
    from trainers.checkpoint import open_checkpoint

    assert recipe.slim is not None
    before = open_checkpoint(start.path)
    prune_detector(open_checkpoint(teacher.path), before, data_of(data).series, out, recipe.slim)


def make_qat(recipe: Recipe, data: Step, teacher: Step, start: Step, out: Path) -> None:
    from compress.qat import quantization_aware
    from trainers.checkpoint import open_checkpoint

    assert recipe.qat is not None
    dataset = data_of(data)
    quantization_aware(open_checkpoint(teacher.path), open_checkpoint(start.path), dataset, out, recipe.qat)


def calibration(data: Step, checkpoint: Step) -> Any:
    from compress.calibrate import Calibration
    from trainers.checkpoint import open_checkpoint
    from trainers.examples import examples
    from trainers.finetune import relabel
    from trainers.series_data import SeriesData, windows_of
    from trainers.squad import QuestionSet
    from trainers.texts import Texts

    dataset, opened = data_of(data), open_checkpoint(checkpoint.path)
    if isinstance(dataset, Texts):
        texts = dataset.splits["train"]
        return Calibration(texts, [0] * len(texts))
    if isinstance(dataset, SeriesData):
        windows = windows_of(dataset, opened.limits["window"], opened.limits["patch"])
        return Calibration(windows, [0] * len(windows))
    if isinstance(dataset, QuestionSet):
        return Calibration(*examples(dataset.splits["train"]))
    labels = dataset.label_names if opened.task == ENCODER else opened.labels
    train = relabel(dataset, labels).splits["train"]
    return Calibration(*examples(train))


def make_packed(
    recipe: Recipe, data: Step, checkpoint: Step, exports: Steps, graphs: Steps, out: Path
) -> None:
    from export.advise import Makings
    from export.pack import pack
    from export.variants import open_variant
    from trainers.checkpoint import open_checkpoint

    variants = [open_variant(name, step.path) for name, step in exports.items()]
    parents = [open_variant(name, step.path) for name, step in graphs.items()]
    makings = Makings(parents, checkpoint.path, calibration(data, checkpoint))
    original, dataset = open_checkpoint(checkpoint.path), data_of(data)
    pack(original, variants, dataset, out, recipe.name, recipe.budget, makings)


def make_bench(recipe: Recipe, data: Step, teacher: Step, checkpoint: Step, packed: Step, out: Path) -> None:
    from device_bench.bench import BenchEntry, bench
    from device_bench.rows import save_rows

    inputs = _bench_inputs(data, teacher)
    entries = {"teacher pytorch-fp32": BenchEntry(teacher.path)}
    if checkpoint is not teacher:
        entries[f"{checkpoint.name} pytorch-fp32"] = BenchEntry(checkpoint.path)
    entries |= {name: BenchEntry(packed.path, variant=name) for name in recipe.export.variants}
    figures = _gated(recipe, data, teacher, checkpoint, packed)
    known = {name: figures[name] for name in entries if name in figures}
    rows = bench(entries, inputs, None, recipe.bench, known)
    best = ranked(rows)[0]  # the bundle's default from here on
    save_rows([{**row, "bundle": recipe.name, "default": row["variant"] == best} for row in rows], out)


def _bench_inputs(data: Step, teacher: Step) -> list[Any]:
    """The inputs of the test split; of series, windows of what is not trained on."""
    from trainers.checkpoint import open_checkpoint
    from trainers.examples import examples
    from trainers.series_data import SeriesData, windows_of
    from trainers.texts import Texts

    dataset = data_of(data)
    if isinstance(dataset, SeriesData):
        limits = open_checkpoint(teacher.path).limits
        return windows_of(dataset, limits["window"], limits["patch"], rest=True)
    if isinstance(dataset, Texts):
        from export.gate_generator import PROMPTS, prompts_of

        return prompts_of(dataset.splits["test"], PROMPTS)
    return examples(dataset.splits["test"])[0]


def _gated(
    recipe: Recipe, data: Step, teacher: Step, checkpoint: Step, packed: Step
) -> dict[str, dict[str, Any]]:
    """The task's metric on the test split as the gate measured it, by the names that the bench uses."""
    parity = json.loads((packed.path / "parity.json").read_bytes())["variants"]
    samples = {name: parity[name]["sample"] for name in parity if "metric" in parity[name]["sample"]}
    if not samples:  # vectors are neither right nor wrong
        return {}

    def row(sample: dict[str, Any], which: str) -> dict[str, Any]:
        metric = sample["metric"]
        return {"name": metric["name"], "value": metric[which], "n": metric.get("n", sample["n"])}

    figures = {name: row(sample, "variant") for name, sample in samples.items()}
    first = samples[recipe.export.variants[0]]
    figures[f"{checkpoint.name} pytorch-fp32"] = row(first, "checkpoint")
    if recipe.task == GENERATION:
        return figures
    if recipe.task == NUMBERS:
        from export.judge import judge_checkpoint

        figures["teacher pytorch-fp32"] = judge_checkpoint(teacher.path, data_of(data))
        return figures
    told = json.loads((teacher.path / "checkpoint.json").read_bytes())["metrics"]["test"]
    name = first["metric"]["name"]
    figures["teacher pytorch-fp32"] = {"name": name, "value": told[name], "n": told["n"]}
    return figures


def make_bundle(packed: Step, rows: Step, out: Path) -> None:
    """The packed bundle with the bench's rows in it, and the defaults that they decide."""
    from device_bench.rows import open_rows, to_bytes
    from export.pack import set_defaults
    from runtimes.bundle import add_files

    measured = open_rows(rows.path)
    with writing(out) as folder:
        shutil.copytree(packed.path, folder, dirs_exist_ok=True)
        add_files(folder, {"bench/local.json": to_bytes(measured)})
        set_defaults(folder, ranked(measured))


def ranked(rows: list[dict[str, Any]]) -> list[str]:
    """Variants by measured p50 with tokenization, fastest first; those without times last."""
    told = [row for row in rows if row["tokenization"] and row["engine"] != "torch"]
    slowest = {"p50": float("inf")}
    return [row["variant"] for row in sorted(told, key=lambda row: (row["latency_ms"] or slowest)["p50"])]


def make_report(recipe: Recipe, rows: Step, baselines: Step, out: Path) -> None:
    from device_bench.report import report
    from device_bench.rows import open_rows

    measured = open_rows(rows.path)
    report([*measured, *baseline_rows(baselines.path, measured[0])], out, title=recipe.name)


def baseline_rows(path: Path, like: dict[str, Any]) -> list[dict[str, Any]]:
    """The classical baselines as bench rows: the metric on the same test rows, nothing timed."""
    told = {"engine": "scikit-learn", "note": "baseline: its metric only, not timed", "emulated": False}
    same = {key: like[key] for key in ("device", "started", "bundle")}
    rows = []
    for name, metrics in json.loads(path.read_bytes()).items():
        metric = {"name": named(metrics), "value": metrics[named(metrics)], "n": metrics["n"]}
        row = {**dict.fromkeys(like), **same, **told, "variant": name, "tokenization": True, "metric": metric}
        rows.append({**row, "entry": name})
    return rows


def named(metrics: dict[str, Any]) -> str:
    """What a report's main figure is called."""
    return next((name for name in ("accuracy", "vus_pr") if name in metrics), "f1")

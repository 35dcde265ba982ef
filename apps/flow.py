"""`edgewise build`: the chain of steps from a recipe to a bundle that was proved and measured.

Each result lies under `runs/<recipe>/` at a name that holds the digest of what went in, is written beside
and renamed into place, and is reused when nothing changed: a killed build goes on where it stopped.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import edgewise
from apps.recipe import Recipe
from runtimes.errors import InputError
from runtimes.files import require_replaceable, writing

os.environ.setdefault("USE_TF", "0")
# Steps that all processes of a distributed run take part in.
_TRAINING = ("teacher", "pruned", "student", "qat")


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


def digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plan(recipe: Recipe, runs: Path, until: str | None = None) -> list[Step]:
    """The steps of a recipe in order, up to `until`, with where their results lie. Fetches nothing."""
    root = runs / recipe.name
    steps: list[Step] = []

    def add(name: str, make: Callable[[Path], Any], suffix: str = "", **key: Any) -> Step:
        key = {"step": name, "edgewise": edgewise.__version__, **key}
        steps.append(Step(name, root / f"{name}-{digest(key)}{suffix}", key, make))
        return steps[-1]

    data, baselines = _plan_data(recipe, add)
    teacher, checkpoint = _plan_training(recipe, data, add)
    exports, graphs = _plan_exports(recipe, data, checkpoint, add)
    packed = add(
        "packed",
        lambda out: _pack(recipe, data, checkpoint, exports, graphs, out),
        parents=[step.path.name for step in exports.values()],
        bundle=recipe.name,
        budget=asdict(recipe.budget),
    )
    rows = add(
        "bench",
        lambda out: _bench(recipe, data, teacher, checkpoint, packed, out),
        ".jsonl",
        parent=packed.path.name,
        bench=asdict(recipe.bench),
    )
    parents = [packed.path.name, rows.path.name]
    add("bundle", lambda out: _publish(packed, rows, out), parents=parents)
    parents = [rows.path.name, baselines.path.name]
    add("report", lambda out: _report(recipe, rows, baselines, out), ".html", parents=parents)
    return _cut(steps, until)


def _cut(steps: list[Step], until: str | None) -> list[Step]:
    names = [step.name for step in steps]
    if until is not None and until not in names:
        raise InputError(f"no step {until!r} in this recipe; it has {', '.join(names)}")
    return steps if until is None else steps[: names.index(until) + 1]


def _plan_data(recipe: Recipe, add: Callable[..., Step]) -> tuple[Step, Step]:
    data = add(
        "data",
        lambda out: _data(recipe, out),
        data=asdict(recipe.data),
        prepare=asdict(recipe.prepare),
        source=_identity(recipe.data.name, "data"),
    )
    return data, add("baselines", lambda out: _baselines(data, out), ".json", data=data.path.name)


def _plan_training(recipe: Recipe, data: Step, add: Callable[..., Step]) -> tuple[Step, Step]:
    """The teacher, and what is exported: the last that was made out of it, or the teacher itself."""
    last = teacher = add(
        "teacher",
        lambda out: _teacher(recipe, data, out),
        data=data.path.name,
        base=_identity(recipe.base.name, "model"),
        train=asdict(recipe.train),
    )
    if recipe.vocabulary is not None:
        last = add(
            "vocabulary",
            lambda out: _vocabulary(recipe, data, teacher, out),
            parent=teacher.path.name,
            vocabulary=asdict(recipe.vocabulary),
        )
    if recipe.prune is not None:
        whole = last
        last = add(
            "pruned",
            lambda out: _pruned(recipe, data, teacher, whole, out),
            parents=[teacher.path.name, whole.path.name],
            prune=asdict(recipe.prune),
        )
    if recipe.distil is not None:
        start = last
        last = add(
            "student",
            lambda out: _student(recipe, data, teacher, start, out),
            parents=[teacher.path.name, start.path.name],
            distil=asdict(recipe.distil),
        )
    if recipe.qat is not None:
        fine = last
        last = add(
            "qat",
            lambda out: _qat(recipe, data, teacher, fine, out),
            parents=[teacher.path.name, fine.path.name],
            qat=asdict(recipe.qat),
        )
    return teacher, last


def build(recipe: Recipe, runs: Path, until: str | None = None) -> dict[str, Path]:
    """Make what is not there yet; return step → path. `until` names the last step to make.

    Raises whatever a step raises; what was finished before stays and is reused by the next build.
    """
    steps = plan(recipe, runs, until)
    quiet()
    if int(os.environ.get("RANK", "0")):
        _follow(steps)
    else:
        _lead(steps, runs / recipe.name)
    return {step.name: step.path for step in steps}


def _lead(steps: list[Step], root: Path) -> None:
    with _alone(root):
        _sweep(root)
        for number, step in enumerate(steps, 1):
            head = f"[{number}/{len(steps)}] {step.name}"
            if step.done:
                say(f"{head}: reused {step.path.name}")
                continue
            say(f"{head} …")
            started = time.monotonic()
            step.make(step.path)
            say(f"{head}: done in {time.monotonic() - started:.1f} s")
        _link(root, steps)


def _sweep(root: Path) -> None:
    """Remove what killed builds left half-written: the lock is ours, so nobody writes it any more."""
    for path in root.glob(".*.tmp-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _follow(steps: list[Step]) -> None:
    """A further process of `torchrun` or `accelerate launch`: it trains along, and waits for the rest."""
    for step in steps:
        if step.name in _TRAINING and not step.done:
            step.make(step.path)
        while not step.done:
            time.sleep(0.2)


def quiet() -> None:
    """Libraries that report on builds of theirs that nobody asked for."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One build a recipe at a time: two would write the same results."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{root}: another build of this recipe is running; wait for it") from None
        yield


def _link(root: Path, steps: list[Step]) -> None:
    """Plain names for what people look for: `<name>.bundle` and `report.html`."""
    names = {"bundle": f"{root.name}.bundle", "report": "report.html"}
    for step in steps:
        if step.name in names:
            beside = root / f".{names[step.name]}.tmp"
            beside.unlink(missing_ok=True)
            beside.symlink_to(step.path.name)
            beside.replace(root / names[step.name])


def _identity(name: str, kind: str) -> str:
    """What pins a source without fetching it: the digest of what lies here or of what the index pins."""
    from trainers.sources import find, index_entry

    mirror = Path(os.environ.get("EDGEWISE_MIRROR") or "/nonexistent") / name
    entry = index_entry(name, kind)  # type: ignore[arg-type]
    if Path(name).exists() or mirror.exists():
        return find(name, kind).digest  # type: ignore[arg-type]
    return digest(entry["files"]) if entry else name


def _data(recipe: Recipe, out: Path) -> None:
    from trainers.data import load_data, save_data
    from trainers.prepare import prepare

    dataset = load_data(recipe.data.name, text=recipe.data.text, label=recipe.data.label)
    save_data(prepare(dataset, recipe.prepare), out)


def _baselines(data: Step, out: Path) -> None:
    from trainers.baselines import majority, tfidf_svc
    from trainers.data import open_data
    from trainers.files import write_json

    dataset = open_data(data.path)
    write_json(out, {"TF-IDF + LinearSVC": tfidf_svc(dataset), "majority": majority(dataset)})


def _teacher(recipe: Recipe, data: Step, out: Path) -> None:
    from trainers.data import open_data
    from trainers.finetune import finetune
    from trainers.sources import find

    finetune(open_data(data.path), find(recipe.base.name, "model").path, out, recipe.train)


def _vocabulary(recipe: Recipe, data: Step, teacher: Step, out: Path) -> None:
    from compress.vocabulary import trim_vocabulary
    from trainers.checkpoint import open_checkpoint
    from trainers.data import open_data

    assert recipe.vocabulary is not None
    texts = open_data(data.path).splits["train"].texts
    trim_vocabulary(open_checkpoint(teacher.path), texts, out, recipe.vocabulary)


def _pruned(recipe: Recipe, data: Step, teacher: Step, start: Step, out: Path) -> None:
    from compress.prune import prune
    from trainers.checkpoint import open_checkpoint
    from trainers.data import open_data

    assert recipe.prune is not None
    dataset = open_data(data.path)
    prune(open_checkpoint(teacher.path), open_checkpoint(start.path), dataset, out, recipe.prune)


def _student(recipe: Recipe, data: Step, teacher: Step, start: Step, out: Path) -> None:
    from trainers.checkpoint import open_checkpoint
    from trainers.data import open_data
    from trainers.distil import distil

    assert recipe.distil is not None
    dataset = open_data(data.path)
    distil(open_checkpoint(teacher.path), open_checkpoint(start.path), dataset, out, recipe.distil)


def _qat(recipe: Recipe, data: Step, teacher: Step, start: Step, out: Path) -> None:
    from compress.qat import quantization_aware
    from trainers.checkpoint import open_checkpoint
    from trainers.data import open_data

    assert recipe.qat is not None
    dataset = open_data(data.path)
    quantization_aware(open_checkpoint(teacher.path), open_checkpoint(start.path), dataset, out, recipe.qat)


Steps = dict[str, Step]


def _plan_exports(
    recipe: Recipe, data: Step, checkpoint: Step, add: Callable[..., Step]
) -> tuple[Steps, Steps]:
    """One step a variant; and besides them one for each graph that a variant is quantized from."""
    from export.variant import CALIBRATED, KNOWN
    from export.variants import export_variant

    wanted = list(recipe.export.variants)
    needed = {KNOWN[name][2] for name in wanted} - {None}
    made: Steps = {}
    for name in KNOWN:
        if name not in wanted and name not in needed:
            continue
        parent = made.get(KNOWN[name][2] or "")

        def make(out: Path, name: str = name, parent: Step | None = parent) -> None:
            rows = _calibration(data, checkpoint) if name in CALIBRATED else None
            before = parent.path if parent else None
            export_variant(name, checkpoint.path, before, recipe.export.lengths, out, rows)

        lengths = list(recipe.export.lengths) if name.startswith(("tflite", "executorch")) else None
        source = parent.path.name if parent else checkpoint.path.name
        key = {"rows": data.path.name} if name in CALIBRATED else {}
        made[name] = add(name, make, parent=source, lengths=lengths, **key)
    graphs = {name: step for name, step in made.items() if name not in wanted}
    return {name: made[name] for name in wanted}, graphs


def _calibration(data: Step, checkpoint: Step) -> Any:
    from compress.calibrate import Calibration
    from trainers.checkpoint import open_checkpoint
    from trainers.data import open_data
    from trainers.finetune import relabel

    labels = open_checkpoint(checkpoint.path).labels
    train = relabel(open_data(data.path), labels).splits["train"]
    return Calibration(train.texts, train.labels)


def _pack(recipe: Recipe, data: Step, checkpoint: Step, exports: Steps, graphs: Steps, out: Path) -> None:
    from export.advise import Makings
    from export.pack import pack
    from export.variants import open_variant
    from trainers.checkpoint import open_checkpoint
    from trainers.data import open_data

    variants = [open_variant(name, step.path) for name, step in exports.items()]
    parents = [open_variant(name, step.path) for name, step in graphs.items()]
    makings = Makings(parents, checkpoint.path, _calibration(data, checkpoint))
    original, dataset = open_checkpoint(checkpoint.path), open_data(data.path)
    pack(original, variants, dataset, out, recipe.name, recipe.budget, makings)


def _bench(recipe: Recipe, data: Step, teacher: Step, checkpoint: Step, packed: Step, out: Path) -> None:
    from device_bench.bench import BenchEntry, bench
    from device_bench.rows import save_rows
    from trainers.data import open_data

    test = open_data(data.path).splits["test"]
    entries = {"teacher pytorch-fp32": BenchEntry(teacher.path)}
    if checkpoint is not teacher:
        entries[f"{checkpoint.name} pytorch-fp32"] = BenchEntry(checkpoint.path)
    entries |= {name: BenchEntry(packed.path, variant=name) for name in recipe.export.variants}
    figures = _gated(recipe, teacher, checkpoint, packed)
    rows = bench(entries, test.texts, None, recipe.bench, {name: figures[name] for name in entries})
    best = ranked(rows)[0]  # the bundle's default from here on
    save_rows([{**row, "bundle": recipe.name, "default": row["variant"] == best} for row in rows], out)


def _gated(recipe: Recipe, teacher: Step, checkpoint: Step, packed: Step) -> dict[str, dict[str, Any]]:
    """Accuracy on the test split as the gate measured it, by the names that the bench uses."""
    parity = json.loads((packed.path / "parity.json").read_bytes())["variants"]
    metrics = {
        name: {**parity[name]["sample"]["metric"], "n": parity[name]["sample"]["n"]} for name in parity
    }
    told = json.loads((teacher.path / "checkpoint.json").read_bytes())["metrics"]["test"]
    first = metrics[recipe.export.variants[0]]
    figures = {name: {"name": "accuracy", "value": m["variant"], "n": m["n"]} for name, m in metrics.items()}
    figures[f"{checkpoint.name} pytorch-fp32"] = {
        "name": "accuracy",
        "value": first["checkpoint"],
        "n": first["n"],
    }
    figures["teacher pytorch-fp32"] = {"name": "accuracy", "value": told["accuracy"], "n": told["n"]}
    return figures


def _publish(packed: Step, rows: Step, out: Path) -> None:
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


def _report(recipe: Recipe, rows: Step, baselines: Step, out: Path) -> None:
    from device_bench.report import report
    from device_bench.rows import open_rows

    measured = open_rows(rows.path)
    report([*measured, *baseline_rows(baselines.path, measured[0])], out, title=recipe.name)


def baseline_rows(path: Path, like: dict[str, Any]) -> list[dict[str, Any]]:
    """The classical baselines as bench rows: accuracy on the same test rows, nothing timed."""
    told = {"engine": "scikit-learn", "note": "baseline: accuracy only, not timed", "emulated": False}
    same = {key: like[key] for key in ("device", "started", "bundle")}
    rows = []
    for name, metrics in json.loads(path.read_bytes()).items():
        metric = {"name": "accuracy", "value": metrics["accuracy"], "n": metrics["n"]}
        row = {**dict.fromkeys(like), **same, **told, "variant": name, "tokenization": True, "metric": metric}
        rows.append({**row, "entry": name})
    return rows


def explore_data(recipe: Recipe, runs: Path) -> Path:
    """The exploratory page of the recipe's prepared data."""
    from trainers.data import open_data
    from trainers.explore import explore

    paths = build(recipe, runs, until="data")
    return explore(open_data(paths["data"]), runs / recipe.name / "explore.html")


def refresh_checkpoint(recipe: Recipe, start: Path, new: str, out: Path, runs: Path) -> dict[str, Any]:
    """Go on from a checkpoint with new rows; figures on old and new test rows, before and after."""
    from trainers.checkpoint import open_checkpoint
    from trainers.data import load_data, open_data
    from trainers.finetune import refresh
    from trainers.prepare import prepare

    require_replaceable(out)
    old = open_data(build(recipe, runs, until="data")["data"])
    rows = prepare(load_data(new, text=recipe.data.text, label=recipe.data.label), recipe.prepare)
    return refresh(open_checkpoint(start), old, rows, out, recipe.train).meta["metrics"]

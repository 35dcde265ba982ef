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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import edgewise
from apps.recipe import Recipe
from apps.steps import (
    Step,
    Steps,
    calibration,
    make_baselines,
    make_bench,
    make_bundle,
    make_data,
    make_packed,
    make_pruned,
    make_qat,
    make_report,
    make_slim_detector,
    make_small_detector,
    make_student,
    make_teacher,
    make_vocabulary,
)
from apps.tuning_steps import make_dpo, make_orpo, make_ppo, make_reward, make_tuned
from runtimes.bundle import NUMBERS
from runtimes.errors import InputError
from runtimes.files import require_replaceable
from runtimes.generation import TASK as GENERATION
from trainers.reader import TASK as READER

os.environ.setdefault("USE_TF", "0")
# Steps that all processes of a distributed run take part in.
_TRAINING = ("teacher", "pruned", "student", "qat")
# What is made out of the teacher, in order: the recipe's section, the step's name, what makes it.
_CHAIN = (
    ("instructions", "tuned", make_tuned),
    ("orpo", "orpo", make_orpo),
    ("dpo", "dpo", make_dpo),
    ("vocabulary", "vocabulary", make_vocabulary),
    ("prune", "pruned", make_pruned),
    ("distil", "student", make_student),
    ("qat", "qat", make_qat),
    ("student", "student", make_small_detector),
    ("slim", "slim", make_slim_detector),
)


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
        lambda out: make_packed(recipe, data, checkpoint, exports, graphs, out),
        parents=[step.path.name for step in exports.values()],
        bundle=recipe.name,
        budget=asdict(recipe.budget),
    )
    rows = add(
        "bench",
        lambda out: make_bench(recipe, data, teacher, checkpoint, packed, out),
        ".jsonl",
        parent=packed.path.name,
        bench=asdict(recipe.bench),
    )
    parents = [packed.path.name, rows.path.name]
    add("bundle", lambda out: make_bundle(packed, rows, out), parents=parents)
    parents = [rows.path.name, baselines.path.name]
    add("report", lambda out: make_report(recipe, rows, baselines, out), ".html", parents=parents)
    return _cut(steps, until)


def _cut(steps: list[Step], until: str | None) -> list[Step]:
    names = [step.name for step in steps]
    if until is not None and until not in names:
        raise InputError(f"no step {until!r} in this recipe; it has {', '.join(names)}")
    return steps if until is None else steps[: names.index(until) + 1]


def _plan_data(recipe: Recipe, add: Callable[..., Step]) -> tuple[Step, Step]:
    prepare: Any = {READER: recipe.questions, NUMBERS: recipe.series}.get(recipe.task, recipe.prepare)
    data = add(
        "data",
        lambda out: make_data(recipe, out),
        data=asdict(recipe.data),
        prepare=asdict(prepare),
        source=_identity(recipe.data.name, "data"),
    )
    more = {"window": recipe.detector.window} if recipe.task == NUMBERS else {}
    return data, add(
        "baselines", lambda out: make_baselines(recipe, data, out), ".json", data=data.path.name, **more
    )


def _plan_training(recipe: Recipe, data: Step, add: Callable[..., Step]) -> tuple[Step, Step]:
    """The teacher, and what is exported: the last that was made out of it, or the teacher itself."""
    made: dict[str, Any] = {"train": asdict(recipe.detector)}
    if recipe.task != NUMBERS:
        made = {"base": _identity(recipe.base.name, "model"), "train": asdict(recipe.train)}
    if recipe.task == GENERATION:
        made["train"] = recipe.base.max_tokens
    last = teacher = add("teacher", lambda out: make_teacher(recipe, data, out), data=data.path.name, **made)
    for section, name, make in _CHAIN:
        config, start = getattr(recipe, section), last
        if config is None:
            continue

        def step(out: Path, make: Any = make, start: Step = start) -> None:
            make(recipe, data, teacher, start, out)

        parents: dict[str, Any] = {"parents": [teacher.path.name, start.path.name]}
        if section == "vocabulary":
            parents = {"parent": teacher.path.name}
        if section == "instructions":
            rows = _identity(recipe.instructions.name, "data")  # type: ignore[union-attr]
            parents |= {"rows": rows, "sft": asdict(recipe.sft)}
        if section in ("orpo", "dpo"):
            parents["pairs"] = _pairs_key(recipe)
        last = add(name, step, **parents, **{section: asdict(config)})
    return teacher, _plan_ppo(recipe, last, add) if recipe.ppo is not None else last


def _plan_ppo(recipe: Recipe, start: Step, add: Callable[..., Step]) -> Step:
    assert recipe.ppo is not None
    pairs = _pairs_key(recipe)
    reward = add("reward", lambda out: make_reward(recipe, out), pairs=pairs, reward=asdict(recipe.reward))
    parents = [start.path.name, reward.path.name]
    return add(
        "ppo", lambda out: make_ppo(recipe, reward, start, out), parents=parents, ppo=asdict(recipe.ppo)
    )


def _pairs_key(recipe: Recipe) -> Any:
    assert recipe.pairs is not None
    return [asdict(recipe.pairs), _identity(recipe.pairs.name, "data")]


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


def _plan_exports(
    recipe: Recipe, data: Step, checkpoint: Step, add: Callable[..., Step]
) -> tuple[Steps, Steps]:
    """One step a variant; and besides them one for each graph that a variant is quantized from."""
    from export.variant import CALIBRATED, FITTED, KNOWN
    from export.variants import export_variant

    wanted = list(recipe.export.variants)
    needed = {KNOWN[name][2] for name in wanted} - {None}
    learning = FITTED if recipe.task == GENERATION else CALIBRATED
    made: Steps = {}
    for name in KNOWN:
        if name not in wanted and name not in needed:
            continue
        parent = made.get(KNOWN[name][2] or "")

        def make(out: Path, name: str = name, parent: Step | None = parent) -> None:
            rows = calibration(data, checkpoint) if name in learning else None
            before = parent.path if parent else None
            export_variant(name, checkpoint.path, before, recipe.export.lengths, out, rows)

        lengths = list(recipe.export.lengths) if name.startswith(("tflite", "executorch")) else None
        source = parent.path.name if parent else checkpoint.path.name
        key = {"rows": data.path.name} if name in learning else {}
        made[name] = add(name, make, parent=source, lengths=lengths, **key)
    graphs = {name: step for name, step in made.items() if name not in wanted}
    return {name: made[name] for name in wanted}, graphs


def explore_data(recipe: Recipe, runs: Path) -> Path:
    """The exploratory page of the recipe's prepared data."""
    from trainers.data import open_data
    from trainers.explore import explore

    if recipe.task == GENERATION:
        raise InputError("running text is not explored here; look at the answers: edgewise run BUNDLE --chat")
    if recipe.task == NUMBERS:
        raise InputError("series are not explored here; `python -m apps.monitor.explore` makes their page")
    paths = build(recipe, runs, until="data")
    return explore(open_data(paths["data"]), runs / recipe.name / "explore.html")


def refresh_checkpoint(recipe: Recipe, start: Path, new: str, out: Path, runs: Path) -> dict[str, Any]:
    """Go on from a checkpoint with new rows; figures on old and new test rows, before and after."""
    from trainers.checkpoint import open_checkpoint
    from trainers.data import load_data, open_data
    from trainers.finetune import refresh
    from trainers.prepare import prepare

    require_replaceable(out)
    if recipe.task == NUMBERS:
        raise InputError("--from: a detector is fitted to new data by the monitor, or trained anew")
    if recipe.task == GENERATION:
        raise InputError(
            "--from: a text generator goes on as the [base] of a recipe; name the checkpoint there"
        )
    old = open_data(build(recipe, runs, until="data")["data"])
    rows = prepare(load_data(new, text=recipe.data.text, label=recipe.data.label), recipe.prepare)
    return refresh(open_checkpoint(start), old, rows, out, recipe.train).meta["metrics"]

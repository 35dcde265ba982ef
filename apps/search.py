"""Checkpoint + rows + budget → the smallest or fastest bundle that keeps it, measured on the target.

Shapes (fewer tokens, pruned, a distilled student) and variants (engine and precision) are tried together.
Validation rows decide; the test rows are asked once, for the pick.
"""

import fcntl
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from apps.flow import digest, quiet, say
from apps.rows import dataset_from, require_classifier
from apps.search_make import MakeError, Workshop, bundled, packed, shaped
from apps.search_measure import engines_on, measure
from apps.search_pick import Original, Targets, Tried, misses, nearest, pareto, pick, told_miss, worst_miss
from apps.search_space import Space, ladder, said, space_of, suggest
from apps.search_study import bury_running, explore, finished, open_study
from export.variant import KNOWN
from runtimes.errors import BudgetError, EdgewiseError, InputError
from runtimes.files import require_replaceable, write_atomic
from trainers.adopt import open_or_adopt
from trainers.finetune import check_splits, relabel


@dataclass(frozen=True)
class SearchConfig:
    """`max_drop`: accuracy on the validation rows that may be lost, as a fraction. `trials` counts all of the
    study, those of earlier calls too. `variants`: which ones may be taken (none named: all). `storage`: an
    Optuna RDB URL, for several machines on one study. The rest is as in `ShrinkConfig`."""

    max_drop: float
    target_latency_ms: float | None = None
    target_size_mb: float | None = None
    on: str = "local"
    trials: int = 24
    storage: str | None = None
    variants: tuple[str, ...] = ()
    importance: str = "taylor"
    unlabelled: str | None = None
    epochs: int = 4
    seed: int = 0


@dataclass(frozen=True)
class _Job:
    config: SearchConfig
    shop: Workshop
    space: Space
    original: Original
    study: Any

    @property
    def targets(self) -> Targets:
        return Targets(self.config.max_drop, self.config.target_latency_ms, self.config.target_size_mb)


def search(path: Path, data: str, out: Path, config: SearchConfig) -> dict[str, Any]:
    """Try `config.trials` shapes and variants; write the pick as bundle `out`; return what was found.

    Beside `out` lies `<name>.search/` with the study, every checkpoint, graph and bundle that was made, and
    search.json and search.html. Killed and called again, it goes on with the same study; so it does with
    another budget. Raises BudgetError, and writes nothing at `out`, where nothing keeps the budget;
    DeviceError for a target that cannot be measured; InputError for bad input.
    """
    check_search(config)
    if out.suffix == ".zip":
        raise InputError(f"{out}: a search writes a folder; cut that down to a .zip with `edgewise export`")
    require_replaceable(out)
    quiet()
    work = out.with_name(out.name.removesuffix(".bundle") + ".search")
    with _alone(work):
        job = _prepare(path, data, work, config)
        rungs = ladder(job.space, job.original.reference, config.trials)
        best, attempt = partial(_best_variant, job), partial(_attempt, job)
        explore(job.study, rungs, config.trials, best, attempt, config.seed)
        return _conclude(job, out, work)


def check_search(config: SearchConfig) -> None:
    """InputError or DeviceError for a value that cannot work, named as on the command line."""
    if not (math.isfinite(config.max_drop) and 0 <= config.max_drop <= 1):
        raise InputError(f"--max-drop {config.max_drop}: must be a fraction from 0 to 1, such as 0.01")
    for name in ("target_latency_ms", "target_size_mb"):
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name.replace('_', '-')} {value}: must be a number above 0")
    if config.trials < 1:
        raise InputError(f"--trials {config.trials}: must be 1 or more")
    unknown = [name for name in config.variants if name not in KNOWN]
    if unknown:
        raise InputError(f"variant {unknown[0]!r} is not one of {', '.join(KNOWN)}")


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One search a folder at a time on one machine."""
    if work.exists() and not (work.is_dir() and _ours(work)):
        raise InputError(f"{work}: exists, and a search keeps its work there; choose another --out")
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{work}: another search runs there; wait for it or choose another --out"
            ) from None
        yield


def _ours(work: Path) -> bool:
    names = {path.name for path in work.iterdir()}
    return not names or bool(names & {".lock", "study.db"})


def _prepare(path: Path, data: str, work: Path, config: SearchConfig) -> _Job:
    teacher = open_or_adopt(path, work)
    require_classifier(teacher)
    dataset = relabel(dataset_from(data), teacher.labels)
    check_splits(dataset)
    training = {key: getattr(config, key) for key in ("importance", "unlabelled", "epochs", "seed")}
    shop = Workshop(work, teacher, dataset, training)
    url = config.storage or f"sqlite:///{(work / 'study.db').resolve()}"
    engines = engines_on(config.on)
    variants = config.variants or tuple(name for name in KNOWN if KNOWN[name][0] in engines)
    # Not the budget: another one is a question to the same trials.
    name = f"edgewise-{digest([teacher.digest, dataset.digest, training, variants, config.on])}"
    study = open_study(url, name, config.storage is not None, config.seed)
    if config.storage is None:
        bury_running(study)
    original = _original(shop, study, variants, config.on)
    space = space_of(teacher, tuple(name for name in KNOWN if name in (original.reference, *variants)))
    return _Job(config, shop, space, original, study)


def _original(shop: Workshop, study: Any, variants: tuple[str, ...], on: str) -> Original:
    """The checkpoint's own accuracy, and its quickest fp32 variant: what a trial must not be slower than."""
    if "original" in study.user_attrs:
        return Original(**study.user_attrs["original"])
    from trainers.evaluate import predict

    rows = shop.dataset.splits["validation"]
    say("search: the checkpoint as it is")
    right = predict(shop.teacher, rows.texts).argmax(axis=1) == rows.labels
    made = _plain(shop, {KNOWN[name][0] for name in variants})
    timed = measure(made, rows.texts, on)
    best = min(made, key=lambda name: timed[name]["p50_ms"])
    size = _size(made[best][0], best)
    found = Original(float(right.mean()), len(rows), best, timed[best]["p50_ms"], size)
    study.set_user_attr("original", asdict(found))
    return found


def _plain(shop: Workshop, engines: set[str]) -> dict[str, tuple[Path, str]]:
    """The original's fp32 variants that can be made for these engines: one that cannot is told, not fatal."""
    made, last = {}, None
    for name in (name for name in KNOWN if KNOWN[name][1] == "fp32" and KNOWN[name][0] in engines):
        try:
            made[name] = (bundled(shop, shop.teacher, name), name)
        except EdgewiseError as error:
            say(f"search: no {name}: {error}")
            last = error
    if not made:
        raise last or InputError("search: no fp32 variant to compare with")
    return made


def _size(bundle: Path, variant: str) -> int:
    """Bytes of the variant's file and the tokenizer."""
    return sum((bundle / name).stat().st_size for name in (_file(variant), "tokenizer.json"))


def _file(variant: str) -> str:
    return f"variants/{variant}/{KNOWN[variant][3]}"


def _attempt(job: _Job, trial: Any) -> tuple[float, float, float]:
    """One trial: accuracy (more is better), p50 as a share of the original's fp32, bytes."""
    shape, variant = suggest(trial, job.space)
    key = digest([shape, variant])
    before = {one.user_attrs["key"]: one for one in finished(job.study)}
    trial.set_user_attr("key", key)
    if key in before:
        trial.set_user_attr("same_as", before[key].number)
        if not before[key].values:
            raise InputError(before[key].user_attrs["why"])
        return tuple(before[key].values)  # type: ignore[return-value]
    head = f"[{len(before) + 1}/{job.config.trials}] {said(shape)}, {variant}"
    say(f"{head} …")
    _note(trial, {"shape": shape, "variant": variant})
    started = time.monotonic()
    try:
        found = _tried(job, shape, variant)
    except OSError:  # no space, no rights: the next trial would meet the same
        raise
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        _note(trial, {"why": why, "unmakeable": isinstance(error, MakeError)})
        say(f"{head}: {why}")
        if isinstance(error, EdgewiseError):
            raise
        raise InputError(why) from error
    found["seconds"] = time.monotonic() - started
    _note(trial, found)
    one = _read(job.original.p50_ms, trial.number, trial.user_attrs)
    trial.set_constraint("budget", worst_miss(one, job.targets, job.original))
    accuracy, p50, size = one.figures or (0.0, 0.0, 0)
    say(f"{head}: accuracy {accuracy:.4f}, p50 {p50:.3g} ms ({one.speed:.2f}x), {size / 1e6:.3g} MB")
    return accuracy, p50 / job.original.p50_ms, float(size)


def _note(trial: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        trial.set_user_attr(name, value)


def _tried(job: _Job, shape: dict[str, Any], variant: str) -> dict[str, Any]:
    known = [one for one in finished(job.study) if one.user_attrs.get("variant") == variant]
    broken = next((one for one in known if one.user_attrs.get("unmakeable")), None)
    if broken is not None:  # before anything is trained for it
        raise InputError(f"{variant} could not be made in trial {broken.number}; not tried again")
    bundle = bundled(job.shop, shaped(job.shop, shape), variant)
    parity = json.loads((bundle / "parity.json").read_bytes())["variants"][variant]["sample"]
    reference = bundled(job.shop, job.shop.teacher, job.original.reference)
    pair = {"fp32": (reference, job.original.reference), "trial": (bundle, variant)}
    if bundle == reference:
        pair.pop("trial")
    timed = measure(pair, job.shop.dataset.splits["validation"].texts, job.config.on)
    mine = timed.get("trial", timed["fp32"])
    return {
        "accuracy": parity["metric"]["variant"],
        "speed": mine["speed"],
        "speed_ci95": mine["ci95"],
        "fp32_ms": timed["fp32"]["p50_ms"],
        "size_bytes": _size(bundle, variant),
        "bundle": str(bundle),
    }


def _read(baseline_ms: float, number: int, attrs: dict[str, Any]) -> Tried:
    """A trial of the study; its p50 is the baseline's divided by its own speed."""
    speed, low_high = attrs.get("speed"), attrs.get("speed_ci95")
    return Tried(
        number,
        attrs.get("shape", {}),
        attrs.get("variant", "?"),
        attrs.get("accuracy"),
        speed,
        tuple(low_high) if low_high else None,  # type: ignore[arg-type]
        baseline_ms / speed if speed else None,
        attrs.get("size_bytes"),
        attrs.get("seconds"),
        attrs.get("bundle"),
        attrs.get("why"),
    )


def _all_tried(job: _Job) -> tuple[list[Tried], Original]:
    """Every finished trial, and the original with its baseline: the median of its fp32 over all their runs,
    so that a busy moment moves no single trial."""
    told = finished(job.study)
    runs = sorted(one.user_attrs["fp32_ms"] for one in told if "fp32_ms" in one.user_attrs)
    original = replace(job.original, p50_ms=runs[len(runs) // 2]) if runs else job.original
    return [_read(original.p50_ms, one.number, one.user_attrs) for one in told], original


def _best_variant(job: _Job) -> str:
    """The quantized variant that has served best so far: quick times small, of those that keep the accuracy.

    Whether it beats the original's fp32 is open: a smaller shape may yet make it.
    """
    tried, original = _all_tried(job)
    names = [name for name in job.space.variants if name != original.reference] or [original.reference]
    known = [(one, one.figures) for one in tried if one.variant in names]
    kept = [
        (f[1] * f[2], one.variant)
        for one, f in known
        if f and original.accuracy - f[0] <= job.config.max_drop
    ]
    return min(kept, default=(0.0, names[0]))[1]


def _conclude(job: _Job, out: Path, work: Path) -> dict[str, Any]:
    from apps.search_page import search_page

    tried, original = _all_tried(job)
    chosen = pick(tried, job.targets, original)
    result: dict[str, Any] = {
        "bundle": None,
        "pick": chosen.number if chosen else None,
        "budget": asdict(job.targets),
        "on": job.config.on,
        "original": asdict(original),
        "pareto": [one.number for one in pareto(tried)],
        "trials": [_row(one, job.targets, original) for one in tried],
        "test": None,
        "study": {"name": job.study.study_name, "folder": str(work)},
    }

    def write() -> None:
        write_atomic(work / "search.json", (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
        search_page(result, work / "search.html", out.name.removesuffix(".bundle"))

    write()
    if chosen is None:
        raise _missed(job, tried, original, work)
    result["test"] = _on_test(job, chosen, out)
    result["bundle"] = str(out)
    write()
    return result


def _row(one: Tried, targets: Targets, original: Original) -> dict[str, Any]:
    missed = misses(one, targets, original) if one.figures else None
    return {**asdict(one), "name": one.name, "misses": missed}


def _missed(job: _Job, tried: list[Tried], original: Original, work: Path) -> EdgewiseError:
    best = nearest(tried, job.targets, original)
    if best is None:
        why = tried[0].why if tried else "none finished"
        return InputError(f"search: no trial could be measured; the first one: {why}; see {work}/search.html")
    return BudgetError(
        f"search: none of {len(tried)} trials keeps the budget; the best found is trial {best.number} "
        f"({best.name}): {told_miss(best, job.targets, original)}; its bundle lies at {best.bundle}; loosen "
        "the budget or give more --trials"
    )


def _on_test(job: _Job, chosen: Tried, out: Path) -> dict[str, Any]:
    """The pick on the test rows, gated once more: packed as `out`. Its checkpoint is made here again where
    another machine tried it."""
    from trainers.evaluate import predict

    rows = job.shop.dataset.splits["test"]
    say(f"search: trial {chosen.number} ({chosen.name}) on the test rows")
    made = shaped(job.shop, chosen.shape)
    packed(job.shop, made, chosen.variant, rows, out, job.config.max_drop)
    parity = json.loads((out / "parity.json").read_bytes())["variants"][chosen.variant]["sample"]
    theirs = float((predict(job.shop.teacher, rows.texts).argmax(axis=1) == rows.labels).mean())
    mine = parity["metric"]["variant"]
    drop = theirs - mine
    return {
        "original": theirs, "accuracy": mine, "drop": drop, "n": len(rows),
        "kept": drop <= job.config.max_drop + 1e-9,
    }  # fmt: skip

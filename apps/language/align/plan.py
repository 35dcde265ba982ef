"""The runs of a comparison, and the order in which they start: the table of all seeds comes first."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Literal

from apps.language.align.config import STRENGTH, AlignConfig, Sensitivity

SEED_OFFSET = 1000


@dataclass(frozen=True)
class Run:
    """One thing to do. `kind` says which function of apps/language/align/steps.py does it; `after` names the
    runs that must have ended well; `rank` orders what could start: the table of all seeds comes first."""

    name: str
    kind: Literal["reward", "judge", "linear", "start", "pairs", "model"]
    rank: int
    after: tuple[str, ...] = ()
    method: str = ""
    seed: int = 0
    changed: tuple[tuple[str, Any], ...] = ()


def plan(config: AlignConfig) -> list[Run]:
    """All runs, in the order in which they would start if all could.

    `chosen` is a control: SFT of the start on the chosen answers alone, so that what the preference adds
    can be told from what the choice of answers does.
    """
    first = config.seeds[0]
    runs = [Run(name, name, 0) for name in ("reward", "judge", "linear")]  # type: ignore[arg-type]
    for seed in config.seeds:
        runs.append(Run(f"start-seed{seed}", "start", 0, seed=seed))
        if config.pairs == "sampled":
            runs.append(Run(f"pairs-seed{seed}", "pairs", 1, (f"start-seed{seed}", "reward"), seed=seed))
    for method in sorted(config.methods, key=("ppo", "orpo", "dpo", "sft").index):  # the longest first
        runs += [_model(config, method, seed, rank=2) for seed in config.seeds]
    runs.append(_model(config, "base", first, rank=2))
    runs += [_model(config, "start", seed, rank=3) for seed in config.seeds]
    if config.pairs == "sampled":
        runs += [_model(config, "chosen", seed, rank=3) for seed in config.seeds]
    runs += [_model(config, method, first, 3, {"peft": "none"}) for method in config.no_peft]
    tried = [[(method, change) for change in _changes(config, method)] for method in config.methods]
    for row in zip_longest(*tried):  # in turns, so that no method is left out where time is short
        runs += [_model(config, method, first, 4, change) for method, change in filter(None, row)]
    return runs


def _model(
    config: AlignConfig, method: str, seed: int, rank: int, change: Mapping[str, Any] | None = None
) -> Run:
    needed = ["reward", "judge", "linear", f"start-seed{seed}"]
    if method in ("dpo", "orpo", "chosen") and config.pairs == "sampled":
        needed.append(f"pairs-seed{seed}")
    told = "".join(f"-{key}-{value}" for key, value in (change or {}).items())
    name = "before" if method == "start" else method
    return Run(f"{name}{told}-seed{seed}", "model", rank, tuple(needed), method, seed,
               tuple((change or {}).items()))  # fmt: skip


def _changes(config: AlignConfig, method: str) -> list[dict[str, Any]]:
    tried: Sensitivity = getattr(config, f"sensitivity_{method}")
    own = getattr(config, method)
    found: list[dict[str, Any]] = []
    for key, name in (("learning_rate",) * 2, ("strength", STRENGTH.get(method)), ("batch_size",) * 2):
        if name is not None:
            found += [{name: value} for value in getattr(tried, key) if value != getattr(own, name)]
    return found


def method_config(config: AlignConfig, run: Run) -> Any:
    """The trainer's config of a run: its own table, with the budget, the seed and what this run changes.

    The seed is another than the start's, so that SFT goes on in an order of rows of its own.
    """
    own = getattr(config, "sft" if run.method == "chosen" else run.method)
    change = dict(run.changed)
    if change.get("peft") == "none":
        change["learning_rate"] = own.learning_rate * config.full_rate
    tokens = config.tokens * (2 if run.method == "orpo" else 1)
    return replace(own, tokens=tokens, seed=run.seed + SEED_OFFSET, **change)

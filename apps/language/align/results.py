"""What the runs of a comparison say together: figures with intervals, tests, verdicts."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from apps.language.align.intervals import Interval, bootstrap, holm, permutation_p
from apps.language.align.judging import at_equal_length, duels, scores_judge
from runtimes.errors import InputError
from trainers.files import read_json

Result = dict[str, Any]
# The order of a table's rows; "before" is the start that SFT, PPO and DPO share.
ROWS = ("base", "before", "sft", "chosen", "ppo", "dpo", "orpo")
NAMES = {
    "base": "base",
    "before": "start (T of SFT)",
    "sft": "SFT",
    "chosen": "SFT on chosen",
    "ppo": "PPO",
    "dpo": "DPO",
    "orpo": "ORPO",
}
BEAT = 0.6  # what is expected of each method's win rate over SFT
RESAMPLES = 2000


@dataclass(frozen=True)
class Found:
    """The result files of one comparison: `runs` by name, `left_out` with the reasons."""

    name: str
    config: dict[str, Any]
    world: dict[str, Any]
    runs: dict[str, Result]
    left_out: dict[str, str]

    def of(self, method: str) -> list[Result]:
        """A method's runs with its own settings, by seed."""
        kind = "start" if method == "before" else method
        found = [
            run for run in self.runs.values()
            if run["kind"] == "model" and run["method"] == kind and not run["changed"]
        ]  # fmt: skip
        return sorted(found, key=lambda run: run["seed"])


def read_results(folder: Path) -> Found:
    """The comparison whose results lie in `folder`, or in `folder`/results. InputError for none."""
    folder = folder / "results" if (folder / "results").is_dir() else folder
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: no results of a comparison; make some with python -m apps.language.align"
        )
    files = [file for file in sorted(folder.glob("*.json")) if file.stem not in ("config", "world", "pool")]
    runs = {file.stem: read_json(file) for file in files}
    for name, run in runs.items():
        if not isinstance(run, dict) or not {"kind", "method", "seed", "changed", "machine"} <= run.keys():
            raise InputError(f"{folder / name}.json: not a run's result; remove it and run again")
    pool = read_json(folder / "pool.json") if (folder / "pool.json").is_file() else {}
    left_out = {**pool.get("failed", {}), **pool.get("dropped", {})}
    left_out = {name: why for name, why in left_out.items() if name not in runs}
    config = read_json(folder / "config.json")
    world = read_json(folder / "world.json") if (folder / "world.json").is_file() else {}
    return Found(str(config["name"]), config, world, runs, left_out)


def find_results(root: Path) -> list[Found]:
    """All comparisons below a folder, by name."""
    folders = sorted({file.parent for file in root.rglob("config.json") if file.parent.name == "results"})
    if (root / "config.json").is_file() and root not in folders:
        folders.append(root)
    if not folders:
        raise InputError(f"{root}: no results of a comparison; make some with python -m apps.language.align")
    return [read_results(folder) for folder in folders]


# figures


def _scores(runs: list[Result], judge: str) -> np.ndarray:
    return np.array([run["scores"][judge] for run in runs], np.float64)


def _lengths(runs: list[Result]) -> np.ndarray:
    return np.array([run["answers"]["tokens"] for run in runs], np.float64)


def paired(ours: list[Result], theirs: list[Result]) -> tuple[list[Result], list[Result]]:
    """The runs of both whose seeds the other has too, in the same order."""
    by_seed = {run["seed"]: run for run in theirs}
    both = [(run, by_seed[run["seed"]]) for run in ours if run["seed"] in by_seed]
    return [a for a, _ in both], [b for _, b in both]


@dataclass(frozen=True)
class Wins:
    """Share of duels won, ties half: with its interval, for each seed, and at equal length."""

    rate: Interval
    by_seed: list[float]
    at_equal_length: Interval
    ties: float


def wins(ours: list[Result], theirs: list[Result], tie: float, judge: str = "judge") -> Wins | None:
    """How often `ours` beat `theirs` on the same prompts; None where no seed has both."""
    ours, theirs = paired(ours, theirs)
    if not ours:
        return None
    shares = duels(scores_judge(tie), _scores(ours, judge), _scores(theirs, judge))
    longer = _lengths(ours) - _lengths(theirs)
    equal = bootstrap(shares, longer, statistic=at_equal_length, resamples=RESAMPLES // 4)
    rate = bootstrap(shares, resamples=RESAMPLES)
    return Wins(rate, shares.mean(axis=1).tolist(), equal, float(np.mean(shares == 0.5)))


def rows_of(found: Found) -> list[dict[str, Any]]:
    """One row a method that has run: everything that the table shows. What was not measured is None."""
    sft, base = found.of("sft"), found.of("base")
    tie = found.config["evaluation"]["tie"]
    rows = []
    for method in ROWS:
        runs = found.of(method)
        if not runs:
            continue
        against = method != "sft" and bool(sft)
        rows.append({
            "method": method, "name": NAMES[method], "seeds": len(runs), **figures(runs, base),
            "wins": {j: wins(runs, sft, tie, j) if against else None for j in ("judge", "linear", "reward")},
        })  # fmt: skip
    return rows


def figures(runs: list[Result], base: list[Result]) -> dict[str, Any]:
    """Means over the seeds, and the intervals of reward and judge."""
    training = [run["training"] for run in runs]
    plain = base[0]["perplexity"]["value"] if base else None
    values = [run["perplexity"]["value"] for run in runs]
    worse = [value / plain for value in values if value is not None and plain]
    return {
        "reward": bootstrap(_scores(runs, "reward")), "judge": bootstrap(_scores(runs, "judge")),
        "kl_answer": _mean([run["kl"]["per_answer"] for run in runs]),
        "kl_token": _mean([run["kl"]["per_token"] for run in runs]),
        "perplexity": _mean(values), "worse": _mean(worse),
        "length": float(_lengths(runs).mean()),
        "ended": _mean([float(np.mean(run["answers"]["ended"])) for run in runs]),
        "distinct_2": _mean([run["distinct_2"] for run in runs]),
        "repetition_4": _mean([run["repetition_4"] for run in runs]),
        **{key: _mean([one.get(key) for one in training]) for key in (
            "seconds", "peak_memory_mb", "trained_parameters", "tokens", "steps", "rollout_tokens")},
    }  # fmt: skip


def _mean(values: list[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


# tests and verdicts


def verdicts(found: Found) -> list[dict[str, Any]]:
    """Each two methods: who wins how often, p of the permutation test on the judge's scores, corrected by
    Holm, and a verdict where, and only where, the win rate's interval excludes one half."""
    methods = [method for method in ("sft", "ppo", "dpo", "orpo") if found.of(method)]
    tie, rows = found.config["evaluation"]["tie"], []
    for theirs, ours in combinations(methods, 2):
        a, b = paired(found.of(ours), found.of(theirs))
        won = wins(a, b, tie)
        if won is None:
            continue
        p = permutation_p(_scores(a, "judge"), _scores(b, "judge"))
        rows.append(
            {"ours": ours, "theirs": theirs, "wins": won, "p": p, "verdict": verdict(won, ours, theirs)}
        )
    corrected = holm({f"{row['ours']} {row['theirs']}": float(str(row["p"])) for row in rows})
    return [{**row, "p_holm": corrected[f"{row['ours']} {row['theirs']}"]} for row in rows]


def verdict(won: Wins, ours: str, theirs: str) -> str:
    """In words; a win that is gone at equal length is said to be."""
    if not won.rate.excludes(0.5):
        return "no verdict: the interval holds 50%"
    better, worse = (ours, theirs) if won.rate.value > 0.5 else (theirs, ours)
    same = won.at_equal_length.excludes(0.5) and (won.at_equal_length.value > 0.5) == (won.rate.value > 0.5)
    told = f"{NAMES[better]} answers better than {NAMES[worse]}"
    return told if same else f"{told}; not so at equal length"


def expected(found: Found) -> list[tuple[str, bool]]:
    """For each method but SFT: whether it wins 60% against SFT with an interval above 50%."""
    tie, told = found.config["evaluation"]["tie"], []
    for method in ("ppo", "dpo", "orpo"):
        won = wins(found.of(method), found.of("sft"), tie) if found.of(method) else None
        if won is not None:
            told.append((method, won.rate.value >= BEAT and won.rate.low > 0.5))
    return told


def changed_rows(found: Found) -> list[dict[str, Any]]:
    """The runs with one setting changed, each method's own setting first; all of one seed."""
    tie, base, rows = found.config["evaluation"]["tie"], found.of("base"), []
    for method in ("sft", "ppo", "dpo", "orpo"):
        changed = [r for r in found.runs.values() if r["method"] == method and r["changed"]]
        if not changed:
            continue
        own = [run for run in found.of(method) if run["seed"] == changed[0]["seed"]]
        for run in [*own, *sorted(changed, key=lambda r: [(k, str(v)) for k, v in r["changed"].items()])]:
            rows.append({
                "method": method, "name": NAMES[method], "changed": run["changed"], "run": run["name"],
                "wins": wins([run], found.of("sft"), tie), **figures([run], base),
            })  # fmt: skip
    return rows

"""Controlled refit: a series that changed gets a new profile or model only if it is better on late data.

The candidate is fitted on the older part of the recent points and both are judged on the newest, which
neither has seen: by the alarms that they raise there, where hardly anything should be wrong, and by how well
they find anomalies of known kinds that are put in. Until the candidate has won, the old one stays in use.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.profile import Profile
from trainers.detection_metrics import vus
from trainers.injections import inject
from trainers.series import events

HELD_OUT = 0.3
ROUNDS = 3
"""Rounds of anomalies that are put in, each at other places."""
CLEARLY = 0.02
"""VUS-PR on what was put in: a candidate that finds so much more wins."""
WORSE = 0.01
"""A candidate that finds so much less never wins."""
FEWER = 0.5
"""A candidate that alarms at most this share of the points that the old one does wins."""
LEAST = 0.2
"""A candidate that finds a smaller share of what was put in never wins: it would be deaf."""
FEW = 0.002
"""Up to this share of alarmed points nothing can be told from it."""
USELESS = 0.2
"""An old one that alarms a larger share of the newest points finds anything, and tells nothing."""


@dataclass(frozen=True)
class Judged:
    """On the newest points: `alarmed`, the share of them over the threshold; of the anomalies put in there,
    the share `found`, by an alarm that is not there without them; and the VUS-PR of the scores."""

    alarmed: float
    found: float
    vus_pr: float


@dataclass(frozen=True)
class Refit:
    """`kept` is "old" or "new", `profile` and `model` are what stays in use, `row` is the log's line."""

    kept: str
    model: Any
    profile: Profile
    row: dict[str, Any]


def refit(
    model: Any,
    profile: Profile,
    values: np.ndarray,
    log: Path | None = None,
    exclude: np.ndarray | None = None,
    candidate: Any = None,
    name: str = "",
    times: np.ndarray | None = None,
) -> Refit:
    """Fit a new profile on the first 70% of the recent `values` (n, channels) and keep the better one.

    `exclude` (n,) bool marks points that were alarmed, which must not become the new normal. `candidate` is
    another model, say one trained on recent data, that the new profile is for; by default `model` itself.
    `times` (n,) in unix seconds: gaps in them count as missing points. Appends one JSON row to `log`.
    InputError where the points are too few to tell.
    """
    values = np.array(values, float)
    if values.ndim != 2 or values.shape[1] != len(profile.names):
        raise InputError(f"refit: values have shape {values.shape}; give (n, {len(profile.names)})")
    if exclude is not None:
        values[np.asarray(exclude, bool)] = np.nan
    start = int(len(values) * (1 - HELD_OUT))
    window = model.limits["window"]
    if len(values) - start < 4 * window:
        needed = int(np.ceil(4 * window / HELD_OUT))
        raise InputError(f"refit: {len(values)} points are too few; wait for {needed}")
    challenger = candidate or model
    made = challenger.fit(
        values[:start], profile.names, step=profile.step, period=profile.period,
        times=None if times is None else times[:start],
    )  # fmt: skip
    old = judge(model, profile, values, start, times)
    new = judge(challenger, made, values, start, times)
    kept, why = choose(old, new)
    row = {
        "event": "refit", "series": name, "points": len(values), "held_out": len(values) - start,
        "kept": kept, "why": why, "old": asdict(old), "new": asdict(new),
        "old_threshold": profile.threshold, "new_threshold": made.threshold,
    }  # fmt: skip
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return Refit("new", challenger, made, row) if kept == "new" else Refit("old", model, profile, row)


def choose(old: Judged, new: Judged) -> tuple[str, str]:
    """("old" or "new", the reason in words)."""
    told = (
        f"found {old.found:.0%} and {new.found:.0%}, VUS-PR {old.vus_pr:.3f} and {new.vus_pr:.3f}, "
        f"alarmed {old.alarmed:.2%} and {new.alarmed:.2%} (old and new)"
    )
    outcomes = {
        "the new one finds next to nothing": ("old", new.found < LEAST),
        "the old one alarms at over a fifth of the points": (
            "new",
            old.alarmed > USELESS and new.alarmed <= old.alarmed * FEWER and new.vus_pr >= old.vus_pr - WORSE,
        ),
        "the new one finds less": ("old", new.found < old.found or new.vus_pr < old.vus_pr - WORSE),
        "the new one raises more alarms": ("old", new.alarmed > max(old.alarmed, FEW)),
        "it finds more": ("new", new.vus_pr >= old.vus_pr + CLEARLY),
        "it raises fewer alarms": ("new", new.alarmed <= old.alarmed * FEWER and new.alarmed < old.alarmed),
    }
    for why, (kept, holds) in outcomes.items():
        if holds:
            return kept, f"{why}: {told}"
    return "old", f"the new one is no better: {told}"


def judge(
    model: Any, profile: Profile, values: np.ndarray, start: int, times: np.ndarray | None = None
) -> Judged:
    """On the points from `start` on; what comes before only warms the stream up."""
    plain = model.score(values, profile, times=times).score[start:] >= profile.threshold
    found, volumes = [], []
    for seed in range(ROUNDS):
        made, labels, _ = inject(values, length=min(64, model.limits["window"]), seed=seed, skip=start)
        scores = model.score(made, profile, times=times).score[start:]
        new = (scores >= profile.threshold) & ~plain
        found += [new[first:last].any() for first, last in events(labels[start:])]
        volumes.append(vus(labels[start:] > 0, scores)[0])
    return Judged(float(plain.mean()), float(np.mean(found)), float(np.mean(volumes)))

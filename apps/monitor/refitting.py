"""A profile learned anew from recent points takes the old one's place only where it judges them better.

Both judge the newest quarter, which the new one did not learn from, without what an alarm was raised over.
"""

import math
import sqlite3
from typing import Any

import numpy as np

from apps.monitor import live as lives
from apps.monitor import rows
from apps.monitor.live import Live
from apps.monitor.scoring import Scorer, write_log
from apps.web.replies import Refused, clip
from runtimes.errors import InputError
from runtimes.profile import Profile

MOST = 8_192  # recent points
HELD = 0.25
GAIN = 0.02  # so much smaller the error must be where both raise equally many false alarms


def refit(scorer: Scorer, name: str, who: str) -> dict[str, Any]:
    """What was found, and whether the new profile was taken. In the scorer's thread; it is logged.

    Raises Refused (422) where there is too little to learn from.
    """
    live = scorer.series[name]
    if live.profile is None:
        raise Refused(422, f"series {clip(live.name)} still learns for the first time; wait for more points")
    times, values = rows.seen(scorer.file, live.id, -math.inf, len(live.channels), MOST)
    normal = np.where(_alarmed(scorer.file, live, times)[:, None], np.nan, values)
    cut = int(len(times) * (1 - HELD))
    try:
        new = scorer.model.fit(normal[:cut], names=live.channels, step=lives.usual_step(times[:cut]))
    except InputError as error:
        raise Refused(422, f"series {clip(live.name)}: {error}") from None
    old_figures = judged(scorer.model, live.profile, live.threshold or math.inf, values, normal, cut)
    new_figures = judged(scorer.model, new, live.chosen or new.threshold, values, normal, cut)
    taken, why = better(old_figures, new_figures)
    told = {"taken": taken, "why": why, "old": old_figures, "new": new_figures, "points": len(times)}
    with scorer.transaction() as file:
        if taken:
            live.profile = new
            lives.start(live, scorer.model, times, values)
            lives.write(live, file)
        write_log(file, live.name, "refit", who, told)
    return told


def judged(
    model: Any, profile: Profile, threshold: float, values: np.ndarray, normal: np.ndarray, cut: int
) -> dict[str, float]:
    """Of the points from `cut` on that raised no alarm: `rate`, the share over the threshold, and `error`,
    the mean distance from what was expected, in units of the points' own spread."""
    scores = model.score(values, profile)
    held = ~np.isnan(normal[cut:]).all(axis=1) & ~np.isnan(scores.score[cut:])
    spread = np.maximum(np.nanstd(values, axis=0), 1e-9)
    off = np.abs(values[cut:] - scores.expected[cut:]) / spread
    rate = float((scores.score[cut:][held] >= threshold).mean()) if held.any() else 1.0
    error = float(np.nanmean(off[held])) if held.any() and np.isfinite(off[held]).any() else math.inf
    return {"threshold": float(threshold), "rate": rate, "error": error}


def better(old: dict[str, float], new: dict[str, float]) -> tuple[bool, str]:
    """Whether the new profile is better, and why it is or is not."""
    if new["rate"] < old["rate"] and new["error"] <= old["error"] * (1 + GAIN):
        return True, "fewer false alarms on the newest quarter"
    if new["rate"] > old["rate"]:
        return False, "the new profile raises more false alarms on the newest quarter"
    if new["error"] < old["error"] * (1 - GAIN):
        return True, "closer to the newest quarter, without more false alarms"
    return False, "the new profile is not better on the newest quarter"


def _alarmed(file: sqlite3.Connection, live: Live, times: np.ndarray) -> np.ndarray:
    """bool (n,): within an alarm."""
    found = np.zeros(len(times), bool)
    query = "SELECT start, coalesce(end, start) FROM alarms WHERE series = ?"
    for start, end in file.execute(query, [live.id]):
        found |= (times >= start) & (times <= end)
    return found

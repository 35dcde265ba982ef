"""A profile learned anew from recent points takes the old one's place only where it judges them better.

The judging (trainers/refit.py) runs beside the service's work; only the exchange is done by the writer.
"""

import math
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from apps.monitor import live as lives
from apps.monitor import rows, schema
from apps.monitor.live import Live
from apps.monitor.scoring import Scorer, write_log
from apps.web.replies import Refused, clip
from runtimes.errors import InputError
from runtimes.profile import Profile
from trainers.refit import Refit
from trainers.refit import refit as judge

MOST = 4_096  # recent points
MOST_ALARMED = 0.5  # share of them, that are left out


class InTurn:
    """An engine's session for two threads: one call at a time."""

    def __init__(self, session: Any) -> None:
        self.session, self.lock = session, threading.Lock()

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            found: dict[str, Any] = self.session.run(feeds)
            return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def judged(path: Path, model: Any, live: Live, profile: Profile, with_alarms: bool = False) -> Refit:
    """Both profiles on recent points, in any thread; `with_alarms`: on those of alarms too.

    Raises Refused (422) where there are too few.
    """
    with closing(schema.reading(path)) as file:
        times, values = rows.seen(file, live.id, -math.inf, len(live.channels), MOST)
        alarmed = np.zeros(len(times), bool)
        for start, end in file.execute(
            "SELECT start, coalesce(end, ?) FROM alarms WHERE series = ?", [math.inf, live.id]
        ):  # an open one lasts until now
            alarmed |= (times >= start) & (times <= end)
    if with_alarms:
        alarmed[:] = False
    elif alarmed.mean() > MOST_ALARMED:
        line = f"alarms cover {alarmed.mean():.0%} of its newest points, which teach nothing"
        raise Refused(
            422, f'series {clip(live.name)}: {line}; where this is how it is now, send {{"alarmed": true}}'
        )
    try:
        return judge(model, profile, values, exclude=alarmed, name=live.name, times=times)
    except InputError as error:
        raise Refused(422, f"series {clip(live.name)}: {error}") from None


def adopt(scorer: Scorer, name: str, before: Profile, found: Refit, who: str) -> dict[str, Any]:
    """Writes what was found, and takes the new profile where it won. In the scorer's thread.

    A threshold that somebody set goes with the old profile: scores of two profiles are not comparable.
    """
    live = scorer.series.get(name)
    if live is None or live.profile is not before:
        raise Refused(409, f"series {clip(name)} was learned anew meanwhile; ask again")
    told = {key: value for key, value in found.row.items() if key not in ("event", "series")}
    try:
        with scorer.transaction() as file:
            if found.kept == "new":
                _take(scorer, live, found.profile, file)
            write_log(file, name, "refit", who, told)
    except BaseException:
        scorer.forget([name])
        raise
    return told


def _take(scorer: Scorer, live: Live, profile: Profile, file: sqlite3.Connection) -> None:
    live.profile, live.chosen, live.drifted = profile, None, False
    file.execute("UPDATE series SET threshold = NULL WHERE id = ?", [live.id])
    most = scorer.model.limits["window"] + scorer.model.limits["patch"]
    lives.start(live, scorer.model, *rows.seen(file, live.id, -math.inf, len(live.channels), most))
    lives.write(live, file)

"""What is too old goes, a few series at a time, in the writer's thread between two transactions."""

import itertools
import time

from apps.monitor import rows
from apps.monitor.scoring import Scorer

TOGETHER = 20  # series looked at in one go
EVERY_S = 2.0
DELIVERIES_DAYS = 30.0
DAY_S = 86_400.0


class Retention:
    """Goes round all series, again and again."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.at = scorer, 0
        self.removed = 0

    def turn(self) -> int:
        """Looks at the next few series, and after the last one at alarms and logs; how many points went."""
        config, names = self.scorer.config, list(self.scorer.series)
        gone = 0
        with self.scorer.transaction() as file:
            for name in itertools.islice(names, self.at, self.at + TOGETHER):
                live = self.scorer.series[name]
                oldest = live.last_time - config.keep_days * DAY_S
                gone += rows.thin(file, live.id, oldest, config.keep_points, live.state_time)
            self.at += TOGETHER
            if self.at >= len(names):
                self.at = 0
                now = time.time()
                old = now - config.keep_alarm_days * DAY_S
                file.execute("DELETE FROM alarms WHERE closed IS NOT NULL AND closed < ?", [old])
                file.execute("DELETE FROM log WHERE at < ?", [old])
                query = "DELETE FROM deliveries WHERE state != 'waiting' AND ended < ?"
                file.execute(query, [now - DELIVERIES_DAYS * DAY_S])
        self.removed += gone
        return gone

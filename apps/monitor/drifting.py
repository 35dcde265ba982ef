"""Drift of a series: asked about its scores as they come, and written into the log when it is found."""

import sqlite3
from typing import Any

import numpy as np

from apps.monitor.live import Live
from runtimes.stream import Scores


class Drifting:
    """Nothing yet."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self.file = file

    def push(self, live: Live, times: np.ndarray, scores: Scores, now: float) -> Any:
        return None

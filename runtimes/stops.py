"""Stop sequences: texts that end an answer, wherever they fall over tokens, and are never given out."""

from collections.abc import Sequence

from runtimes.errors import InputError

MOST = 16
LONGEST = 1_000  # characters


class Stops:
    """`push` text for what can be told of it; what may be the start of a stop sequence waits.

    `hit` once one has come: what stood before it was given out, nothing behind it is.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = check_stops(stops)
        self._waiting = ""
        self.hit = False

    def push(self, text: str) -> str:
        if self.hit:
            return ""
        if not self._stops:
            return text
        self._waiting += text
        places = [place for stop in self._stops if (place := self._waiting.find(stop)) >= 0]
        if places:
            self.hit = True
            told, self._waiting = self._waiting[: min(places)], ""
            return told
        keep = max(_overlap(self._waiting, stop) for stop in self._stops)
        cut = len(self._waiting) - keep
        told, self._waiting = self._waiting[:cut], self._waiting[cut:]
        return told

    def flush(self) -> str:
        """What still waited: no stop sequence came of it."""
        told, self._waiting = self._waiting, ""
        return told


def _overlap(text: str, stop: str) -> int:
    """The longest end of `text` that is a start of `stop`, in characters."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


def check_stops(stops: Sequence[str]) -> tuple[str, ...]:
    """Raises InputError unless these are a few texts, none of them empty."""
    if isinstance(stops, str):
        stops = [stops]
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) for stop in stops):
        raise InputError("stop must be a text or a list of texts")
    if len(stops) > MOST or not all(0 < len(stop) <= LONGEST for stop in stops):
        raise InputError(f"stop takes {MOST} texts at most, each of 1 to {LONGEST} characters")
    return tuple(stops)

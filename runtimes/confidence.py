"""How sure an answer is: what the reader says and how well the search found its passage, together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from runtimes.errors import BundleError
from runtimes.tasks.answer import Reading, sigmoid

if TYPE_CHECKING:
    from runtimes.ask import Hit

FEATURES = ("reader", "bm25", "dense", "support", "rival")
SUREST = 12.0  # the reader's log-odds count no further
MAX_K = 50
MOST_WEIGHT = 1_000_000


@dataclass(frozen=True)
class Evidence:
    """A passage that was found and what the reader read in it."""

    hit: "Hit"
    reading: Reading

    @property
    def place(self) -> tuple[int, int]:
        """Where the reading stands in the document's text."""
        start = self.hit.passage.start
        return start + self.reading.start, start + self.reading.end

    @property
    def odds(self) -> float:
        """The reader's confidence as log-odds, bounded."""
        p = min(max(self.reading.confidence, 1e-9), 1 - 1e-9)
        return min(max(math.log(p / (1 - p)), -SUREST), SUREST)


@dataclass(frozen=True)
class Calibration:
    """Weights of a logistic regression over what speaks for a reading, and what is decided by its result.

    reader: log-odds of the reader's confidence; bm25, dense: 1 / rank in that search (0: not found by it);
    support: log of the number of places that say the same; rival: the reader's log-odds of the best other
    answer. Nothing under `threshold` is answered; two answers closer than `margin` are asked back. `k`:
    passages to read. The defaults are the reader's own word, a little helped by the search: learn better
    ones with `trainers.asking`.
    """

    reader: float = 1.0
    bm25: float = 0.5
    dense: float = 0.5
    support: float = 0.3
    rival: float = 0.0
    shift: float = -0.5
    threshold: float = 0.5
    margin: float = 0.1
    k: int = 8

    def confidences(self, group: Sequence[Evidence], groups: Sequence[Sequence[Evidence]]) -> list[float]:
        """For each place of one answer the probability that it is right, beside all answers read."""
        return [
            sigmoid(self.shift + sum(getattr(self, name) * value for name, value in row.items()))
            for row in rows_of(group, groups)
        ]


def rows_of(group: Sequence[Evidence], groups: Sequence[Sequence[Evidence]]) -> list[dict[str, float]]:
    """The regression's inputs, by name, for each place of one answer."""
    others = [one.odds for other in groups if other is not group for one in other]
    rival = max(others, default=-SUREST)
    return [
        {
            "reader": one.odds,
            "bm25": 1 / one.hit.bm25 if one.hit.bm25 else 0.0,
            "dense": 1 / one.hit.dense if one.hit.dense else 0.0,
            "support": math.log(len(group)),
            "rival": rival,
        }
        for one in group
    ]


def calibration_from(told: Mapping[str, Any], where: str) -> Calibration:
    """A calibration as a bundle tells it. Raises BundleError for what is none."""
    known = {one.name for one in fields(Calibration)}
    for name, value in told.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name not in known or not number or not -MOST_WEIGHT <= value <= MOST_WEIGHT:  # NaN neither
            raise BundleError(f"{where}: calibration {name} = {value!r}; pack the collection again")
    k = told.get("k", 1)
    if not isinstance(k, int) or not 1 <= k <= MAX_K:
        raise BundleError(f"{where}: calibration k = {k!r}, not 1 to {MAX_K}; pack the collection again")
    return Calibration(**told)

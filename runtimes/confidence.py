"""How sure an answer is: what the reader says and how well the search found its passage, together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from runtimes.errors import BundleError
from runtimes.tasks.answer import Reading, sigmoid

if TYPE_CHECKING:
    from runtimes.ask import Hit

FEATURES = ("reader", "bm25", "dense")
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

    @property
    def features(self) -> dict[str, float]:
        """The regression's inputs by name."""
        bm25, dense = self.hit.bm25, self.hit.dense
        return {"reader": self.odds, "bm25": 1 / bm25 if bm25 else 0.0, "dense": 1 / dense if dense else 0.0}


@dataclass(frozen=True)
class Calibration:
    """Weights of a logistic regression over what speaks for a reading, and what is decided by its result.

    reader: log-odds of the reader's confidence; bm25, dense: 1 / rank in that search (0: not found by it).
    Nothing under `threshold` is answered. Where the second answer is at least as probable as `rival` and
    closer than `margin` to the first, it is asked back which is meant. `k`: passages to read. The defaults
    are the reader's own word, a little helped by the search: `trainers.asking` learns better ones. (The
    number of places that say the same and the best other answer were tried as inputs: neither helped.)
    """

    reader: float = 1.0
    bm25: float = 0.5
    dense: float = 0.5
    shift: float = -0.5
    threshold: float = 0.5
    rival: float = 0.5
    margin: float = 0.1
    k: int = 5

    def confidence(self, one: Evidence) -> float:
        """The probability that a reading is right."""
        return sigmoid(self.shift + sum(getattr(self, name) * x for name, x in one.features.items()))


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

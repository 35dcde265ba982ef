"""What is normal for one series: its channels' scales, the model's usual errors on it, and the threshold."""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.thresholds import RISK, Tail

SCHEMA = 1
# What a score is made of: errors of the forecasts just now, recently and for long; the value and the level
# against what is usual; the window that could not be rebuilt; a spread that is too large, or none.
PARTS = ("forecast", "recent", "course", "value", "level", "shape", "spread")
TAIL = ("start", "shape", "scale", "share")
MAX_NAME = 200


@dataclass(frozen=True, eq=False)
class Profile:
    """Fitted on normal points by `Detector.fit`; `to_json` and `profile_of` bring it to a file and back.

    `centre`, `scale`: float64 (channels,), what a value is less and over. `constant`: bool (channels,), never
    moved. `ahead`: (patch, channels), the usual error of the forecast by its distance. `usual`: (channels,
    parts, 3), what each of PARTS shows of normal points: middle, usual distance from it, and from there to
    the distance that 5 in 1,000 pass. `step` in seconds.
    """

    names: tuple[str, ...]
    centre: np.ndarray
    scale: np.ndarray
    constant: np.ndarray
    ahead: np.ndarray
    usual: np.ndarray
    step: float
    period: int | None
    threshold: float
    chosen: str
    tail: Tail
    points: int

    def severity(self, scores: np.ndarray) -> np.ndarray:
        """0..1 of each score: 1 - 0.5 ** (log P / log 1e-4), P the probability that a normal one is higher.

        So 0.5 stands at the POT threshold (one normal point in 10,000), 0.75 at one in 10^8.
        """
        rarity = np.log(np.maximum(self.tail.beyond(scores), 1e-300)) / math.log(RISK)
        low = np.where(np.asarray(scores) < self.tail.start, 0.0, rarity)
        return np.asarray(np.where(np.isnan(scores), np.nan, 1 - 0.5**low))

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, for a file of its own."""
        return {
            "schema": SCHEMA,
            "names": list(self.names),
            **{
                name: getattr(self, name).tolist()
                for name in ("centre", "scale", "constant", "ahead", "usual")
            },
            "step": self.step,
            "period": self.period,
            "threshold": self.threshold,
            "chosen": self.chosen,
            "tail": self.tail.to_json(),
            "points": self.points,
        }


def profile_of(told: Any) -> Profile:
    """The profile that `to_json` told, a dict or JSON text. Raises InputError for anything else."""
    try:
        told = json.loads(told) if isinstance(told, str | bytes) else told
        if told["schema"] > SCHEMA:
            raise InputError(f"profile: schema {told['schema']} is newer than {SCHEMA}; upgrade edgewise")
        names = tuple(told["names"])
        arrays = {key: np.asarray(told[key], float) for key in ("centre", "scale", "ahead", "usual")}
        start, shape, scale, share = (float(told["tail"][key]) for key in TAIL)
        tail = Tail(start, shape, scale, share, int(told["tail"]["count"]))
        period = None if told["period"] is None else int(told["period"])
        profile = Profile(
            names, constant=np.asarray(told["constant"], bool), step=float(told["step"]), period=period,
            threshold=float(told["threshold"]), chosen=str(told["chosen"]), tail=tail,
            points=int(told["points"]), **arrays,
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"profile: not one that edgewise wrote ({error!r}); fit it again") from None
    _check(profile)
    return profile


def _check(profile: Profile) -> None:
    count = len(profile.names)
    named = all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in profile.names)
    shapes = {
        "centre": (count,), "scale": (count,), "constant": (count,),
        "ahead": (len(profile.ahead), count), "usual": (count, len(PARTS), 3),
    }  # fmt: skip
    for name, shape in shapes.items():
        values = getattr(profile, name)
        if values.shape != shape or not count or not named or not np.isfinite(values).all():
            raise InputError(f"profile: {name} must be finite numbers of shape {shape}; fit it again")
    numbers = (profile.step, profile.threshold, *profile.tail.to_json().values())
    positive = (*profile.scale, *profile.ahead.ravel(), *profile.usual[..., 2].ravel(), profile.step,
                profile.tail.scale, profile.tail.share)  # fmt: skip
    if not all(map(math.isfinite, numbers)) or not min(positive) > 0:
        raise InputError("profile: scales, step and tail must be finite and above 0; fit it again")


def scales(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(centre, scale, constant) of each channel of `values` (n, channels), NaN left out.

    Median and IQR / 1.349, which is a normal distribution's standard deviation. Where half of the values are
    equal the standard deviation stands in; a channel that never moves gets a hundredth of its value.
    """
    centre = np.nanmedian(values, axis=0)
    low, high = np.nanquantile(values, [0.25, 0.75], axis=0)
    wide = np.nanstd(values, axis=0)
    robust = (high - low) / 1.349
    least = np.maximum(np.abs(centre), 1e-3) * 1e-6
    constant = wide <= least
    scale = np.where(robust > 0.05 * wide, robust, wide)
    return centre, np.where(constant, np.maximum(np.abs(centre) * 0.01, 1e-3), scale), constant

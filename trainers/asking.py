"""Learn how sure an answer from a collection is, when to say nothing, and when to ask back.

From questions with known answers that were asked of the collection, and questions that nothing in it answers.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from runtimes.ask import Answered, Found, decide, is_close, ranked, second
from runtimes.confidence import FEATURES, Calibration, Evidence
from runtimes.errors import InputError
from trainers.spans import best_threshold, exact_match, f1, span_report

Read = Sequence[Sequence[Evidence]]  # a question each: what was read in the passages that were found
Golds = Sequence[Sequence[str]]  # a question each: its right answers, none where nothing answers it
COVERAGES = (0.2, 0.4, 0.6, 0.8, 1.0)
# Asking back pays where the second answer is right at least half as often as the first, and one of the two at
# least in every third case; fewer cases than these tell nothing.
WORTH, EITHER, LEAST = 0.5, 1 / 3, 10
MOST_ASKED_BACK = 0.15  # of the questions that are answered
MARGINS = (0.05, 0.1, 0.15, 0.2, 0.3)
RIVALS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def learn(read: Read, golds: Golds, k: int) -> Calibration:
    """Weights by logistic regression, threshold and margin by what they are worth on these questions.

    Raises InputError where all readings are right or all wrong.
    """
    weighed = replace(_weights(read, golds), k=k)
    answers = [ranked(one, weighed) for one in read]
    bounded = replace(weighed, threshold=_threshold(answers, golds))
    return _asking_back(answers, golds, bounded)


def _weights(read: Read, golds: Golds) -> Calibration:
    """P(a reading is right) from what speaks for it: one row a reading, all questions together."""
    from sklearn.linear_model import LogisticRegression

    rows, right = [], []
    for evidence, gold in zip(read, golds, strict=True):
        for one in (one for one in evidence if one.reading.text.strip()):
            rows.append([one.features[name] for name in FEATURES])
            right.append(bool(gold) and exact_match(one.reading.text, gold) == 1)
    x, y = np.array(rows, float).reshape(-1, len(FEATURES)), np.array(right, bool)
    if not len(y) or y.all() or not y.any():
        raise InputError("asking: the readings are all right or all wrong; take more questions")
    centre, spread = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    model = LogisticRegression(C=10.0, max_iter=1_000).fit((x - centre) / spread, y)
    weights = model.coef_[0] / spread
    shift = float(model.intercept_[0] - (weights * centre).sum())
    named = {name: float(weight) for name, weight in zip(FEATURES, weights, strict=True)}
    return replace(Calibration(shift=shift), **named)  # type: ignore[arg-type] # floats all


def _threshold(answers: Sequence[Sequence[Found]], golds: Golds) -> float:
    """The confidence from which on to answer, so that the mean F1 is highest, silence being right where
    nothing is to be found."""
    sure = [found[0].confidence if found else 0.0 for found in answers]
    gain = [
        f1(found[0].text, gold) if found and gold else 0.0 for found, gold in zip(answers, golds, strict=True)
    ]
    return min(best_threshold(sure, gain, [not gold for gold in golds]), 1.0)


def _asking_back(answers: Sequence[Sequence[Found]], golds: Golds, bounded: Calibration) -> Calibration:
    """With the bounds within which most second answers are worth naming; the stated ones where none are."""
    pairs: list[tuple[Found, Found, list[bool]]] = []
    answered = 0
    for found, gold in zip(answers, golds, strict=True):
        over = [one for one in found if one.confidence >= bounded.threshold]
        answered += bool(over)
        other = second(over)
        if other is not None:
            right = [bool(gold) and exact_match(one.text, gold) == 1 for one in (over[0], other)]
            pairs.append((over[0], other, right))
    best, most = bounded, 0
    for rival, margin in product(RIVALS, MARGINS):
        tried = replace(bounded, rival=rival, margin=margin)
        close = [right for first, other, right in pairs if is_close(first, other, tried)]
        if len(close) > most and _worth(close, answered):
            best, most = tried, len(close)
    return best


def _worth(close: Sequence[Sequence[bool]], answered: int) -> bool:
    """Whether to ask back in these cases; each has whether the first and the second answer are right."""
    first, other = (sum(pair[place] for pair in close) for place in (0, 1))
    enough = LEAST <= len(close) <= MOST_ASKED_BACK * answered
    return enough and other >= WORTH * first and first + other >= EITHER * len(close)


def measure(read: Read, golds: Golds, calibration: Calibration) -> dict[str, Any]:
    """End to end: SQuAD's figures with silence where nothing is found, what was rightly refused, how risk
    grows with coverage, and what was asked back."""
    answers = [decide("", evidence, calibration) for evidence in read]
    said = [one.found[0].text if one.found else "" for one in answers]
    always = [ranked(one, calibration) for one in read]
    some = [row for row, gold in enumerate(golds) if gold]
    none = [row for row, gold in enumerate(golds) if not gold]
    best = [always[row][0].text if always[row] else "" for row in some]
    return {
        **span_report(said, golds),
        "answered": _share([bool(one.found) for one in answers]),
        "rightly_refused": _share([not answers[row].found for row in none]),
        "wrongly_refused": _share([not answers[row].found for row in some]),
        "always": span_report(best, [golds[row] for row in some]),
        "first_three": _share([_within(always[row][:3], golds[row]) for row in some]),
        "asked_back": _asked_back(answers, golds),
        "risk": risk(always, golds),
        "calibration_error": calibration_error(always, golds),
    }  # fmt: skip


def _share(flags: Sequence[bool]) -> float | None:
    return float(np.mean(flags)) if len(flags) else None


def _within(found: Sequence[Found], gold: Sequence[str]) -> bool:
    return any(exact_match(one.text, gold) == 1 for one in found)


def _asked_back(answers: Sequence[Answered], golds: Golds) -> dict[str, Any]:
    """Share of the answered questions, and which of the two answers was right there."""
    asked = [(one.found, gold) for one, gold in zip(answers, golds, strict=True) if one.ask_back]
    right = [[bool(gold) and exact_match(one.text, gold) == 1 for one in found[:2]] for found, gold in asked]
    answered = sum(bool(one.found) for one in answers)
    return {
        "n": len(asked),
        "share": len(asked) / answered if answered else None,
        "first_right": _share([pair[0] for pair in right]),
        "second_right": _share([pair[1] for pair in right]),
    }


def risk(answers: Sequence[Sequence[Found]], golds: Golds) -> dict[str, Any]:
    """Share of wrong answers among the surest part of all questions (El-Yaniv and Wiener 2010), at a few
    coverages, and the area under that curve. An answer where there is none counts as wrong."""
    sure = np.array([found[0].confidence if found else 0.0 for found in answers])
    wrong = np.array([not (found and gold and exact_match(found[0].text, gold) == 1)
                      for found, gold in zip(answers, golds, strict=True)], float)  # fmt: skip
    if not len(wrong):
        return {"at": {}, "area": None}
    curve = np.cumsum(wrong[np.argsort(-sure, kind="stable")]) / np.arange(1, len(wrong) + 1)
    at = {str(share): float(curve[max(1, round(share * len(curve))) - 1]) for share in COVERAGES}
    return {"at": at, "area": float(curve.mean())}


def calibration_error(answers: Sequence[Sequence[Found]], golds: Golds, bins: int = 10) -> float | None:
    """Expected calibration error (Naeini et al. 2015) of the best answers, in `bins` equal widths."""
    pairs = [(found[0].confidence, bool(gold) and exact_match(found[0].text, gold) == 1)
             for found, gold in zip(answers, golds, strict=True) if found]  # fmt: skip
    if not pairs:
        return None
    sure, right = np.array([p for p, _ in pairs]), np.array([r for _, r in pairs], float)
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [abs(sure[place == b].sum() - right[place == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(pairs))

"""Learn how sure an answer from a collection is, when to say nothing, and when to ask back.

From questions with known answers that were asked of the collection, and questions that nothing in it answers.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from runtimes.ask import Answered, Found, decide, grouped, ranked, second
from runtimes.confidence import FEATURES, Calibration, Evidence, rows_of
from runtimes.errors import InputError
from trainers.spans import best_threshold, exact_match, f1, span_report

Read = Sequence[Sequence[Evidence]]  # a question each: what was read in the passages that were found
Golds = Sequence[Sequence[str]]  # a question each: its right answers, none where nothing answers it
COVERAGES = (0.2, 0.4, 0.6, 0.8, 1.0)
# Asking back pays where the second answer is right at least half as often as the first.
WORTH = 0.5
MOST_ASKED_BACK = 0.15  # of the questions that are answered
MARGINS = tuple(round(0.02 * step, 2) for step in range(26))


def learn(read: Read, golds: Golds, k: int) -> Calibration:
    """Weights by logistic regression, threshold and margin by what they are worth on these questions.

    Raises InputError where all readings are right or all wrong.
    """
    weighed = replace(_weights(read, golds), k=k)
    answers = [ranked(one, weighed) for one in read]
    bounded = replace(weighed, threshold=_threshold(answers, golds))
    return replace(bounded, margin=_margin(answers, golds, bounded.threshold))


def _weights(read: Read, golds: Golds) -> Calibration:
    """P(a reading is right) from what speaks for it: one row a reading, all questions together."""
    from sklearn.linear_model import LogisticRegression

    rows, right = [], []
    for evidence, gold in zip(read, golds, strict=True):
        groups = grouped(evidence)
        for group in groups:
            rows += [[row[name] for name in FEATURES] for row in rows_of(group, groups)]
            right += [bool(gold) and exact_match(one.reading.text, gold) == 1 for one in group]
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


def _margin(answers: Sequence[Sequence[Found]], golds: Golds, threshold: float) -> float:
    """The widest margin within which the second answer is worth naming."""
    pairs, answered = [], 0
    for found, gold in zip(answers, golds, strict=True):
        over = bool(found) and found[0].confidence >= threshold
        answered += over
        rival = second(found) if over else None
        if rival is not None:
            right = [bool(gold) and exact_match(one.text, gold) == 1 for one in (found[0], rival)]
            pairs.append((found[0].confidence - rival.confidence, *right))
    best = 0.0
    for margin in MARGINS:
        close = [pair for pair in pairs if pair[0] < margin]
        first, other = (sum(pair[place] for pair in close) for place in (1, 2))
        if close and other >= WORTH * first and len(close) <= MOST_ASKED_BACK * answered:
            best = margin
    return best


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

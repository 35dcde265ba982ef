"""What is learned about confidence: weights, threshold, margin; and the figures that judge it."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from runtimes.ask import decide, ranked
from runtimes.confidence import Calibration, Evidence
from runtimes.errors import InputError
from runtimes.tasks.answer import Reading, sigmoid
from trainers.asking import calibration_error, learn, measure, risk


@dataclass(frozen=True)
class Passage:
    id: int
    text: str
    document: str
    name: str = "a.txt"
    heading: str = ""
    start: int = 0


@dataclass(frozen=True)
class Hit:
    passage: Passage
    bm25: int | None
    dense: int | None


def read(number, text, odds, bm25=1, dense=1):
    passage = Passage(number, f"it was {text}", f"d{number}")
    return Evidence(Hit(passage, bm25, dense), Reading(text, 7, 7 + len(text), 0.0, sigmoid(odds)))


def asked(count, seed, impossible=0.5):
    """Questions whose right answer tends to be read surely and to stand in a passage that words find first;
    a wrong one is read as surely now and then, further down."""
    random = np.random.default_rng(seed)
    questions, golds = [], []
    for number in range(count):
        there = random.random() >= impossible
        rows = [
            (f"wrong{n}", random.normal(-1.0, 2.0), int(random.integers(2, 9)), int(random.integers(1, 9)))
            for n in range(4)
        ]
        if there:
            first = int(random.choice([1, 1, 1, 2, 4]))
            rows.append(("right", random.normal(1.5, 2.0), first, int(random.integers(1, 9))))
        questions.append([read(10 * number + n, *row) for n, row in enumerate(rows)])
        golds.append(["right"] if there else [])
    return questions, golds


def test_what_is_learned_beats_what_is_not():
    learned = learn(*asked(400, 0), k=5)
    test = asked(400, 1)
    before, after = (measure(*test, one) for one in (replace(Calibration(), k=5), learned))
    assert learned.k == 5 and learned.reader > 0 and learned.bm25 > 0
    assert after["f1"] > before["f1"] + 0.02
    assert after["risk"]["area"] < before["risk"]["area"]
    assert after["calibration_error"] < before["calibration_error"]
    assert after["rightly_refused"] > 0.6 > after["wrongly_refused"]


def test_more_is_refused_where_more_is_impossible():
    few, many = (learn(*asked(200, 0, share), k=5) for share in (0.05, 0.8))
    test = asked(200, 1)
    assert measure(*test, few)["rightly_refused"] < measure(*test, many)["rightly_refused"]


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(InputError, match="all right or all wrong"):
        learn([[read(1, "a", 1.0)]], [["a"]], k=1)
    with pytest.raises(InputError, match="all right or all wrong"):
        learn([[]], [["a"]], k=1)


def test_asking_back_is_learned_where_the_second_answer_is_worth_it():
    """Two readings a question: close ones, of which the second is right half of the time, or clear ones."""
    close, clear = [], []
    for number in range(200):
        texts = ["right", "other"] if number % 2 else ["other", "right"]
        odds = 1.0 + 0.1 * (number % 5)
        close.append([read(2 * number, texts[0], odds + 0.02), read(2 * number + 1, texts[1], odds)])
        clear.append([read(2 * number, "right", 5.0), read(2 * number + 1, "other", 0.9)])
    stated = Calibration()
    # Where all are close, more would be asked back than anybody bears.
    always = learn(close, [["right"]] * 200, k=2)
    assert (always.rival, always.margin) == (stated.rival, stated.margin)
    questions, golds = [*clear, *close[:30]], [["right"]] * 230
    back = measure(questions, golds, learn(questions, golds, k=2))["asked_back"]
    assert 10 <= back["n"] <= 30
    assert back["second_right"] > 0.3 and back["first_right"] + back["second_right"] == 1


def test_figures_by_hand():
    calibration = Calibration(bm25=0, dense=0, shift=0, threshold=0.6, margin=0.05, rival=0.6)
    questions = [
        [read(1, "right", 3.0), read(2, "wrong", -3.0)],  # answered, right
        [read(3, "wrong", 2.0), read(4, "right", 1.99)],  # answered, wrong, asked back
        [read(5, "right", 0.0)],  # refused, wrongly
        [read(6, "wrong", -2.0)],  # refused, rightly
        [],  # nothing found at all: refused, rightly
        [read(7, "wrong", 1.0)],  # answered though nothing is to be found
    ]
    golds = [["right"], ["right"], ["right"], [], [], []]
    found = measure(questions, golds, calibration)
    assert found["exact_match"] == pytest.approx(3 / 6)
    assert found["answerable"]["exact_match"] == pytest.approx(1 / 3)
    assert found["rightly_refused"] == pytest.approx(2 / 3)
    assert found["wrongly_refused"] == pytest.approx(1 / 3)
    assert found["always"]["exact_match"] == pytest.approx(2 / 3)
    assert found["first_three"] == 1
    assert found["asked_back"] == {"n": 1, "share": 1 / 3, "first_right": 0.0, "second_right": 1.0}
    # In the order of their confidence: right, wrong, wrong, right, wrong, wrong.
    expected = np.mean([0, 1 / 2, 2 / 3, 2 / 4, 3 / 5, 4 / 6])
    assert found["risk"]["area"] == pytest.approx(expected)
    assert found["risk"]["at"]["1.0"] == pytest.approx(4 / 6)


def test_calibration_error_is_none_for_the_calibrated():
    surely = [[read(n, "right" if n < 8 else "wrong", math.log(4))] for n in range(10)]
    plain = Calibration(bm25=0, dense=0, shift=0)
    answers = [ranked(one, plain) for one in surely]
    assert calibration_error(answers, [["right"]] * 10) == pytest.approx(0, abs=1e-9)
    assert calibration_error([], []) is None and risk([], [])["area"] is None
    assert decide("", surely[0], plain).found[0].confidence == pytest.approx(0.8)

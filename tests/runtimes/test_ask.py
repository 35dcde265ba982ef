"""Answer logic: what is merged, how it is ranked, when nothing is found, when it asks back."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.ask import Asker, check_question, decide, grouped, ranked
from runtimes.confidence import Calibration, Evidence, calibration_from
from runtimes.errors import BundleError, InputError
from runtimes.merge import key_of, nested
from runtimes.sentences import sentence_around
from runtimes.tasks.answer import Reading


@dataclass(frozen=True)
class Passage:
    id: int
    text: str
    document: str = "d1"
    name: str = "notes.txt"
    heading: str = ""
    start: int = 0


@dataclass(frozen=True)
class Hit:
    passage: Passage
    bm25: int | None = 1
    dense: int | None = 1


def read(passage, text, confidence, bm25=1, dense=1):
    start = passage.text.index(text)
    return Evidence(Hit(passage, bm25, dense), Reading(text, start, start + len(text), 0.0, confidence))


def passage(number, text, **more):
    return Passage(number, text, **{"document": f"d{number}", "name": f"{number}.txt", **more})


class Words:
    """A search by shared words over a list of passages; notes what it was asked."""

    def __init__(self, passages):
        self.passages, self.asked = passages, []

    def search(self, question, vector, k, where=None):
        self.asked.append((question, vector, k, where))
        words = set(question.lower().strip("?").split())
        shared = {one.id: len(words & set(one.text.lower().split())) for one in self.passages}
        best = sorted((one for one in self.passages if shared[one.id]), key=lambda one: -shared[one.id])
        return [Hit(one, n, n) for n, one in enumerate(best[:k], 1)]


class Capitals:
    """Reads the first capitalised word behind the start; notes the batches that it was asked."""

    def __init__(self):
        self.batches = []

    def answers(self, pairs):
        self.batches.append(pairs)
        found = []
        for _, text in pairs:
            word = next((w for w in text.split()[1:] if w[0].isupper()), "")
            start = text.index(word)
            sure = 0.9 if word else 0.0
            found.append(Reading(word, start, start + len(word), 1.0, sure))
        return found


def vectors(texts):
    return np.ones((len(texts), 4), np.float32)


PASSAGES = [
    passage(1, "the report was written by Anna in May", heading="Authors"),
    passage(2, "the bridge was built by Bernd in June"),
    passage(3, "the report is by Anna and nobody else", start=100),
    passage(4, "   "),
]


@pytest.fixture
def asker():
    return Asker(Capitals(), vectors, Words(PASSAGES))


def test_an_answer_has_its_places(asker):
    answered = asker("Who has written the report?")
    best = answered.found[0]
    assert (best.text, len(best.sources), answered.searched) == ("Anna", 2, 3)
    first = best.sources[0]
    assert (first.document, first.name, first.heading) == ("d1", "1.txt", "Authors")
    assert first.passage[first.start : first.end] == "Anna"
    third = best.sources[1]
    assert third.document_start == 100 + third.passage.index("Anna")
    assert 0 < best.confidence < 1


def test_many_questions_are_read_in_one_batch(asker):
    questions = ["who wrote the report?", "who built the bridge?", "nothing shared whatsoever"]
    found = asker.many(questions)
    assert [one.question for one in found] == questions
    assert len(asker.reader.batches) == 1
    assert found[1].found[0].text == "Bernd" and found[2].found == [] and found[2].searched == 0
    alone = [asker(question) for question in questions]
    assert alone == found


def test_k_and_where_reach_the_search(asker):
    asker("who wrote the report?", k=2, where={"team": "a"})
    question, vector, k, where = asker.index.asked[0]
    assert (question, k, where) == ("who wrote the report?", 2, {"team": "a"}) and vector.shape == (4,)
    for k in (0, 51, "3"):
        with pytest.raises(InputError, match="passages a question"):
            asker("who wrote the report?", k=k)


@pytest.mark.parametrize("question", ["", "  \n", "?!", "<b></b>"])
def test_an_empty_question_is_refused(asker, question):
    with pytest.raises(InputError, match="is empty; ask in a sentence"):
        asker(question)


@pytest.mark.parametrize("question", ["who", " Anna? ", "x" * 2_000, None, 3])
def test_a_question_that_cannot_be_one_is_refused(question):
    with pytest.raises(InputError):
        check_question(question)


def test_scripts_without_blanks_may_ask():
    assert check_question(" 東京の人口は? ") == "東京の人口は?"


def test_the_same_in_other_words_is_one_answer():
    a, b, c = passage(1, "The 'Broncos' won"), passage(2, "broncos lost"), passage(3, "the Bears won")
    groups = grouped([read(a, "The 'Broncos'", 0.4), read(b, "broncos", 0.8), read(c, "Bears", 0.5)])
    assert [len(group) for group in groups] == [2, 1]
    found = ranked([one for group in groups for one in group], Calibration())
    assert found[0].text == "broncos" and [s.name for s in found[0].sources] == ["2.txt", "1.txt"]


def test_overlapping_passages_of_a_document_give_one_answer():
    text = "in May 1964 it was founded"
    a, b = passage(1, text, document="d"), passage(2, text[3:], document="d", start=3)
    evidence = [read(a, "in May 1964", 0.8), read(b, "May 1964", 0.7)]
    assert len(grouped(evidence)) == 1
    other = passage(2, text[3:], document="e", start=3)
    assert len(grouped([evidence[0], read(other, "May 1964", 0.7)])) == 2


def test_the_rank_counts_and_the_surest_place_speaks_for_an_answer():
    a, b = passage(1, "by Anna"), passage(2, "by Anna")
    alone = ranked([read(a, "Anna", 0.6)], Calibration())[0].confidence
    low = ranked([read(a, "Anna", 0.6, bm25=9, dense=None)], Calibration())[0].confidence
    both = ranked([read(a, "Anna", 0.6, bm25=9, dense=None), read(b, "Anna", 0.6)], Calibration())
    assert low < alone == both[0].confidence
    assert [source.passage_id for source in both[0].sources] == [2, 1]


def test_under_the_threshold_nothing_is_found():
    evidence = [read(passage(1, "by Anna"), "Anna", 0.1)]
    answered = decide("who did it?", evidence, Calibration())
    assert answered.found == [] and answered.ask_back is None and answered.searched == 1
    assert decide("who did it?", evidence, Calibration(threshold=0.05)).found[0].text == "Anna"


def test_two_close_answers_are_asked_back_with_both_sources():
    a, b = passage(1, "by Anna", heading="2019"), passage(2, "by Bernd")
    close = decide("who did it?", [read(a, "Anna", 0.8), read(b, "Bernd", 0.78)], Calibration())
    assert len(close.found) == 2
    assert close.ask_back == (
        "Two answers are close: “Anna” (1.txt, 2019) or “Bernd” (2.txt). Which one is meant?"
    )
    clear = decide("who did it?", [read(a, "Anna", 0.95), read(b, "Bernd", 0.55)], Calibration())
    assert clear.ask_back is None and len(clear.found) == 2
    unlikely = decide(
        "who did it?", [read(a, "Anna", 0.3), read(b, "Bernd", 0.29)], Calibration(threshold=0.1)
    )
    assert unlikely.ask_back is None and len(unlikely.found) == 2


def test_one_answer_within_the_other_is_not_asked_back():
    a, b = passage(1, "in May 1964"), passage(2, "in 1964 or so, May be")
    answered = decide("when was it?", [read(a, "May 1964", 0.8), read(b, "1964", 0.8)], Calibration())
    assert len(answered.found) == 2 and answered.ask_back is None


def test_two_places_of_one_document_are_told_apart():
    a = passage(1, "Anna wrote it.", document="d", name="d.txt")
    b = passage(2, "Bernd drew it.", document="d", name="d.txt", start=50)
    back = decide("who did it?", [read(a, "Anna", 0.8), read(b, "Bernd", 0.8)], Calibration()).ask_back
    assert "d.txt: Anna wrote it." in back and "d.txt: Bernd drew it." in back


def test_a_calibration_is_held_to_its_form():
    assert calibration_from({"reader": 2, "k": 5}, "here") == Calibration(reader=2, k=5)
    bad = [{"k": 0}, {"k": 2.5}, {"reader": float("nan")}, {"reader": "1"}, {"shift": True}, {"other": 1}]
    for told in [*bad, {"threshold": 1e19}, {"k": 10**400}]:
        with pytest.raises(BundleError, match="here: calibration"):
            calibration_from(told, "here")


def test_keys():
    assert key_of("The Cat's “Hat”.") == key_of("cats hat") == "cats hat"
    assert key_of("ＡＢＣ") == "abc" and key_of("…") == "..." and key_of("a") == "a"
    assert nested("the 1964", "in May 1964") and not nested("196", "1964")


def test_sentences():
    text = "First one. It was by Dr. A. Smith (in 1964)! Then more came.\nAnd a line"
    for word, sentence in (("Smith", "It was by Dr. A. Smith (in 1964)!"), ("line", "And a line"),
                           ("First", "First one."), ("more", "Then more came.")):  # fmt: skip
        start = text.index(word)
        first, last = sentence_around(text, start, start + len(word))
        assert text[first:last] == sentence


texts = st.text(max_size=200)


@settings(max_examples=200, deadline=None)
@given(texts, st.integers(0, 200), st.integers(0, 200))
def test_any_sentence_holds_its_answer(text, start, length):
    start = min(start, len(text))
    end = min(start + length, len(text))
    first, last = sentence_around(text, start, end, most=40)
    assert 0 <= first <= start <= end <= last <= len(text)
    assert last - first <= end - start + 40


readings = st.tuples(
    texts.filter(lambda text: text.strip() != ""),  # passage
    st.integers(0, 199),
    st.integers(0, 60),
    st.floats(0, 1),
    st.one_of(st.none(), st.integers(1, 50)),
    st.one_of(st.none(), st.integers(1, 50)),
    st.sampled_from(["d1", "d2"]),
    st.integers(0, 300),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(readings, max_size=8),
    st.sampled_from([Calibration(), Calibration(threshold=0, rival=0, margin=1)]),
)
def test_whatever_the_reader_says_the_places_hold(rows, calibration):
    evidence = []
    for number, (text, start, length, sure, bm25, dense, document, offset) in enumerate(rows):
        first = min(start, len(text))
        last = min(first + length, len(text))
        place = Passage(number, text, document=document, start=offset)
        evidence.append(Evidence(Hit(place, bm25, dense), Reading(text[first:last], first, last, 0.0, sure)))
    answered = decide("who did it?", evidence, calibration)
    assert answered.searched == len(rows)
    sure = [one.confidence for one in answered.found]
    assert sure == sorted(sure, reverse=True) and all(calibration.threshold <= one <= 1 for one in sure)
    sources = [source for one in answered.found for source in one.sources]
    assert len({source.passage_id for source in sources}) == len(sources)
    for one in answered.found:
        assert (
            one.text.strip() and one.text == one.sources[0].passage[one.sources[0].start : one.sources[0].end]
        )
    for source in sources:
        assert source.sentence_start <= source.start <= source.end <= source.sentence_end
    keys = [key_of(one.text) for one in answered.found]
    assert answered.ask_back is None or len(answered.found) > 1
    assert len(set(keys)) == len(keys)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_question_is_asked_or_refused_in_one_line(question):
    try:
        asked = check_question(question)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert asked == question.strip() != ""

"""The reader: windows, the best span across them, offsets into the passage as it was given."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.errors import EngineError, InputError
from runtimes.tasks import answer
from runtimes.text import Tokenizer

WORDS = ["who", "wrote", "the", "book", "anna", "did", "in", "spring", "##s", "?", "."]
LIMITS = {"max_tokens": 16, "max_chars": 2_000, "max_batch": 8}


def tokenizer(most: int = LIMITS["max_tokens"]) -> Tokenizer:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers, processors

    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    fast = Fast(models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer()
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=pieces
    )
    return Tokenizer(fast, most)


ANNA = 4 + WORDS.index("anna")


class Fake:
    """Sure of the token "anna" and nothing else; `null` is what [CLS] gets."""

    def __init__(self, null=0.0, lengths=None, names=("logits",)):
        self.null, self.lengths, self.names, self.asked = null, lengths, names, []

    def run(self, feeds):
        self.asked.append(feeds)
        ids = feeds["input_ids"]
        logits = np.zeros((*ids.shape, 2), np.float32)
        logits[ids == ANNA] = 5
        logits[:, 0] = self.null / 2
        if self.names == ("logits",):
            return {"logits": logits}
        return dict(zip(self.names, np.moveaxis(logits, -1, 0), strict=True))

    def describe(self):
        return {"engine": "fake"}


def reader(session=None, most=LIMITS["max_tokens"], **about):
    return answer.open(session or Fake(), tokenizer(most), ["start", "end"], LIMITS, about)


def test_the_span_is_the_passages_own_text():
    found = reader()("Who wrote the book?", "In  spring\n Anna  did.")
    assert (found.text, found.start, found.end) == ("Anna", 12, 16)
    assert found.score == 10 and found.confidence == pytest.approx(answer.sigmoid(10))


def test_a_long_passage_is_read_in_windows(monkeypatch):
    monkeypatch.setattr(answer, "STRIDE", 3)
    session = Fake()
    passage = "the book . " * 20 + "anna did"
    found = reader(session)("who wrote ?", passage)
    assert passage[found.start : found.end] == found.text == "anna"
    assert sum(len(feeds["input_ids"]) for feeds in session.asked) > 4
    assert max(feeds["input_ids"].shape[1] for feeds in session.asked) == 16


def test_question_and_passage_have_their_types():
    session = Fake()
    reader(session)("who ?", "anna did")
    assert session.asked[0]["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def test_a_fixed_length_engine_gets_its_lengths():
    session = Fake(lengths=[8, 16])
    assert reader(session)("who ?", "anna did").text == "anna"
    assert session.asked[0]["input_ids"].shape == (1, 8)
    assert session.asked[0]["attention_mask"].sum() == 7


def test_not_here_leads_where_cls_does():
    sure, unsure = reader(Fake(null=2.0))("who ?", "anna"), reader(Fake(null=20.0))("who ?", "anna")
    assert sure.score == 8 and unsure.score == -10
    assert sure.confidence > 0.99 and unsure.confidence < 0.01


def test_the_bundles_calibration_counts():
    plain = reader()("who ?", "anna")
    drawn = reader(calibration={"scale": 0.1, "shift": -1.0})("who ?", "anna")
    assert plain.score == drawn.score and drawn.confidence == pytest.approx(0.5)


def test_both_forms_of_outputs_and_none_other():
    two = reader(Fake(names=("start_logits", "end_logits")))("who ?", "the anna")
    assert two == reader()("who ?", "the anna")
    with pytest.raises(EngineError, match="no reader"):
        reader(Fake(names=("a", "b")))("who ?", "anna")


def test_many_pairs_keep_their_order():
    model = reader()
    passages = ["anna " + "the " * n for n in (5, 1, 9, 3)]
    assert [one.text for one in model.read("who ?", passages)] == ["anna"] * 4
    assert model.read("who ?", []) == []


@pytest.mark.parametrize(("question", "passage"), [("", "x"), (" \n", "x"), ("who", ""), ("who", "\t")])
def test_empty_is_refused(question, passage):
    with pytest.raises(InputError, match="is empty"):
        reader()(question, passage)


def test_a_long_question_leaves_room_for_the_passage(monkeypatch):
    monkeypatch.setattr(answer, "MAX_QUESTION", 4)
    assert reader()("who wrote the book " * 30, "the anna").text == "anna"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=120), st.text(max_size=300))
def test_any_text_gives_offsets_that_hold(question, passage):
    try:
        found = reader()(question, passage)
    except InputError:
        assert not question.strip() or not passage.strip()
        return
    assert found.text == passage[found.start : found.end] and 0 <= found.confidence <= 1


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 10_000))
def test_best_span_is_the_best_of_all(length, most, seed):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(length, 2)).astype(np.float32)
    spans = np.array([[n, n + 1] if random.random() < 0.8 else [-1, -1] for n in range(length)])
    inside = [n for n in range(length) if spans[n, 0] >= 0]
    # Tokens of a passage stand together in a window, so that a place in `inside` is a distance in tokens.
    every = [
        float(logits[inside[a], 0]) + float(logits[inside[b], 1])
        for a in range(len(inside)) for b in range(a, min(len(inside), a + most))
    ]  # fmt: skip
    found = answer.best_span(logits, spans, most)
    assert (found is None) == (not every)
    if found is not None:
        assert found[0] == pytest.approx(max(every)) and found[1] < found[2]

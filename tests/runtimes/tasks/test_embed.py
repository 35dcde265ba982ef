"""The encoder: mean over the tokens, padding left out, length 1; the same as sentence-transformers' rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import EngineError, InputError
from runtimes.tasks import embed
from runtimes.text import Tokenizer

LIMITS = {"max_tokens": 8, "max_chars": 100, "max_batch": 4}


class Fake:
    """A state is (token id, 1): the mean tells which tokens were counted."""

    def __init__(self, lengths=None, name="last_hidden_state"):
        self.lengths, self.name = lengths, name

    def run(self, feeds):
        ids = feeds["input_ids"].astype(np.float32)
        return {self.name: np.stack([ids, np.ones_like(ids)], axis=-1)}

    def describe(self):
        return {"engine": "fake"}


@pytest.fixture
def tokenizer(tiny_base):
    return Tokenizer.from_bytes((tiny_base / "tokenizer.json").read_bytes(), LIMITS["max_tokens"])


def test_padding_does_not_count_and_order_stays(tokenizer):
    texts = ["oil", "oil wheat corn", "wheat"]
    together = embed.open(Fake(), tokenizer, ["embedding"], LIMITS, {})(texts)
    apart = np.stack([embed.open(Fake(lengths=[8]), tokenizer, [], LIMITS, {})(text) for text in texts])
    np.testing.assert_allclose(together, apart, atol=1e-6)
    (ids,) = tokenizer.encode(["oil"])
    assert together[0, 0] / together[0, 1] == pytest.approx(np.mean(ids), rel=1e-5)


def test_what_is_refused(tokenizer):
    model = embed.open(Fake(), tokenizer, [], LIMITS, {})
    for bad in ("", " ", ["oil", ""], 3, [3]):
        with pytest.raises(InputError):
            model(bad)
    with pytest.raises(EngineError, match="it is no encoder"):
        embed.open(Fake(name="logits"), tokenizer, [], LIMITS, {})("oil")
    assert model([]).shape == (0, 0)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_vectors_have_length_one(rows, tokens, seed):
    random = np.random.default_rng(seed)
    states = random.normal(size=(rows, tokens, 5)).astype(np.float32)
    mask = (random.random((rows, tokens)) < 0.7).astype(np.int64)
    mask[:, 0] = 1
    found = embed.pooled(states, mask)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    for row in range(rows):
        mean = states[row][mask[row] == 1].mean(axis=0)
        np.testing.assert_allclose(found[row], mean / np.linalg.norm(mean), atol=1e-5)

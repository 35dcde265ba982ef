"""The embedder against sentence-transformers itself, which is a dependency of the tests alone."""

import os

import numpy as np
import pytest

from runtimes.load import load
from trainers.adopt import adopt_encoder

os.environ.setdefault("USE_TF", "0")

TEXTS = [
    "opec ministers agree to cut crude output", "wheat", "naïve café — 東京 🚀 <b>AT&amp;T</b>",
    "  blanks  around\tand\nlines ", "a text that is longer than what the encoder reads " * 20,
]  # fmt: skip


@pytest.mark.slow
def test_the_same_vectors(tiny_base, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    words = library.models.Transformer(str(tiny_base), max_seq_length=48)
    pooling = library.models.Pooling(words.get_word_embedding_dimension(), pooling_mode="mean")
    theirs = library.SentenceTransformer(modules=[words, pooling, library.models.Normalize()], device="cpu")
    ours = load(adopt_encoder(tiny_base, tmp_path / "encoder", 48, {"name": "tiny"}).path, threads=1)
    np.testing.assert_allclose(ours(TEXTS), theirs.encode(TEXTS), atol=1e-5)

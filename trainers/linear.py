"""A linear reward over TF-IDF: the judge that knows words only, and shares nothing with a neural one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.checkpoint import Checkpoint, open_checkpoint, seal
from trainers.files import read_json, write_json
from trainers.finetune import MAX_BATCH, MAX_CHARS

TASK = "reward-linear"


def train_linear(
    texts: Sequence[str], labels: Sequence[int], out: Path, rejected: Sequence[str] = (), seed: int = 0
) -> Checkpoint:
    """Logistic regression on TF-IDF (words and word pairs): of texts labelled 0 (bad) and 1 (good); or, with
    `rejected`, of pairs whose chosen answers are `texts` (Bradley–Terry on the difference)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    try:
        words.fit([*texts, *rejected])
    except ValueError:
        raise InputError("reward: no word stands in two texts; give more of them") from None
    x: Any = words.transform(texts)
    if rejected:
        difference = x - words.transform(rejected)
        signs = np.where(np.random.default_rng(seed).random(len(texts)) < 0.5, 1, -1)
        x, labels = difference.multiply(signs[:, None]).tocsr(), (signs > 0).astype(int).tolist()
    model = LogisticRegression(max_iter=300, fit_intercept=not rejected, random_state=seed).fit(x, labels)
    with writing(out) as new:
        _save(words, model, new)
        seal(new, _meta(len(texts), seed))
    return open_checkpoint(out)


def _save(words: Any, model: Any, folder: Path) -> None:
    from safetensors.numpy import save_file

    names = sorted(words.vocabulary_, key=lambda word: words.vocabulary_[word])
    write_json(folder / "vocabulary.json", names)
    arrays = {"idf": words.idf_, "weights": model.coef_[0], "bias": np.atleast_1d(model.intercept_)}
    save_file({k: np.asarray(v, np.float64) for k, v in arrays.items()}, folder / "linear.safetensors")


def _meta(rows: int, seed: int) -> dict[str, Any]:
    limits = {"max_tokens": MAX_CHARS, "max_chars": MAX_CHARS, "max_batch": MAX_BATCH}
    step = {"step": "linear", "rows": rows}
    return {"task": TASK, "labels": ["reward"], "limits": limits, "data": {"rows": rows}, "metrics": {},
            "seed": seed, "lineage": [step]}  # fmt: skip


def linear_scores(checkpoint: Checkpoint) -> Callable[[Sequence[Any], Sequence[str]], np.ndarray]:
    """Scores float64 (n,) of answers; a prompt that is plain text is read with its answer."""
    from safetensors.numpy import load_file
    from sklearn.feature_extraction.text import TfidfVectorizer

    names = read_json(checkpoint.path / "vocabulary.json")
    arrays = load_file(checkpoint.path / "linear.safetensors")
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, vocabulary=names)
    words.idf_ = arrays["idf"]

    def score(prompts: Sequence[Any], answers: Sequence[str]) -> np.ndarray:
        texts = [f"{p} {a}" if isinstance(p, str) else a for p, a in zip(prompts, answers, strict=True)]
        found: np.ndarray = words.transform(texts) @ arrays["weights"] + arrays["bias"][0]
        return found

    return score

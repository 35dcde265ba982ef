"""What the gate asks of text generators besides logits: perplexity on held-out text, and greedy agreement."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from runtimes.parity import greedy_agreement
from trainers.texts import Texts, windows

# Perplexity: so many stretches of so many tokens of the test split, each read from an empty cache.
WINDOW, WINDOWS = 512, 16
# Next-token logits are compared on the starts of so many test texts, of so many words.
PROMPTS, WORDS = 48, (6, 32)
# Of these so many are gone on with, by so many tokens.
WRITTEN, TOKENS = 16, 64
GOLDEN_PROMPTS, GOLDEN_TOKENS = 8, 16
PERPLEXITY = "perplexity"


def prompts_of(texts: Sequence[str], most: int) -> list[str]:
    """The starts of texts spread evenly over them, of lengths between WORDS."""
    rows = np.unique(np.linspace(0, len(texts) - 1, min(most, len(texts))).astype(int))
    lengths = np.linspace(*WORDS, len(rows)).astype(int)
    return [" ".join(texts[row].split()[:count]) for row, count in zip(rows, lengths, strict=True)]


def generator_sample(texts: Texts, most: int, model: Any) -> dict[str, Any]:
    """The fields of a `export.gate.Sample`: prompts with the checkpoint's logits, what it writes behind the
    first of them, and its perplexity. At most `most` prompts and stretches."""
    test = texts.splits["test"]
    prompts = prompts_of(test, min(PROMPTS, most))
    length = min(WINDOW, model.limits["max_tokens"])
    rows = windows(test, model.codec, length, min(WINDOWS, most))
    own = perplexity(model, rows)
    judge: Callable[[Any], dict[str, Any]] = lambda variant: perplexity(variant, rows)  # noqa: E731
    return {
        "inputs": prompts,
        "truths": None,
        "outputs": model.outputs(prompts),
        "judged": (own, judge),
        "written": model.continuations(prompts[:WRITTEN], TOKENS),
    }


def perplexity(model: Any, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """exp of the mean negative log-likelihood of each token behind the first of a stretch; `n` tokens.

    No stretch sees another, so it is higher than with a sliding window, for all models alike.
    """
    total, count = 0.0, 0
    for ids in rows:
        found = nll(model.every(ids)[:-1], ids[1:])
        total, count = total + float(found.sum()), count + len(found)
    with np.errstate(over="ignore"):
        return {"name": PERPLEXITY, "value": float(np.exp(total / count)), "n": count}


def nll(logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Float64 (tokens,): -log p of each token by the logits (tokens, vocabulary) before it."""
    wide = logits.astype(np.float64)
    most = wide.max(axis=1)
    told = wide[np.arange(len(wide)), np.asarray(ids)]
    return np.asarray(np.log(np.exp(wide - most[:, None]).sum(axis=1)) + most - told)


def written(model: Any, prompts: Sequence[str], wanted: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Greedy agreement with what the checkpoint wrote behind the first prompts.

    `greedy`: what part of each answer is the same before the first different token, as a mean over prompts;
    `whole`: the share of prompts whose answers are the same to the end.
    """
    longest = max(map(len, wanted))
    got = model.continuations(list(prompts[: len(wanted)]), longest)
    same = [list(one) == list(other)[: len(one)] for one, other in zip(wanted, got, strict=True)]
    return {"greedy": greedy_agreement(wanted, got), "whole": float(np.mean(same)), "tokens": longest}


def rise(metric: dict[str, Any]) -> float:
    """By what part a variant's perplexity is above its checkpoint's; NaN where one is no number."""
    return float(metric["variant"] / metric["checkpoint"] - 1) if metric["checkpoint"] else float("nan")

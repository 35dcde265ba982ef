"""How fast a generator reads and writes: tokens a second of prefill and decode, and time to the first token.

All entries take turns in one run, like the answers; the medians of the rounds are told. No tokenization and
no text are in these times, only the graph and the choice of the best token.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

PROMPT_TOKENS, NEW_TOKENS = 128, 64
ROUNDS, QUICK_ROUNDS = 15, 5
WARMUP = 2


@dataclass(frozen=True)
class Pace:
    """One prompt read and continued: seconds to the first token, and for all that follow it."""

    prompt_tokens: int
    new_tokens: int
    first_s: float
    rest_s: float


def prompt_of(model: Any, texts: list[str]) -> list[int]:
    """PROMPT_TOKENS tokens of these texts, over and over; fewer where the context is too short."""
    ids = [int(number) for row in model.tokens(texts) for number in row]
    wanted = min(PROMPT_TOKENS, max(1, model.limits["max_tokens"] - NEW_TOKENS - 1))
    return (ids * -(-wanted // len(ids)))[:wanted]


def once(model: Any, ids: list[int], clock: Callable[[], float] = time.perf_counter) -> Pace:
    """Read `ids` and go on greedily, over end tokens too."""
    new = min(NEW_TOKENS, model.limits["max_tokens"] - len(ids) - 1)
    cache, row = model.begin(), np.array([ids], np.int64)
    start = clock()
    best = int(cache.forward(row)[0].argmax())
    first = clock()
    for _ in range(new):
        best = int(cache.forward(np.array([[best]], np.int64))[0].argmax())
    return Pace(len(ids), new, first - start, clock() - first)


def paces(
    models: Mapping[str, Any], texts: list[str], quick: bool, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The `generation` block of a row for each model, from rounds in which they take turns."""
    prompts = {name: prompt_of(model, texts) for name, model in models.items()}
    rng = np.random.default_rng(seed)
    found: dict[str, list[Pace]] = {name: [] for name in models}
    for number in range(WARMUP + (QUICK_ROUNDS if quick else ROUNDS)):
        for name in rng.permutation(list(models)):
            told = once(models[name], prompts[name])
            if number >= WARMUP:
                found[name].append(told)
    return {name: _block(rounds) for name, rounds in found.items()}


def _block(rounds: list[Pace]) -> dict[str, Any]:
    first, rest = median(one.first_s for one in rounds), median(one.rest_s for one in rounds)
    return {
        "prompt_tokens": rounds[0].prompt_tokens,
        "new_tokens": rounds[0].new_tokens,
        "prefill_tokens_s": rounds[0].prompt_tokens / first,
        "decode_tokens_s": rounds[0].new_tokens / rest,
        "first_token_ms": first * 1e3,
        "n": len(rounds),
    }


def told(block: dict[str, Any]) -> str:
    """The same as a remark."""
    return (
        f"decode {block['decode_tokens_s']:.1f} tokens/s, prefill {block['prefill_tokens_s']:.0f} tokens/s, "
        f"first token after {block['first_token_ms']:.0f} ms, on {block['prompt_tokens']} tokens"
    )

"""Who answers better: duels of answers, win rates, and win rates at equal length."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
# (prompt's number, score of the first answer, score of the second) -> 1 first, 0 second, 0.5 a tie
Judge = Callable[[int, float, float], float]


def scores_judge(tie: float) -> Judge:
    """A judge that prefers the higher score; within `tie` of each other, it calls a tie."""

    def judge(prompt: int, first: float, second: float) -> float:
        return 0.5 if abs(first - second) <= tie else float(first > second)

    return judge


def duel(judge: Judge, ours: Array, theirs: Array, seed: int = 0) -> Array:
    """Our share of each duel, (prompts,): 1 won, 0.5 a tie, 0 lost. Which answer is shown first is drawn,
    so that a judge who reads both and prefers a place cannot favour a side. `scores_judge` has no place to
    prefer: of it the draw changes nothing."""
    first = np.random.default_rng(seed).random(len(ours)) < 0.5
    shares = np.empty(len(ours))
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        shares[i] = judge(i, a, b) if first[i] else 1 - judge(i, b, a)
    return shares


def duels(judge: Judge, ours: Array, theirs: Array, seed: int = 0) -> Array:
    """`duel` for each seed of (seeds, prompts)."""
    return np.stack([duel(judge, a, b, seed + i) for i, (a, b) in enumerate(zip(ours, theirs, strict=True))])


def at_equal_length(shares: Array, longer: Array) -> float:
    """The win rate that is left where both answers are equally long.

    As in AlpacaEval 2 (Dubois et al., 2024): a logistic regression of the shares on a constant and
    tanh(length difference / its standard deviation), read at difference 0. Its term for how hard a prompt
    is falls away, since both sides answer the same prompts. `longer`: our length minus theirs, in tokens. A
    ridge of 0.01 keeps it finite where every duel is won.
    """
    y, difference = np.ravel(shares), np.ravel(longer)
    spread = difference.std()
    x = np.stack([np.ones_like(y), np.tanh(difference / spread) if spread else np.zeros_like(y)], axis=1)
    weights = np.zeros(2)
    for _ in range(50):
        chance = _sigmoid(x @ weights)
        gradient = x.T @ (y - chance) - 0.01 * weights
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + 0.01 * np.eye(2)
        step = np.clip(np.linalg.solve(curvature, gradient), -2, 2)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return float(_sigmoid(weights[:1])[0])


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))

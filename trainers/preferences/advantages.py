"""What PPO learns from: rewards by token, their advantages over what was expected, and the clipped
objective."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def token_rewards(scores: np.ndarray, drift: list[np.ndarray], kl: float) -> list[np.ndarray]:
    """For each answer, (tokens,): -kl * (log p of the policy - log p of the reference), and the score on the
    last one (Ziegler et al. 2019). `drift` holds the differences."""
    found = [-kl * one for one in drift]
    for rewards, score in zip(found, scores, strict=True):
        rewards[-1] += score
    return found


def gae(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Generalized advantage estimation (Schulman et al. 2016) of one answer: (tokens,).

    A(t) = sum over k of (gamma lam)^k (r(t+k) + gamma V(t+k+1) - V(t+k)); behind the last token V is 0.
    """
    after = np.append(values[1:], 0.0)
    errors = rewards + gamma * after - values
    found = np.zeros_like(errors)
    ahead = 0.0
    for at in range(len(errors) - 1, -1, -1):
        ahead = errors[at] + gamma * lam * ahead
        found[at] = ahead
    return found


def whitened(values: np.ndarray) -> np.ndarray:
    """Shifted to mean 0, scaled to a standard deviation of 1 (left at its scale where all are equal)."""
    spread = float(values.std())
    return (values - values.mean()) / (spread if spread > 1e-8 else 1.0)


def clipped_policy_loss(
    logprobs: "torch.Tensor", old: "torch.Tensor", advantages: "torch.Tensor", clip: float
) -> "torch.Tensor":
    """-min(r A, clip(r, 1 - clip, 1 + clip) A) by token, r = p / old p: equation 7 of Schulman et al.
    2017."""
    import torch

    ratio = (logprobs - old).exp()
    return torch.maximum(-ratio * advantages, -ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped_value_loss(
    values: "torch.Tensor", old: "torch.Tensor", returns: "torch.Tensor", clip: float
) -> "torch.Tensor":
    """Half the squared error by token; no gain from going further than `clip` from the old value."""
    import torch

    held = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (held - returns) ** 2)


def next_kl(kl: float, measured: float, target: float, share: float) -> float:
    """The adaptive coefficient (Ziegler et al. 2019): up where the policy drifted further than `target` nats
    an answer, else down, by at most 20% times `share`. A target of 0 keeps it as it is."""
    if not target:
        return kl
    return kl * (1 + float(np.clip(measured / target - 1, -0.2, 0.2)) * share)

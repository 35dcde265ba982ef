"""A language model that answers prompts: a checkpoint, a base model, or a policy in the midst of its training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from apps.language.align.config import AlignConfig
from apps.language.align.evaluation import Answer, sample
from trainers.conversations import Prompt
from trainers.generator import end_tokens, open_generator
from trainers.policy import Policy
from trainers.rendering import Renderer

CPU_BATCH = 16  # more buys no speed there


class Speaker:
    """`ids` and the answers are by the folder's own tokenizer and chat template."""

    def __init__(self, path: Path, config: AlignConfig, model: Any = None) -> None:
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = open_generator(path).to(self.device) if model is None else model
        self.ends = end_tokens(self.model)
        self.renderer = Renderer(path, self.ends[0])

    def ids(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        return self.renderer.prompts(prompts)

    def __call__(self, prompts: Sequence[Prompt], seed: int) -> list[Answer]:
        """One sampled answer to each prompt."""
        how = self.config.evaluation
        batch = how.batch if self.device == "cuda" else min(how.batch, CPU_BATCH)
        return sample(
            self.model, self.renderer.decode, self.ids(prompts), self.ends, self.ends[0],
            self.config.answer_tokens, batch, seed, how.temperature,
        )  # fmt: skip


@contextmanager
def speaking(policy: Policy) -> Iterator[Any]:
    """The policy's model, fit to generate: with a cache, and masks for what is padded on the left."""
    model, config = policy.model, policy.model.config
    kept, training, how = config._attn_implementation, model.training, model.generation_config
    config._attn_implementation, config.use_cache = "sdpa", True
    model.eval()
    try:
        with policy.autocast():
            yield model
    finally:
        config._attn_implementation, config.use_cache = kept, False
        model.generation_config = how
        model.train(training)

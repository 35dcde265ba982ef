"""A language model that answers prompts: a checkpoint, a base model, or a policy while it is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from apps.language.align.config import AlignConfig
from apps.language.align.evaluation import Answer
from trainers.conversations import Prompt
from trainers.generator import end_tokens, open_generator
from trainers.rendering import Renderer
from trainers.rollouts import sample

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
        most = self.config.answer_tokens
        found = sample(self.model, self.ids(prompts), most, self.ends, how.temperature, seed, batch)
        return [Answer(self.renderer.decode(ids), ids, ids[-1] in self.ends) for ids in found]

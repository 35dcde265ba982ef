"""A detector as what the exporters trace: one window of numbers in, what was expected out."""

import json
from pathlib import Path
from typing import Any

from runtimes.bundle import NUMBERS


def is_detector(checkpoint: Path) -> bool:
    """Whether a checkpoint reads windows of numbers, not texts."""
    return bool(json.loads((checkpoint / "checkpoint.json").read_bytes())["task"] == NUMBERS)


def graph_of(checkpoint: Path) -> tuple[Any, Any]:
    """The model as a module `values` (batch, window) → `expected` (batch, window + patch), and a sample of
    batch 1: noise by a fixed seed, so that no tracer takes it for a constant."""
    import torch

    from runtimes.engines.torch import head_of

    opener, outputs = head_of(checkpoint)
    window = json.loads((checkpoint / "checkpoint.json").read_bytes())["limits"]["window"]

    class Expecting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = opener.from_pretrained(checkpoint, local_files_only=True)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.model(values=values)[outputs[0]]  # type: ignore[no-any-return]

    sample = torch.randn(1, window, generator=torch.Generator().manual_seed(0))
    return Expecting().eval(), sample

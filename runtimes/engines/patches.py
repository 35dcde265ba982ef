"""The detector's network in PyTorch: a linear subspace, and a small Transformer over patches beside it.

`PatchDetector` is what `from_pretrained` opens. Of depth 0 it is Sub-PCA with a linear forecast; above, the
Transformer adds what a line cannot say. Plain operators with fixed shapes apart from the batch.
"""

# isort: off
from typing import Any

import runtimes.engines.torch  # noqa: F401  first: it quiets what transformers' import would tell
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

# isort: on
ARCHITECTURE = "PatchDetector"


class PatchConfig(PretrainedConfig):
    """`bottleneck`: numbers through which a window must pass to be rebuilt; `depth` 0: no Transformer.

    `inner`: neurons of each layer's feed-forward, twice the width where it is not said; 0: it has none.
    """

    model_type = "patch-detector"

    def __init__(
        self, window: int = 64, patch: int = 8, width: int = 32, depth: int = 2, heads: int = 4,
        bottleneck: int = 8, inner: list[int] | None = None, **rest: Any,
    ) -> None:  # fmt: skip
        self.window, self.patch, self.width, self.depth = window, patch, width, depth
        self.heads, self.bottleneck = heads, bottleneck
        self.inner = [2 * width] * depth if inner is None else inner
        super().__init__(**rest)


class Layer(nn.Module):
    """Attention and a feed-forward of `inner` neurons, each after a norm and beside a way around."""

    def __init__(self, width: int, heads: int, tokens: int, inner: int) -> None:
        super().__init__()
        self.heads, self.tokens, self.width = heads, tokens, width
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.inner = inner
        if inner:
            self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        read = self.before(states)
        query, key, value = (self._split(part(read)) for part in (self.query, self.key, self.value))
        scores = torch.matmul(query * (self.width // self.heads) ** -0.5, key.transpose(-1, -2))
        mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
        states = states + self.out(mixed.transpose(1, 2).reshape(-1, self.tokens, self.width))
        if not self.inner:
            return states
        return states + self.down(torch.relu(self.up(self.between(states))))

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        return states.reshape(-1, self.tokens, self.heads, self.width // self.heads).transpose(1, 2)


class PatchDetector(PreTrainedModel):
    """values (batch, window), normalised, → `expected` (batch, window + patch): the window again, and on."""

    config_class = PatchConfig
    main_input_name = "values"

    def __init__(self, config: PatchConfig) -> None:
        super().__init__(config)
        window, patch, narrow = config.window, config.patch, config.bottleneck
        self.into, self.again = nn.Linear(window, narrow), nn.Linear(narrow, window)
        self.on = nn.Linear(window, patch)
        self.tokens = window // patch
        if config.depth:
            self.embed = nn.Linear(patch, config.width)
            self.places = nn.Parameter(torch.zeros(1, self.tokens, config.width))
            self.layers = nn.ModuleList(
                Layer(config.width, config.heads, self.tokens, inner) for inner in config.inner
            )
            self.norm = nn.LayerNorm(config.width)
            self.squeeze = nn.Linear(self.tokens * config.width, narrow)
            self.rebuild = nn.Linear(narrow, window)
            self.further = nn.Linear(self.tokens * config.width, patch)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """torch's own initial values stay; `trainers.detector` sets the linear part."""

    def forward(self, values: torch.Tensor, **_: Any) -> ModelOutput:
        return ModelOutput(expected=self.expect(values, values))

    def expect(self, values: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """What is expected where the line has `values` and the Transformer `read`, both (batch, window): they
        differ in training, where the Transformer must do without some patches."""
        again, on = self.again(self.into(values)), self.on(values)
        if self.config.depth:
            states = self.embed(read.reshape(-1, self.tokens, self.config.patch)) + self.places
            for layer in self.layers:
                states = layer(states)
            flat = self.norm(states).reshape(-1, self.tokens * self.config.width)
            again = again + self.rebuild(torch.relu(self.squeeze(flat)))
            on = on + self.further(flat)
        return torch.cat([again, on], dim=1)

"""A decoder checkpoint in PyTorch eager fp32 with its own KV cache: the reference on the server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.engines import torch as eager
from runtimes.errors import EngineError

torch = eager.torch


class TorchDecoder:
    """A causal language model as `from_pretrained` opens it; `begin` gives the cache of one text."""

    def __init__(self, model: Any, threads: int) -> None:
        self.model = model
        self.threads = threads

    def begin(self) -> "TorchCache":
        """The empty cache of one text."""
        return TorchCache(self, [[]])

    def join(self, caches: Sequence["TorchCache"]) -> "TorchCache":
        """One cache of as many rows: their tokens, padded on the left, are read again."""
        return TorchCache(self, [row for cache in caches for row in cache.rows])

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "torch",
            "engine_version": torch.__version__,
            "threads": self.threads,
            "providers": ["eager"],
            "cache": "grown",
            "cache_bytes_per_token": bytes_per_token(self.model.config),
        }


class TorchCache:
    """transformers' cache of some rows, and the tokens that it holds."""

    def __init__(self, decoder: TorchDecoder, rows: list[list[int]]) -> None:
        self.rows = [list(row) for row in rows]
        self._decoder = decoder
        self._values: Any = None
        longest = max(map(len, rows))
        self._pads = torch.tensor([longest - len(row) for row in rows])
        self._total = 0
        if longest:
            self._run(np.array([[0] * (longest - len(row)) + row for row in rows], np.int64))

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(row) for row in self.rows])

    def forward(self, ids: np.ndarray, every: bool = False) -> np.ndarray:
        """int64 (rows, n) → float32 logits of the last position (rows, vocabulary), or of `every` one
        (rows, n, vocabulary)."""
        for row, new in zip(self.rows, ids.tolist(), strict=True):
            row.extend(new)
        logits = self._run(ids)
        return logits if every else logits[:, -1]

    def _run(self, ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), eager.threads_of(self._decoder.threads):
            places = torch.arange(self._total + ids.shape[1])
            answer = self._decoder.model(
                input_ids=torch.from_numpy(np.ascontiguousarray(ids)),
                attention_mask=(places >= self._pads[:, None]).long(),
                position_ids=(places[self._total :] - self._pads[:, None]).clamp(min=0),
                past_key_values=self._values,
                use_cache=True,
            )
        self._values = answer.past_key_values
        self._total += ids.shape[1]
        return np.asarray(answer.logits.float().numpy())

    def rewind(self, length: int) -> None:
        """Forget all tokens behind the first `length`; of one row only."""
        if length < self._total:
            self.rows = [row[:length] for row in self.rows]
            self._values.crop(length)
            self._total = length

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these."""
        self.rows = [self.rows[row] for row in rows]
        self._pads = self._pads[list(rows)]
        self._values.batch_select_indices(torch.tensor(list(rows)))


def bytes_per_token(config: Any) -> int:
    """What the fp32 cache takes for each token."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * 4)


def open(
    source: Path | bytes,
    threads: int,
    variant: dict[str, Any],
    providers: Sequence[str] = (),
    allow_fallback: bool = False,
) -> TorchDecoder:
    """Open a checkpoint folder. `threads` holds while it runs, not for the rest of the process."""
    import transformers

    if not isinstance(source, Path):
        raise EngineError("torch opens checkpoint folders only")
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, local_files_only=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{source}: not a checkpoint: {str(error).splitlines()[0]}") from None
    return TorchDecoder(model.eval(), threads)

"""PyTorch eager in fp32: the reference on the server, never on the device."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("USE_TF", "0")
for _name in ("torchao", "torch.utils._pytree"):  # they report on builds that nobody asked for
    logging.getLogger(_name).setLevel(logging.ERROR)

import numpy as np  # noqa: E402
import torch  # noqa: E402

from runtimes.errors import EngineError  # noqa: E402


class TorchSession:
    """A checkpoint as `from_pretrained` opens it."""

    lengths = None

    def __init__(self, model: torch.nn.Module, threads: int) -> None:
        self._model = model
        self._threads = threads

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(feeds[name]) for name in ("input_ids", "attention_mask")}
            return {"logits": self._model(**inputs).logits.float().numpy()}

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "torch",
            "engine_version": torch.__version__,
            "threads": self._threads,
            "providers": ["eager"],
        }


def open(
    source: Path | bytes,
    threads: int,
    variant: dict[str, Any],
    providers: Sequence[str] = (),
    allow_fallback: bool = False,
) -> TorchSession:
    """Open a checkpoint folder. `threads` holds for the whole process: torch has one pool."""
    from transformers import AutoModelForSequenceClassification

    if not isinstance(source, Path):
        raise EngineError("torch opens checkpoint folders only")
    torch.set_num_threads(threads)
    try:
        model = AutoModelForSequenceClassification.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{source}: not a checkpoint: {str(error).splitlines()[0]}") from None
    return TorchSession(model.eval().float(), threads)

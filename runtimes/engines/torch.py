"""PyTorch eager in fp32: the reference on the server, never on the device."""

import inspect
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("USE_TF", "0")
for _name in ("torchao", "torch.utils._pytree"):  # they report on builds that nobody asked for
    logging.getLogger(_name).setLevel(logging.ERROR)

import numpy as np  # noqa: E402
import torch  # noqa: E402

from runtimes.errors import EngineError  # noqa: E402

# What the name of an architecture ends in → transformers' class that opens it, and what it answers.
HEADS = {
    "ForSequenceClassification": ("AutoModelForSequenceClassification", ("logits",)),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering", ("start_logits", "end_logits")),
    "Model": ("AutoModel", ("last_hidden_state",)),
}
# Architectures of our own, which transformers does not know: module → what its classes answer.
OURS: dict[str, tuple[str, tuple[str, ...]]] = {"PatchDetector": ("runtimes.engines.patches", ("expected",))}


def head_of(folder: Path) -> tuple[Any, tuple[str, ...]]:
    """transformers' class (or our own) for a checkpoint folder, by its config.json, and its outputs' names.

    Raises ValueError for an architecture that no task here has.
    """
    import transformers

    names = json.loads((folder / "config.json").read_bytes()).get("architectures") or [""]
    if names[0] in OURS:
        module, answers = OURS[names[0]]
        return getattr(import_module(module), names[0]), answers
    for suffix, (name, outputs) in HEADS.items():
        if str(names[0]).endswith(suffix):
            return getattr(transformers, name), outputs
    raise ValueError(f"architecture {names[0] or 'unknown'}: no {', '.join(HEADS)}")


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """So many threads in here. torch has one pool for the process, and a training's result depends on it."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchSession:
    """A checkpoint as `from_pretrained` opens it."""

    lengths: list[int] | None = None

    def __init__(self, model: torch.nn.Module, threads: int, outputs: Sequence[str] = ("logits",)) -> None:
        self._model = model
        self._threads = threads
        self._outputs = outputs
        self._inputs = inspect.signature(model.forward).parameters

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode(), threads_of(self._threads):
            inputs = {name: torch.from_numpy(feeds[name]) for name in feeds if name in self._inputs}
            answer = self._model(**inputs)
            return {name: answer[name].float().numpy() for name in self._outputs}

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
    """Open a checkpoint folder. `threads` holds while it runs, not for the rest of the process."""
    if not isinstance(source, Path):
        raise EngineError("torch opens checkpoint folders only")
    try:
        opener, outputs = head_of(source)
        model = opener.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{source}: not a checkpoint: {str(error).splitlines()[0]}") from None
    return TorchSession(model.eval().float(), threads, outputs)

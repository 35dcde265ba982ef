"""ExecuTorch, PyTorch's runtime for devices: a .pte through the XNNPACK delegate.

Its Python package brings torch (it takes and gives tensors) and pins that fit no common environment. Where
it is not installed beside edgewise, a child process of its own environment runs it (`elsewhere`).
"""

import mmap
import threading
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.engines import INSTALL
from runtimes.engines.elsewhere import ElsewhereSession, open_elsewhere
from runtimes.errors import EngineError

DELEGATE = "XnnpackBackend"


class ExecuTorchSession:
    """A program with one method `forward`: batch 1, any length up to the one it was planned for."""

    lengths = None

    def __init__(self, program: Any, threads: int, delegated: bool, variant: dict[str, Any]) -> None:
        self._program = program  # owns the bytes that the method reads
        self._method = program.load_method("forward")
        self._threads = threads
        self._delegated = delegated
        self._inputs: list[str] = list(variant["inputs"])
        self._output = str(variant["output"])
        self._max_tokens = int(variant["max_tokens"])
        self._lock = threading.Lock()  # a method owns one set of buffers

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            rows = [self._row(feeds, row) for row in range(len(feeds["input_ids"]))]
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
            raise EngineError(f"ExecuTorch cannot run the graph: {_first_line(error)}") from None
        return {self._output: np.concatenate(rows)}

    def _row(self, feeds: dict[str, np.ndarray], row: int) -> np.ndarray:
        """One text at its own length: what stands behind the last token of the mask is not computed."""
        import torch

        length = int(np.flatnonzero(feeds["attention_mask"][row]).max(initial=1)) + 1
        if length > self._max_tokens:
            raise ValueError(f"{length} tokens, but it was exported for at most {self._max_tokens}")
        inputs = [
            torch.from_numpy(np.ascontiguousarray(feeds[name][row : row + 1, :length], np.int64))
            for name in self._inputs
        ]
        with self._lock:
            (answer,) = self._method.execute(inputs)
        return answer.numpy()

    def describe(self) -> dict[str, Any]:
        from importlib.metadata import version

        return {
            "engine": "executorch",
            "engine_version": version("executorch"),
            "threads": self._threads,
            "providers": ["XNNPACK"] if self._delegated else [],
        }


def open(
    source: Path | bytes,
    threads: int,
    variant: dict[str, Any],
    providers: Sequence[str] = ("XNNPACK",),
    allow_fallback: bool = False,
) -> ExecuTorchSession | ElsewhereSession:
    """Open a .pte: here where executorch is installed, else in its own environment. Raises EngineError."""
    how = {"threads": threads, "variant": variant, "providers": providers, "allow_fallback": allow_fallback}
    if find_spec("executorch") is None:
        check_program(source, variant["file"])  # what is damaged costs no child
        return open_elsewhere("executorch", source, how)
    return open_here(source, **how)  # type: ignore[arg-type]


def open_here(
    source: Path | bytes,
    threads: int,
    variant: dict[str, Any],
    providers: Sequence[str] = ("XNNPACK",),
    allow_fallback: bool = False,
) -> ExecuTorchSession:
    """Open a .pte in this process. `threads` holds for the whole process: ExecuTorch has one pool.

    Raises EngineError where it cannot be opened or is not delegated to XNNPACK.
    """
    delegated = check_program(source, variant["file"])
    unknown = [provider for provider in providers if provider != "XNNPACK"]
    if unknown and not allow_fallback:
        raise EngineError(f"ExecuTorch has no {', '.join(unknown)} here, only XNNPACK; allow the fallback")
    if not delegated and not allow_fallback:
        raise EngineError(f"{variant['file']} is not lowered to XNNPACK, so slow; allow the fallback")
    try:
        runtime, pool, verification = _runtime()
        if pool._threadpool_get_thread_count() != threads:
            pool._unsafe_reset_threadpool(threads)
        program = runtime.load_program(source, verification=verification)
        return ExecuTorchSession(program, threads, delegated, variant)
    except ImportError as error:
        raise EngineError(
            f"engine 'executorch' cannot be imported ({_first_line(error)}); {INSTALL['executorch']}"
        ) from None
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"ExecuTorch cannot open {variant['file']}: {_first_line(error)}") from None


def _runtime() -> tuple[Any, Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells at each import that its Python interface may change
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime, Verification

        return Runtime.get(), portable_lib, Verification.InternalConsistency


def check_program(source: Path | bytes, name: str) -> bool:
    """Whether the program calls XNNPACK. Raises EngineError where the header does not fit the file.

    The header (executorch `schema/extended_header.h`): a flatbuffer's root offset and identifier `ET12`, then
    `eh00`, its own size (u32), the program's size, the offset and the size of the segments behind it (u64).
    The runtime verifies the flatbuffer, not that the weights behind it are there.
    """
    if isinstance(source, bytes):
        return _check(source, len(source), name)
    size = source.stat().st_size
    if not size:
        raise EngineError(f"{name}: empty, so no ExecuTorch program; copy it again")
    with source.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _check(data, size, name)


def _check(data: "bytes | mmap.mmap", size: int, name: str) -> bool:
    if size < 40 or data[4:6] != b"ET" or data[8:12] != b"eh00":
        raise EngineError(f"{name}: no ExecuTorch program (.pte); export it again")
    header, program, base, segments = (
        int.from_bytes(data[at : at + width], "little") for at, width in ((12, 4), (16, 8), (24, 8), (32, 8))
    )
    needed = max(program, base + (segments if header >= 32 else 0))
    if size < needed:
        raise EngineError(f"{name}: cut short ({size} of {needed} bytes); copy it again")
    return data.find(DELEGATE.encode(), 0, program) >= 0


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

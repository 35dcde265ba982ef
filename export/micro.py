"""An all-integer detector in TensorFlow Lite Micro's own interpreter: what it answers, and its arena.

The Python package `tflite-micro` (nightly builds, in the extra `dev`) holds the interpreter and the reference
kernels that firmware links in. Its structures have 64-bit pointers here, so a 32-bit chip needs less.
"""

import os
import re
import tempfile
from importlib.util import find_spec
from typing import Any

import numpy as np

from export.windows import border_of
from runtimes.errors import InputError

LARGE = 1 << 20  # bytes; what is really taken is recorded
_TAKEN = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")


def installed() -> bool:
    """Whether the interpreter is here."""
    return find_spec("tflite_micro") is not None


def run_micro(model: str, inputs_at: str, outputs_at: str) -> dict[str, int]:
    """Answer the windows in a .npy, float32 (n, window), into another, (n, window + patch).

    Returns bytes of the arena: `total`, of which `head` (tensors and scratch memory, used over and over) and
    `tail` (structures that stay). Runs through `in_child`. Raises InputError where the package is missing.
    """
    if not installed():
        raise InputError("tflite-micro is not installed; pip install 'edgewise[dev]'")
    from tflite_micro.python.tflite_micro import runtime

    border, rows = border_of(model), np.load(inputs_at, allow_pickle=False)
    (into, zero_in), (out, zero_out) = border["input"], border["output"]
    interpreter = runtime.Interpreter.from_file(model, arena_size=LARGE)
    found = []
    for row in np.clip(np.rint(rows / np.float32(into)) + zero_in, -128, 127).astype(np.int8):
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        found.append((interpreter.get_output(0)[0].astype(np.float32) - zero_out) * np.float32(out))
    np.save(outputs_at, np.stack(found))
    return {name: int(size) for name, size in _TAKEN.findall(_told(interpreter))}


def _told(interpreter: Any) -> str:
    """What it prints of its allocations, which it does from C++."""
    with tempfile.TemporaryFile() as log:
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            interpreter.print_allocations()
        finally:
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)
        log.seek(0)
        return log.read().decode(errors="replace")

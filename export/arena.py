"""How much memory a .tflite needs for its tensors on a device that gives them one block: the arena.

LiteRT does not tell. It is computed from the file as TensorFlow Lite Micro's GreedyMemoryPlanner places
buffers (tensorflow/lite/micro/memory_planner/greedy_memory_planner.cc): each tensor that is no constant lives
from the operator that writes it (inputs: from the start) to the last that reads it (outputs: to the end);
from the largest to the smallest each goes to the lowest place where it overlaps none that lives when it does.
Beside these tensors TFLite Micro keeps structures of its own in the arena, and some kernels ask for scratch
memory: their size depends on the kernels that are linked in, so it is not in this figure.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT = 16  # bytes, as in TFLite Micro
_ITEM = {"FLOAT32": 4, "INT32": 4, "INT64": 8, "INT16": 2, "FLOAT16": 2}  # the others take one byte


@dataclass(frozen=True)
class Buffer:
    """`size` in bytes; alive from operator `first` to operator `last`, both included."""

    size: int
    first: int
    last: int


def buffers_of(model: Path) -> list[Buffer]:
    """The tensors of the first graph of a .tflite that need a place, rounded up to ALIGNMENT."""
    from ai_edge_litert.tools import flatbuffer_utils

    read = flatbuffer_utils.read_model(str(model))
    graph = read.subgraphs[0]
    born = {int(index): 0 for index in graph.inputs}
    died = dict(born)
    for step, operator in enumerate(graph.operators):
        for index in map(int, operator.outputs):
            born.setdefault(index, step)
            died[index] = step
        for index in (int(one) for one in operator.inputs if one in born):
            died[index] = step
    died |= {int(index): len(graph.operators) - 1 for index in graph.outputs}
    return [Buffer(_bytes(graph.tensors[index]), born[index], died[index]) for index in born]


def _bytes(tensor: Any) -> int:
    from ai_edge_litert.tools import flatbuffer_utils

    item = _ITEM.get(flatbuffer_utils.type_to_name(tensor.type), 1)
    size = int(np.prod(np.asarray(tensor.shape if tensor.shape is not None else [1]))) * item
    return -(-size // ALIGNMENT) * ALIGNMENT


def arena_bytes(buffers: list[Buffer]) -> int:
    """Bytes of the block that holds all of them, greedy by size."""
    placed: list[tuple[int, Buffer]] = []
    for one in sorted(buffers, key=lambda buffer: -buffer.size):
        place = 0
        for start, other in sorted(placed, key=lambda pair: pair[0]):
            if other.first > one.last or other.last < one.first:
                continue
            if start - place >= one.size:
                break
            place = max(place, start + other.size)
        placed.append((place, one))
    return max((start + one.size for start, one in placed), default=0)


def least_bytes(buffers: list[Buffer]) -> int:
    """What no placement could do without: the most that lives at one operator."""
    steps = {step for one in buffers for step in (one.first, one.last)}
    return max((sum(b.size for b in buffers if b.first <= step <= b.last) for step in steps), default=0)


def operators_of(model: Path) -> dict[str, int]:
    """Operator → how often it stands in the first graph: what firmware must link in."""
    from ai_edge_litert.tools import flatbuffer_utils

    read = flatbuffer_utils.read_model(str(model))
    names = [flatbuffer_utils.opcode_to_name(read, one.opcodeIndex) for one in read.subgraphs[0].operators]
    return dict(Counter(sorted(names)))


def about_arena(model: str) -> dict[str, Any]:
    """Of a .tflite: `arena` and `least` in bytes, `tensors`, and `operators`. Runs through `in_child`."""
    buffers = buffers_of(Path(model))
    return {
        "arena": arena_bytes(buffers),
        "least": least_bytes(buffers),
        "tensors": len(buffers),
        "operators": operators_of(Path(model)),
    }

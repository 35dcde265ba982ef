"""Make one variant from a checkpoint or from the variant it is quantized from; open it again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.child import in_child
from compress.quantize import onnx_dynamic_int8, tflite_dynamic_wi8_afp32
from export.executorch import interpreter, to_executorch
from export.litert import to_tflite
from export.onnx import to_onnx
from export.variant import KNOWN, Variant
from runtimes.errors import InputError
from runtimes.files import writing

_QUANTIZE = {"onnx-int8": onnx_dynamic_int8, "tflite-dynamic_wi8_afp32": tflite_dynamic_wi8_afp32}


def export_variant(
    name: str, checkpoint: Path, parent: Path | None, lengths: Sequence[int], out: Path
) -> Variant:
    """Write the variant as folder `out` (the graph, and `details.json`); `parent` is such a folder.

    Raises InputError for an unknown name, or with the converter's last line where it fails.
    """
    if name not in KNOWN:
        raise InputError(f"variant {name!r} is not one of {', '.join(KNOWN)}")
    with writing(out) as folder:
        target = str((folder / KNOWN[name][3]).resolve())
        details = _make(name, checkpoint, parent, list(lengths), target)
        (folder / "details.json").write_text(json.dumps(details, indent=1) + "\n")
    return open_variant(name, out)


def open_variant(name: str, folder: Path) -> Variant:
    """A variant that `export_variant` wrote."""
    return Variant(name, folder / KNOWN[name][3], json.loads((folder / "details.json").read_bytes()))


def _make(
    name: str, checkpoint: Path, parent: Path | None, lengths: list[int], target: str
) -> dict[str, Any]:
    source = KNOWN[name][2]
    if source is not None:
        if parent is None:
            raise InputError(f"variant {name} is quantized from {source}; make that first")
        before = open_variant(source, parent)
        in_child(_QUANTIZE[name], source=str(before.path.resolve()), target=target)
        return before.details
    if KNOWN[name][0] == "litert":
        details: dict[str, Any] = in_child(
            to_tflite, checkpoint=str(checkpoint.resolve()), target=target, lengths=lengths
        )
        return details
    if KNOWN[name][0] == "executorch":
        return in_child(
            to_executorch,
            python=interpreter(),
            checkpoint=str(checkpoint.resolve()),
            target=target,
            most=lengths[-1],
            precision=KNOWN[name][1],
        )
    in_child(to_onnx, checkpoint=str(checkpoint.resolve()), target=target)
    return {}

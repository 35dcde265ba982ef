"""Make one variant from a checkpoint or from the variant it is quantized from; open it again."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compress import decoder, mixed, mixed_tflite, quantize, quantize_tflite, static, static_tflite
from compress.calibrate import Calibration, write_rows
from compress.child import in_child
from export.executorch import interpreter, to_executorch
from export.header import write_header
from export.litert import to_tflite
from export.onnx import to_onnx
from export.variant import CALIBRATED, FITTED, GENERATING, KNOWN, Variant, about
from export.windows import border_of, is_detector
from runtimes.errors import InputError
from runtimes.files import writing

# source, target (and rows, where calibrated) → None, or details to add.
_QUANTIZE: dict[str, Callable[..., dict[str, Any] | None]] = {
    "onnx-int8": quantize.onnx_dynamic_int8,
    "onnx-fp16": quantize.onnx_fp16,
    "onnx-wi8": quantize.onnx_wi8,
    "onnx-int4": quantize.onnx_int4,
    "tflite-dynamic_wi8_afp32": quantize_tflite.tflite_dynamic_wi8_afp32,
    "tflite-fp16": quantize_tflite.tflite_fp16,
    "tflite-weight_only_wi8_afp32": quantize_tflite.tflite_weight_only_wi8_afp32,
    "tflite-dynamic_wi4_afp32": quantize_tflite.tflite_dynamic_wi4_afp32,
    "onnx-static_int8": static.onnx_static_int8,
    "onnx-mixed": mixed.onnx_mixed,
    "tflite-static_wi8_ai8": static_tflite.tflite_static_wi8_ai8,
    "tflite-full_int8": static_tflite.tflite_full_int8,
    "tflite-mixed": mixed_tflite.tflite_mixed,
}
_OF_DECODERS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "onnx-int8": decoder.onnx_decoder_int8,
    "onnx-int4": decoder.onnx_decoder_int4,
}


def export_variant(
    name: str,
    checkpoint: Path,
    parent: Path | None,
    lengths: Sequence[int],
    out: Path,
    calibration: Calibration | None = None,
) -> Variant:
    """Write the variant as folder `out` (the graph, and `details.json`); `parent` is such a folder.

    `calibration` is needed by the variants in CALIBRATED alone. Raises InputError for an unknown name, for
    calibration rows that are missing or no use, or with the converter's last line where it fails.
    """
    if name not in KNOWN:
        raise InputError(f"variant {name!r} is not one of {', '.join(KNOWN)}")
    if name in CALIBRATED and calibration is None:
        raise InputError(
            f"variant {name} needs calibration rows: give the data that the model was trained on"
        )
    with writing(out) as folder:
        target = str((folder / KNOWN[name][3]).resolve())
        details = _make(name, checkpoint, parent, list(lengths), target, calibration)
        (folder / "details.json").write_text(json.dumps(details, indent=1) + "\n")
    return open_variant(name, out)


def open_variant(name: str, folder: Path) -> Variant:
    """A variant that `export_variant` wrote."""
    return Variant(name, folder / about(name)[3], json.loads((folder / "details.json").read_bytes()))


def _make(
    name: str,
    checkpoint: Path,
    parent: Path | None,
    lengths: list[int],
    target: str,
    calibration: Calibration | None,
) -> dict[str, Any]:
    source = KNOWN[name][2]
    if name == "onnx-fp32":
        return dict(in_child(to_onnx, checkpoint=str(checkpoint.resolve()), target=target))
    if name == "tflite-fp32":
        return _to_tflite(checkpoint, target, lengths)
    if KNOWN[name][0] == "executorch":
        return in_child(
            to_executorch,
            python=interpreter(),
            checkpoint=str(checkpoint.resolve()),
            target=target,
            most=lengths[-1],
            precision=KNOWN[name][1],
        )
    with TemporaryDirectory(prefix="edgewise-") as folder:
        if source is None:  # the all-integer graph has one length, and a mask that int8 can hold
            graph = Path(folder) / "model.tflite"
            before = _to_tflite(checkpoint, str(graph), lengths[-1:], masked=static_tflite.MASKED)
        elif parent is None:
            raise InputError(f"variant {name} is quantized from {source}; make that first")
        else:
            graph, before = parent / KNOWN[source][3], open_variant(source, parent).details
        make, rows = _quantizer(name, before), {}
        if calibration is not None and name in (FITTED if "cache" in before else CALIBRATED):
            rows["rows"] = str(write_rows(calibration, checkpoint, Path(folder) / "rows.npz"))
        more = in_child(make, source=str(graph.resolve()), target=target, **rows)
    if name == "tflite-full_int8":
        detector = is_detector(checkpoint)
        write_header(Path(target), in_child(border_of, model=target) if detector else None)
    return {**before, **(more or {})}


def _quantizer(name: str, before: dict[str, Any]) -> Callable[..., dict[str, Any] | None]:
    """Raises InputError for what cannot be made of a decoder."""
    if "cache" not in before:
        return _QUANTIZE[name]
    if name not in _OF_DECODERS:
        raise InputError(f"variant {name} cannot be made of a text generator, only {', '.join(GENERATING)}")
    return _OF_DECODERS[name]


def _to_tflite(
    checkpoint: Path, target: str, lengths: list[int], masked: float | None = None
) -> dict[str, Any]:
    details: dict[str, Any] = in_child(
        to_tflite, checkpoint=str(checkpoint.resolve()), target=target, lengths=lengths, masked=masked
    )
    return details

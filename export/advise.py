"""What to ship instead of a variant that fails the gate: its neighbours are made and checked, not guessed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compress.calibrate import Calibration
from export.variant import CALIBRATED, KNOWN, Variant
from export.variants import export_variant, open_variant
from runtimes.bundle import Bundle, seal
from runtimes.errors import EdgewiseError
from trainers.files import write_json

# By engine, from what takes most away to what takes least.
NEIGHBOURS = {
    "onnx": (
        "onnx-int4", "onnx-static_int8", "onnx-int8", "onnx-mixed", "onnx-wi8", "onnx-fp16", "onnx-fp32",
    ),
    "litert": (
        "tflite-dynamic_wi4_afp32", "tflite-static_wi8_ai8", "tflite-dynamic_wi8_afp32", "tflite-mixed",
        "tflite-weight_only_wi8_afp32", "tflite-fp16", "tflite-fp32",
    ),
}  # fmt: skip
SECONDS = 120.0  # after this long no further neighbour is made


@dataclass(frozen=True)
class Makings:
    """What a bundle's variants were made from, where that is at hand: for diagnosis and advice alone.

    `parents`: fp32 graphs that the bundle does not hold itself. `checkpoint` and `calibration` are for the
    variants that need rows. Without `advise` no neighbour is tried.
    """

    parents: Sequence[Variant] = ()
    checkpoint: Path | None = None
    calibration: Calibration | None = None
    advise: bool = True


def nearest_passing(
    bundle: Bundle,
    name: str,
    makings: Makings,
    passes: Callable[[Path, str], bool],
    seconds: float = SECONDS,
) -> str:
    """ "; ..." for the gate's message: the first neighbour, on the way to fp32, that was made from the fp32
    graph of that engine and for which `passes(bundle folder, variant)` holds; or that none does.

    Empty where that graph is not at hand, for that graph itself, or without `makings.advise`.
    """
    parent = parent_graph(bundle, name, makings.parents)
    if parent is None or not makings.advise:
        return ""
    order, until = NEIGHBOURS[bundle.variants[name]["engine"]], time.monotonic() + seconds
    behind = order[order.index(name) + 1 :] if name in order else order
    tried: list[str] = []
    with TemporaryDirectory(prefix="edgewise-") as folder:
        source = _as_folder(*parent, Path(folder) / "parent")
        for other in (one for one in behind if _can_make(one, makings)):
            if time.monotonic() > until:
                return f"; {_none_of(tried)} (the time for further tries was up)"
            tried.append(other)
            try:
                made = _made(source, other, makings, Path(folder))
                if passes(_alone(bundle, made, Path(folder) / f"{other}.bundle"), other):
                    return f"; the nearest that passes is {other} ({made.path.stat().st_size / 1e6:.3g} MB)"
            except (EdgewiseError, ImportError):  # what cannot be made here is no advice
                continue
    return f"; {_none_of(tried)}" if tried else ""


def _none_of(tried: Sequence[str]) -> str:
    return f"none of {', '.join(tried)} passes either" if tried else "no other variant was tried"


def parent_graph(
    bundle: Bundle, name: str, parents: Sequence[Variant]
) -> tuple[str, bytes, dict[str, Any]] | None:
    """Name, bytes and details of the fp32 graph that a variant is quantized from: the bundle's own, else one
    of `parents`; None where there is none, or for that graph itself."""
    parent = KNOWN[name][2] if name in KNOWN else None
    if parent in bundle.variants:
        about = bundle.variants[parent]
        own = ("engine", "precision", "file", "size_bytes")
        return parent, bundle.read(about["file"]), {k: v for k, v in about.items() if k not in own}
    beside = next((one for one in parents if one.name == parent), None)
    return (beside.name, beside.path.read_bytes(), beside.details) if beside else None


def _can_make(name: str, makings: Makings) -> bool:
    rows = makings.calibration is not None and makings.checkpoint is not None
    return name in KNOWN and (rows or name not in CALIBRATED)


def _as_folder(name: str, graph: bytes, details: dict[str, Any], out: Path) -> Variant:
    """A graph as `export_variant` leaves one."""
    out.mkdir()
    (out / KNOWN[name][3]).write_bytes(graph)
    write_json(out / "details.json", details)
    return open_variant(name, out)


def _made(source: Variant, name: str, makings: Makings, folder: Path) -> Variant:
    if name == source.name:
        return source
    checkpoint, rows = makings.checkpoint or folder, makings.calibration
    return export_variant(name, checkpoint, source.path.parent, [], folder / name, rows)


def _alone(bundle: Bundle, variant: Variant, out: Path) -> Path:
    """The bundle with that one variant, to be asked as the gate asks."""
    place = out / variant.file
    place.parent.mkdir(parents=True)
    place.write_bytes(variant.path.read_bytes())
    beside = ["tokenizer.json"] if "tokenizer.json" in bundle.manifest["files"] else []
    for file in beside:
        (out / file).write_bytes(bundle.read(file))
    manifest = {**bundle.manifest, "variants": {variant.name: variant.entry()}}
    manifest["defaults"] = {"*": variant.name, variant.engine: variant.name}
    seal(out, manifest, [variant.file, *beside])
    return out

"""What to ship instead of a variant that fails the gate: its neighbours are made and checked, not guessed."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from export.variant import CALIBRATED, KNOWN, Variant
from export.variants import export_variant, open_variant
from runtimes.bundle import Bundle, seal
from runtimes.errors import EdgewiseError
from trainers.files import write_json

# By engine, from what takes most away to what takes least. Calibrated ones need rows that a bundle lacks.
NEIGHBOURS = {
    "onnx": ("onnx-int4", "onnx-int8", "onnx-wi8", "onnx-fp16", "onnx-fp32"),
    "litert": (
        "tflite-dynamic_wi4_afp32", "tflite-dynamic_wi8_afp32", "tflite-weight_only_wi8_afp32", "tflite-fp16",
        "tflite-fp32",
    ),
}  # fmt: skip
SECONDS = 120.0  # after this long no further neighbour is made


def nearest_passing(
    bundle: Bundle, name: str, passes: Callable[[Path, str], bool], seconds: float = SECONDS
) -> str:
    """ "; ..." for the gate's message: the first neighbour, on the way to fp32, that was made from the
    bundle's own fp32 graph and for which `passes(bundle folder, variant)` holds; or that none does.

    Empty where the bundle holds no fp32 graph of that engine, or for that graph itself.
    """
    parent = next((one for one in KNOWN if one in bundle.variants and _parent_of(name) == one), None)
    if parent is None:
        return ""
    order, until = NEIGHBOURS[bundle.variants[name]["engine"]], time.monotonic() + seconds
    tried: list[str] = []
    behind = order[order.index(name) + 1 :] if name in order else order
    with TemporaryDirectory(prefix="edgewise-") as folder:
        source = _as_folder(bundle, parent, Path(folder) / "parent")
        for other in (one for one in behind if one in KNOWN and one not in CALIBRATED):
            if time.monotonic() > until:
                return f"; none of {', '.join(tried)} passes either (the time for further tries was up)"
            tried.append(other)
            try:
                made = _made(source, other, Path(folder))
                if passes(_alone(bundle, made, Path(folder) / f"{other}.bundle"), other):
                    return f"; the nearest that passes is {other} ({made.path.stat().st_size / 1e6:.3g} MB)"
            except (EdgewiseError, ImportError):  # what cannot be made here is no advice
                continue
    return f"; none of {', '.join(tried)} passes either" if tried else ""


def _parent_of(name: str) -> str | None:
    return KNOWN[name][2] if name in KNOWN else None


def _as_folder(bundle: Bundle, name: str, out: Path) -> Variant:
    """A bundle's variant as `export_variant` leaves one."""
    out.mkdir()
    (out / KNOWN[name][3]).write_bytes(bundle.read(bundle.variants[name]["file"]))
    own = ("engine", "precision", "file", "size_bytes")
    write_json(out / "details.json", {k: v for k, v in bundle.variants[name].items() if k not in own})
    return open_variant(name, out)


def _made(source: Variant, name: str, folder: Path) -> Variant:
    if name == source.name:
        return source
    return export_variant(name, folder, source.path.parent, [], folder / name)


def _alone(bundle: Bundle, variant: Variant, out: Path) -> Path:
    """The bundle with that one variant, to be asked as the gate asks."""
    place = out / variant.file
    place.parent.mkdir(parents=True)
    place.write_bytes(variant.path.read_bytes())
    (out / "tokenizer.json").write_bytes(bundle.read("tokenizer.json"))
    manifest = {**bundle.manifest, "variants": {variant.name: variant.entry()}}
    manifest["defaults"] = {"*": variant.name, variant.engine: variant.name}
    seal(out, manifest, [variant.file, "tokenizer.json"])
    return out

"""The parts of an encoder with a head: embedding, each layer's attention and feed-forward network, head.

Every parameter belongs to one part. What a part costs follows from its modules: parameters, multiplications
and bytes on disk.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtimes.errors import InputError
from trainers.shape import Family, family_of, layers_of

Kind = Literal["embedding", "attention", "feed-forward", "head", "layer", "model"]
KINDS: tuple[Kind, ...] = ("embedding", "attention", "feed-forward", "head")  # disjoint, and all there is
_MAX_HEADER = 100_000_000  # bytes, as the safetensors library itself allows


@dataclass(frozen=True)
class Part:
    """`modules` are the paths of the topmost modules that make it up, disjoint, in the model's order; `layer`
    counts from 0 and is None outside of the layers."""

    name: str
    kind: Kind
    layer: int | None
    modules: list[str]

    def holds(self, parameter: str) -> bool:
        """Whether a parameter or module of this path lies in the part."""
        return any(parameter == path or parameter.startswith(path + ".") for path in self.modules)


def parts_of(model: Any, where: object = "model") -> list[Part]:
    """The parts in the order of the forward pass. InputError for an architecture that is not supported."""
    family = family_of(model, where)
    base, stack = family.layers.split(".")[0], family.layers
    outside = [name for name in _children(model, "") if name != base] + _children(model, base)
    outside = [name for name in outside if not stack.startswith(name + ".")]
    embedding = [name for name in outside if name.startswith(f"{base}.embeddings")]
    head = sorted((name for name in outside if name not in embedding), key=lambda name: "." not in name)
    found = [Part("embedding", "embedding", None, embedding)]
    for index in range(len(layers_of(model, family))):
        inside = _children(model, f"{stack}.{index}")
        attention = [name for name in inside if _is_attention(name.rsplit(".", 1)[1], family)]
        rest = [name for name in inside if name not in attention]
        found.append(Part(f"layer {index} attention", "attention", index, attention))
        found.append(Part(f"layer {index} feed-forward", "feed-forward", index, rest))
    return [*found, Part("head", "head", None, head)]


def _children(model: Any, path: str) -> list[str]:
    prefix = f"{path}." if path else ""
    return [prefix + name for name, _ in model.get_submodule(path).named_children()]


def _is_attention(child: str, family: Family) -> bool:
    return child in (family.out.split(".")[0], "sa_layer_norm")  # the norm behind DistilBERT's attention


def parameters(model: Any, part: Part) -> int:
    """How many numbers the part holds."""
    return sum(value.numel() for name, value in model.named_parameters() if part.holds(name))


def matrices(model: Any, part: Part) -> dict[str, Any]:
    """The part's weight matrices by parameter name: of Linear modules (out, in) and embeddings (rows, d)."""
    return {name: value for name, value in model.named_parameters() if part.holds(name) and value.dim() == 2}


def flops(model: Any, part: Part, tokens: int) -> int:
    """Floating-point operations of one text of `tokens` tokens, a multiply-add counted as two.

    Counted are the matrix products, which are nearly all of it: 2 * tokens * in * out for each Linear, and
    4 * tokens^2 * d for attention (scores, and their product with the values; d is heads * head size). The
    head reads one token. Look-ups, biases, norms, softmax and activations are left out, as in
    `torch.utils.flop_counter`, against which a test compares this.
    """
    import torch

    linear = [m for name, m in model.named_modules() if part.holds(name) and isinstance(m, torch.nn.Linear)]
    products = sum(module.in_features * module.out_features for module in linear)
    if part.kind == "head":
        return 2 * products
    total = 2 * tokens * products
    if part.kind == "attention":
        family = family_of(model, "model")
        query = layers_of(model, family)[part.layer].get_submodule(family.query)
        total += 4 * tokens**2 * query.out_features
    return total


def modules(model: Any, part: Part, tokens: int) -> list[dict[str, Any]]:
    """The part's modules with weights: path, type, parameters, and FLOPs of their own matrix product."""
    import torch

    rows = []
    for name, module in model.named_modules():
        count = sum(value.numel() for value in module.parameters(recurse=False))
        if count and part.holds(name):
            own = 0
            if isinstance(module, torch.nn.Linear):
                reads = 1 if part.kind == "head" else tokens
                own = 2 * reads * module.in_features * module.out_features
            rows.append({"module": name, "type": type(module).__name__, "parameters": count, "flops": own})
    return rows


def bytes_on_disk(folder: Path) -> dict[str, int]:
    """Bytes of each tensor in the folder's safetensors files, by name, whatever their precision.

    Source: the safetensors format (8 bytes of header length, a JSON header, the data). Raises InputError for
    a folder without such a file or with one that is cut short.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: no safetensors file; save the model with safe_serialization")
    found: dict[str, int] = {}
    for file in files:
        try:
            found |= _sizes(file)
        except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"{file}: not a whole safetensors file ({error}); make it again") from None
    return found


def _sizes(file: Path) -> dict[str, int]:
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        if size > min(_MAX_HEADER, file.stat().st_size):
            raise ValueError("header longer than the file")
        header = json.loads(stream.read(size))
    sizes = {}
    for name, about in header.items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            if not 0 <= start <= end:
                raise ValueError(f"offsets of {name}")
            sizes[name] = end - start
    return sizes


def share_out(names: Sequence[Part], sizes: dict[str, int]) -> tuple[dict[str, int], int]:
    """Bytes of each part by its name, and of what belongs to none (tensors that the model does not use)."""
    by_part = {part.name: sum(n for name, n in sizes.items() if part.holds(name)) for part in names}
    return by_part, sum(sizes.values()) - sum(by_part.values())

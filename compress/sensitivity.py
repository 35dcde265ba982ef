"""How much a classifier depends on each part: its metric with that part rounded to int8 or int4, or cut out.

Rounding is fake quantization: weights are rounded to the grid of the integers and stay fp32, activations are
not touched. So this tells what the weights of a part can bear, not what a quantized file will score.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from compress.parts import Part, matrices, parts_of
from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.data import Split
from trainers.shape import Kept, cut, family_of, layers_of, whole

if TYPE_CHECKING:
    import numpy as np
    import torch

Change = Literal["int8", "int4", "cut"]
MIN_ROWS = 16
Z95 = 1.959964


@dataclass(frozen=True)
class Effect:
    """What a change does to `n` rows, against the unchanged model on the same rows.

    `drop` is the accuracy lost (a share; below 0 is a gain), `se` its paired standard error and `ci95` its
    95% interval; `signal` where that leaves out 0. `agreement` is the share of rows with the same label as
    before; `logits_error` the root mean square error of the logits as a share of their own root mean square,
    each row's mean taken off first (softmax does not see it).
    """

    part: str
    kind: str
    layer: int | None
    change: Change
    accuracy: float
    drop: float
    se: float
    ci95: tuple[float, float]
    signal: bool
    agreement: float
    logits_error: float


def sensitivity(checkpoint: Checkpoint, split: Split, rows: int, seed: int = 0) -> dict[str, Any]:
    """{n, baseline {accuracy, se}, effects} on at most `rows` rows of `split`, drawn by class share.

    For each part int8 and int4; attention, feed-forward network and whole layer cut; and all parts at once
    rounded. Raises InputError for fewer than 16 rows or an architecture that is not supported.
    """
    import numpy as np
    from tqdm import tqdm

    from trainers.model import open_model, open_tokenizer
    from trainers.prepare import subset

    if len(split) < MIN_ROWS or rows < MIN_ROWS:
        have = min(len(split), rows)
        raise InputError(f"{have} rows to measure sensitivity on; give at least {MIN_ROWS}")
    split = subset(split, rows, seed)
    model = open_model(checkpoint.path).eval()
    tokenizer = open_tokenizer(checkpoint.path, checkpoint.limits["max_tokens"])
    batches = _batches(model, tokenizer, split)
    jobs = plan(parts_of(model, checkpoint.path))
    before, labels = _answers(model, batches), np.asarray(split.labels)
    effects = []
    for part, change in tqdm(jobs, desc="sensitivity", unit="change", disable=None):
        effects.append(effect(part, change, before, _changed(model, part, change, batches), labels))
    right = float((before.argmax(1) == labels).mean())
    spread = (right * (1 - right) / len(labels)) ** 0.5
    return {
        "n": len(labels),
        "baseline": {"metric": "accuracy", "value": right, "se": spread},
        "effects": [asdict(one) for one in effects],
    }


def plan(parts: Sequence[Part]) -> list[tuple[Part, Change]]:
    """Every part rounded, every sub-layer and layer cut, and the whole model rounded."""
    by_layer: dict[int, list[str]] = {}
    for part in parts:
        if part.layer is not None:
            by_layer.setdefault(part.layer, []).extend(part.modules)
    layers = [Part(f"layer {layer}", "layer", layer, paths) for layer, paths in by_layer.items()]
    every = Part("all parts", "model", None, [path for part in parts for path in part.modules])
    jobs: list[tuple[Part, Change]] = []
    for part in [*parts, every]:
        jobs += [(part, "int8"), (part, "int4")]
    jobs += [(part, "cut") for part in parts if part.layer is not None]
    return jobs + ([(part, "cut") for part in layers] if len(layers) > 1 else [])


def rounded(weight: "torch.Tensor", bits: int) -> "torch.Tensor":
    """A weight matrix (out, in) rounded to symmetric integers of `bits` with one scale for each row, as fp32.

    The row's largest value becomes 2^(bits-1) - 1. Of an embedding the rows are the tokens.
    """
    import torch

    most = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / most
    return (weight / scale).round().clamp(-most, most) * scale


@contextmanager
def replaced(model: Any, values: "dict[str, torch.Tensor]") -> Iterator[None]:
    """The model with these parameters (by name), its own again afterwards."""
    import torch

    own = {name: value.detach().clone() for name, value in model.named_parameters() if name in values}
    try:
        with torch.no_grad():
            for name, value in values.items():
                model.get_parameter(name).copy_(value)
        yield
    finally:
        with torch.no_grad():
            for name, value in own.items():
                model.get_parameter(name).copy_(value)


def silenced(model: Any, part: Part) -> "dict[str, torch.Tensor]":
    """Parameters with which an attention or feed-forward network adds nothing to the hidden states.

    Its output projection is nought; the residual connection and the norm behind it stay.
    """
    import torch

    family = family_of(model, "model")
    path = f"{family.layers}.{part.layer}.{family.out if part.kind == 'attention' else family.down}"
    return {
        f"{path}.{name}": torch.zeros_like(value)
        for name, value in model.get_submodule(path).named_parameters()
    }


def _changed(model: Any, part: Part, change: Change, batches: "list[Any]") -> "np.ndarray":
    if change == "cut" and part.kind == "layer":
        return _answers(_without(model, part.layer), batches)
    if change == "cut":
        values = silenced(model, part)
    else:
        bits = {"int8": 8, "int4": 4}[change]
        values = {name: rounded(value.detach(), bits) for name, value in matrices(model, part).items()}
    with replaced(model, values):
        return _answers(model, batches)


def _without(model: Any, layer: int | None) -> Any:
    """The model with one layer skipped: a copy that lacks it."""
    family = family_of(model, "model")
    everything = whole(model, family)
    stay = [index for index in range(len(layers_of(model, family))) if index != layer]
    heads, neurons = ([each[index] for index in stay] for each in (everything.heads, everything.neurons))
    return cut(model, Kept(stay, heads, neurons, everything.width))


def _batches(model: Any, tokenizer: Any, split: Split, size: int = 32) -> list[tuple[list[int], Any]]:
    """(row numbers, inputs) of texts of like length."""
    from trainers.fit import collate, encode, input_names, inputs_of

    ids = encode(tokenizer, split.texts)
    order = sorted(range(len(ids)), key=lambda row: (len(ids[row]), row))
    to_batch = collate(tokenizer.pad_id, input_names(model))
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    rows = [[{"ids": ids[row], "label": 0, "extra": {}} for row in chunk] for chunk in chunks]
    return [(chunk, inputs_of(to_batch(row))) for chunk, row in zip(chunks, rows, strict=True)]


def _answers(model: Any, batches: "list[Any]") -> "np.ndarray":
    """Logits float32 (n, C) in the order of the rows."""
    import numpy as np
    import torch

    device = next(model.parameters()).device
    total = sum(len(rows) for rows, _ in batches)
    logits: np.ndarray = np.zeros((total, model.config.num_labels), np.float32)
    with torch.inference_mode():
        for rows, inputs in batches:
            moved = {key: value.to(device) for key, value in inputs.items()}
            logits[rows] = model(**moved).logits.float().cpu().numpy()
    return logits


def effect(
    part: Part, change: Change, before: "np.ndarray", after: "np.ndarray", labels: "np.ndarray"
) -> Effect:
    """Compare logits (n, C) before and after a change, row by row."""
    import numpy as np

    was, now = before.argmax(1) == labels, after.argmax(1) == labels
    drop, se, ci95 = paired_drop(int((was & ~now).sum()), int((~was & now).sum()), len(labels))
    centred = before - before.mean(1, keepdims=True)
    off = after - after.mean(1, keepdims=True) - centred
    size = float(np.sqrt(np.mean(centred**2))) or 1.0
    return Effect(
        part=part.name, kind=part.kind, layer=part.layer, change=change,
        accuracy=float(now.mean()), drop=drop, se=se, ci95=ci95, signal=not ci95[0] <= 0 <= ci95[1],
        agreement=float((before.argmax(1) == after.argmax(1)).mean()),
        logits_error=float(np.sqrt(np.mean(off**2))) / size,
    )  # fmt: skip


def paired_drop(lost: int, gained: int, n: int) -> tuple[float, float, tuple[float, float]]:
    """(lost - gained) / n of n rows answered twice, its standard error and 95% interval.

    Both come from the rows whose answer turned wrong or right, half a row added to each: so they are not
    nought where no row turned, and keep their level for few (Agresti and Min 2005, doi 10.1002/sim.1781).
    """
    b, c, total = lost + 0.5, gained + 0.5, n + 2
    middle = (b - c) / total
    se = ((b + c) / total - middle**2) ** 0.5 / total**0.5
    return (lost - gained) / n, se, (middle - Z95 * se, middle + Z95 * se)

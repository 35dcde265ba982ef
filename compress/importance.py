"""How much each head, neuron and layer matters: first-order Taylor scores on rows, or magnitudes.

Taylor: |sum over positions of activation * gradient| at the heads' outputs and at the neurons, which is the
first-order change of the loss when the part is taken out (Michel et al. 2019, arXiv 1905.10650; Molchanov et
al. 2019, arXiv 1906.10771). A layer's score is that of its attention and feed-forward outputs together.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from runtimes.errors import InputError
from trainers.shape import family_of, head_size, layers_of, magnitudes

if TYPE_CHECKING:
    import torch

    from runtimes.text import Tokenizer

Measure = Literal["taylor", "magnitude"]
BATCH = 16
MIN_ROWS = 16


@dataclass(frozen=True)
class Importance:
    """For each layer a tensor of scores, `heads` and `neurons`, and one score a layer, `layers`."""

    heads: "list[torch.Tensor]"
    neurons: "list[torch.Tensor]"
    layers: "torch.Tensor"


def importance(
    model: Any, tokenizer: "Tokenizer", split: Any, measure: Measure, rows: int,
    task: str = "text-classification",
) -> Importance:  # fmt: skip
    """Scores of a model's parts; `taylor` takes the first `rows` rows of `split` (a Split, or questions).

    Raises InputError for fewer than 16 rows or an unknown measure.
    """
    if measure == "magnitude":
        return by_magnitude(model)
    if measure != "taylor":
        raise InputError(f"prune.importance = {measure!r}: must be taylor or magnitude")
    if len(split) < MIN_ROWS:
        raise InputError(
            f"{len(split)} rows to score parts with; give at least {MIN_ROWS}, or take magnitude"
        )
    few = split[:rows] if isinstance(split, list) else split.take(range(min(rows, len(split))))
    return by_taylor(model, tokenizer, few, task)


def by_magnitude(model: Any) -> Importance:
    """L2 norms of weights; a layer's score is the norm of what it adds to the hidden states."""
    import torch

    family = family_of(model, "model")
    heads, neurons, _ = magnitudes(model, family)
    added = [
        sum(layer.get_submodule(part).weight.detach().square().sum() for part in (family.out, family.down))
        for layer in layers_of(model, family)
    ]
    return Importance(heads, neurons, torch.stack(added).sqrt())  # type: ignore[arg-type]


def by_taylor(
    model: Any, tokenizer: "Tokenizer", split: Any, task: str = "text-classification"
) -> Importance:
    """Scores summed over the rows of `split`; the model is left as it was."""
    import torch
    from torch.nn import functional as F
    from tqdm import tqdm

    from trainers.fit import collate, input_names, inputs_of
    from trainers.tasks import task_of

    of, taps = task_of(task), _Taps(model)
    to_batch = collate(tokenizer.pad_id, input_names(model))
    rows = of.rows(split, tokenizer)
    training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        for start in tqdm(range(0, len(rows), BATCH), desc="importance", unit="batch", disable=None):
            batch = to_batch([rows[i] for i in range(start, min(start + BATCH, len(rows)))])
            batch = {key: value.to(device) for key, value in batch.items()}
            with torch.enable_grad():
                logits = of.decisions(of.answer(model(**inputs_of(batch))))
                F.cross_entropy(logits, batch["labels"].flatten(), reduction="sum").backward()
            taps.gather()
    finally:
        taps.remove()
        model.zero_grad(set_to_none=True)
        model.train(training)
    return taps.scores()


class _Taps:
    """Hooks on the inputs of each layer's two output projections: the heads' outputs, and the neurons."""

    def __init__(self, model: Any) -> None:
        family = family_of(model, "model")
        self.size = head_size(model, family)
        self.seen: dict[tuple[int, str], torch.Tensor] = {}
        self.sums: dict[tuple[int, str], torch.Tensor] = {}
        self.depth = len(layers_of(model, family))
        self.hooks = []
        for index, layer in enumerate(layers_of(model, family)):
            for name in ("out", "down"):
                place = layer.get_submodule(getattr(family, name))
                self.hooks.append(place.register_forward_pre_hook(self._keep((index, name))))

    def _keep(self, key: tuple[int, str]) -> Any:
        def hook(_: Any, inputs: tuple[Any, ...]) -> None:
            inputs[0].retain_grad()
            self.seen[key] = inputs[0]

        return hook

    def gather(self) -> None:
        """|sum over tokens of activation * gradient|, a row at a time, added up."""
        for key, value in self.seen.items():
            assert value.grad is not None
            moved = (value * value.grad).detach().sum(1)  # (rows, units)
            if key[1] == "out":
                moved = moved.view(len(moved), -1, self.size).sum(-1)
            self.sums[key] = self.sums.get(key, 0) + moved.abs().sum(0)
        self.seen.clear()

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def scores(self) -> Importance:
        import torch

        heads = [self.sums[index, "out"].cpu() for index in range(self.depth)]
        neurons = [self.sums[index, "down"].cpu() for index in range(self.depth)]
        layers = torch.stack([a.sum() + b.sum() for a, b in zip(heads, neurons, strict=True)])
        return Importance(heads, neurons, layers)

"""The shape of an encoder, and a smaller one cut out of it: layers, heads, neurons, width.

What is cut is an ordinary model: `from_pretrained` opens it, since heads that one layer lacks stand in the
config's `pruned_heads`, and each layer keeps as many neurons as the next.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtimes.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Family:
    """Where the parts of an encoder layer lie below `layers`, and what the config calls their numbers."""

    layers: str
    query: str
    key: str
    value: str
    out: str
    up: str
    down: str
    depth: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    width: str = "hidden_size"
    neurons: str = "intermediate_size"


def _bert_like(name: str) -> Family:
    attention = "attention.self."
    return Family(
        f"{name}.encoder.layer", attention + "query", attention + "key", attention + "value",
        "attention.output.dense", "intermediate.dense", "output.dense",
    )  # fmt: skip


FAMILIES = {
    "bert": _bert_like("bert"),
    "roberta": _bert_like("roberta"),
    "electra": _bert_like("electra"),
    "distilbert": Family(
        "distilbert.transformer.layer",
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "ffn.lin1",
        "ffn.lin2",
        "n_layers",
        "n_heads",
        "dim",
        "hidden_dim",
    ),
}


@dataclass(frozen=True)
class Kept:
    """What of a model stays, by position: `layers`; for each of these its `heads` and `neurons`; and the
    dimensions of the hidden states, `width`. Neurons are equally many in each layer."""

    layers: list[int]
    heads: list[list[int]]
    neurons: list[list[int]]
    width: list[int]


def family_of(model: Any, where: object) -> Family:
    """InputError, with what is supported, for an architecture that cannot be cut."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise InputError(f"{where}: {kind} cannot be made smaller; supported: {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def layers_of(model: Any, family: Family) -> Any:
    """The stack of encoder layers, a ModuleList."""
    return model.get_submodule(family.layers)


def head_size(model: Any, family: Family) -> int:
    return getattr(model.config, family.width) // getattr(model.config, family.heads)


def whole(model: Any, family: Family) -> Kept:
    """All that the model has."""
    size = head_size(model, family)
    stack = layers_of(model, family)
    return Kept(
        list(range(len(stack))),
        [list(range(layer.get_submodule(family.query).out_features // size)) for layer in stack],
        [list(range(layer.get_submodule(family.up).out_features)) for layer in stack],
        list(range(getattr(model.config, family.width))),
    )


def encoder_parameters(model: Any, family: Family) -> int:
    """Parameters of the encoder layers, embeddings and head left out."""
    return sum(parameter.numel() for parameter in layers_of(model, family).parameters())


def cut(model: Any, kept: Kept, where: object = "model") -> Any:
    """A new model of the same class that holds `kept` of `model`, weights copied.

    With all of the width kept, layers may keep different numbers of heads; a narrower model has as many heads
    as its width holds at the old head size, so each layer must keep that many. Raises InputError where not.
    """
    import torch

    family = family_of(model, where)
    config = _config(model, family, kept, where)
    with torch.random.fork_rng():  # building a model draws random numbers
        smaller = type(model)(config)
    size = head_size(model, family)
    old, new = model.state_dict(), smaller.state_dict()
    with torch.no_grad():
        for name, target in new.items():
            target.copy_(_taken(name, old, target, family, kept, size))
    return smaller.train(model.training)


def _config(model: Any, family: Family, kept: Kept, where: object) -> Any:
    config, size = copy.deepcopy(model.config), head_size(model, family)
    width, before = len(kept.width), getattr(config, family.width)
    setattr(config, family.depth, len(kept.layers))
    setattr(config, family.neurons, len(kept.neurons[0]))
    if width == before:
        config.pruned_heads = _pruned_heads(model.config, family, kept)
        return config
    if getattr(config, "embedding_size", before) != before:
        raise InputError(f"{where}: its embeddings have a width of their own; leave hidden out")
    if width % size or any(len(heads) != width // size for heads in kept.heads):
        raise InputError(f"{where}: width {width} must be a multiple of {size}, with a head for each {size}")
    setattr(config, family.width, width)
    setattr(config, family.heads, width // size)
    if hasattr(config, "embedding_size"):
        config.embedding_size = width
    config.pruned_heads = {}
    return config


def _pruned_heads(config: Any, family: Family, kept: Kept) -> dict[int, list[int]]:
    """Per layer the heads that are gone, in the numbering of a layer that has all of them."""
    pruned: dict[int, list[int]] = {}
    for index, (layer, heads) in enumerate(zip(kept.layers, kept.heads, strict=True)):
        gone = set((config.pruned_heads or {}).get(layer, []))
        there = [head for head in range(getattr(config, family.heads)) if head not in gone]
        stay = {there[position] for position in heads}
        lost = [head for head in range(getattr(config, family.heads)) if head not in stay]
        if lost:
            pruned[index] = lost
    return pruned


def _taken(
    name: str, old: "dict[str, torch.Tensor]", target: "torch.Tensor", family: Family, kept: Kept, size: int
) -> "torch.Tensor":
    """The part of an old tensor that the new one of this name holds."""
    import torch

    found = re.match(rf"{re.escape(family.layers)}\.(\d+)\.(.+)\.(weight|bias)$", name)
    width = torch.tensor(kept.width)
    if found is None:
        return _by_width(old[name], target, width)
    index, part, kind = int(found[1]), found[2], found[3]
    source = old[f"{family.layers}.{kept.layers[index]}.{part}.{kind}"]
    heads = torch.tensor([head * size + i for head in kept.heads[index] for i in range(size)])
    neurons = torch.tensor(kept.neurons[index])
    rows = {family.query: heads, family.key: heads, family.value: heads, family.up: neurons}.get(part, width)
    columns = {family.out: heads, family.down: neurons}.get(part, width)
    source = source.index_select(0, rows)
    return source.index_select(1, columns) if source.dim() == 2 else source


def _by_width(source: "torch.Tensor", target: "torch.Tensor", width: "torch.Tensor") -> "torch.Tensor":
    """Outside of the layers only the width changes: on each axis whose size differs."""
    for axis, (before, after) in enumerate(zip(source.shape, target.shape, strict=True)):
        if before != after:
            source = source.index_select(axis, width)
    return source


def strongest(scores: "Sequence[float] | torch.Tensor", count: int) -> list[int]:
    """Positions of the `count` highest scores, ascending."""
    import torch

    return sorted(torch.as_tensor(scores).topk(count).indices.tolist())


def magnitudes(model: Any, family: Family) -> tuple[list[Any], list[Any], Any]:
    """How large the weights of each head, neuron (a tensor a layer) and hidden dimension are (L2 norms)."""
    import torch

    size = head_size(model, family)
    heads, neurons = [], []
    total = torch.zeros(getattr(model.config, family.width))
    for layer in layers_of(model, family):
        part = {name: layer.get_submodule(getattr(family, name)).weight.detach() for name in _PARTS}
        by_head = part["out"].square().sum(0) + part["value"].square().sum(1)
        heads.append(by_head.view(-1, size).sum(1).sqrt())
        neurons.append(part["up"].norm(dim=1) * part["down"].norm(dim=0))
        total += part["out"].square().sum(1) + part["down"].square().sum(1)
    total += model.get_input_embeddings().weight.detach().square().mean(0) * len(total)
    return heads, neurons, total.sqrt()


_PARTS = ("value", "out", "up", "down")

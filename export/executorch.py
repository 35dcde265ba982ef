"""Checkpoint → ExecuTorch program (.pte), lowered to XNNPACK. Runs in the environment that has executorch."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runtimes.engines import elsewhere
from runtimes.errors import InputError

_SHORTEST = 2


def interpreter() -> str:
    """The Python to export with. Raises InputError where no environment has executorch."""
    if find_spec("executorch") is not None:
        return sys.executable
    python = elsewhere.interpreter("executorch")
    if python is None:
        raise InputError(
            "executorch variants need an environment of their own: run `make executorch`, "
            "or name its Python in EDGEWISE_EXECUTORCH"
        )
    return str(python)


def to_executorch(checkpoint: str, target: str, most: int, precision: str) -> dict[str, Any]:
    """Write the program; return the details that the engine needs. Runs through `in_child`.

    One method `forward(input_ids, attention_mask)`, both int64 (1, length) with 2 ≤ length ≤ `most`, gives
    logits, float32 (1, labels). Its memory is planned for `most` tokens.
    `precision`: fp32; or int8: linear layers by PyTorch's PT2E flow (weights int8 per channel, activations
    int8 dynamically per tensor), embedding tables int8 per row. The rest of int8 stays fp32: attention's two
    products, softmax, layer norms, GELU, biases, scales.
    """
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    model = _logits(checkpoint)
    if precision == "int8":
        _quantize_tables(model)
    length = torch.export.Dim("length", min=_SHORTEST, max=most)
    shapes = {"input_ids": {1: length}, "attention_mask": {1: length}}
    # A mask of half ones keeps the tracer from taking "all ones" for a constant.
    sample = (torch.ones(1, most, dtype=torch.int64), torch.arange(most).lt((most + 1) // 2).long()[None])
    exported = torch.export.export(model, sample, dynamic_shapes=shapes)
    if precision == "int8":
        quantized = _quantize_linears(exported.module(), sample)
        exported = torch.export.export(quantized, sample, dynamic_shapes=shapes)
    lowered = to_edge_transform_and_lower(
        exported, transform_passes=[_inferred_shapes], partitioner=[XnnpackPartitioner()]
    )
    with Path(target).open("wb") as stream:
        lowered.to_executorch().write_to_file(stream)
    return {"inputs": ["input_ids", "attention_mask"], "output": "logits", "max_tokens": most}


def _logits(checkpoint: str) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    # Eager attention: scaled_dot_product_attention decomposes to operators that XNNPACK does not take.
    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, local_files_only=True, attn_implementation="eager"
    )

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    return Logits().eval()


def _quantize_tables(model: Any) -> None:
    """Embedding tables → int8 by row, symmetric, read with plain operators that every runtime build has."""
    import torch
    from torch.nn import functional

    class Table(torch.nn.Module):
        rows: torch.Tensor
        scale: torch.Tensor

        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
            self.register_buffer("rows", (weight / scale).round().to(torch.int8))
            self.register_buffer("scale", scale)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return functional.embedding(ids, self.rows).float() * functional.embedding(ids, self.scale)

    tables = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Embedding)]
    for name in tables:
        parent, _, child = name.rpartition(".")
        weight = model.get_submodule(name).weight.detach()
        setattr(model.get_submodule(parent), child, Table(weight))


def _quantize_linears(graph: Any, sample: tuple[Any, ...]) -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    prepared = prepare_pt2e(graph, XNNPACKQuantizer().set_global(config))
    prepared(*sample)  # weights are observed; activations at run time
    return convert_pt2e(prepared)


def _inferred_shapes(graph: Any) -> Any:
    """Views by inference and no idle expansions: XNNPACK takes neither an unknown length nor an expansion.

    Without it each product of attention leaves the delegate and comes back.
    """
    from executorch.exir.dialects._ops import ops
    from torch.fx.experimental.symbolic_shapes import statically_known_true
    from torch.fx.passes.infra.pass_base import PassResult

    for node in graph.graph.nodes:
        if node.target == ops.edge.aten.expand_copy.default:
            before, after = node.args[0].meta["val"].shape, node.meta["val"].shape
            if len(before) == len(after) and all(
                statically_known_true(a == b) for a, b in zip(before, after, strict=True)
            ):
                node.replace_all_uses_with(node.args[0])
        elif node.target == ops.edge.aten.view_copy.default:
            unknown = [place for place, size in enumerate(node.args[1]) if not isinstance(size, int)]
            if len(unknown) == 1:
                shape = [-1 if place == unknown[0] else size for place, size in enumerate(node.args[1])]
                node.args = (node.args[0], shape)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return PassResult(graph, True)

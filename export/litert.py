"""Checkpoint → TFLite through litert-torch: one signature per input length, weights shared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.windows import graph_of, is_detector

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def to_tflite(
    checkpoint: str, target: str, lengths: list[int], masked: float | None = None
) -> dict[str, Any]:
    """Write the fp32 graph; return the details that the engine needs. Runs through `in_child`.

    TFLite graphs have fixed shapes: each of `lengths` becomes a signature `tokens_<length>` of batch 1 with
    int32 inputs `args_0` (input_ids) and `args_1` (attention_mask); a reader, which tells question and
    passage apart, has `args_2` (token_type_ids) too. One output: a reader's two are stacked, (1, length, 2).

    `masked`, where given, is what is added to the score of a masked position, instead of the least fp32
    number, and tables are read by GATHER: both let every operator be quantized with a fixed range.
    """
    import litert_torch
    import torch

    from runtimes.engines.torch import head_of

    if is_detector(Path(checkpoint)):
        return _windows_to_tflite(Path(checkpoint), target)

    opener, outputs = head_of(Path(checkpoint))
    model = opener.from_pretrained(checkpoint, local_files_only=True).eval()
    typed = len(outputs) > 1 and getattr(model.config, "type_vocab_size", 0) > 1
    if not typed:
        _fold_token_types(model)
    if masked is None:
        _keep_norms_apart(model)
    else:
        _gather_tables(model)
        # The mask comes as scores already, in the shape of the attention's.
        model.base_model.get_extended_attention_mask = lambda mask, *_, **__: mask

    converter, graph = None, _answering(model, outputs, masked)
    for length in lengths:
        # Alternating masks keep a tracer from taking "all ones" for a constant.
        mask = torch.arange(length).lt(max(1, length // 2)).long()[None]
        sample = [torch.ones(1, length, dtype=torch.int64), mask, *([1 - mask] if typed else [])]
        converter = (converter or litert_torch).signature(f"tokens_{length}", graph, tuple(sample))
    if converter is None:
        raise ValueError("no lengths to export")
    converter.convert().export(target)
    return {
        "lengths": lengths,
        "signatures": {str(length): f"tokens_{length}" for length in lengths},
        "inputs": {f"args_{n}": name for n, name in enumerate(INPUTS[: 3 if typed else 2])},
        "output": outputs[0] if len(outputs) == 1 else "logits",
    }


def _windows_to_tflite(checkpoint: Path, target: str) -> dict[str, Any]:
    """One signature `window`: float32 `args_0` (1, window) → (1, window + patch)."""
    import litert_torch

    graph, sample = graph_of(checkpoint)
    litert_torch.signature("window", graph, (sample,)).convert().export(target)
    window = sample.shape[1]
    return {
        "lengths": [window],
        "signatures": {str(window): "window"},
        "inputs": {"args_0": "values"},
        "output": "expected",
    }


def _answering(model: Any, outputs: Sequence[str], masked: float | None) -> Any:
    """The model as a module of token ids, mask and perhaps types, with one output."""
    import torch

    class Answer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, *types: torch.Tensor
        ) -> torch.Tensor:
            if masked is not None:
                length = input_ids.shape[1]
                scores = (1.0 - attention_mask.float()) * masked
                attention_mask = scores[:, None, None, :].expand(1, 1, length, length)
            more = {"token_type_ids": types[0]} if types else {}
            answer = self.model(input_ids=input_ids, attention_mask=attention_mask, **more)
            found = [answer[name] for name in outputs]
            return found[0] if len(found) == 1 else torch.stack(found, dim=-1)

    return Answer().eval()


def _fold_token_types(model: Any) -> None:
    """Add BERT's first token type to each word: as a constant of its own it costs a table a length."""
    import torch

    embeddings: Any = getattr(getattr(model, "bert", model), "embeddings", None)
    if getattr(embeddings, "token_type_embeddings", None) is None:
        return

    class Nothing(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> float:
            return 0.0

    with torch.no_grad():
        embeddings.word_embeddings.weight += embeddings.token_type_embeddings.weight[0]
    embeddings.token_type_embeddings = Nothing()


def _keep_norms_apart(model: Any) -> None:
    """Write LayerNorm's x * weight + bias as bias - x * -weight, which gives the same numbers.

    The converter multiplies x * weight + bias into the linear layers that read it (and keeps it for the
    residual sum besides): their weights would be others than the checkpoint's, and no longer lie on the grid
    that quantization-aware training put them on.
    """
    import torch
    from torch.nn import functional as F

    class Apart(torch.nn.LayerNorm):
        minus: torch.Tensor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias - F.layer_norm(x, self.normalized_shape, None, None, self.eps) * self.minus

    for module in model.modules():
        if type(module) is torch.nn.LayerNorm and module.bias is not None:
            module.register_buffer("minus", -module.weight.detach())
            module.__class__ = Apart


def _gather_tables(model: Any) -> None:
    """GATHER has an int8 kernel with int8 output; EMBEDDING_LOOKUP gives fp32."""
    import torch

    class Gather(torch.nn.Module):
        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.weight = weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.index_select(self.weight, 0, ids.flatten()).reshape(*ids.shape, -1)

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Embedding):
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, Gather(module.weight))

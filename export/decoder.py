"""Decoder checkpoint → one ONNX graph with its cache (`past_key_values.*` in, `present.*` out), fp32.

The Llama family through onnxruntime-genai's model builder, whose GroupQueryAttention appends to the cache in
place and which plain ONNX Runtime runs; GPT-2 through Optimum, whose graph concatenates the cache.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from compress.graph import Model, add_constant, constants, rewrite, without_orphans
from runtimes.errors import InputError

# By who writes the graph; what `trainers.generator.FAMILIES` takes.
BUILDER = ("LlamaForCausalLM",)
OPTIMUM = ("GPT2LMHeadModel",)
# The engine takes no weights beside the graph, and one protobuf holds 2 GB.
MAX_BYTES = (2 << 30) - (1 << 20)
KEEP = "num_logits_to_keep"
_NAMES = {
    "past_key": "past_key_values.{}.key",
    "past_value": "past_key_values.{}.value",
    "present_key": "present.{}.key",
    "present_value": "present.{}.value",
}


def is_decoder(checkpoint: Path) -> bool:
    """Whether the folder holds a model that continues texts."""
    return _architecture(checkpoint) in (*BUILDER, *OPTIMUM)


def to_decoder(checkpoint: str, target: str) -> dict[str, Any]:
    """Write the fp32 graph with free batch and lengths, weights inside; return {"cache": what the engine
    must know of it}. Runs through `in_child`, as builder and Optimum talk a lot.

    Positions go up to the checkpoint's `max_tokens`. Raises InputError over 2 GB.
    """
    source = Path(checkpoint)
    _require_room(source)
    config = json.loads((source / "config.json").read_bytes())
    shared = _architecture(source) in BUILDER
    with TemporaryDirectory(dir=Path(target).parent) as folder:
        model = _built(source, folder) if shared else _exported(source, folder)
        _keep_tied_once(model)
        _keep_few_logits(model)
        if shared:
            _cut_positions(model, _most_tokens(source, config))
        import onnx

        onnx.save(without_orphans(model), target)
    return {"cache": _cache(config, shared)}


def _architecture(checkpoint: Path) -> str:
    file = checkpoint / "config.json"
    told = json.loads(file.read_bytes()) if file.is_file() else {}
    return str((told.get("architectures") or [""])[0])


def _require_room(checkpoint: Path) -> None:
    from safetensors import safe_open

    count = 0
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            names = list(tensors.keys())
            count += sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in names)
    if 4 * count > MAX_BYTES:
        raise InputError(
            f"{checkpoint.name}: {count / 1e6:.0f} million weights make a graph over 2 GB in fp32; at most "
            f"{MAX_BYTES // 4_000_000} million can be exported"
        )


def _most_tokens(checkpoint: Path, config: dict[str, Any]) -> int:
    file = checkpoint / "checkpoint.json"
    if file.is_file():
        return int(json.loads(file.read_bytes())["limits"]["max_tokens"])
    return int(config["max_position_embeddings"])


def _cache(config: dict[str, Any], shared: bool) -> dict[str, Any]:
    """`shared`: past and present may be one buffer, as long as the longest context (GroupQueryAttention);
    padding then is on the right, since the mask is only summed."""
    layers = config.get("num_hidden_layers") or config["n_layer"]
    heads = config.get("num_attention_heads") or config["n_head"]
    width = config.get("hidden_size") or config["n_embd"]
    return {
        "layers": layers,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_size": config.get("head_dim") or width // heads,
        "dtype": "float32",
        "shared": shared,
        "names": dict(_NAMES),
    }


def _built(source: Path, folder: str) -> Model:
    import onnx
    from onnxruntime_genai.models.builder import create_model

    create_model("", str(source), folder, "fp32", "cpu", f"{folder}/cache", hf_token="false", hf_remote=False)
    return onnx.load(f"{folder}/model.onnx")


def _exported(source: Path, folder: str) -> Model:
    import onnx
    from optimum.exporters.onnx import main_export

    task = "text-generation-with-past"
    main_export(str(source), folder, task=task, device="cpu", do_validation=False)
    return onnx.load(f"{folder}/model.onnx")


def _keep_tied_once(model: Model) -> None:
    """A matrix that embeddings and head share becomes (width, vocabulary), once: the head multiplies by it,
    the embeddings are columns of it, turned. Of a Transpose of the whole the engine would keep a second copy.
    """
    from onnx import helper

    weights = constants(model)
    turned = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and node.input[0] in weights and weights[node.input[0]].ndim == 2
    }
    reads = {node.op_type for node in model.graph.node for name in node.input if name in turned}
    rowwise = "MatMul" in reads  # the matrix lies as (vocabulary, width)
    if rowwise:
        for source in set(turned.values()):
            _replace_constant(model, source, weights[source].T)

    def step(node: Any) -> list[Any]:
        if node.output[0] in turned:
            return []
        table = node.input[0] if node.input and node.op_type == "Gather" else ""
        if table in turned or (rowwise and table in turned.values()):
            columns = f"{node.output[0]}_columns"
            inputs = [turned.get(table, table), node.input[1]]
            return [
                helper.make_node("Gather", inputs, [columns], node.name, axis=1),
                helper.make_node(
                    "Transpose", [columns], list(node.output), f"{node.name}_turn", perm=[1, 2, 0]
                ),
            ]
        for place, name in enumerate(node.input):
            node.input[place] = turned.get(name, name)
        return [node]

    rewrite(model, step)


def _replace_constant(model: Model, name: str, value: np.ndarray) -> None:
    kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    add_constant(model, name, np.ascontiguousarray(value))


def _keep_few_logits(model: Model) -> None:
    """A new input `num_logits_to_keep`: logits of so many last positions, 0 for all. What a prompt's tokens
    mean is needed of the last one only, and the head is a large part of all work."""
    from onnx import TensorProto, helper

    add_constant(model, "keep_axis", np.array([1], np.int64))
    add_constant(model, "keep_shape", np.array([1], np.int64))
    add_constant(model, "keep_end", np.array([np.iinfo(np.int64).max], np.int64))
    model.graph.input.append(helper.make_tensor_value_info(KEEP, TensorProto.INT64, []))

    def step(node: Any) -> list[Any]:
        if node.op_type != "MatMul" or node.output[0] != "logits":
            return [node]
        before = node.input[0]
        node.input[0] = "kept_states"
        return [
            helper.make_node("Reshape", [KEEP, "keep_shape"], ["keep_one"], "keep_one"),
            helper.make_node("Neg", ["keep_one"], ["keep_start"], "keep_start"),
            helper.make_node(
                "Slice", [before, "keep_start", "keep_end", "keep_axis"], ["kept_states"], "keep_states"
            ),
            node,
        ]

    rewrite(model, step)


def _cut_positions(model: Model, most: int) -> None:
    """Rotary tables (positions, half a head) of the tokens that the checkpoint takes, not all it could."""
    known = constants(model)
    for name in ("cos_cache", "sin_cache"):
        if name in known and len(known[name]) > most:
            _replace_constant(model, name, known[name][:most])

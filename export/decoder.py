"""Decoder checkpoint → one ONNX graph with its cache (`past_key_values.*` in, `present.*` out), fp32.

The Llama family through onnxruntime-genai's model builder, whose GroupQueryAttention appends to the cache in
place and which plain ONNX Runtime runs; GPT-2 through Optimum, whose graph concatenates the cache.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from compress.graph import Model, add_constant, constants, without_orphans
from runtimes.errors import InputError

# Architectures that the builder is known to write a plain decoder of (no extra inputs, no experts).
BUILDER = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "SmolLM3ForCausalLM")
OPTIMUM = ("GPT2LMHeadModel",)
# The engine takes no weights beside the graph, and one protobuf holds 2 GB.
MAX_BYTES = (2 << 30) - (1 << 20)
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
        if shared:
            _keep_tied_once(model)
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
            count += sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys())
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
    """Transpose and Gather of rows → Gather of columns and Transpose: the engine would fold the first into a
    second copy of the whole matrix, the second turns the few vectors that are read."""
    from onnx import helper

    turned = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and "embed_tokens" in node.name
    }
    nodes = []
    for node in model.graph.node:
        if node.output[0] in turned:
            continue
        if node.op_type == "Gather" and node.input[0] in turned:
            columns = f"{node.output[0]}_columns"
            nodes += [
                helper.make_node(
                    "Gather", [turned[node.input[0]], node.input[1]], [columns], node.name, axis=1
                ),
                helper.make_node(
                    "Transpose", [columns], list(node.output), f"{node.name}_turn", perm=[1, 2, 0]
                ),
            ]
            continue
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _cut_positions(model: Model, most: int) -> None:
    """Rotary tables (positions, half a head) of the tokens that the checkpoint takes, not all it could."""
    known = constants(model)
    for name in ("cos_cache", "sin_cache"):
        if name in known and len(known[name]) > most:
            kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
            del model.graph.initializer[:]
            model.graph.initializer.extend(kept)
            add_constant(model, name, np.ascontiguousarray(known[name][:most]))

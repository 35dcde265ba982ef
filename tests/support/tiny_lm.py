"""Bundles of tiny language models with random weights: GroupQueryAttention (Llama) and GPT-2's own cache."""

import json
from pathlib import Path

from tiny_generator import make_generator

LIMITS = {"max_tokens": 192, "max_chars": 2_000, "max_batch": 16}
PROMPTS = ["the cat sees", "a big dog likes the", "fish", "naïve 東京 and the", "river tree house " * 8]


def checkpoint(folder: Path, family: str) -> Path:
    from trainers.generator import adopt_generator

    source = make_generator(folder / family / "source", family, positions=256)
    return adopt_generator(
        source, folder / family / "checkpoint", LIMITS["max_tokens"], {"name": "tiny"}
    ).path


def bundle(checkpoint: Path, out: Path) -> Path:
    """onnx-fp32, the default, and onnx-int4, in a sealed folder, with the checkpoint's golden vectors.

    The budget lets int4 be: random weights have nothing to lose.
    """
    from compress.decoder import onnx_decoder_int4
    from export.decoder import to_decoder
    from export.template import compile_template, template_source
    from runtimes.bundle import seal
    from runtimes.generation import generation_of
    from runtimes.golden import golden_bytes
    from runtimes.load import load

    graphs = {name: out / "variants" / name / "model.onnx" for name in ("onnx-fp32", "onnx-int4")}
    for graph in graphs.values():
        graph.parent.mkdir(parents=True)
    details = to_decoder(str(checkpoint), str(graphs["onnx-fp32"]))
    onnx_decoder_int4(str(graphs["onnx-fp32"]), str(graphs["onnx-int4"]))
    for name in ("tokenizer.json", "config.json"):
        (out / name).write_bytes((checkpoint / name).read_bytes())
    model = load(checkpoint, threads=1)
    outputs, ids = model.outputs(PROMPTS), model.tokens(PROMPTS)
    golden = golden_bytes(
        PROMPTS, [-1] * len(PROMPTS), ids, outputs, "logits", model.continuations(PROMPTS, 16)
    )
    (out / "golden.npz").write_bytes(golden)
    # Rounding random weights to 4 bits leaves nothing to agree on; fp32 keeps what the gate asks of it.
    budget = {"max_abs": 1e-3, "min_cosine": 0.0, "min_agreement": 0.0, "min_greedy": 0.0, "max_drop": 0.01}
    (out / "parity.json").write_text(json.dumps({"budget": budget, "variants": {}}))
    variants = {
        name: {"engine": "onnx", "precision": name.removeprefix("onnx-"), "file": str(graph.relative_to(out)),
               "size_bytes": graph.stat().st_size, **details}
        for name, graph in graphs.items()
    }  # fmt: skip
    generation = generation_of(checkpoint) | {"template": compile_template(*template_source(checkpoint))}
    manifest = {
        "schema": 1, "name": f"tiny-{checkpoint.parent.name}", "task": "text-generation", "labels": [],
        "limits": LIMITS, "signature": {}, "lineage": [], "defaults": {"*": "onnx-fp32", "onnx": "onnx-fp32"},
        "variants": variants, "generation": generation,
    }  # fmt: skip
    files = ["tokenizer.json", "config.json", "golden.npz", "parity.json"]
    seal(out, manifest, [*files, *(about["file"] for about in variants.values())])
    return out

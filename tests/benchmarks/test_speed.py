"""pytest-benchmark: load, tokenize, infer, post-process, per engine, beside what a user would pick instead.

`make bench` measures; in `make test` each runs once, so that the benchmarks cannot rot.
"""

import pytest

from runtimes.load import load
from runtimes.tasks.classify import softmax

TEXT = "the opec meeting said oil barrels rise before the harbour strike"
VARIANTS = ["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic_wi8_afp32"]


@pytest.mark.benchmark(group="load")
@pytest.mark.parametrize("variant", VARIANTS)
def test_load(benchmark, tiny_bundle, variant):
    benchmark(load, tiny_bundle, variant=variant, threads=1)


@pytest.mark.benchmark(group="tokenize")
def test_tokenize(benchmark, tiny_bundle):
    model = load(tiny_bundle, engine="onnx", threads=1)
    benchmark(model.prepare, [TEXT])


@pytest.mark.benchmark(group="infer")
@pytest.mark.parametrize("variant", VARIANTS)
def test_infer(benchmark, tiny_bundle, variant):
    model = load(tiny_bundle, variant=variant, threads=1)
    benchmark(model.run, model.prepare([TEXT]))


@pytest.mark.benchmark(group="infer")
def test_infer_pytorch_eager(benchmark, tiny_checkpoint):
    model = load(tiny_checkpoint.path, threads=1)
    benchmark(model.run, model.prepare([TEXT]))


@pytest.mark.benchmark(group="post-process")
def test_softmax(benchmark, tiny_bundle):
    benchmark(softmax, load(tiny_bundle, engine="onnx", threads=1).logits([TEXT]))


@pytest.mark.benchmark(group="text to answer")
@pytest.mark.parametrize("variant", VARIANTS)
def test_answer(benchmark, tiny_bundle, variant):
    benchmark(load(tiny_bundle, variant=variant, threads=1), TEXT)


@pytest.mark.benchmark(group="text to answer")
def test_answer_transformers_pipeline(benchmark, tiny_checkpoint):
    import torch
    from transformers import pipeline

    torch.set_num_threads(1)  # as all the others
    benchmark(pipeline("text-classification", model=str(tiny_checkpoint.path)), TEXT)


@pytest.mark.benchmark(group="text to answer")
def test_answer_optimum(benchmark, tiny_bundle):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    model = ORTModelForSequenceClassification.from_pretrained(
        tiny_bundle, subfolder="variants/onnx-int8", file_name="model.onnx", local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_bundle)

    def answer() -> int:
        return int(model(**tokenizer(TEXT, return_tensors="pt")).logits.argmax())

    benchmark(answer)


@pytest.mark.benchmark(group="text to vector")
def test_vector(benchmark, answer_parts):
    benchmark(load(answer_parts["embedder"], variant="onnx-int8", threads=1), TEXT)


@pytest.mark.benchmark(group="text to vector")
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_vector_sentence_transformers(benchmark, tiny_base, backend):
    import torch
    from sentence_transformers import SentenceTransformer, models

    torch.set_num_threads(1)
    how = {"provider": "CPUExecutionProvider", "export": True} if backend == "onnx" else {}
    words = models.Transformer(str(tiny_base), max_seq_length=64, backend=backend, model_args=how)
    pooling = models.Pooling(words.auto_model.config.hidden_size, pooling_mode="mean")
    model = SentenceTransformer(modules=[words, pooling, models.Normalize()], device="cpu")
    benchmark(model.encode, TEXT, show_progress_bar=False)

"""What a user would take instead: BERT-base in PyTorch, the teacher itself, Optimum's own int8 of it."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.files import writing
from runtimes.load import load
from trainers.checkpoint import open_checkpoint, seal

BERT = "BERT-base, PyTorch eager fp32"
TEACHER = "teacher (MiniLM-L6), PyTorch eager fp32"
OPTIMUM = "teacher, Optimum dynamic int8"
OPTIMUM_STUDENT = "student, Optimum dynamic int8"
Timed = tuple[Callable[[str], object], dict[str, Any]]


def bert_base(teacher: Path, root: Path) -> Timed:
    """BERT-base's architecture with random weights: time and size are BERT-base's, answers are not."""
    from transformers import BertConfig, BertForSequenceClassification

    from trainers.model import save_model

    told = open_checkpoint(teacher)
    path = root / "bert-base-random"
    if not path.exists():
        labels = dict(enumerate(told.labels))
        config = BertConfig(id2label=labels, label2id={name: index for index, name in labels.items()})
        with writing(path) as folder:
            save_model(BertForSequenceClassification(config), teacher, folder, told.limits["max_tokens"])
            seal(folder, {**told.meta, "metrics": {}, "lineage": [{"step": "random"}]})
    about = {"rung": "BERT-base", "accuracy": None, "n": 0, "bytes": weights(path)}
    return load(path, threads=1), {**about, "tokenizer_bytes": (path / "tokenizer.json").stat().st_size}


def optimum_int8(checkpoint: Path, root: Path, texts: Sequence[str], labels: Sequence[int]) -> Timed:
    """Optimum's export of a checkpoint, quantized by its ORTQuantizer for AVX-512 VNNI, in its own class."""
    path = root / f"optimum-{checkpoint.name}"
    if not path.exists():
        with writing(path) as folder:
            _optimum_export(checkpoint, folder)
    call = _optimum_call(path)
    file = path / "model_quantized.onnx"
    kept = path / "accuracy.json"
    if not kept.is_file():
        right = [int(np.argmax(call(text))) == label for text, label in zip(texts, labels, strict=True)]
        kept.write_text(json.dumps({"accuracy": float(np.mean(right)), "n": len(right)}))
    tokenizer = (path / "tokenizer.json").stat().st_size
    about = {"rung": "Optimum", "bytes": file.stat().st_size, "tokenizer_bytes": tokenizer}
    return call, {**about, **json.loads(kept.read_bytes())}


def _optimum_export(checkpoint: Path, folder: Path) -> None:
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig
    from transformers import AutoTokenizer

    model = ORTModelForSequenceClassification.from_pretrained(checkpoint, export=True, local_files_only=True)
    model.save_pretrained(folder)
    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
    ORTQuantizer.from_pretrained(folder).quantize(save_dir=folder, quantization_config=config)
    AutoTokenizer.from_pretrained(checkpoint, local_files_only=True).save_pretrained(folder)


def _optimum_call(path: Path) -> Callable[[str], np.ndarray]:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    model = ORTModelForSequenceClassification.from_pretrained(
        path, file_name="model_quantized.onnx", session_options=options, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)

    def call(text: str) -> np.ndarray:
        inputs = tokenizer(text, truncation=True, max_length=128, return_tensors="np")
        return np.asarray(model(**inputs).logits)

    return call


def weights(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))

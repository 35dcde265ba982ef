"""A checkpoint's answers and figures over a split (torch)."""

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from runtimes.text import Tokenizer
from trainers.checkpoint import Checkpoint
from trainers.data import Split
from trainers.fit import collate, encode, input_names, inputs_of
from trainers.metrics import classification_report, confident_errors
from trainers.model import open_model, open_tokenizer


def predict_model(
    model: Any,
    tokenizer: Tokenizer,
    texts: list[str],
    batch_size: int = 64,
    layers: list[int] | None = None,
    precision: str = "fp32",
) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits float32 (n, C), and with `layers` the [CLS] states float16 (n, len(layers), hidden).

    A layer number counts as in `hidden_states`: 0 is the embedding, k the output of the k-th layer. What is
    computed in bf16 or fp16 serves as a teacher's answer; figures come from fp32.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = model.training
    model.to(device).eval()
    to_batch = collate(tokenizer.pad_id, input_names(model))
    ids = encode(tokenizer, texts)
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
    logits: np.ndarray = np.zeros((len(ids), model.config.num_labels), np.float32)
    states = np.zeros((len(ids), len(layers), model.config.hidden_size), np.float16) if layers else None
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    mixed = torch.autocast(device, low or torch.bfloat16, enabled=low is not None)
    with torch.inference_mode(), mixed, tqdm(total=len(ids), desc="predict", unit="row", disable=None) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = to_batch([{"ids": ids[i], "label": 0, "extra": {}} for i in rows])
            inputs = {key: value.to(device) for key, value in inputs_of(batch).items()}
            output = model(**inputs, output_hidden_states=bool(layers))
            logits[rows] = output.logits.float().cpu().numpy()
            if states is not None and layers:
                cls = torch.stack([output.hidden_states[layer][:, 0] for layer in layers], 1)
                states[rows] = cls.half().cpu().numpy()
            bar.update(len(rows))
    model.train(training)
    return logits, states


def predict(checkpoint: Checkpoint, texts: list[str], batch_size: int = 64) -> np.ndarray:
    """Logits float32 (n, C) of a checkpoint in fp32."""
    tokenizer = open_tokenizer(checkpoint.path, checkpoint.limits["max_tokens"])
    return predict_model(open_model(checkpoint.path), tokenizer, texts, batch_size)[0]


def report_of(logits: np.ndarray, labels: list[int]) -> dict[str, Any]:
    """The classification report with the most confident errors."""
    return {**classification_report(logits, labels), "errors": confident_errors(logits, labels)}


def evaluate_model(model: Any, tokenizer: Tokenizer, split: Split) -> dict[str, Any]:
    """Report of a model in memory over a split."""
    return report_of(predict_model(model, tokenizer, split.texts)[0], split.labels)


def evaluate(checkpoint: Checkpoint, split: Split) -> dict[str, Any]:
    """Report of a checkpoint over a split whose labels are in the checkpoint's order."""
    return report_of(predict(checkpoint, split.texts), split.labels)

"""The bundle's ONNX variant opens in what a user may have already."""

import numpy as np
import pytest

from runtimes.load import load


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-int8"])
def test_optimum_opens_the_bundle(tiny_bundle, variant):
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    model = ORTModelForSequenceClassification.from_pretrained(
        tiny_bundle, subfolder=f"variants/{variant}", file_name="model.onnx", local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_bundle)
    texts = ["wheat and corn", "the opec meeting on oil barrels"]
    for text in texts:
        theirs = model(**tokenizer(text, return_tensors="pt")).logits.detach().numpy()
        ours = load(tiny_bundle, variant=variant, threads=1).logits([text])
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert model.config.id2label[0] == "grain"

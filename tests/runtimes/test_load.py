"""`load` on every engine: the same answers, and clear words where there are none."""

import numpy as np
import pytest

import edgewise
from runtimes import engines
from runtimes.bundle import open_bundle
from runtimes.errors import EngineError, InputError
from runtimes.load import choose

VARIANTS = ["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic_wi8_afp32"]
TEXTS = ["wheat harvest and corn export", "opec oil barrels", "a tanker in the harbour", "tariffs on imports"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_vectors(tiny_bundle, variant):
    """The checkpoint's own logits, on its own texts, through clean, tokenize, pad, engine."""
    golden = open_bundle(tiny_bundle).golden()
    model = edgewise.load(tiny_bundle, variant=variant, threads=1)
    logits = model.logits([str(text) for text in golden["texts"]])
    tolerance = 1e-3 if variant.endswith("-fp32") else 0.35
    np.testing.assert_allclose(logits, golden["logits"], atol=tolerance)
    assert (logits.argmax(1) == golden["logits"].argmax(1)).mean() > 0.95


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers(tiny_bundle, variant):
    model = edgewise.load(tiny_bundle, variant=variant, threads=1)
    answer = model(TEXTS[0])
    assert answer.label == "grain"
    assert answer.score == max(answer.scores.values())
    assert list(answer.scores.values()) == sorted(answer.scores.values(), reverse=True)
    assert sum(answer.scores.values()) == pytest.approx(1)
    assert [one.label for one in model(TEXTS)] == ["grain", "crude", "ship", "trade"]
    assert list(model(TEXTS[0], top_k=2).scores) == list(answer.scores)[:2]
    assert model([]) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_texts(tiny_bundle, variant):
    """Padding and order must not leak into the answers; int8 scales depend on the batch, a little."""
    model = edgewise.load(tiny_bundle, variant=variant, threads=1)
    texts = [*TEXTS, "oil", "port " * 40, *TEXTS[::-1]] * 5
    alone = np.concatenate([model.logits([text]) for text in texts])
    tolerance = 0.2 if variant == "onnx-int8" else 1e-4
    np.testing.assert_allclose(model.logits(texts), alone, atol=tolerance)


def test_nothing_is_padded_to_the_maximum(tiny_bundle):
    onnx = edgewise.load(tiny_bundle, engine="onnx", threads=1)
    (short,) = onnx.prepare(["oil"])
    assert short.feeds["input_ids"].shape == (1, 3)
    litert = edgewise.load(tiny_bundle, engine="litert", threads=1)
    lengths = [
        batch.feeds["input_ids"].shape[1] for batch in litert.prepare(["oil", "oil " * 9, "oil " * 90])
    ]
    assert lengths == [8, 16, 32]


def test_explain_points_at_the_words_that_spoke(tiny_bundle):
    text = "the report said wheat in the <b>market</b>"
    for engine in ("onnx", "litert"):
        explained = edgewise.load(tiny_bundle, engine=engine, threads=1).explain(text)
        assert explained.label == "grain"
        assert all(text[word.start : word.end] == word.text for word in explained.words)
        strongest = max(explained.words, key=lambda word: word.contribution)
        assert strongest.text == "wheat"


def test_explain_another_label_and_hard_texts(tiny_bundle):
    model = edgewise.load(tiny_bundle, engine="onnx", threads=1)
    against = model.explain("wheat and oil", label="crude")
    assert {word.text: word.contribution for word in against.words}["oil"] > 0
    assert len(model.explain("oil").words) == 1
    assert model.explain("!!!").words == []
    assert len(model.explain("oil wheat " * 300).words) == 600
    with pytest.raises(InputError, match="'sport' is not one of grain"):
        model.explain("oil", label="sport")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("", "text 1 of 1 is empty"),
        (["oil", " \n"], "text 2 of 2 is empty"),
        (["oil", 3], "a list of texts"),
        (None, "a list of texts"),
    ],
)
def test_bad_texts(tiny_bundle, texts, message):
    with pytest.raises(InputError, match=message):
        edgewise.load(tiny_bundle, engine="onnx")(texts)


def test_top_k_below_one(tiny_bundle):
    with pytest.raises(InputError, match="top_k"):
        edgewise.load(tiny_bundle, engine="onnx")("oil", top_k=0)


@pytest.mark.parametrize(
    ("engine", "package", "provider"),
    [("onnx", "onnxruntime", "CPUExecutionProvider"), ("litert", "ai_edge_litert", "XNNPACK")],
)
def test_describe_says_what_really_runs(tiny_bundle, engine, package, provider):
    about = edgewise.load(tiny_bundle, engine=engine, threads=2).describe()
    assert (about["engine"], about["threads"], about["providers"]) == (package, 2, [provider])
    assert about["bundle"] == "tiny" and about["task"] == "text-classification"
    assert about["engine_version"][0].isdigit()


@pytest.mark.parametrize(("engine", "provider"), [("onnx", "CUDAExecutionProvider"), ("litert", "GPU")])
def test_a_fallback_is_an_error_unless_allowed(tiny_bundle, engine, provider):
    with pytest.raises(EngineError, match=provider):
        edgewise.load(tiny_bundle, engine=engine, providers=[provider])
    model = edgewise.load(tiny_bundle, engine=engine, providers=[provider], allow_fallback=True)
    assert provider not in model.describe()["providers"]


def test_the_checkpoint_opens_as_the_reference(tiny_checkpoint):
    model = edgewise.load(tiny_checkpoint.path, threads=1)
    assert model.describe()["engine"] == "torch"
    assert model(TEXTS[1]).label == "crude"
    with pytest.raises(EngineError, match="runs on torch only"):
        edgewise.load(tiny_checkpoint.path, engine="onnx")


def test_choice_follows_what_is_installed(tiny_bundle, monkeypatch):
    bundle = open_bundle(tiny_bundle)
    monkeypatch.setattr(engines, "installed", lambda engine: engine == "litert")
    assert choose(bundle).startswith("tflite")
    monkeypatch.setattr(engines, "installed", lambda engine: engine == "onnx")
    assert choose(bundle).startswith("onnx")
    monkeypatch.setattr(engines, "installed", lambda engine: False)
    with pytest.raises(EngineError, match=r"edgewise\[litert\].*edgewise\[onnx\]"):
        choose(bundle)


def test_an_engine_that_is_not_installed(tiny_bundle, monkeypatch):
    monkeypatch.setitem(engines.PACKAGES, "onnx", ("no_such_package",))
    with pytest.raises(EngineError, match=r"pip install 'edgewise\[onnx\]'"):
        edgewise.load(tiny_bundle, engine="onnx")


def test_variant_and_engine_must_agree(tiny_bundle):
    with pytest.raises(EngineError, match="runs on onnx, not litert"):
        edgewise.load(tiny_bundle, variant="onnx-int8", engine="litert")


def test_unknown_names_of_the_public_module():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        edgewise.lode  # noqa: B018
    assert "load" in dir(edgewise)

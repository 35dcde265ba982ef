"""Keras and SavedModels: converted by TensorFlow in a child, held to their own answers; code is never run."""

import json
import zipfile

import numpy as np
import pytest
from tiny_news import rows

from export.adopt import adopt
from export.keras import Recorded, check_archive, convert
from runtimes import engines
from runtimes.errors import EngineError, InputError
from runtimes.tasks.classify import open as open_task
from runtimes.text import Tokenizer

pytestmark = pytest.mark.slow


def classifier(session, folder, max_tokens):
    tokenizer = Tokenizer.from_bytes((folder / "words.json").read_bytes(), max_tokens)
    limits = {"max_tokens": max_tokens, "max_chars": 1000, "max_batch": 8}
    return open_task(session, tokenizer, list("abcd"), limits, {})


def converted(folder, name, kind, names, texts, out, **change):
    words = (folder / "words.json").read_bytes()
    size = len(json.loads(words)["model"]["vocab"])
    out.mkdir()
    how = {"max_tokens": None, "limits": (size - 1, 32), "calibration": rows(40, 3)[0], **change}
    calibration, max_tokens, limits = how["calibration"], how["max_tokens"], how["limits"]
    return convert(folder / name, kind, names, words, 4, texts, calibration, out, max_tokens, limits)


def test_a_saved_model_with_a_mask(tiny_keras, tmp_path):
    """Any length: one signature for each, weights stored once; the answers are TensorFlow's."""
    texts, labels = rows(40, 7)
    names = ["tflite-fp32", "tflite-static_wi8_ai8"]
    made = converted(tiny_keras, "bag_saved", "savedmodel", names, texts, tmp_path / "out")
    assert made.seen["inputs"] == {"input_word_ids": "input_ids", "input_mask": "attention_mask"}
    assert made.max_tokens == 32 and made.session.lengths == [16, 32]
    want = classifier(made.session, tiny_keras, 32).logits(texts)
    assert (want.argmax(axis=1) == np.array(labels)).mean() > 0.9
    for variant, error in zip(made.variants, (1e-4, 2.0), strict=True):
        session = engines.module("litert").open(variant.path, 1, variant=variant.entry())
        got = classifier(session, tiny_keras, 32).logits(texts)
        assert np.abs(got - want).max() < error
        assert (got.argmax(axis=1) == want.argmax(axis=1)).mean() > 0.9
    table = len(json.loads((tiny_keras / "words.json").read_bytes())["model"]["vocab"]) * 16 * 4
    assert made.variants[0].path.stat().st_size < 1.5 * table


def test_python_in_a_saved_model_is_refused(tiny_keras, tmp_path):
    with pytest.raises(InputError, match="it calls Python"):
        converted(tiny_keras, "py_saved", "savedmodel", ["tflite-fp32"], ["wheat"], tmp_path / "out")


def test_integers_at_the_border_of_a_tflite(tiny_keras, tmp_path):
    """Full-integer with int8 probabilities: float logits in the bundle, the same answers."""
    size = len(json.loads((tiny_keras / "words.json").read_bytes())["model"]["vocab"])
    adopted = adopt(tiny_keras / "int8.tflite", 4, size - 1, tmp_path / "out", None)
    assert adopted.variant.name == "tflite-static_wi8_ai8" and adopted.max_tokens == 24
    assert adopted.seen["probabilities"]
    session = engines.module("litert").open(adopted.variant.path, 1, variant=adopted.variant.entry())
    texts, labels = rows(60, 9)
    logits = classifier(session, tiny_keras, 24).logits(texts)
    assert logits.dtype == np.float32 and (logits.argmax(axis=1) == np.array(labels)).mean() > 0.9


def test_too_few_rows_to_calibrate_with(tiny_keras, tmp_path):
    names, few = ["tflite-static_wi8_ai8"], ["wheat"] * 9
    with pytest.raises(InputError, match="9 of the 10 that it needs"):
        converted(tiny_keras, "cnn.keras", "keras", names, ["wheat"], tmp_path / "out", calibration=few)


@pytest.mark.parametrize(
    ("name", "message"),
    [("string.keras", r"takes raw strings \(TextVectorization\)"), ("lambda.keras", "Lambda in it is code")],
)
def test_strings_and_code_are_refused_without_tensorflow(name, message, tiny_keras):
    with pytest.raises(InputError, match=message):
        check_archive(tiny_keras / name)


def test_recorded_answers_are_all_there_is():
    ids, mask = np.array([[5, 6, 0]]), np.array([[1, 1, 0]])
    key = ids[0].tobytes() + mask[0].astype(np.int8).tobytes()
    session = Recorded([3], {key: np.float32([1, 2])})
    answer = session.run({"input_ids": ids, "attention_mask": mask})
    np.testing.assert_array_equal(answer["logits"], [[1, 2]])
    with pytest.raises(EngineError, match="was not asked"):
        session.run({"input_ids": ids + 1, "attention_mask": mask})


def archive(path, config="{}", **members):
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in {"metadata.json": "{}", "config.json": config, "model.weights.h5": "w"}.items():
            if name not in members:
                zipped.writestr(name, data)
        for name, data in members.items():
            if data is not None:
                zipped.writestr(name, data)
    return path


CONFIGS = {
    "custom layer": (
        {"module": "mine", "class_name": "Layer", "registered_name": "x>Layer"},
        "'x>Layer' is not",
    ),
    "registered": ({"module": None, "class_name": "Layer", "registered_name": "x>Layer"}, "'x>Layer' is not"),
    "another module": ({"module": "os", "class_name": "system"}, "class 'system' is not Keras's own"),
    "lambda deep inside": (
        {"a": [{"b": [{"class_name": "__lambda__", "config": {}}]}]},
        "lambda in it is code",
    ),
    "lookup": ({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}, "takes raw strings"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_are_refused(name, tmp_path):
    told, message = CONFIGS[name]
    with pytest.raises(InputError, match=message):
        check_archive(archive(tmp_path / "a.keras", json.dumps(told)))


def test_archives_that_are_refused(tmp_path):
    path = tmp_path / "a.keras"
    for member in ("../up", "/abs", "a/../../up"):
        with pytest.raises(InputError, match="is not allowed"):
            check_archive(archive(path, **{member: "x"}))
    with pytest.raises(InputError, match=r"no config\.json in it"):
        check_archive(archive(path, **{"config.json": None}))
    with pytest.raises(InputError, match=r"config\.json is not JSON"):
        check_archive(archive(path, "{"))
    with pytest.raises(InputError, match=r"config\.json is not JSON"):
        check_archive(archive(path, "[" * 100_000))
    whole = archive(path).read_bytes()
    check_archive(path)
    for cut in range(10, len(whole), 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"not a whole \.keras file|no .* in it"):
            check_archive(path)

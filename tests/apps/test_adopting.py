"""`edgewise export --from`: a user's own model becomes a gated bundle, or one line says why not."""

import csv
import json

import numpy as np
import pytest
from tiny_news import TOPICS

import edgewise
from apps.adopting import read_labels, read_tokenizer
from apps.cli.main import run
from runtimes.bundle import open_bundle
from runtimes.errors import InputError
from runtimes.load import load
from trainers.files import sha256_file

LABELS = list(TOPICS)


@pytest.fixture(scope="module")
def brought(tiny_variants, tiny_checkpoint, tiny_data, tmp_path_factory):
    """A folder with nothing but what a user has: model.onnx, model.tflite, tokenizer.json, rows.csv."""
    folder = tmp_path_factory.mktemp("brought")
    for name in ("onnx-fp32", "tflite-fp32"):
        path = tiny_variants[name].path
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "tokenizer.json").write_bytes((tiny_checkpoint.path / "tokenizer.json").read_bytes())
    test = tiny_data.splits["test"]
    write_rows(folder / "rows.csv", test.texts, [LABELS[label] for label in test.labels])
    return folder


def write_rows(path, texts, labels):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])


def argv(folder, model, out, **change):
    """The words of the command; `change` replaces options, None leaves one out."""
    options = {"task": "text-classification", "tokenizer": folder / "tokenizer.json", "out": out}
    options |= {"labels": ",".join(LABELS), "data": folder / "rows.csv"} | change
    words = ["export", "--from", str(folder / model)]
    return [*words, *(w for k, v in options.items() if v is not None for w in (f"--{k}", str(v)))]


@pytest.mark.parametrize("model", ["model.onnx", "model.tflite"])
def test_a_file_becomes_a_bundle(model, brought, tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "my.bundle"
    assert run([*argv(brought, model, out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["original"]["accuracy"] > 0.9 and told["original"]["n"] == 120
    bundle = open_bundle(out)
    step = bundle.manifest["lineage"][0]
    assert step["config"]["file"] == model and step["config"]["sha256"] == sha256_file(brought / model)
    kind = "onnx" if model.endswith("onnx") else "tflite"
    assert len(bundle.variants) == 2 and all(name.startswith(kind) for name in bundle.variants)
    assert bundle.manifest["data"]["name"] is None
    card = (out / "README.md").read_text()
    assert "Trained elsewhere" in card and f"file={model}" in card and "rows.csv" in card
    config = json.loads((out / "config.json").read_bytes())
    assert config["id2label"]["0"] == LABELS[0]
    texts = ["wheat and corn", "oil barrels of the opec", "the port strike"]
    reference = load(tiny_checkpoint.path, threads=1)
    model = edgewise.load(out, variant=f"{kind}-fp32", threads=1)
    np.testing.assert_allclose(model.logits(texts), reference.logits(texts), atol=1e-3)
    assert run(["check", str(out)]) == 0
    assert run(["run", str(out), "wheat corn harvest"]) == 0
    assert "grain" in capsys.readouterr().out
    assert run(["bench", str(out), "--quick", "--out", str(tmp_path / "rows.jsonl")]) == 0


@pytest.mark.slow
def test_a_keras_model_becomes_a_bundle(brought, tiny_keras, tmp_path, capsys):
    out = tmp_path / "keras.bundle"
    (tiny_keras / "rows.csv").write_bytes((brought / "rows.csv").read_bytes())
    words = argv(tiny_keras, "cnn.keras", out, tokenizer=tiny_keras / "words.json")
    names = ["tflite-fp32", "tflite-dynamic_wi8_afp32", "tflite-static_wi8_ai8"]
    for name in names:
        words += ["--variant", name]
    assert run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["original"] == {"accuracy": pytest.approx(1, abs=0.1), "n": 96, "max_tokens": 24}
    sizes = [open_bundle(out).variants[name]["size_bytes"] for name in names]
    assert sizes[1] < 0.5 * sizes[0] and sizes[2] < 0.5 * sizes[0]
    assert told["parity"]["variants"]["tflite-fp32"]["sample"]["max_abs"] < 1e-3
    assert run(["check", str(out)]) == 0
    assert edgewise.load(out, threads=1)("wheat corn harvest").label == "grain"


BAD = {
    "no task": ({"task": None}, "--from needs --task; the tasks are: text-classification"),
    "other task": ({"task": "summarization"}, "'summarization' is not one of: text-classification"),
    "no data": ({"data": None}, "the gate needs test rows"),
    "no tokenizer": ({"tokenizer": None}, "--from needs --tokenizer"),
    "no labels": ({"labels": None}, "--from needs --labels"),
    "unknown label": ({"labels": "grain,crude,ship,weather"}, "label 'trade' is not one of"),
    "too many labels": ({"labels": "grain,crude,ship,trade,x"}, "for 5 labels"),
    "labels twice": ({"labels": "grain,grain"}, "1 of them different"),
    "other order": ({"labels": "crude,ship,trade,grain"}, "look like --labels 'grain,crude,ship,trade'"),
    "zip": ({"out": "x.zip"}, "a model is exported to a folder"),
    "variant": ({"variant": "tflite-fp32"}, "cannot be made of it, only onnx-fp32, onnx-int8"),
    "long": ({"max-tokens": 100_000}, "reads from 4 to 65536"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_command_lines(name, brought, tmp_path, capsys):
    change, message = BAD[name]
    out = tmp_path / change.get("out", "my.bundle")
    code = run(argv(brought, "model.onnx", **{**change, "out": out}))
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgewise: ")]
    assert code == 2 and len(err) == 1 and message in err[0], err
    assert not out.exists()


def test_from_stands_alone(brought, tmp_path, capsys):
    for words in (["export", str(brought), *argv(brought, "model.onnx", "x")[1:]], ["export", "--out", "x"]):
        assert run(words) == 2
        assert "name one thing to export" in capsys.readouterr().err
    assert run(["export", str(brought), "--out", "x", "--task", "text-classification"]) == 2
    assert "--task: only with --from" in capsys.readouterr().err


def test_a_quantization_that_ruins_the_model_is_exit_3(brought, tmp_path, capsys, monkeypatch):
    """The fp32 weights get outliers that int8 has no room for, where the hidden states are nought: the gate
    stops it, nothing is written."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(brought / "model.onnx"))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def put(name, row, value):
        weight = numpy_helper.to_array(constants[name]).copy()
        weight[row] = value
        constants[name].CopyFrom(numpy_helper.from_array(weight, name))

    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            put(node.input[1], 0, 0.0)
            put(node.input[2], 0, 0.0)
    products = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in constants]
    for number, node in enumerate(products):
        if number % 6 in (0, 1, 2, 4):  # query, key, value and up-projection read the normalised states
            put(node.input[1], 0, 4_000.0)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    for name in ("tokenizer.json", "rows.csv"):
        (tmp_path / name).write_bytes((brought / name).read_bytes())
    assert run(argv(tmp_path, "model.onnx", tmp_path / "x")) == 3
    err = capsys.readouterr().err
    assert "variant onnx-int8 is not the same model" in err
    assert not (tmp_path / "x").exists()


def test_the_tokenizer_of_another_model(brought, tiny_checkpoint, tmp_path, capsys):
    told = json.loads((brought / "tokenizer.json").read_bytes())
    vocabulary = told["model"]["vocab"]
    told["model"]["vocab"] = {
        word if word.startswith("[") else f"x{word}": i for word, i in vocabulary.items()
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(told))
    assert run(argv(brought, "model.onnx", tmp_path / "x", tokenizer=path)) == 2
    assert "of the tokens in --data; it is of another model" in capsys.readouterr().err
    told["model"]["vocab"] = {**vocabulary, "more": 5_000}
    path.write_text(json.dumps(told))
    assert run(argv(brought, "model.onnx", tmp_path / "x", tokenizer=path)) == 2
    assert "the tokenizer's ids go up to 5000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no 'model' in it"),
        (b'{"model": {}}', "not a tokenizer"),
        (b'{"model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}}', "not a tokenizer"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_bad_tokenizers(data, message, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_tokenizer(path)


def test_labels(tmp_path):
    path = tmp_path / "labels.json"
    for told in (["a", "b"], {"1": "b", "0": "a"}, {"id2label": {"0": "a", "1": "b"}, "model_type": "bert"}):
        path.write_text(json.dumps(told))
        labels, config = read_labels(str(path))
        assert labels == ["a", "b"] and json.loads(config)["label2id"] == {"a": 0, "b": 1}
    assert json.loads(config)["model_type"] == "bert"
    assert read_labels("a, b")[0] == ["a", "b"]
    for bad in (
        "[1, 2]",
        '{"0": "a", "2": "b"}',
        '"a"',
        "{",
        '["a", "a"]',
        '["a", "b\\u0007"]',
        '["a"]',
        "{}",
    ):
        path.write_text(bad)
        with pytest.raises(InputError):
            read_labels(str(path))
    with pytest.raises(InputError, match="no such file"):
        read_labels("nowhere.json")

"""Readers and sentence encoders through whole recipes: data, training, gate, bundle, bench, command line."""

import json

import numpy as np
import pytest
from tiny_news import FILLER, rows

from apps.cli.main import run
from runtimes.bundle import open_bundle
from runtimes.golden import inputs_of, outputs_of, tokens_of
from runtimes.load import load

pytestmark = pytest.mark.slow

READER = """
name = "tiny-reader"
task = "question-answering"
[data]
name = "{data}"
[questions]
share = 0.2
impossible = 0.2
[base]
name = "{base}"
[train]
epochs = 12
batch_size = 16
learning_rate = 3e-3
max_tokens = 32
precision = "fp32"
patience = 4
[distil]
layers = 2
epochs = 4
batch_size = 16
learning_rate = 3e-3
max_tokens = 32
precision = "fp32"
[export]
variants = ["onnx-fp32", "onnx-int8", "onnx-static_int8", "tflite-fp32", "tflite-dynamic_wi8_afp32"]
lengths = [16, 32]
[budget]
max_abs = 1e-3
min_agreement = 0.85
max_drop = 0.06
[bench]
quick = true
rounds = 5
cold_starts = 1
"""

ENCODER = """
name = "tiny-encoder"
task = "feature-extraction"
[data]
name = "{data}"
[base]
name = "{base}"
[train]
max_tokens = 32
[export]
variants = ["onnx-fp32", "onnx-int8", "tflite-fp32"]
lengths = [16, 32]
[budget]
min_agreement = 0.4
samples = 60
[bench]
quick = true
rounds = 5
cold_starts = 1
"""


def question_rows(count: int, seed: int) -> list[str]:
    """The one number in the passage is the answer; some passages have none. Five articles."""
    random, found = np.random.default_rng(seed), []
    for n in range(count):
        words = list(random.choice(sorted(FILLER), size=random.integers(4, 24)))
        answers: dict[str, list] = {"text": [], "answer_start": []}
        if n % 4:
            place = int(random.integers(len(words)))
            words[place] = str(random.integers(10))
            answers = {"text": [words[place]],
                       "answer_start": [len(" ".join(words[:place])) + bool(place)]}  # fmt: skip
        row = {
            "id": str(n),
            "title": f"article {n % 5}",
            "question": "how many ?",
            "context": " ".join(words),
        }
        found.append(json.dumps({**row, "answers": answers}))
    return found


@pytest.fixture(scope="module")
def reader(tiny_base, tmp_path_factory):
    """runs/tiny-reader after a whole build."""
    folder = tmp_path_factory.mktemp("reader-flow")
    (folder / "rows.jsonl").write_text("\n".join(question_rows(500, 3)))
    (folder / "recipe.toml").write_text(READER.format(data=folder / "rows.jsonl", base=tiny_base))
    assert run(["build", str(folder / "recipe.toml"), "--runs", str(folder / "runs")]) == 0
    return folder / "runs" / "tiny-reader"


@pytest.fixture(scope="module")
def encoder(tiny_base, tmp_path_factory):
    """runs/tiny-encoder after a whole build."""
    folder = tmp_path_factory.mktemp("encoder-flow")
    lines = [
        json.dumps({"text": text, "label": str(label)}) for text, label in zip(*rows(200, 5), strict=True)
    ]
    (folder / "rows.jsonl").write_text("\n".join(dict.fromkeys(lines)))
    (folder / "recipe.toml").write_text(ENCODER.format(data=folder / "rows.jsonl", base=tiny_base))
    assert run(["build", str(folder / "recipe.toml"), "--runs", str(folder / "runs")]) == 0
    return folder / "runs" / "tiny-encoder"


def test_a_reader_is_built_and_proved(reader):
    bundle = open_bundle(reader / "tiny-reader.bundle")
    assert bundle.task == "question-answering" and set(bundle.manifest["calibration"]) >= {"threshold"}
    assert len(bundle.variants) == 5 and bundle.manifest["lineage"][-1]["step"] == "distil"
    parity = json.loads(bundle.read("parity.json"))["variants"]
    for name, figures in parity.items():
        assert figures["sample"]["metric"]["name"] == "f1"
        assert figures["sample"]["metric"]["checkpoint"] > 0.6, name
    card = bundle.read("README.md").decode()
    assert "exact match" in card and "| f1 | original's |" in card and "rightly not answered" in card
    rows = [json.loads(line) for line in bundle.read("bench/local.json").splitlines()]
    assert {row["metric"]["name"] for row in rows} == {"f1"}
    assert all(row["parity"]["agreement"] > 0.8 for row in rows if row["engine"] != "torch")
    report = (reader / "report.html").read_text()
    assert "F1 against latency" in report and "nearest sentence" in report


def test_the_table_of_readers(reader, capsys, monkeypatch):
    from apps.answers import benchmark

    recipe = reader.parents[1] / "recipe.toml"
    told = ["benchmark", "--recipe", str(recipe), "--runs", str(reader.parent), "--rounds", "4"]
    monkeypatch.setattr("sys.argv", told)
    benchmark.main()
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = ["PyTorch eager fp32", "onnx-fp32", "onnx-int8", "onnx-static_int8", "tflite-fp32",
             "tflite-dynamic_wi8_afp32", "Optimum dynamic int8"]  # fmt: skip
    assert [line[0].removeprefix("| ") for line in lines[1:]] == names
    assert all(0.5 < float(line[2].split()[0]) <= 1 for line in lines[1:])


def test_articles_are_held_out_whole(reader):
    (data,) = reader.glob("data-*")
    titles = {}
    for split in ("train", "validation", "test"):
        lines = (data / f"{split}.jsonl").read_text().splitlines()
        titles[split] = {json.loads(line)["title"] for line in lines}
        assert any(json.loads(line)["id"].endswith("-impossible") for line in lines)
    assert len(set.union(*titles.values())) == sum(map(len, titles.values())) == 5


@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic_wi8_afp32"])
def test_golden_windows_on_each_engine(reader, variant):
    golden = open_bundle(reader / "tiny-reader.bundle").golden()
    model = load(reader / "tiny-reader.bundle", variant=variant, threads=1)
    inputs, wanted = inputs_of(golden), outputs_of(golden)
    assert len(wanted) > len(inputs), "a passage of several windows is among them"
    for ids, told in zip(model.tokens(inputs), tokens_of(golden), strict=True):
        np.testing.assert_array_equal(ids, told)
    tolerance = 1e-3 if variant.endswith("-fp32") else 1.5
    for got, told in zip(model.outputs(inputs), wanted, strict=True):
        np.testing.assert_allclose(got, told, atol=tolerance)


def test_a_reader_on_the_command_line(reader, tmp_path, capsys):
    bundle = str(reader / "tiny-reader.bundle")
    passage = tmp_path / "passage.txt"
    passage.write_text(f"{' '.join(FILLER[:6])} 7 {' '.join(FILLER[:4])}")
    assert run(["run", bundle, "how many ?", "--passage", str(passage), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["text"] == "7" == passage.read_text()[answer["start"] : answer["end"]] and answer["found"]
    passage.write_text(" ".join(FILLER[:9]))
    assert run(["run", bundle, "how many ?", "--passage", str(passage)]) == 0
    assert capsys.readouterr().out.startswith("not in this passage")
    assert run(["run", bundle, "how many ?"]) == 2
    assert "needs --passage FILE" in capsys.readouterr().err
    assert run(["run", bundle, "how many ?", "--passage", str(passage), "--explain"]) == 2
    assert run(["run", bundle, "how many ?", "--passage", str(tmp_path / "gone")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert run(["check", bundle]) == 0


def test_a_reader_is_cut_down_and_measured(reader, tmp_path, capsys):
    bundle, small = str(reader / "tiny-reader.bundle"), str(tmp_path / "small.zip")
    assert run(["export", bundle, "--variant", "onnx-int8", "--out", small]) == 0
    data = next(reader.glob("data-*"))
    rows = tmp_path / "rows.jsonl"
    assert run(["bench", small, "--data", str(data), "--quick", "--out", str(rows)]) == 0
    row = json.loads(rows.read_text().splitlines()[0])
    assert row["metric"]["name"] == "f1" and row["metric"]["value"] > 0.5 and row["parity"]
    assert run(["check", small, "--on", "local"]) == 0
    capsys.readouterr()


def test_a_reader_is_made_smaller_and_adopted(reader, tmp_path, capsys):
    checkpoint, data = str(next(reader.glob("teacher-*"))), str(next(reader.glob("data-*")))
    out, of = str(tmp_path / "half"), ["compress", checkpoint, "--data", data]
    assert run([*of, "--keep", "0.6", "--epochs", "1", "--out", out, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["after"]["bytes"] < told["before"]["bytes"] and told["after"]["f1"] > 0.4
    (tmp_path / "half" / "checkpoint.json").unlink()  # as somebody else would have saved it
    bundle = str(tmp_path / "foreign.bundle")
    made = ["export", out, "--data", data, "--variant", "onnx-int8", "--out", bundle, "--max-drop", "0.06"]
    assert run(made) == 0
    assert open_bundle(bundle).task == "question-answering"
    capsys.readouterr()
    for more in (["--analyse"], ["--sparsity", "0.5", "--out", str(tmp_path / "x")]):
        assert run([*of, *more]) == 2
        assert "takes text classifiers only" in capsys.readouterr().err
    assert run([*of, "--vocabulary", "99", "--out", str(tmp_path / "y")]) == 2
    assert "words of any document" in capsys.readouterr().err


def test_an_encoder_is_built_and_proved(encoder, capsys):
    bundle = open_bundle(encoder / "tiny-encoder.bundle")
    golden = bundle.golden()
    assert golden["sentence_embedding"].shape == (len(golden["texts"]), 32)
    np.testing.assert_allclose(np.linalg.norm(golden["sentence_embedding"], axis=1), 1, atol=1e-5)
    for variant in bundle.variants:
        got = load(bundle.path, variant=variant, threads=1)(inputs_of(golden))
        tolerance = 1e-4 if variant.endswith("-fp32") else 0.1
        np.testing.assert_allclose(got, golden["sentence_embedding"], atol=tolerance)
    assert "metric" not in json.loads(bundle.read("parity.json"))["variants"]["onnx-int8"]["sample"]
    assert run(["run", str(bundle.path), "oil prices", "oil prices"]) == 0
    assert capsys.readouterr().out.startswith(" 1.000   1.000  │ oil prices")
    assert run(["check", str(bundle.path)]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('[vocabulary]\nsize = 9\n', "a reader meets words of any document"),
        ('[prune]\nmetric = "accuracy"\nmax_tokens = 32\n', "no figure of task question-answering"),
        ("[questions]\nshare = 0.7\n", "share must be above 0"),
        ('[questions]\ntest = ["a"]\nvalidation = ["a"]\n', "both in test and in validation"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be(tmp_path, capsys, change, words):
    text = READER.format(data="rows.jsonl", base="base").replace(
        "[questions]\nshare = 0.2\nimpossible = 0.2\n", ""
    )
    (tmp_path / "recipe.toml").write_text(text + change)
    assert run(["build", str(tmp_path / "recipe.toml"), "--dry-run"]) == 2
    assert words in capsys.readouterr().err


def test_titles_that_are_not_there(tmp_path, capsys, tiny_base):
    (tmp_path / "rows.jsonl").write_text("\n".join(question_rows(40, 1)))
    text = READER.format(data=tmp_path / "rows.jsonl", base=tiny_base)
    (tmp_path / "recipe.toml").write_text(text.replace("share = 0.2", 'test = ["no such article"]'))
    assert run(["train", str(tmp_path / "recipe.toml"), "--runs", str(tmp_path / "runs")]) == 2
    assert "held-out article 'no such article' is not in the data" in capsys.readouterr().err

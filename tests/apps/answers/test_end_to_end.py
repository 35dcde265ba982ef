"""Search and reader measured together, on a small data set of the same shape."""

import json
import sys

import pytest
from tiny_answers import PASSAGES

from apps.answers import end_to_end
from apps.answers.pack import read_calibration
from runtimes.errors import BundleError, InputError

RECIPE = """
name = "reader"
task = "question-answering"
[data]
name = "{data}"
[questions]
test = ["t0", "t1"]
validation = ["v0", "v1"]
[base]
name = "none"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Six articles of one paragraph; each word with its neighbours is an answer to some question."""
    folder = tmp_path_factory.mktemp("squad")
    articles = []
    for title, passage in zip(["t0", "v0", "a", "v1", "t1", "b"], PASSAGES, strict=True):
        words = [
            word for word in passage.replace(",", "").replace(".", "").split() if passage.count(word) == 1
        ]
        asked = [
            {
                "id": f"{title}-{n}",
                "question": f"what is {word} to the {words[n - 1]}?",
                "answers": [{"text": word, "answer_start": passage.index(word)}],
            }
            for n, word in enumerate(words)
        ]
        articles.append({"title": title, "paragraphs": [{"context": passage, "qas": asked}]})
    (folder / "squad.json").write_text(json.dumps({"data": articles}))
    (folder / "recipe.toml").write_text(RECIPE.format(data=folder / "squad.json"))
    return folder / "recipe.toml"


def test_the_command_prints_its_table_and_keeps_what_it_learned(
    recipe, answer_parts, tmp_path, monkeypatch, capsys
):
    def nearest(said, answers):  # random weights are never right to the letter
        return float(any(word in said.split() for word in answers))

    monkeypatch.setattr(end_to_end, "RECIPE", recipe)
    monkeypatch.setattr("trainers.asking.exact_match", nearest)
    out = tmp_path / "asking.json"
    words = ["--reader", answer_parts["reader"], "--embedder", answer_parts["embedder"], "--k", "3", "2"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, words), "--questions", "9", "--out", str(out)])
    end_to_end.main()
    table = capsys.readouterr().out
    assert table.count("| reader and search |") == table.count("| the reader alone |") == 2
    assert "9 questions of held-out articles on 6 passages" in table
    told = json.loads(out.read_text())
    assert told["k"] == 3 and told["test"]["n"] == 18
    assert told["test"]["answerable"]["n"] == told["test"]["unanswerable"]["n"] == 9
    assert told["reader"]["variant"] == "onnx-int8"
    assert read_calibration(out).k == 3


def test_a_text_is_embedded_once():
    asked = []

    def embedder(texts):
        asked.extend(texts)
        return [[float(len(text))] for text in texts]

    embed = end_to_end._remembering(embedder)
    assert embed(["a", "bb", "a"]).tolist() == [[1.0], [2.0], [1.0]]
    assert embed(["bb", "ccc"]).tolist() == [[2.0], [3.0]]
    assert asked == ["a", "bb", "ccc"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"calibration": 3}', '{"threshold": "x"}', "\xff", "null"])
def test_what_is_no_calibration_is_one_line(tmp_path, text):
    path = tmp_path / "asking.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises((InputError, BundleError)) as caught:
        read_calibration(path)
    assert "\n" not in str(caught.value) and "asking.json" in str(caught.value)

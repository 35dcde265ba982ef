import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtimes.text import Tokenizer
from trainers.baselines import majority, tfidf_svc
from trainers.data import Dataset, Split
from trainers.explore import explore, telling_words


def test_page_is_self_contained_and_tells_no_texts(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_bytes((base / "tokenizer.json").read_bytes(), 64)
    names = ["<b>arts</b>", *dataset.label_names[1:]]
    test = dataset.splits["test"]
    leaked = Split([*test.texts, dataset.splits["train"].texts[0]], [*test.labels, 0])
    made = replace(dataset, label_names=names, splits={**dataset.splits, "test": leaked})
    page = explore(made, tmp_path / "out" / "explore.html", tokenizer).read_text()
    assert not re.search(r"(src|href)=[\"']?http", page)
    assert "<script" not in page
    assert "<b>arts</b>" not in page  # a label is text, not markup
    assert "<td>also in train<td>–<td>0<td>1</tr>" in page
    assert re.search(r"max_tokens of \d+", page)
    assert page.count("<svg") == 2 + 3
    assert not any(text in page for text in dataset.splits["train"].texts)
    assert explore(made, tmp_path / "again.html", tokenizer).read_text() == page


def test_telling_words_tell() -> None:
    texts = [
        "goal team the",
        "goal match the",
        "goal team the",
        "bank rate the",
        "bank market the",
        "bank rate the",
    ]
    best = telling_words(Split(texts, [0, 0, 0, 1, 1, 1]), 2)
    assert best[0][0][0] == "goal"
    assert best[1][0][0] == "bank"
    assert all(word != "the" for words in best for word, _ in words)


def test_baselines(dataset: Dataset) -> None:
    strong, weak = tfidf_svc(dataset), majority(dataset)
    assert strong["accuracy"] > 0.9 > weak["accuracy"]
    assert weak["accuracy"] == np.mean(np.array(dataset.splits["test"].labels) == 0)
    assert np.sum(strong["confusion"]) == 45


def test_svc_with_two_classes_and_with_a_class_not_in_train(dataset: Dataset) -> None:
    def without(split: Split) -> Split:
        return split.take(row for row, label in enumerate(split.labels) if label)

    two = {name: without(split) for name, split in dataset.splits.items()}
    assert tfidf_svc(replace(dataset, splits=two))["accuracy"] > 0.9
    made = tfidf_svc(replace(dataset, splits={**two, "test": dataset.splits["test"]}))
    assert made["per_class"][0]["recall"] == 0

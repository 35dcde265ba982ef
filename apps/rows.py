"""Rows that a user names: a prepared folder, a file, a hub id; with the labels of the model they are for."""

from pathlib import Path

from runtimes.errors import InputError
from runtimes.text import clean
from trainers.data import Dataset, Split, load_data, open_data
from trainers.finetune import relabel
from trainers.prepare import PrepareConfig, prepare


def dataset_from(data: str) -> Dataset:
    """A prepared data folder as it is; anything else is loaded, cleaned and split with the defaults."""
    if (Path(data) / "data.json").is_file():
        return open_data(Path(data))
    return prepare(load_data(data), PrepareConfig())


def test_rows(data: str, labels: list[str]) -> Dataset:
    """Rows to measure on: the test split where there is one, else all of them; labels in the model's order.

    Raises InputError for a label that the model does not know.
    """
    prepared = (Path(data) / "data.json").is_file()
    found = open_data(Path(data)) if prepared else load_data(data)
    split = found.splits.get("test") or found.splits["train"]
    texts = [clean(text) for text in split.texts]
    kept = [row for row, text in enumerate(texts) if text]
    if not kept:
        raise InputError(f"{data}: no rows with text; give at least one")
    test = Split([texts[row] for row in kept], [split.labels[row] for row in kept])
    return relabel(Dataset(found.name, found.label_names, {"test": test}, found.source), labels)

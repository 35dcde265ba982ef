"""Rows that a user names: a prepared folder, a file, a hub id; with the labels of the model they are for."""

from pathlib import Path

from runtimes.errors import InputError
from runtimes.text import clean
from trainers.data import Dataset, Split, load_data, open_data
from trainers.finetune import relabel
from trainers.prepare import PrepareConfig, prepare
from trainers.reader import TASK as READER
from trainers.squad import QuestionSet, is_questions, load_questions, open_questions


def dataset_from(data: str) -> Dataset:
    """A prepared data folder as it is; anything else is loaded, cleaned and split with the defaults."""
    if (Path(data) / "data.json").is_file():
        return open_data(Path(data))
    return prepare(load_data(data), PrepareConfig())


def _test_questions(data: str) -> QuestionSet:
    folder = Path(data)
    if (folder / "data.json").is_file() and is_questions(folder):
        found = open_questions(folder)
    else:
        found = QuestionSet(folder.stem, load_questions(data), {"name": folder.name})
    splits = found.splits
    rows = splits.get("test") or splits.get("validation") or splits["train"]
    return QuestionSet(found.name, {"test": rows}, found.source)


def test_rows(data: str, task: str, labels: list[str]) -> Dataset | QuestionSet:
    """Rows to measure on: the test split where there is one, else all of them; labels in the model's order.

    Raises InputError for a label that the model does not know, or rows of another task.
    """
    if task == READER:
        return _test_questions(data)
    prepared = (Path(data) / "data.json").is_file()
    found = open_data(Path(data)) if prepared else load_data(data)
    split = found.splits.get("test") or found.splits["train"]
    texts = [clean(text) for text in split.texts]
    kept = [row for row, text in enumerate(texts) if text]
    if not kept:
        raise InputError(f"{data}: no rows with text; give at least one")
    test = Split([texts[row] for row in kept], [split.labels[row] for row in kept])
    return relabel(Dataset(found.name, found.label_names, {"test": test}, found.source), labels)

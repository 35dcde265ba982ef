"""Rows that a user names: a prepared folder, a file, a hub id; with the labels of the model they are for."""

from pathlib import Path

from runtimes.bundle import NUMBERS
from runtimes.errors import InputError
from runtimes.generation import TASK as GENERATION
from runtimes.text import clean
from trainers.checkpoint import Checkpoint
from trainers.data import Dataset, Split, load_data, open_data
from trainers.finetune import TASK, relabel
from trainers.prepare import PrepareConfig, prepare
from trainers.reader import TASK as READER
from trainers.series import SeriesConfig
from trainers.series_data import SeriesData, open_series, prepare_series
from trainers.squad import (
    QuestionsConfig,
    QuestionSet,
    is_questions,
    load_questions,
    open_questions,
    prepare_questions,
)
from trainers.texts import Texts, running_texts

Rows = Dataset | QuestionSet | SeriesData | Texts


def questions_from(data: str) -> QuestionSet:
    """A prepared folder of questions as it is; anything else is loaded and split with the defaults."""
    if (Path(data) / "data.json").is_file():
        return open_questions(Path(data))
    return prepare_questions(data, QuestionsConfig())


def require_classifier(checkpoint: Checkpoint) -> None:
    """Raises InputError for a checkpoint of another task."""
    if checkpoint.task != TASK:
        raise InputError(f"{checkpoint.path}: task {checkpoint.task}; this takes text classifiers only")


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


def series_from(data: str) -> SeriesData:
    """A prepared folder of series as it is; anything else is read with the defaults."""
    if (Path(data) / "data.json").is_file():
        return open_series(Path(data))
    return prepare_series(data, SeriesConfig())


def test_rows(data: str, task: str, labels: list[str]) -> Rows:
    """Rows to measure on: the test split where there is one, else all of them; labels in the model's order.
    Of a detector series, whose training parts set the scale of the rest; of a generator running text.

    Raises InputError for a label that the model does not know, or rows of another task.
    """
    if task == NUMBERS:
        return series_from(data)
    if task == GENERATION:
        return running_texts(data)
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

"""Rows of a split as a task's model takes them, and what is right about them."""

from collections.abc import Sequence
from typing import Any

from trainers.data import Split
from trainers.squad import Question


def examples(split: Split | Sequence[Question]) -> tuple[list[Any], list[Any]]:
    """(inputs, truths): texts and label numbers, or (question, passage) and the right answers of each."""
    if isinstance(split, Split):
        return list(split.texts), list(split.labels)
    inputs = [(one.question, one.context) for one in split]
    return inputs, [[text for _, text in one.answers] for one in split]

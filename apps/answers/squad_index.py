"""The paragraphs of questions in SQuAD's shape as a collection, for measuring."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.answers.documents import Parsed
from apps.answers.store import SqliteStore
from runtimes.index import Index
from trainers.squad import Question


def index_of(questions: Sequence[Question], path: Path, embed: Any) -> Index:
    """One document a paragraph, named by its article, in a collection at `path`; its index.

    `embed`: a list of texts → float32 (n, dimensions).
    """
    paragraphs = {one.context: one.title for one in questions}
    store = SqliteStore(path.with_suffix(".sqlite"), lambda texts: np.asarray(embed(list(texts))), "measured")
    for number, (text, title) in enumerate(paragraphs.items()):
        name = "".join(c if c.isalnum() or c in " -_.()" else "_" for c in title).lstrip(".") or "article"
        store.add(Parsed(name, text, metadata={"title": title[:500]}), f"p{number}")
    store.close()
    return Index.open(path.with_suffix(".sqlite"))

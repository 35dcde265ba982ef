"""The bundle of a collection: reader, embedder and index in one, opened as an `Asker`.

answers.bundle/  bundle.json (schema 2), reader/ and embedder/ (bundles of schema 1), index.sqlite,
                 golden.json (questions of its own with the answers that it gave where it was packed)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtimes.ask import Answered, Asker
from runtimes.bundle import Bundle
from runtimes.confidence import Calibration, calibration_from
from runtimes.errors import BundleError
from runtimes.index import Index
from runtimes.tasks.answer import Reader
from runtimes.tasks.embed import Embedder

TASK = "answers"
INDEX = "index.sqlite"
GOLDEN = "golden.json"
ROLES = {"reader": Reader, "embedder": Embedder}


def open_parts(bundle: Bundle, models: Mapping[str, Any]) -> Asker:
    """The models of a bundle, by role, over its index. Raises BundleError where one is of another kind."""
    for role, kind in ROLES.items():
        if not isinstance(models.get(role), kind):
            raise BundleError(f"{bundle.path}: its {role} is missing or another kind of model; pack it again")
    index = Index.open(bundle.source(INDEX))
    told = {role: models[role].describe() for role in ROLES}
    about = {"bundle": bundle.name, "task": TASK, **told, "index": index.describe()}
    return Asker(models["reader"], models["embedder"], index, calibration_of(bundle), about)


def calibration_of(bundle: Bundle) -> Calibration:
    """What was learned about confidence. Raises BundleError where the manifest tells nothing sound."""
    told = bundle.manifest.get("calibration", {})
    if not isinstance(told, dict):
        raise BundleError(f"{bundle.path}: calibration must be a dict; pack the collection again")
    return calibration_from(told, str(bundle.path))


@dataclass(frozen=True)
class Golden:
    """A question of the collection's own and what was answered where it was packed.

    `text` "" where nothing was found; else its place: `document` and the offset `start` in it.
    """

    question: str
    text: str
    document: str
    start: int
    confidence: float


def golden_of(bundle: Bundle) -> list[Golden]:
    """The golden questions. Raises BundleError where they are damaged or none."""
    try:
        found = golden_rows(json.loads(bundle.read(GOLDEN))["questions"])
    except (ValueError, KeyError, TypeError, RecursionError):
        found = []
    if not found:
        raise BundleError(f"{bundle.path}: {GOLDEN} is damaged or empty; pack the collection again")
    return found


def golden_rows(rows: Any) -> list[Golden]:
    """Golden answers as JSON tells them. Raises TypeError, ValueError for anything else."""
    found = [Golden(**row) for row in rows]
    for one in found:
        if not all(isinstance(text, str) for text in (one.question, one.text, one.document)):
            raise TypeError("a text is expected")
        if type(one.start) is not int or not 0 <= one.confidence <= 1:  # NaN neither
            raise ValueError("an offset and a probability are expected")
    return found


def golden_from(answered: Answered) -> Golden:
    """An answer as a golden one."""
    if not answered.found:
        return Golden(answered.question, "", "", 0, 0.0)
    best = answered.found[0]
    source = best.sources[0]
    return Golden(answered.question, best.text, source.document, source.document_start, best.confidence)

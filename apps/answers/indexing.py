"""One upload, from a file on disk to passages in its collection, with progress and an end when told."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apps.answers.documents import Parsed
from apps.answers.parse import parse
from apps.answers.passages import cut
from apps.answers.uploads import Job, State
from apps.web.audit import Outcome
from apps.web.guard import where_it_broke
from apps.web.replies import Refused

if TYPE_CHECKING:
    from apps.answers.service import Service

PATIENCE = 0.2  # seconds that an upload leaves the cores to questions, before each few passages

log = logging.getLogger("edgewise.web")


class Indexing:
    """The work of the uploads' thread: one job at a time."""

    def __init__(self, service: "Service") -> None:
        self.service = service
        self.job: Job | None = None

    def work(self, job: Job) -> None:
        """Reads and indexes one document. Raises EdgewiseError or Refused for what cannot be."""
        job.state = "reading"
        document = parsed(job.path, job)
        job.passages = len(cut(document))
        job.state = "indexing"
        self.job = job
        try:
            with self.service.shelf.write_lock(job.collection):
                self._write(job, document)
        finally:
            self.job = None

    def _write(self, job: Job, document: Parsed) -> None:
        store = self.service.shelf.store(job.collection)
        self._audit(job, "asked")
        if job.document is None:
            job.document = store.add(document)
        elif store.get(job.document) is None:
            store.add(document, job.document)
        else:
            store.update(job.document, document)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """What the stores embed with: in small steps, behind the questions that wait.

        Raises Refused in a step where the service stops or the collection is gone: nothing is written then.
        """
        return self.service.models.embed(texts, self._step)

    def _step(self, count: int) -> None:
        if self.service.closing.is_set():
            raise Refused(503, "the service stopped before the document was indexed; send it again")
        job = self.job
        if job is None:  # a store asks for the dimensions, or is indexed anew
            return
        job.embedded += count
        if not self.service.shelf.has(job.collection):
            raise Refused(404, "the collection was deleted meanwhile")
        self.service.batcher.idle.wait(PATIENCE)

    def reindex(self, collection: str) -> None:
        """Makes all vectors anew, with the embedder in use; until then words alone are searched."""
        try:
            with self.service.shelf.write_lock(collection):
                store = self.service.shelf.store(collection)
                store.reindex(self.embed, self.service.models.digest)
                self.service.shelf.stale.discard(collection)
        except Exception as error:
            self.broken(error)

    def finished(self, job: Job, state: State, seconds: float) -> None:
        """Counts the job, and tells the audit how it ended."""
        ended: Outcome = "done" if state == "done" else "failed"
        self._audit(job, ended)
        self.service.metrics.add("uploads", outcome=ended)
        self.service.metrics.see("upload_seconds", seconds)

    def _audit(self, job: Job, outcome: Outcome) -> None:
        self.service.audit.write(job.key, job.action, job.collection, outcome, job.document, job.size, job.id)

    def broken(self, error: Exception) -> None:
        """A fault of ours, without its message, which could repeat a text."""
        log.error("internal error in an upload: %s", where_it_broke(error))


def parsed(path: Path, job: Job) -> Parsed:
    """The document's text. Raises InputError for a file that cannot be read or may not be."""
    return parse(path.read_bytes(), job.name, job.metadata)

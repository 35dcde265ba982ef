"""Uploads: received in bounded pieces, then read and indexed one after the other, with progress."""

import contextlib
import re
import secrets
import shutil
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from apps.web.replies import Refused
from runtimes.errors import EdgewiseError

FOLDER = "uploads"
MAX_FILES = 50  # of one request
MAX_NAME = 200
KEPT = 1000  # jobs that are over and can still be asked for
State = Literal["waiting", "reading", "indexing", "done", "failed"]


@dataclass
class Job:
    """One document on its way. `passages` of it are to be embedded, `embedded` of them are."""

    collection: str
    document: str | None
    name: str
    size: int
    path: Path
    metadata: dict[str, str]
    key: str
    action: Literal["add", "update"] = "add"
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: State = "waiting"
    passages: int = 0
    embedded: int = 0
    error: str | None = None

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed")


class Uploads:
    """Jobs in one thread of their own, apart from the questions'. `work` does one, and may raise."""

    def __init__(self, folder: Path, work: Callable[[Job], None], waiting: int) -> None:
        self.folder = folder / FOLDER
        shutil.rmtree(self.folder, ignore_errors=True)  # what a killed service had not indexed yet
        self.folder.mkdir(mode=0o700)
        self.work, self.waiting = work, waiting
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgewise-uploads")
        self.finished: Callable[[Job, State, float], None] = lambda job, state, seconds: None
        self.broken: Callable[[Exception], None] = lambda error: None
        self.open = True

    def count(self) -> int:
        """Jobs that are not over."""
        with self.lock:
            return sum(not job.over for job in self.jobs.values())

    def check_room(self, files: int = 1) -> None:
        """Raises Refused (503) where as many wait as may."""
        if not self.open or self.count() + files > self.waiting:
            line = f"{self.count()} of {self.waiting} uploads wait already; try again in 5 s"
            raise Refused(503, line, {"Retry-After": "5"})

    def submit(self, jobs: list[Job]) -> None:
        """Queues them. Raises Refused (503) where there is no room for all."""
        self.check_room(len(jobs))
        with self.lock:
            self.jobs |= {job.id: job for job in jobs}
            over = [id for id, job in self.jobs.items() if job.over]
            for id in over[: max(0, len(over) - KEPT)]:
                del self.jobs[id]
        for job in jobs:
            self.pool.submit(self._do, job)

    def find(self, id: str) -> Job | None:
        with self.lock:
            return self.jobs.get(id)

    def close(self) -> None:
        """Takes no more and drops what waits; the one that is under way is cut off by its next step."""
        self.open = False
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _do(self, job: Job) -> None:
        began = time.perf_counter()
        ended: State = "failed"
        try:
            self.work(job)
            ended = "done"
        except Refused as error:
            job.error = error.line
        except EdgewiseError as error:
            job.error = str(error)
        except Exception as error:
            job.error = "the service failed inside; its log names the place"
            self.broken(error)
        with contextlib.suppress(OSError):
            job.path.unlink(missing_ok=True)
        try:
            self.finished(job, ended, time.perf_counter() - began)
        except Exception as error:  # the audit's disk is full, say: the job is over all the same
            self.broken(error)
        job.state = ended  # last: who sees it finds all else done


@dataclass(frozen=True)
class Received:
    """A file of an upload, on disk under a name of ours; `name` is what the sender called it."""

    name: str
    path: Path
    size: int


async def received(request: Request, folder: Path, name: str | None) -> list[Received]:
    """The files of a multipart body, or the body itself as one file called `name`.

    Raises Refused: 422 for no file, an empty one or no name, 400 for a body that is no multipart,
    413 and 408 through the guard.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    files: list[Received] = []
    try:
        if kind == "multipart/form-data":
            await _from_form(request, folder, files)
        else:
            await _from_body(request, folder, name, files)
        if not files:
            raise Refused(422, 'there is no file in the body; send one as the form field "files"')
        if any(not one.size for one in files):
            raise Refused(422, "a file is empty; send one with text in it")
    except ClientDisconnect:
        forget(files)
        raise Refused(400, "the connection closed before the upload was complete; send it again") from None
    except BaseException:
        forget(files)
        raise
    return files


def forget(files: list[Received]) -> None:
    """Removes what was received."""
    for one in files:
        one.path.unlink(missing_ok=True)


async def _from_form(request: Request, folder: Path, files: list[Received]) -> None:
    try:
        async with request.form(max_files=MAX_FILES, max_fields=8, max_part_size=10_000) as form:
            for field, value in form.multi_items():
                if field == "metadata":
                    line = "metadata goes into the query, not into the form"
                    raise Refused(422, f'{line}: ?metadata={{"language": "en"}}')
                if isinstance(value, UploadFile):
                    path = folder / secrets.token_hex(16)
                    files.append(Received(shown_name(value.filename or ""), path, value.size or 0))
                    with path.open("xb") as file:
                        await run_in_threadpool(shutil.copyfileobj, value.file, file)
    except HTTPException as error:
        why = str(error.detail).strip(".")
        line = f"the multipart body cannot be read ({why}); send up to {MAX_FILES} files"
        raise Refused(400, line) from None


async def _from_body(request: Request, folder: Path, name: str | None, files: list[Received]) -> None:
    if not name:
        raise Refused(422, "a body that is the file itself needs its name, as in ?name=report.pdf")
    path, size = folder / secrets.token_hex(16), 0
    files.append(Received(shown_name(name), path, 0))
    with path.open("xb") as file:
        async for part in request.stream():
            size += len(part)
            file.write(part)
    files[:] = [Received(shown_name(name), path, size)]


def shown_name(name: str) -> str:
    """The file's name to show: the last part of a path, without what cannot be seen. It is never a path."""
    seen = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in name)
    last = re.split(r"[/\\:]", seen)[-1]
    return " ".join(last.split())[-MAX_NAME:].lstrip(". ") or "document"

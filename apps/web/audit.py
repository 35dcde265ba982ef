"""The audit of writes: who did what, when, to which id. Never a text, a question or a file's name."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

FILE = "audit.jsonl"
Outcome = Literal["asked", "done", "refused", "failed"]


class Audit:
    """One JSON object a line, appended by one system call, so that lines of several threads never mix.

    A write is told twice: "asked" before it begins and its outcome behind it. "asked" alone: the process
    died between the two.
    """

    def __init__(self, folder: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self.file = os.open(folder / FILE, flags, 0o600)

    def write(
        self,
        key: str,
        action: str,
        collection: str,
        outcome: Outcome,
        document: str | None = None,
        size: int | None = None,
        job: str | None = None,
    ) -> None:
        """`size`: bytes of the upload. Raises OSError (disk full): then nothing may be written either."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "key": key, "action": action, "collection": collection, "outcome": outcome}
        more = {"document": document, "bytes": size, "job": job}
        line |= {name: value for name, value in more.items() if value is not None}  # type: ignore[misc]
        os.write(self.file, (json.dumps(line) + "\n").encode())

    def close(self) -> None:
        os.close(self.file)

"""The far end of a link: keeps a session's folder on the device, and removes it when the link ends.

    python3 -I -c SOURCE serve SECONDS | clean SESSION

Its source travels as an argument, so it is one file, standard library alone, and starts on any Python 3.7 to
say that it is too old. Everything lies under ~/.cache/edgewise-bench: `sessions/NAME`, locked by whoever
holds it, and `parts/SHA256.part`, files on their way, which the next push goes on with.

`serve` prints MARK and a JSON object {python, work}, then answers requests, one JSON line each; a blank line
says that the other side is still there. Silence for SECONDS, or the end of standard input, ends the session.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import select
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator  # noqa: UP035 - Python 3.7 starts this

MARK = "edgewise-keeper "
ROOT = Path("~/.cache/edgewise-bench").expanduser()
SESSIONS, PARTS = ROOT / "sessions", ROOT / "parts"
BLOCK = 1 << 18
WEEK = 7 * 86400


class Lost(Exception):
    """The other side went away."""


class Link:
    """Standard input and output, given up after `patience` seconds without a sign of life."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.rest = b""

    def more(self) -> bytes:
        block = os.read(0, BLOCK) if select.select([0], [], [], self.patience)[0] else b""
        if not block:
            raise Lost
        return block

    def line(self) -> bytes:
        while b"\n" not in self.rest:
            self.rest += self.more()
        line, self.rest = self.rest.split(b"\n", 1)
        return line

    def blocks(self, count: int) -> Iterator[bytes]:
        while count:
            self.rest = self.rest or self.more()
            block, self.rest = self.rest[:count], self.rest[count:]
            count -= len(block)
            yield block

    def say(self, answer: dict[str, Any], data: bytes = b"", mark: str = "") -> None:
        left = memoryview((mark + json.dumps(answer) + "\n").encode() + data)
        try:
            while left:
                left = left[os.write(1, left) :]
        except OSError:
            raise Lost from None


def hold(path: Path, wait: float = 0.0) -> int | None:
    """A lock on a file or folder, as a descriptor; None where another process holds it, or it is gone."""
    end = time.monotonic() + wait
    try:
        descriptor = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() >= end:
                os.close(descriptor)
                return None
            time.sleep(0.05)


def hold_root() -> int:
    """The folder of all sessions, made and locked: nobody sweeps while a session is made."""
    for _ in range(100):  # another session's end may remove it in between
        PARTS.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = hold(ROOT, 30.0)
        if descriptor is None:
            continue
        with suppress(OSError):
            SESSIONS.mkdir(mode=0o700, exist_ok=True)
            if os.fstat(descriptor).st_ino == ROOT.stat().st_ino:
                return descriptor
        os.close(descriptor)
    raise OSError(errno.EBUSY, "held by another session")


def sweep(parts: bool) -> None:
    """Remove sessions that nothing holds; parts too, where they are not wanted any more or a week old."""
    for path in SESSIONS.glob("*"):
        descriptor = hold(path)
        if descriptor is not None:
            shutil.rmtree(str(path), ignore_errors=True)
            os.close(descriptor)
    for path in PARTS.glob("*"):
        descriptor = hold(path)
        if descriptor is not None:
            if parts or time.time() - os.fstat(descriptor).st_mtime > WEEK:
                path.unlink()
            os.close(descriptor)


def leave(parts: bool) -> None:
    """Sweep, and remove the folders of all sessions where they are empty."""
    descriptor = hold(ROOT, 30.0)
    if descriptor is None:
        return
    sweep(parts)
    for folder in (SESSIONS, PARTS, ROOT):
        with suppress(OSError):
            folder.rmdir()
    os.close(descriptor)


def inside(folder: Path, name: str) -> Path:
    """A file of a folder. Raises OSError for a name that leaves it."""
    path = (folder / name).resolve()
    if folder.resolve() not in path.parents:
        raise OSError(errno.EPERM, "the name leaves the folder")
    return path


def put(link: Link, work: Path, request: dict[str, Any]) -> bool:
    """A file into the session by way of its part. False where the disk failed in the middle."""
    target = inside(work, request["name"])
    part = inside(PARTS, request["sha256"] + ".part")
    PARTS.mkdir(mode=0o700, exist_ok=True)
    part.touch(0o600)
    lock = hold(part)
    if lock is None:  # another session pushes the same file: go beside it
        part = inside(PARTS, f"{part.name}.{work.name}")
        part.touch(0o600)
        lock = hold(part)
    try:
        return receive(link, part, target, request)
    finally:
        if lock is not None:
            os.close(lock)


def receive(link: Link, part: Path, target: Path, request: dict[str, Any]) -> bool:
    have = part.stat().st_size
    if have > request["size"]:
        part.write_bytes(b"")
        have = 0
    lacks, free = request["size"] - have, shutil.disk_usage(str(PARTS)).free
    if lacks > free:
        part.unlink()
        room = f"{free / 1e6:.1f} MB free, {lacks / 1e6:.1f} MB needed"
        link.say({"error": f"{os.strerror(errno.ENOSPC)}: {room}"})
        return True
    link.say({"have": have})
    try:
        with part.open("ab") as stream:
            for block in link.blocks(lacks):
                stream.write(block)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        right = digest(part) == request["sha256"]
        part.replace(target) if right else part.unlink()
    except OSError as error:
        part.unlink()
        link.say({"error": error.strerror or str(error)})
        return False
    link.say({"done": True} if right else {"again": True})
    return True


def digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            found.update(block)
    return found.hexdigest()


def answer(link: Link, work: Path, request: dict[str, Any]) -> bool:
    """Whether the session goes on after this request."""
    try:
        if request["do"] == "put":
            return put(link, work, request)
        data = inside(work, request["name"]).read_bytes()
        link.say({"size": len(data)}, data)
    except OSError as error:
        link.say({"error": error.strerror or str(error)})
    return True


def begin() -> tuple[Path, int | None]:
    """A new session's folder and the lock on it; sessions that were left over are removed."""
    root = hold_root()
    try:
        sweep(parts=False)
        work = SESSIONS / secrets.token_hex(8)
        work.mkdir(mode=0o700)
        return work, hold(work)
    finally:
        os.close(root)


def converse(link: Link, work: Path) -> bool:
    """Requests until the session ends; whether it was said to end."""
    while True:
        line = link.line()
        if not line:
            continue
        request = json.loads(line.decode())
        if request["do"] == "bye":
            return True
        if not answer(link, work, request):
            return False


def serve(patience: float) -> None:
    link = Link(patience)
    try:
        work, lock = begin()
    except OSError as error:
        link.say({"error": f"{error.filename or ROOT}: {error.strerror}"}, mark=MARK)
        return
    well = False
    try:
        link.say({"python": list(sys.version_info[:3]), "work": str(work)}, mark=MARK)
        well = converse(link, work)
    except Lost:
        pass
    finally:
        shutil.rmtree(str(work), ignore_errors=True)
        if lock is not None:
            os.close(lock)
        leave(parts=well)
    if well:
        link.say({"done": True})


def clean(session: str) -> None:
    """After a session that was broken off on purpose: wait for its end, then leave nothing."""
    path = inside(SESSIONS, session)
    lock = hold(path, 10.0)
    if lock is not None:
        shutil.rmtree(str(path), ignore_errors=True)
        os.close(lock)
    leave(parts=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(float(sys.argv[2]))
    else:
        clean(sys.argv[2])

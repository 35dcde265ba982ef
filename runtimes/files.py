"""Whole or not at all: files and folders are written beside their place and renamed into it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtimes.errors import InputError

# A folder that holds one of these is a result of edgewise and may be made again in its place.
RESULTS = ("bundle.json", "checkpoint.json", "data.json", "details.json", "analysis.json")


def write_atomic(path: Path, data: bytes) -> None:
    """The whole file or the old one: written beside, synced, renamed into place.

    Raises InputError where something that is no file stands there.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: exists and is not a file; choose another place")
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def require_replaceable(folder: Path) -> None:
    """Raises InputError where something stands at `folder` that edgewise did not make."""
    if not folder.exists() and not folder.is_symlink():
        return
    ours = folder.is_dir() and not folder.is_symlink()
    if not ours or (any(folder.iterdir()) and not any((folder / name).is_file() for name in RESULTS)):
        raise InputError(f"{folder}: exists and is no result of edgewise; choose another place or remove it")


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A folder to fill, put at `folder` when the block ends well and removed when it does not.

    An older result of edgewise is replaced; InputError for anything else that stands there.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link itself is meant, not its target
    require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        aside = folder.with_name(f".{folder.name}.old-{os.getpid()}")
        if folder.exists():
            folder.rename(aside)
        beside.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)

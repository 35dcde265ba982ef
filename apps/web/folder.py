"""A folder that one service has to itself."""

import fcntl
from pathlib import Path
from typing import TextIO

from runtimes.errors import InputError


def hold(folder: Path) -> TextIO:
    """An open file that holds the folder. Raises InputError where another process holds it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        line = f"{folder}: another service works on this folder; stop it, or name another folder"
        raise InputError(line) from None
    return file

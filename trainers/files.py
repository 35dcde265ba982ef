"""Digests of files and folders, and JSON on disk."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runtimes.errors import InputError
from runtimes.files import write_atomic


def sha256_file(path: Path) -> str:
    """The sha256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of(digests: dict[str, str]) -> str:
    """One sha256 over (name, sha256) pairs, whatever their order."""
    lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def digest_files(root: Path, files: Iterable[Path]) -> str:
    """One sha256 over the files' names (relative to `root`) and their sha256."""
    return digest_of({file.relative_to(root).as_posix(): sha256_file(file) for file in files})


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))


def read_json(path: Path) -> Any:
    """Read JSON; InputError where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); make it again") from None

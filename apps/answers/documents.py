"""What a document is between its file and the index: plain text with headings, a name, metadata."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtimes.errors import InputError

MAX_NAME = 200
MAX_CHARS = 5_000_000  # of a document's plain text
MAX_METADATA = 32  # keys of a document
MAX_VALUE = 500
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Heading:
    """A heading's `level` from 1; it stands at `start` of the plain text and governs what follows it."""

    start: int
    level: int
    title: str


@dataclass(frozen=True)
class Parsed:
    """A document that was read: `text` is what passages and answers point into."""

    name: str
    text: str
    headings: tuple[Heading, ...] = ()
    kind: str = "txt"
    metadata: Mapping[str, str] = field(default_factory=dict)


def check(document: Parsed) -> None:
    """Raises InputError for a document that no index takes: no text, too much, metadata out of bounds."""
    check_name(document.name)
    if not document.text.strip():
        raise InputError(f"{document.name}: no text in it; a scan needs text recognition first")
    if len(document.text) > MAX_CHARS:
        raise InputError(f"{document.name}: {len(document.text)} characters, over {MAX_CHARS}; split it")
    check_metadata(document.metadata)


def check_name(name: str) -> None:
    """Raises InputError unless `name` is one plain file name: no folder, nothing unprintable."""
    if not 1 <= len(name) <= MAX_NAME:
        raise InputError(f"a document's name has 1 to {MAX_NAME} characters, not {len(name)}; rename it")
    if any(character in name for character in "/\\:") or name.startswith(".") or name != name.strip():
        raise InputError(f"{name!r} is no plain file name; give one without folders, colons or a leading dot")
    if any(unicodedata.category(character)[0] in "CZ" and character != " " for character in name):
        raise InputError(f"{name!r} has characters that do not print; rename it")


def check_id(document: str) -> None:
    """Raises InputError unless `document` may be an id."""
    if not _ID.fullmatch(document):
        raise InputError(
            f"{document[:40]!r} is no document id; use 1 to 128 letters, digits, '.', '_' or '-', "
            "beginning with a letter or a digit"
        )


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raises InputError unless it is a few short texts by short names."""
    if len(metadata) > MAX_METADATA:
        raise InputError(f"{len(metadata)} metadata keys, over {MAX_METADATA}; keep those you filter by")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InputError(f"metadata {key!r} must be a text by a text")
        if not 1 <= len(key) <= 64 or len(value) > MAX_VALUE:
            raise InputError(
                f"metadata {key[:64]!r}: a key has 1 to 64 characters, a value up to {MAX_VALUE}"
            )
        if any("\ud800" <= character <= "\udfff" for character in key + value):
            raise InputError(f"metadata {key[:64]!r} is no valid text; send it as UTF-8")

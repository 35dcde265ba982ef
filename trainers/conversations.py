"""Prompts, answers and pairs of answers as plain rows, and the files and data sets that they are read from.

A row is {"prompt", "response"}, a pair {"prompt", "chosen", "rejected"}. A prompt is a text, which the model
goes on with, or a list of messages {"role", "content"}, which its chat template renders.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from runtimes.errors import InputError
from trainers.files import digest_of
from trainers.readers import MAX_ROWS, MAX_TEXT_CHARS, SUFFIXES, read_rows
from trainers.sources import Source, find

Message = dict[str, str]
Prompt = str | list[Message]
Row = dict[str, Any]
# A row of a file → a row here, or the reason, one word or two, for which it is left out and counted.
Parse = Callable[[str, dict[str, Any]], Row | str]

ROLES = ("system", "user", "assistant")
# What lies beside the rows of a data set and tells of them.
_TELLING = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json")
_SPLIT = re.compile(r"(train|test|validation|valid|dev|eval)(?![a-z])")
_ALIASES = {"valid": "validation", "dev": "validation", "eval": "validation"}
_OTHER_NAMES = {"human": "user", "gpt": "assistant"}
# How the dialogues of Anthropic/hh-rlhf are written.
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


@dataclass(frozen=True)
class Conversations:
    """`splits`: rows by split; `dropped`: how many were left out, by reason; `source`: as in `Dataset`."""

    name: str
    splits: dict[str, list[Row]]
    source: dict[str, Any]
    dropped: dict[str, int]

    @property
    def digest(self) -> str:
        """sha256 over the rows themselves, in their order."""
        return rows_digest([row for split in sorted(self.splits) for row in self.splits[split]])


def rows_digest(rows: list[Any]) -> str:
    return digest_of({"rows": "\n".join(json.dumps(row, sort_keys=True) for row in rows)})


def read_conversations(name: str | Path, parse: Parse, part: str | None = None) -> Conversations:
    """All rows of a file, a folder of files or a data set by name, each through `parse`.

    `part` chooses files by a pattern on their folder, such as `helpful-*`. Files whose name begins with none
    of train, validation and test are train. InputError where nothing is left.
    """
    from trainers.data import origin

    source = find(str(name), "data")
    splits: dict[str, list[Row]] = {}
    dropped: Counter[str] = Counter()
    for file in _files(source, part):
        rows = splits.setdefault(_split_of(file), [])
        for number, raw in read_rows(file):
            row = parse(f"{file} line {number}", raw)
            if isinstance(row, str):
                dropped[row] += 1
            else:
                rows.append(row)
            if len(rows) > MAX_ROWS:
                raise InputError(f"{file}: over the limit of {MAX_ROWS} rows; split it")
    splits = {split: rows for split, rows in splits.items() if rows}
    if not splits:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "no rows"
        raise InputError(f"{source.path}: nothing to train on ({reasons}); give it a row for each prompt")
    told = {**origin(source), **({"part": part} if part else {})}
    return Conversations(source.name, splits, told, dict(dropped))


def _files(source: Source, part: str | None) -> list[Path]:
    if source.path.is_file():
        return [source.path]
    found = sorted(
        file for file in source.path.rglob("*")
        if file.is_file() and file.name.endswith((*SUFFIXES, ".jsonl.gz")) and file.name not in _TELLING
        and not any(piece.startswith(".") for piece in file.relative_to(source.path).parts)
    )  # fmt: skip
    if part:
        found = [f for f in found if fnmatch(f.parent.relative_to(source.path).as_posix(), part)]
    if not found:
        raise InputError(
            f"{source.path}: no rows of {part or 'any kind'}; name a file of {', '.join(SUFFIXES)}"
        )
    return found


def _split_of(file: Path) -> str:
    named = _SPLIT.match(file.name.lower())
    return _ALIASES.get(named[1], named[1]) if named else "train"


def text_of(where: str, key: str, value: Any) -> str:
    """`value`, stripped; InputError where it is no text, or holds halves of characters."""
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} is {_kind(value)}, not text")
    if len(value) > MAX_TEXT_CHARS:
        raise InputError(f"{where}: {key} has {len(value)} characters, over the limit of {MAX_TEXT_CHARS}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {key} holds half a character (at {error.start}); it is not UTF-8, write it again"
        ) from None
    return value


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


def messages_of(where: str, value: Any) -> list[Message]:
    """A list of {"role", "content"} (or {"from", "value"}) as messages. InputError where it is none."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InputError(f"{where}: messages are {_kind(value)}, not a list of role and content")
    found = []
    for one in value:
        role = one.get("role", one.get("from"))
        role = _OTHER_NAMES.get(str(role), role)
        if role not in ROLES:
            raise InputError(f"{where}: role {role!r} is none of {', '.join(ROLES)}")
        content = one["content"] if "content" in one else one.get("value")
        found.append({"role": role, "content": text_of(where, "content", content)})
    return found


def prompt_of(where: str, value: Any) -> Prompt:
    """A text or messages, the last of which is not the assistant's own."""
    if isinstance(value, str):
        return text_of(where, "prompt", value)
    messages = messages_of(where, value)
    if not messages or messages[-1]["role"] == "assistant":
        raise InputError(f"{where}: the prompt's last message must be the user's")
    return messages


def instruction_prompt(where: str, row: dict[str, Any]) -> Prompt:
    """The prompt of a row with `prompt`, or with `instruction` and perhaps `input` (Alpaca's form)."""
    if "prompt" in row:
        return prompt_of(where, row["prompt"])
    if "instruction" not in row:
        have = ", ".join(map(str, row)) or "none"
        raise InputError(f"{where}: no column 'prompt', 'messages' or 'instruction'; the columns are: {have}")
    parts = [row["instruction"], row.get("input") or ""]
    texts = [text_of(where, "instruction", part).strip() for part in parts]
    content = "\n\n".join(text for text in texts if text)
    return [{"role": "user", "content": content}] if content else ""


def parse_dialogue(text: str) -> list[Message] | None:
    """The turns of "Human: … Assistant: …"; None where they do not alternate or one is empty."""
    pieces = _TURN.split(text)
    if pieces[0].strip() or len(pieces) < 3:
        return None
    names, contents = pieces[1::2], [piece.strip() for piece in pieces[2::2]]
    if any(name != ("Human", "Assistant")[turn % 2] for turn, name in enumerate(names)):
        return None
    if not all(contents):
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[name], "content": text} for name, text in zip(names, contents, strict=True)]


def numbered(rows: list[Any], what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of rows that a caller hands over; InputError where there are none or one is no table."""
    if not rows:
        raise InputError(f"no {what}: the list is empty; give it at least one")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{what} row {number}: {_kind(row)}, not a row of named texts")
        yield f"{what} row {number}", row

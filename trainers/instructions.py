"""Rows to learn answers from: {"prompt", "response"}, from files and data sets in the forms in use."""

from pathlib import Path
from typing import Any

from trainers.conversations import (
    Conversations,
    Row,
    instruction_prompt,
    messages_of,
    numbered,
    prompt_of,
    read_conversations,
    text_of,
)


def load_instructions(name: str | Path, part: str | None = None) -> Conversations:
    """Rows of a file (JSON, JSONL, CSV, TSV, parquet), a folder, or a data set by its hub id.

    Columns: `prompt` and `response`; `messages`, whose last one is the answer; or `instruction`, perhaps
    `input`, and `output` (Alpaca). Rows without a prompt or an answer are left out and counted. InputError,
    one line with the place, for what is not text, not UTF-8, or has other columns.
    """
    return read_conversations(name, _parse, part)


def check_instructions(rows: list[Any]) -> list[Row]:
    """Rows that a caller hands over, as they are; InputError names the first that cannot be learned from."""
    for where, row in numbered(rows, "instructions"):
        prompt_of(where, row.get("prompt"))
        text_of(where, "response", row.get("response"))
    return rows


def _parse(where: str, row: dict[str, Any]) -> Row | str:
    messages = row.get("messages", row.get("conversations"))
    if messages is not None:
        turns = messages_of(where, messages)
        if len(turns) < 2 or turns[-1]["role"] != "assistant" or turns[-2]["role"] == "assistant":
            return "without an answer"
        return _whole(turns[:-1], turns[-1]["content"].strip())
    prompt = instruction_prompt(where, row)
    answer = row.get("response", row.get("output"))
    return _whole(prompt, text_of(where, "response", answer))


def _whole(prompt: Any, response: str) -> Row | str:
    if not prompt or not response.strip():
        return "empty"
    # A text is gone on with as it stands; a message's answer begins at its first letter.
    return {"prompt": prompt, "response": response if isinstance(prompt, str) else response.strip()}

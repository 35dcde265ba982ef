"""Pairs of answers, one preferred: {"prompt", "chosen", "rejected"}, in the forms in use."""

from pathlib import Path
from typing import Any

from runtimes.errors import InputError
from trainers.conversations import (
    Conversations,
    Message,
    Prompt,
    Row,
    instruction_prompt,
    messages_of,
    numbered,
    parse_dialogue,
    prompt_of,
    read_conversations,
    text_of,
)


def load_pairs(name: str | Path, part: str | None = None) -> Conversations:
    """Pairs of a file (JSON, JSONL, CSV, TSV, parquet), a folder, or a data set by its hub id.

    `chosen` and `rejected` are texts beside a `prompt` or an `instruction`; or lists of messages, whose last
    ones are the answers (ultrafeedback_binarized); or one message each beside `conversations`; or whole
    dialogues "Human: … Assistant: …" (hh-rlhf, whose `part` may be `helpful-*`). Pairs that are empty, equal,
    of two prompts or of turns that cannot be told apart are left out and counted. InputError as
    `load_instructions`.
    """
    return read_conversations(name, _parse, part)


def check_pairs(pairs: list[Any]) -> list[Row]:
    """Pairs that a caller hands over, as they are; InputError names the first that teaches nothing."""
    for where, pair in numbered(pairs, "pairs"):
        prompt_of(where, pair.get("prompt"))
        chosen, rejected = (text_of(where, key, pair.get(key)) for key in ("chosen", "rejected"))
        if not chosen.strip() or not rejected.strip():
            raise InputError(f"{where}: an empty answer; give both")
        if chosen == rejected:
            raise InputError(f"{where}: chosen and rejected are equal; leave the pair out")
    return pairs


def _parse(where: str, row: dict[str, Any]) -> Row | str:
    for key in ("chosen", "rejected"):
        if key not in row:
            raise InputError(f"{where}: no column {key!r}; it has {', '.join(map(str, row)) or 'none'}")
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _of_turns(messages_of(where, chosen), messages_of(where, rejected))
    if isinstance(chosen, dict) and isinstance(rejected, dict):
        prompt = prompt_of(where, row.get("conversations", row.get("prompt")))
        last = [messages_of(where, [one])[0]["content"].strip() for one in (chosen, rejected)]
        return _whole(prompt, last[0], last[1])
    texts = [text_of(where, "chosen", chosen), text_of(where, "rejected", rejected)]
    if "prompt" in row or "instruction" in row:
        return _whole(instruction_prompt(where, row), texts[0], texts[1])
    turns = [parse_dialogue(text) for text in texts]
    if turns[0] is None or turns[1] is None:
        return "not in turns"
    return _of_turns(turns[0], turns[1])


def _of_turns(chosen: list[Message], rejected: list[Message]) -> Row | str:
    """Two dialogues that part at their last turn."""
    if min(len(chosen), len(rejected)) < 2 or chosen[-1]["role"] != "assistant":
        return "not in turns"
    if chosen[:-1] != rejected[:-1] or rejected[-1]["role"] != "assistant":
        return "of two prompts"
    if chosen[-2]["role"] == "assistant":
        return "not in turns"
    return _whole(chosen[:-1], chosen[-1]["content"].strip(), rejected[-1]["content"].strip())


def _whole(prompt: Prompt, chosen: str, rejected: str) -> Row | str:
    if not isinstance(prompt, str):
        chosen, rejected = chosen.strip(), rejected.strip()
    if not prompt or not chosen.strip() or not rejected.strip():
        return "empty"
    if chosen == rejected:
        return "equal"
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}

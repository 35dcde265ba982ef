"""A conversation as the text that a model was tuned on: rendered from plain data, with no template engine.

The data is compiled from the checkpoint's own chat template and proved equal to it (`export/template.py`):

    start       what stands before the first message, where that is none of the system
    system      {"before", "after"}: what stands around a system message; null where the model takes none.
                "after" reaches up to the text of the first user message behind it
    before      {"user", "assistant"}: what stands in front of a message's text
    after       {"user", "assistant"}: what stands behind it
    prompt      what asks the model for an answer, behind the last message
    end         what ends a conversation that asks for none
    trim        the roles whose text is stripped of blanks at both ends
    alternate   whether user and assistant must take turns, the user first
"""

from collections.abc import Mapping, Sequence
from typing import Any

from runtimes.errors import InputError

ROLES = ("system", "user", "assistant")
MOST_MESSAGES = 10_000
LONGEST = 10_000  # characters of each piece of a template
# What is stripped, spelled out for other languages: str.strip() of Python.
_PAIR = ("user", "assistant")


def render(template: Mapping[str, Any], messages: Sequence[Mapping[str, str]], prompt: bool = True) -> str:
    """The whole text; with `prompt` it asks for an answer. Raises InputError as `parts`."""
    return "".join(text for text, _ in parts(template, messages, prompt))


def parts(
    template: Mapping[str, Any], messages: Sequence[Mapping[str, str]], prompt: bool = True
) -> list[tuple[str, bool]]:
    """The same in pieces: (text, whether it is a message's own and so data, in which no mark counts).

    `messages`: [{"role": "system", "user" or "assistant", "content": text}, ...], at most one of the system,
    in front. Raises InputError for messages of another form, or such as the model was not made for.
    """
    check_messages(template, messages)
    found: list[tuple[str, bool]] = []
    rest = list(messages)
    if rest[0]["role"] == "system":
        about = template["system"]
        found += [(about["before"], False), (_text(template, rest.pop(0)), True), (about["after"], False)]
    else:
        found.append((template["start"] + template["before"][rest[0]["role"]], False))
    for number, message in enumerate(rest):
        role = message["role"]
        if number:
            found.append((template["before"][role], False))
        found += [(_text(template, message), True), (template["after"][role], False)]
    found.append((template["prompt" if prompt else "end"], False))
    return found


def _text(template: Mapping[str, Any], message: Mapping[str, str]) -> str:
    content = message["content"]
    return content.strip() if message["role"] in template["trim"] else content


def check_messages(template: Mapping[str, Any], messages: Sequence[Mapping[str, str]]) -> None:
    """Raises InputError unless these are messages that the template can render."""
    if not isinstance(messages, list | tuple) or not 0 < len(messages) <= MOST_MESSAGES:
        raise InputError(f"a list of 1 to {MOST_MESSAGES} messages is expected")
    for number, message in enumerate(messages, 1):
        plain = isinstance(message, Mapping) and isinstance(message.get("content"), str)
        if not plain or message.get("role") not in ROLES:
            raise InputError(f"message {number}: needs a role ({', '.join(ROLES)}) and a text as content")
    roles = [message["role"] for message in messages]
    if roles[0] == "system":
        if template["system"] is None:
            raise InputError("this model takes no system message; leave it out")
        roles = roles[1:]
        if roles[:1] != ["user"]:
            raise InputError("a user message must follow the system message")
    if "system" in roles:
        raise InputError("a system message must be the first one, and the only one")
    turns = all(role == _PAIR[number % 2] for number, role in enumerate(roles))
    if template["alternate"] and not turns:
        raise InputError("this model takes messages of user and assistant in turn, the user first")


def check_template(template: Any) -> None:
    """Raises ValueError unless this is the plain data of a template, bounded in size."""
    if not isinstance(template, dict) or set(template) != {
        "start", "system", "before", "after", "prompt", "end", "trim", "alternate",
    }:  # fmt: skip
        raise ValueError("a template has start, system, before, after, prompt, end, trim and alternate")
    pieces = [template["start"], template["prompt"], template["end"]]
    for key, names in (("before", _PAIR), ("after", _PAIR), ("system", ("before", "after"))):
        told = template[key]
        if key == "system" and told is None:
            continue
        if not isinstance(told, dict) or set(told) != set(names):
            raise ValueError(f"template.{key} has {' and '.join(names)}")
        pieces += told.values()
    if not all(isinstance(piece, str) and len(piece) <= LONGEST for piece in pieces):
        raise ValueError(f"the pieces of a template are texts of {LONGEST} characters at most")
    trim = template["trim"]
    if not isinstance(trim, list) or not all(role in ROLES for role in trim):
        raise ValueError("template.trim is a list of roles")
    if not isinstance(template["alternate"], bool):
        raise ValueError("template.alternate is true or false")

"""A checkpoint's chat template (Jinja) → the plain data that `runtimes.chat` renders with, and the proof.

The template is not read but asked: it renders a few conversations of known texts, and what stands between the
texts is the data. Then both render many conversations, with texts that break careless templates, and must
agree on each. A template that does not take this form is refused.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from runtimes.chat import check_template, render
from runtimes.errors import InputError

MAX_CHARS = 100_000
PROOFS = 200
MOST_STEPS = 100_000  # lines of Python that one rendering may take; a conversation takes some thousands
MOST_ITEMS = 10_000  # of one range, and characters of one product
_WORDS = (
    "", "yes", "two words", " blank at both ends ", "\nlines\n\n", "naïve 東京 🚀", "{{ bos_token }}",
    "{% if x %}", "<|im_end|>", "<|eot_id|>", "<think>why</think>so", "[INST] x [/INST]", "<end_of_turn>",
    "</s>", "\ttab\t", "a\\nb", "'quoted' \"twice\"", "##", "system", "\u00a0\u3000",
)  # fmt: skip
_ONE = "\ue001one\ue001"  # a text that no template has

Messages = list[dict[str, str]]
Jinja = Callable[[Messages, bool], str]


class _Unfit(Exception):
    """Why a template does not take the form."""


def compile_template(source: str, bos: str = "", eos: str = "") -> dict[str, Any]:
    """The plain data of a template; `bos` and `eos` are the texts of these tokens.

    Raises InputError, in one line, for one that does not fit: that depends on the date, treats messages by
    their number or text, or is no template.
    """
    if len(source) > MAX_CHARS:
        raise InputError(f"chat template: over {MAX_CHARS} characters")
    asked = _jinja(source, bos, eos)
    try:
        template = _asked(asked)
        check_template(template)
        _prove(template, asked)
    except (_Unfit, ValueError) as error:
        raise InputError(
            f"chat template: it does not fit the plain form of a device ({error}); give the checkpoint a "
            "template that puts fixed texts around each message, such as ChatML"
        ) from None
    return template


def template_source(folder: Path) -> tuple[str, str, str] | None:
    """The template of a checkpoint folder, and the texts of its first and last token; None without one.

    Of several templates the one named default. Raises InputError where the files are broken.
    """
    beside, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    try:
        about = json.loads(config.read_bytes()) if config.is_file() else {}
        told = beside.read_text(encoding="utf-8") if beside.is_file() else about.get("chat_template")
        if isinstance(told, list):
            told = next((one["template"] for one in told if one["name"] == "default"), None)
        if told is None:
            return None
        return str(told), _content(about.get("bos_token")), _content(about.get("eos_token"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: its chat template cannot be read ({error!r}); save it again") from None


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token or "")


def _jinja(source: str, bos: str, eos: str) -> Jinja:
    """How transformers renders a template (utils/chat_template_utils.py): sandboxed, blocks trimmed."""
    from jinja2.exceptions import TemplateError

    try:
        compiled = _sandbox().from_string(source)
    except TemplateError as error:
        raise InputError(f"chat template: no Jinja template (line {getattr(error, 'lineno', '?')})") from None

    def rendered(messages: Messages, prompt: bool) -> str:
        told = {"messages": messages, "add_generation_prompt": prompt, "bos_token": bos, "eos_token": eos}
        try:
            with _few_steps():
                return compiled.render(**told)
        except _Unfit:
            raise
        except Exception as error:  # a template may do anything
            raise TemplateError(str(error)) from None

    return rendered


def _sandbox() -> Any:
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        # What is a step alone and yet much work; an intercepted operator is not computed ahead either.
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, _: Any, operator: str, left: Any, right: Any) -> Any:
            sizes = [abs(one) if isinstance(one, int | float) else len(one) for one in (left, right)]
            if operator == "**" or sizes[0] * sizes[1] > MOST_ITEMS:
                raise _Unfit("it computes too much")
            return left * right

    def refuse(message: str = "") -> None:
        raise TemplateError(message)

    def now(_: str) -> str:
        raise _Unfit("it depends on the date")

    def few(*bounds: int) -> range:
        if len(found := range(*bounds)) > MOST_ITEMS:
            raise _Unfit("it loops too long")
        return found

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals |= {"raise_exception": refuse, "strftime_now": now, "range": few}
    return environment


@contextmanager
def _few_steps() -> Iterator[None]:
    """Ends with _Unfit what takes over MOST_STEPS lines, in the template and in what it calls: a sandbox
    bounds each range, but not loops within loops."""
    left, before = MOST_STEPS, sys.gettrace()

    def trace(_: Any, event: str, __: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise _Unfit("it loops too long")
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def _said(*turns: str) -> Messages:
    """Messages of known texts: user U0, assistant A1, ... by their number."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[turn], "content": _mark(number)} for number, turn in enumerate(turns)]


def _mark(number: int) -> str:
    return f"\ue000{number}\ue000"


def _between(asked: Jinja, turns: str, prompt: bool = False) -> list[str]:
    """What stands before, between and behind the texts of a conversation."""
    text = _tried(asked, _said(*turns), prompt)
    found = []
    for number in range(len(turns)):
        before, mark, text = text.partition(_mark(number))
        if not mark:
            raise _Unfit(f"message {number + 1} of {len(turns)} is left out or moved")
        found.append(before)
    return [*found, text]


def _tried(asked: Jinja, messages: Messages, prompt: bool) -> str:
    from jinja2.exceptions import TemplateError

    try:
        return asked(messages, prompt)
    except TemplateError as error:
        raise _Unfit(f"it fails on {' and '.join(m['role'] for m in messages)}: {str(error)[:80]}") from None


def _asked(asked: Jinja) -> dict[str, Any]:
    start_user, *turns, rest = _between(asked, "uau")
    open_end, prompt_end = _between(asked, "u")[1], _between(asked, "u", prompt=True)[1]
    assistant_end = _between(asked, "ua")[2]
    after_user = _token_border(_shared_start(open_end, prompt_end, turns[0]))
    end, prompt = open_end[len(after_user) :], prompt_end[len(after_user) :]
    if rest != open_end or not assistant_end.endswith(end):
        raise _Unfit("the end depends on who spoke last")
    after_assistant = assistant_end[: len(assistant_end) - len(end)]
    if not turns[1].startswith(after_assistant):
        raise _Unfit("what stands behind an answer depends on what follows")
    before_user = turns[1][len(after_assistant) :]
    if not start_user.endswith(before_user):
        raise _Unfit("the first message is treated otherwise than the next ones")
    return {
        "start": start_user[: len(start_user) - len(before_user)],
        "system": _system(asked),
        "before": {"user": before_user, "assistant": turns[0][len(after_user) :]},
        "after": {"user": after_user, "assistant": after_assistant},
        "prompt": prompt,
        "end": end,
        "trim": _trimmed(asked),
        "alternate": _alternates(asked),
    }


def _shared_start(*texts: str) -> str:
    length = next((n for n, chars in enumerate(zip(*texts, strict=False)) if len(set(chars)) > 1), None)
    return min(texts, key=len)[:length]


def _token_border(text: str) -> str:
    """The text up to a mark that it only begins: "<|end|>\\n<|" is cut before its second "<"."""
    opened = text.rfind("<")
    return text[:opened] if opened > text.rfind(">") else text


def _system(asked: Jinja) -> dict[str, str] | None:
    try:
        before, after, _ = _between(asked, "su")
    except _Unfit:
        return None
    return {"before": before, "after": after}


def _trimmed(asked: Jinja) -> list[str]:
    roles = []
    for role, turns, which in (("user", "uau", 0), ("assistant", "uau", 1), ("system", "su", 0)):
        messages = _said(*turns)
        messages[which]["content"] = f" \n{_ONE}\t "
        try:
            text = _tried(asked, messages, False)
        except _Unfit:
            continue  # no system message
        if messages[which]["content"] not in text:
            roles.append(role)
    return roles


def _alternates(asked: Jinja) -> bool:
    """Whether two messages of one user are refused, or not simply put one behind the other."""
    try:
        _, between, _ = _between(asked, "uu")
        _between(asked, "au")
    except _Unfit:
        return True
    _, after, before, _ = _between(asked, "uau")
    return not (after and before and between)


def _prove(template: dict[str, Any], asked: Jinja) -> None:
    """Both render the same, on every kind of conversation that the data takes."""
    random = Random(0)
    for number in range(PROOFS):
        messages = _conversation(random, template)
        for prompt in (True, False):
            if _tried(asked, messages, prompt) != render(template, messages, prompt):
                roles = ", ".join(message["role"] for message in messages)
                raise _Unfit(f"conversation {number + 1} of the proof ({roles}) is rendered otherwise")


def _conversation(random: Random, template: dict[str, Any]) -> Messages:
    count = random.randint(1, 8)
    if template["alternate"]:
        roles = [("user", "assistant")[number % 2] for number in range(count)]
    else:
        roles = random.choices(("user", "assistant"), k=count)
    if template["system"] is not None and random.random() < 0.5:
        roles = ["system", *(roles if roles[0] == "user" else ["user", *roles])]
    return [{"role": role, "content": _content_of(random)} for role in roles]


def _content_of(random: Random) -> str:
    return "".join(random.choices(_WORDS, k=random.choice((1, 1, 1, 2, 3))))

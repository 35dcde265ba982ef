"""What `edgewise run` does with a model that writes: answers as they come, a chat in the terminal."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.cli.options import emit
from runtimes.errors import InputError

if TYPE_CHECKING:
    from runtimes.generated import Generated, Stream

MOST_LINE = 1 << 20  # bytes of a line of a chat
HELP = (
    "/reset begins anew, /system TEXT with other instructions, /exit (or Ctrl-D) ends; Ctrl-C stops an answer"
)

_ = "With a generator: "
Chat = Annotated[bool, typer.Option("--chat", help=f"{_}a conversation in the terminal.")]
System = Annotated[str | None, typer.Option(help=f"{_}its instructions, in front of the conversation.")]
Raw = Annotated[bool, typer.Option("--raw", help=f"{_}go on from the text as it is, no chat template.")]
MaxNewTokens = Annotated[int | None, typer.Option(help=f"{_}tokens of an answer at most (256).")]
Temperature = Annotated[float | None, typer.Option(help=f"{_}0 takes the best token, 1 draws as it is.")]
TopP = Annotated[float | None, typer.Option(help=f"{_}draw from the likeliest tokens up to this sum.")]
MinP = Annotated[float | None, typer.Option(help=f"{_}draw from tokens this likely beside the best.")]
Penalty = Annotated[float | None, typer.Option(help=f"{_}over 1 makes what was said less likely.")]
Stop = Annotated[list[str] | None, typer.Option(help=f"{_}a text that ends the answer; repeat for more.")]
Seed = Annotated[int | None, typer.Option(help=f"{_}draw the same again.")]
Overflow = Annotated[
    str | None, typer.Option(help=f"{_}a full context is an error, or may slide: the oldest is forgotten.")
]


@dataclass(frozen=True)
class Asked:
    """The options as they were given, None where they were not."""

    chat: bool = False
    system: str | None = None
    raw: bool = False
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop: list[str] | None = None
    seed: int | None = None
    overflow: str | None = None

    def options(self) -> dict[str, Any]:
        """Those that `Generator` takes."""
        told = {key: value for key, value in asdict(self).items() if key not in ("chat", "system", "raw")}
        return {key: value for key, value in told.items() if value is not None}


def refuse(asked: Asked, task: str) -> None:
    """Raises InputError where a task that writes nothing was given options of one that does."""
    given = asdict(asked) | {"top_k": None}
    wrong = next((key for key, value in given.items() if value is not None and value is not False), None)
    if wrong:
        raise InputError(f"--{wrong.replace('_', '-')} is for text-generation, not {task}")
    if asked.top_k == 0:
        raise InputError(f"--top-k must be 1 or more with {task}")


def ready(model: Any, path: Path) -> None:
    """A checkpoint's chat template is Jinja beside it; a bundle's is in its manifest already."""
    if (path / "checkpoint.json").is_file():
        from export.template import compile_template, template_source

        found = template_source(path)
        try:
            model.generation["template"] = compile_template(*found) if found else None
        except InputError as error:  # as a bundle of it would be
            print(f"warning: its template is left out, so it does not chat. {error}", file=sys.stderr)
            model.generation["template"] = None


def write(model: Any, prompts: list[str], asked: Asked, as_json: bool) -> None:
    """Answers to prompts: one as it comes, several each when it is whole."""
    if asked.raw and asked.system is not None:
        raise InputError("--system needs the chat template; leave out --raw")
    plain = asked.raw or (model.generation["template"] is None and asked.system is None)
    given = [text if plain else _messages(text, asked.system) for text in prompts]
    if as_json:
        answers = model(given, **asked.options())
        emit([{"prompt": text, **asdict(one)} for text, one in zip(prompts, answers, strict=True)])
    elif len(given) == 1:
        _finish(_tell(model.stream(given[0], **asked.options())))
    else:
        for text, answer in zip(prompts, model(given, **asked.options()), strict=True):
            print(f"> {shown(text)}\n{shown(answer.text)}")
            _cut(answer)


def _messages(text: str, system: str | None) -> list[dict[str, str]]:
    start = [] if system is None else [{"role": "system", "content": system}]
    return [*start, {"role": "user", "content": text}]


def _tell(stream: "Stream") -> "Generated":
    for piece in stream:
        print(shown(piece), end="", flush=True)
    return stream.result


def _finish(answer: "Generated") -> None:
    """A line's end behind the answer, and why it ended where that is not plain."""
    if not answer.text.endswith("\n"):
        print(flush=True)
    _cut(answer)


def _cut(answer: "Generated") -> None:
    if answer.finish == "length":
        _note(f"cut after {len(answer.tokens)} tokens; --max-new-tokens gives it more")
    elif answer.finish == "context":
        _note("cut: the context is full; --overflow slide goes on, forgetting the oldest")


def _note(line: str) -> None:
    """A remark, where somebody looks on."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"({line})", file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """As it can be printed: marks that steer a terminal are escaped, for a model may write any."""
    if all(char.isprintable() or char in "\n\t" for char in text):
        return text
    return "".join(
        char if char in "\n\t" or ord(char) >= 0xA0 or 0x20 <= ord(char) < 0x7F else f"\\x{ord(char):02x}"
        for char in text
    )


def chat(model: Any, asked: Asked, as_json: bool) -> None:
    """A conversation: lines in, answers out as they come. With --json one object a line."""
    if asked.raw:
        raise InputError("--chat needs the chat template; leave out --raw")
    if asked.overflow == "error":
        raise InputError("--chat forgets the oldest messages when the context is full; leave out --overflow")
    talk = model.chat(asked.system, **asked.options())
    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    if on_terminal and not as_json:
        print(f"{HELP}.")
    for line in _typed() if on_terminal else _lines():
        if not line.strip():
            continue
        try:
            if line.startswith("/"):
                if _command(talk, line):
                    return
                continue
            _answer(talk, line, as_json)
        except InputError as error:
            if not on_terminal:
                raise
            print(f"edgewise: {error}", file=sys.stderr)


def _answer(talk: Any, line: str, as_json: bool) -> None:
    forgotten = talk.forgotten
    stream = talk.say(line)
    if talk.forgotten > forgotten:
        _note(f"the context is full: {talk.forgotten - forgotten} older messages are forgotten")
    with _stopped_by_ctrl_c(stream):
        if as_json:
            import json

            for _piece in stream:
                pass
            print(json.dumps({"user": line, **asdict(stream.result)}, ensure_ascii=False), flush=True)
            return
        found = _tell(stream)
    _finish(found)
    if found.finish == "cancelled":
        _note("stopped")


@contextmanager
def _stopped_by_ctrl_c(stream: "Stream") -> Iterator[None]:
    """Ctrl-C ends the answer after the token at hand, a second one everything."""
    told: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if told:
            raise KeyboardInterrupt
        told.append(number)
        stream.cancel()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _command(talk: Any, line: str) -> bool:
    """Do what a line that begins with a slash says; whether that is to end."""
    name, _space, rest = line.strip().partition(" ")
    if name in ("/exit", "/quit"):
        return True
    if name == "/reset":
        system = next((m["content"] for m in talk.messages if m["role"] == "system"), None)
        talk.reset(system)
        _note("a new conversation")
    elif name == "/system":
        talk.reset(rest.strip() or None)
        _note("a new conversation, with these instructions" if rest.strip() else "a new conversation")
    else:
        print(HELP, file=sys.stderr)
    return False


def _typed() -> Iterator[str]:
    """Lines that somebody types, with the line editing that Python has."""
    with suppress(ImportError):
        import readline  # noqa: F401 - input() edits lines by it
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /exit ends the chat)")


def _lines() -> Iterator[str]:
    """Lines of a pipe. Raises InputError for one that is no UTF-8 or has no end."""
    if sys.stdin is None:
        raise InputError("standard input is closed; type or pipe one message a line")
    number = 0
    while data := sys.stdin.buffer.readline(MOST_LINE + 1):
        number += 1
        if len(data) > MOST_LINE:
            raise InputError(f"stdin: line {number} is over {MOST_LINE >> 20} MB; shorten it")
        try:
            yield data.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"stdin: line {number} is not UTF-8 (byte {error.start}); convert it") from None

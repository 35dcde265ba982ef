"""A conversation with a model that writes: its messages, and the cache that spares reading them again."""

from typing import Any

from runtimes.engines import Cache
from runtimes.errors import InputError
from runtimes.generated import Stream
from runtimes.tasks.generate import Generator

# Of the context, what is left free for an answer at least, however many tokens it may have.
ROOM = 4


class Conversation:
    """`say` something and iterate over the answer's pieces; both become messages.

    Where the context is full, the oldest question and answer are left out, never the system's message;
    `forgotten` counts the messages. An answer that was cancelled stays as far as it came.
    """

    def __init__(self, model: Generator, system: str | None = None, **options: Any) -> None:
        if model.generation["template"] is None:
            raise InputError("this model has no chat template, so it does not converse; give it a text")
        self._model = model
        self._options = model.options(**options)
        self.reset(system)

    def reset(self, system: str | None = None) -> None:
        """Begin anew, with a message of the system where one is given. Raises InputError if it takes none."""
        start = [] if system is None else [{"role": "system", "content": system}]
        if start:
            self._model.encode([*start, {"role": "user", "content": ""}])
        self._messages = start
        self._pending: Stream | None = None
        self._cache: Cache | None = None
        self._read: list[int] = []  # what was given to the cache, some of which it may not have taken
        self.forgotten = 0

    @property
    def messages(self) -> list[dict[str, str]]:
        """All that was said and is remembered; an answer that is still coming, as far as it came.

        A question that has no word of an answer yet is not among them.
        """
        said = [dict(message) for message in self._messages]
        if self._pending is None:
            return said
        text = self._pending.result.text
        return [*said, {"role": "assistant", "content": text}] if text else said[:-1]

    def say(self, text: str) -> Stream:
        """The answer to a message; one that is still coming is cancelled.

        Raises InputError where the message does not fit, and is none then.
        """
        self._finish()
        asked = [*self._messages, {"role": "user", "content": text}]
        room = min(self._options.max_new_tokens, self._model.limits["max_tokens"] // ROOM)
        ids, kept = self._model.encode_recent(asked, room)
        self.forgotten += len(asked) - len(kept)
        if self._cache is None:
            self._cache = self._model.begin()
        held = self._read[: int(self._cache.lengths[0])]
        self._cache.rewind(_shared(held, ids[:-1]))
        self._messages = kept
        self._pending = self._model.answer(ids, self._options, self._cache)
        self._read = ids
        return self._pending

    def _finish(self) -> None:
        if self._pending is None:
            return
        self._pending.close()
        found, self._pending = self._pending.result, None
        self._read = self._read + found.tokens
        if self._options.slide and len(self._read) >= self._model.limits["max_tokens"]:
            self._read = []  # the answer slid: the cache holds another text, at other positions
        if found.text:
            self._messages.append({"role": "assistant", "content": found.text})
        else:
            self._messages.pop()  # the question: nobody answered it


def _shared(first: list[int], second: list[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))

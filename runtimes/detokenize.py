"""Token ids to text as they come: pieces that never hold half a character, and join to the whole text."""

import codecs
from collections.abc import Sequence

from runtimes.codec import Codec, byte_table

# A character has four bytes at most, so what is still broken after as many tokens is broken for good.
MOST_WAITING = 4
CONTEXT = 6  # tokens before the text that decide how its first one is spelled
BROKEN = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """`push` a token for what it completes, "" while a character is incomplete; `flush` at the end.

    Where tokens are bytes (GPT-2, Llama 3, SmolLM2), the joined pieces are the bytes as UTF-8, with U+FFFD
    for what is none. Other tokenizers spell a token by those before it: there a few of them are decoded
    anew each time. `before` is what stood in front, the end of the prompt.
    """

    def __init__(self, codec: Codec, before: Sequence[int] = ()) -> None:
        self._codec = codec
        self._bytes = byte_table() if codec.is_bytes else None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids = list(before)[-CONTEXT:]
        self._told, self._shown = 0, len(self._ids)
        self._broken = 0  # tokens in a row that ended within a character

    def push(self, number: int) -> str:
        if self._bytes is None:
            return self._by_context(number)
        if number in self._codec.special:
            return ""
        spelled = self._codec.token(number) or ""
        if number in self._codec.added or not all(char in self._bytes for char in spelled):
            return self._utf8.decode(spelled.encode("utf-8"))
        return self._utf8.decode(bytes(self._bytes[char] for char in spelled))

    def _by_context(self, number: int) -> str:
        self._ids.append(number)
        before = self._codec.decode(self._ids[self._told : self._shown])
        text = self._codec.decode(self._ids[self._told :])
        self._broken = self._broken + 1 if text.endswith(BROKEN) else 0
        if not text.startswith(before) or 0 < self._broken < MOST_WAITING:
            return ""
        if len(text) > len(before):
            self._told, self._shown = self._shown, len(self._ids)
        return text[len(before) :]

    def flush(self) -> str:
        """What is still incomplete, as U+FFFD."""
        if self._bytes is not None:
            return self._utf8.decode(b"", final=True)
        before = self._codec.decode(self._ids[self._told : self._shown])
        self._told, rest = self._shown, self._codec.decode(self._ids[self._told :])
        self._shown = len(self._ids)
        return rest[len(before) :] if rest.startswith(before) else ""

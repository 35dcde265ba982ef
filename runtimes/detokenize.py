"""Token ids to text as they come: pieces that never hold half a character, and join to the whole text."""

import codecs
import re
from collections.abc import Sequence

from runtimes.codec import Codec, byte_table

# A character has four bytes at most, so what is still broken after as many tokens is broken for good.
MOST_WAITING = 4
CONTEXT = 6  # tokens before the text that decide how its first one is spelled
BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
BROKEN = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """`push` a token for what it completes, "" while a character is incomplete; `flush` at the end.

    Where tokens are bytes (GPT-2, Llama 3, SmolLM2), the joined pieces are the bytes as UTF-8, with U+FFFD
    for what is none. Other tokenizers spell a token by those before it: there a few of them are decoded
    anew each time, but for tokens that are a byte each (SentencePiece's `<0xE6>`), which are UTF-8 as well.
    `before` is what stood in front, the end of the prompt.
    """

    def __init__(self, codec: Codec, before: Sequence[int] = ()) -> None:
        self._codec = codec
        self._bytes = byte_table() if codec.is_bytes else None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids = [number for number in before if number not in codec.special][-CONTEXT:]
        self._told, self._shown = 0, len(self._ids)
        self._broken = 0  # tokens in a row that ended within a character

    def push(self, number: int) -> str:
        if number in self._codec.special:
            return ""
        spelled = self._codec.token(number) or ""
        if self._bytes is None:
            return self._by_context(number, spelled)
        if number in self._codec.added or not all(char in self._bytes for char in spelled):
            return self._utf8.decode(spelled.encode("utf-8"))
        return self._utf8.decode(bytes(self._bytes[char] for char in spelled))

    def _by_context(self, number: int, spelled: str) -> str:
        if BYTE.fullmatch(spelled) and self._codec.decode([number]) != spelled:
            waiting, self._ids = self._rest(), [number]
            self._told, self._shown, self._broken = 0, 1, 0
            return waiting + self._utf8.decode(bytes([int(spelled[3:5], 16)]))
        cut_off = self._utf8.decode(b"", final=True)
        self._ids.append(number)
        text = self._codec.decode(self._ids[self._told :])
        self._broken = self._broken + 1 if text.endswith(BROKEN) else 0
        if 0 < self._broken < MOST_WAITING:
            return cut_off
        new = self._rest()
        if new:
            self._told, self._shown = self._shown, len(self._ids)
        return cut_off + new

    def _rest(self) -> str:
        """What the tokens that were not shown yet add to those in front of them."""
        before = self._codec.decode(self._ids[self._told : self._shown])
        text = self._codec.decode(self._ids[self._told :])
        if not text.startswith(before):  # they changed what was shown already, so they go by themselves
            return self._codec.decode(self._ids[self._shown :])
        return text[len(before) :]

    def flush(self) -> str:
        """What is still incomplete, as U+FFFD."""
        cut_off = self._utf8.decode(b"", final=True)
        if self._bytes is not None:
            return cut_off
        rest, self._told = self._rest(), self._shown
        self._shown = len(self._ids)
        return cut_off + rest

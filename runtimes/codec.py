"""Text to token ids and back, for models that write: nothing is cleaned, cut or padded.

Unlike `runtimes.text`, which prepares texts that are judged. A prompt is what the model goes on from, so
every character counts.
"""

import threading
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from runtimes.errors import BundleError, InputError


class Codec:
    """A `tokenizer.json`. `size` is its vocabulary with added tokens; ids of `special` have no text."""

    def __init__(self, fast: FastTokenizer) -> None:
        fast.no_padding()
        fast.no_truncation()
        self._fast = fast
        self._lock = threading.RLock()  # what counts as a special token is a state of the tokenizer
        self.size = fast.get_vocab_size(with_added_tokens=True)
        added = fast.get_added_tokens_decoder()
        self.special = {number: str(token.content) for number, token in added.items() if token.special}
        self.added = {number: str(token.content) for number, token in added.items()}

    @classmethod
    def from_bytes(cls, tokenizer_json: bytes) -> "Codec":
        """Raises BundleError where the JSON is no tokenizer."""
        try:
            return cls(FastTokenizer.from_str(tokenizer_json.decode("utf-8")))
        except Exception as error:  # the Rust side raises bare Exceptions
            raise BundleError(f"tokenizer.json: not a tokenizer ({error}); pack the bundle again") from None

    def encode(self, text: str, whole: bool = True) -> list[int]:
        """Token ids; what stands for a special token in the text becomes one.

        `whole`: with the special tokens that the tokenizer itself puts around a text. Raises InputError for
        a text that is no Unicode (lone surrogates, as broken UTF-8 leaves them), or that has no tokens.
        """
        try:
            with self._lock:
                return list(self._fast.encode(text, add_special_tokens=whole).ids)
        except (UnicodeEncodeError, TypeError):
            raise InputError("the text is not valid Unicode; convert it to UTF-8") from None
        except Exception as error:  # the Rust side raises bare ones, where there is no unknown token
            problem = " ".join(str(error).split())
            raise InputError(f"tokenizer.json cannot spell the text ({problem}); change the text") from None

    def encode_parts(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Token ids of (text, whether it is data) in turn: no special token comes from data.

        As long as no data looks like one, this is `encode` of all of it, without tokens around it.
        """
        if not any(told in text for text, data in parts if data for told in self.special.values()):
            return self.encode("".join(text for text, _ in parts), whole=False)
        ids: list[int] = []
        with self._lock:
            for text, data in parts:
                self._fast.encode_special_tokens = data
                try:
                    ids += self.encode(text, whole=False)
                finally:
                    self._fast.encode_special_tokens = False
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out; U+FFFD for bytes that are no UTF-8."""
        return str(self._fast.decode(list(ids), skip_special_tokens=True))

    def token(self, number: int) -> str | None:
        """A token as the vocabulary spells it."""
        found: str | None = self._fast.id_to_token(number)
        return found

    @property
    def is_bytes(self) -> bool:
        """Whether its tokens are bytes, spelled by GPT-2's table (a decoder of type ByteLevel alone)."""
        return type(self._fast.decoder).__name__ == "ByteLevel"


def byte_table() -> dict[str, int]:
    """How GPT-2 spells each byte as a character (Radford et al. 2019, encoder.py, `bytes_to_unicode`)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table: dict[str, Any] = {chr(byte): byte for byte in shown}
    return table | {chr(256 + place): byte for place, byte in enumerate(hidden)}

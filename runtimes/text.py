"""Text to token ids: the one cleaning and the one tokenization, for training, export, bench and device."""

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from tokenizers import Tokenizer as FastTokenizer

from runtimes.errors import BundleError, InputError

# Numeric entities often reach news data with their ampersand lost ("it #39;s").
_BROKEN_ENTITY = re.compile(r"&?#(\d{2,5});")
# One pass over comments and tags; no branch can cross a "<", so that the time stays linear.
_TAG = re.compile(r"<!--|-->|<(/?)([a-zA-Z][a-zA-Z0-9]*)[^<>]*>")
# Numeric entities without their leading zeros: Python reads no number of more than 4,300 digits.
_NUMERIC_ENTITY = re.compile(r"&#0*([0-9]+)(;?)")
_HIDDEN = ("script", "style")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b\ufeff]+")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")

# Rows of one engine call; longer lists are cut. More buys no speed on a CPU and costs memory.
ROWS = 32


def clean(text: str) -> str:
    """Plain text: entities decoded, tags, scripts and comments dropped, NFC, white space folded."""
    text = html.unescape(_NUMERIC_ENTITY.sub(_shortened, _BROKEN_ENTITY.sub(r"&#\1;", text)))
    if "<" in text:
        text = _without_tags(text)
    text = unicodedata.normalize("NFC", _LONE_SURROGATE.sub("\ufffd", text))
    return _BLANK.sub(" ", text).strip()


def _shortened(entity: re.Match[str]) -> str:
    """What no character has becomes U+FFFD, as in HTML."""
    digits, end = entity.groups()
    return "\ufffd" if len(digits) > 7 else f"&#{digits}{end}"


def _without_tags(text: str) -> str:
    """Text outside of tags. What an unclosed script, style or comment hides stays hidden, as in a browser."""
    kept, start, hidden_by = [], 0, ""
    for tag in _TAG.finditer(text):
        closing, name = tag.group(1), (tag.group(2) or "").lower()
        if hidden_by:
            if tag.group() == "-->" if hidden_by == "<!--" else (closing and name == hidden_by):
                hidden_by, start = "", tag.end()
            continue
        if tag.group() == "-->":
            continue
        kept.append(text[start : tag.start()])
        start = tag.end()
        if tag.group() == "<!--" or (name in _HIDDEN and not closing):
            hidden_by = name or "<!--"
    return " ".join(kept) if hidden_by else " ".join([*kept, text[start:]])


class Tokenizer:
    """A `tokenizer.json` with the project's cleaning in front and truncation to `max_tokens`."""

    def __init__(self, fast: FastTokenizer, max_tokens: int) -> None:
        fast.no_padding()
        fast.enable_truncation(max_tokens)
        self._fast = fast
        self.max_tokens = max_tokens
        self.special_tokens = fast.num_special_tokens_to_add(False)
        self.pad_id = fast.token_to_id("[PAD]") or 0
        self._pairs: dict[int, FastTokenizer] = {}

    @classmethod
    def from_bytes(cls, tokenizer_json: bytes, max_tokens: int) -> "Tokenizer":
        """Raises BundleError where the JSON is no tokenizer."""
        try:
            return cls(FastTokenizer.from_str(tokenizer_json.decode("utf-8")), max_tokens)
        except Exception as error:  # the Rust side raises bare Exceptions
            raise BundleError(f"tokenizer.json: not a tokenizer ({error}); pack the bundle again") from None

    def encode(self, texts: Sequence[str], raw: bool = False) -> list[list[int]]:
        """Token ids per text, special tokens added, at most `max_tokens` each; `raw` ones are not cleaned."""
        plain = list(texts) if raw else [clean(text) for text in texts]
        if len(plain) == 1:  # the batch call costs a thread pool
            return [self._fast.encode(plain[0]).ids]
        return [encoding.ids for encoding in self._fast.encode_batch_fast(plain)]

    def windows(self, question: str, passage: str, stride: int, most_question: int) -> list["Window"]:
        """The passage in windows of `max_tokens`, each behind the question, `stride` tokens shared by two.

        Neither text is cleaned, so that offsets hold in it. A question is cut behind `most_question` tokens.
        Where there is little room, question and stride take at most half of what is there.
        """
        room = self.max_tokens - self._fast.num_special_tokens_to_add(True)
        asked = self._fast.encode(question, add_special_tokens=False)
        most = min(most_question, room // 2)
        if len(asked) > most:
            question = question[: asked.offsets[most - 1][1]]
        left = room - min(len(asked), most)
        first = self._paired(min(stride, left // 2)).encode(question, passage)
        return [_window(encoding) for encoding in (first, *first.overflowing)]

    def _paired(self, stride: int) -> FastTokenizer:
        if stride not in self._pairs:
            paired = FastTokenizer.from_str(self._fast.to_str())
            paired.enable_truncation(self.max_tokens, stride=stride, strategy="only_second")
            self._pairs[stride] = paired
        return self._pairs[stride]


@dataclass(frozen=True)
class Window:
    """Token ids and types of a question with a part of its passage. `spans`: int64 (tokens, 2), where each
    token of the passage stands in it; -1 for all other tokens."""

    ids: list[int]
    types: list[int]
    spans: np.ndarray


def _window(encoding: Any) -> Window:
    spans = [
        offsets if which == 1 else (-1, -1)
        for offsets, which in zip(encoding.offsets, encoding.sequence_ids, strict=True)
    ]
    return Window(encoding.ids, encoding.type_ids, np.array(spans, np.int64).reshape(-1, 2))


@dataclass(frozen=True)
class Prepared:
    """Engine inputs, and which rows of the question each holds."""

    rows: list[int]
    feeds: dict[str, np.ndarray]


def batches(
    ids: Sequence[Sequence[int]],
    lengths: list[int] | None,
    pad_id: int,
    types: Sequence[Sequence[int]] | None = None,
) -> Iterator[Prepared]:
    """Rows sorted by length, each batch padded to its longest row, or to the fixed lengths of an engine."""
    by_length = iter(sorted(range(len(ids)), key=lambda row: len(ids[row])))
    while rows := list(islice(by_length, ROWS)):
        groups, longest = [rows], len(ids[rows[-1]])
        if lengths is not None:  # fixed shapes hold one text each: the smallest length that fits
            groups = [[row] for row in rows]
        for group in groups:
            wanted = longest if lengths is None else _fitting(len(ids[group[0]]), lengths)
            cut = [ids[row][:wanted] for row in group]
            kinds = None if types is None else [types[row][:wanted] for row in group]
            yield Prepared(group, pad(cut, wanted, pad_id, kinds))


def prepare(
    texts: Sequence[str], tokenizer: Tokenizer, max_chars: int, lengths: list[int] | None, raw: bool = False
) -> list[Prepared]:
    """Clean (but for `raw` texts), tokenize, sort by length and pad each batch to its own longest text (or an
    engine's length).

    Raises InputError for an empty text, or something that is no list of texts.
    """
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise InputError("a text, or a list of texts, is expected")
    ids = tokenizer.encode([text[:max_chars] for text in texts], raw) if texts else []
    for row, tokens in enumerate(ids):
        if len(tokens) <= tokenizer.special_tokens:  # blank, or nothing but markup
            raise InputError(f"text {row + 1} of {len(texts)} is empty; give at least one word")
    return list(batches(ids, lengths, tokenizer.pad_id))


def unpadded(prepared: Sequence[Prepared]) -> list[np.ndarray]:
    """int64 token ids of each row, in the order of the rows."""
    found: list[np.ndarray] = [np.empty(0, np.int64)] * sum(len(batch.rows) for batch in prepared)
    for batch in prepared:
        feeds = zip(batch.rows, batch.feeds["input_ids"], batch.feeds["attention_mask"], strict=True)
        for row, ids, mask in feeds:
            found[row] = ids[mask == 1]
    return found


def _fitting(count: int, lengths: list[int]) -> int:
    return next((length for length in lengths if length >= count), lengths[-1])


def pad(
    ids: Sequence[Sequence[int]], length: int, pad_id: int, types: Sequence[Sequence[int]] | None = None
) -> dict[str, np.ndarray]:
    """`input_ids`, `attention_mask` and `token_type_ids`, each int64 of shape (len(ids), length)."""
    input_ids = np.full((len(ids), length), pad_id, np.int64)
    attention_mask = np.zeros((len(ids), length), np.int64)
    token_type_ids = np.zeros((len(ids), length), np.int64)
    for row, tokens in enumerate(ids):
        input_ids[row, : len(tokens)] = tokens
        attention_mask[row, : len(tokens)] = 1
        if types is not None:
            token_type_ids[row, : len(tokens)] = types[row]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}

"""Prompts and answers as token ids, by the base model's own chat template and tokenizer."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtimes.errors import InputError
from trainers.conversations import Message, Prompt

# Token ids of a prompt, and of what is learned behind it.
Encoded = tuple[list[int], list[int]]
# Stands for a message in a rendered text, between blanks that no template writes of itself.
_MARK = "\u2003\ue000{}\ue001\u2003"
_MARKED = re.compile("(\u2003?)\ue000([0-9]+)\ue001(\u2003?)")


class Renderer:
    """The tokenizer of a model folder. `end` is the id of the token that ends an answer, `begin` of the one
    that stands for an empty prompt (left out: `end`).

    Messages go through the folder's chat template; where it has none, they are written as lines of the role's
    name and its words. A prompt that is a text stays as it is. Prompt and answer are tokenized apart, as they
    are when the answer is generated.
    """

    def __init__(self, folder: Path, end: int, begin: int | None = None):
        import transformers
        from tokenizers import Tokenizer

        self.end, self.begin = end, end if begin is None else begin
        self.others: list[int] = []  # further tokens that end an answer, which none is taught to say
        self.fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.fast.no_padding()
        self.fast.no_truncation()
        self.special = [one.content for one in self.fast.get_added_tokens_decoder().values() if one.special]
        self.chat: Any = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )

    def choose_end(self, ends: Sequence[int]) -> None:
        """Of the tokens that end an answer, take the one that the template closes the assistant's turn with
        (where it closes none: the first)."""
        self.end, *_ = ends
        if len(ends) > 1 and self.chat.chat_template:
            said: list[Message] = [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "\ue000"},
            ]
            with suppress(InputError):  # a template that refuses these words tells nothing of its end
                behind = self._encoded(self.text(said, more=False).rpartition("\ue000")[2])
                self.end = next((one for one in behind if one in ends), self.end)
        self.others = [one for one in ends if one != self.end]

    def text(self, prompt: Prompt, more: bool = True) -> str:
        """What the model is given to go on from; without `more` the last message is a whole turn."""
        if isinstance(prompt, str):
            return prompt
        if not self.chat.chat_template:
            return _plain(prompt)
        import jinja2

        try:
            return str(self.chat.apply_chat_template(prompt, add_generation_prompt=more, tokenize=False))
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"the chat template refuses these messages ({reason[:160]})") from None

    def prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of each prompt; a template writes its own first token, a plain text gets the
        tokenizer's."""
        ids: list[list[int]] = []
        for prompt in prompts:
            plain = isinstance(prompt, str) or not self.chat.chat_template
            if not isinstance(prompt, str) and not plain and self._looks_special(prompt):
                ids.append(self._apart(prompt))
                continue
            found = self.fast.encode(self.text(prompt), add_special_tokens=plain).ids
            ids.append(found or [self.begin])
        return ids

    def _looks_special(self, prompt: list[Message]) -> bool:
        return any(token in one["content"] for one in prompt for token in self.special)

    def _apart(self, prompt: list[Message]) -> list[int]:
        """As the device does it: what stands in a message is words, even where it is spelled like a token."""
        marked = [{**one, "content": _MARK.format(at)} for at, one in enumerate(prompt)]
        ids: list[int] = []
        done, text = 0, self.text(marked)
        for mark in _MARKED.finditer(text):
            words = prompt[int(mark[2])]["content"]
            # Where the template took the blanks of the mark, it takes those of the message.
            words = words if mark[1] else words.lstrip()
            words = words if mark[3] else words.rstrip()
            ids += self._encoded(text[done : mark.start()]) + self._words(words)
            done = mark.end()
        return ids + self._encoded(text[done:])

    def _encoded(self, text: str) -> list[int]:
        return list(self.fast.encode(text, add_special_tokens=False).ids)

    def _words(self, text: str) -> list[int]:
        self.fast.encode_special_tokens = True  # "encode them" means: by their letters
        try:
            return self._encoded(text)
        finally:
            self.fast.encode_special_tokens = False

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each answer, with the end at its end."""
        self.fast.encode_special_tokens = True  # no answer ends before its end
        try:
            encoded = self.fast.encode_batch(list(texts), add_special_tokens=False)
        finally:
            self.fast.encode_special_tokens = False
        return [[*one.ids, self.end] for one in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer's ids, without special tokens."""
        return str(self.fast.decode(list(ids), skip_special_tokens=True))


def _plain(messages: Sequence[Message]) -> str:
    """For models without a chat template."""
    turns = [f"{one['role'].capitalize()}: {one['content']}" for one in messages]
    return "\n\n".join([*turns, "Assistant:"])


def fitting(rows: Sequence[Sequence[Encoded]], max_tokens: int, what: str) -> tuple[list[Any], int]:
    """The rows whose every prompt and answer are at most `max_tokens` together, and how many are not.

    InputError where none is left.
    """
    kept = [row for row in rows if all(len(prompt) + len(answer) <= max_tokens for prompt, answer in row)]
    if not kept:
        raise InputError(
            f"{what}: each of the {len(rows)} is over max_tokens = {max_tokens}; raise it or shorten them"
        )
    return kept, len(rows) - len(kept)

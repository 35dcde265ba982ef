"""Questions that a collection should answer, made of its own sentences: a name or number becomes "what".

After Lewis et al. 2019, "Unsupervised Question Answering by Cloze Translation", its simplest form.
"""

import re
from collections.abc import Iterable, Iterator

_SENTENCE = re.compile(r"[^.!?\n]{20,300}[.!?]")
# A number, or words with capitals, but not at the beginning, where every word has one.
_NAME = re.compile(r"(?<=\S )(?:\d[\d,.]*\d|\d|[A-Z][\w'’-]+(?: [A-Z][\w'’-]+){0,3})")
WORDS = (6, 30)


def questions_from(texts: Iterable[str]) -> Iterator[str]:
    """At most one question a passage."""
    for text in texts:
        made = next(filter(None, map(question_from, _SENTENCE.findall(text))), None)
        if made is not None:
            yield made


def question_from(sentence: str) -> str | None:
    """The sentence with its first name or number left out, None where it has none or is no sentence."""
    plain = " ".join(sentence.split()).rstrip(".!?")
    name = _NAME.search(plain)
    if name is None or not WORDS[0] <= len(plain.split()) <= WORDS[1]:
        return None
    return f"{plain[: name.start()]}what{plain[name.end() :]}?"

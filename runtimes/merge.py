"""When two answers are the same answer."""

import re
import unicodedata

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = re.compile(r"[^\w\s]|_")


def key_of(text: str) -> str:
    """What two answers are compared by: without case, punctuation and English articles, blanks folded.

    SQuAD's rule (Rajpurkar et al. 2016), carried to every script: NFKC, and all marks, not ASCII's alone. A
    text of nothing else is its own key.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = _MARKS.sub(" ", re.sub(r"(?<=\w)[’'](?=\w)", "", plain))
    return " ".join(_ARTICLES.sub(" ", words).split()) or " ".join(plain.split())


def nested(one: str, other: str) -> bool:
    """Whether all words of one answer stand together in the other ("1964", "in May 1964")."""
    a, b = f" {key_of(one)} ", f" {key_of(other)} "
    return a in b or b in a

"""How right an answer is: exact match and F1 by SQuAD's rules (Rajpurkar et al. 2016, 2018)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without punctuation and articles, blanks folded: what two answers are compared by."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(said: str, answers: Sequence[str]) -> float:
    """1.0 where the answer is one of the right ones; none are right where nothing is to be found."""
    return float(any(normalise(said) == normalise(answer) for answer in answers or [""]))


def f1(said: str, answers: Sequence[str]) -> float:
    """The best overlap of words with a right answer, in [0, 1]; all or nothing where one of both is empty."""
    return max(_f1(normalise(said).split(), normalise(answer).split()) for answer in answers or [""])


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right))

"""What answers look like as text: how varied, how repetitive."""

from collections import Counter
from collections.abc import Sequence


def grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def distinct(answers: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of the answers (distinct-n; Li et al., 2016). 0 where none is."""
    found = [gram for answer in answers for gram in grams(answer.split(), n)]
    return len(set(found)) / len(found) if found else 0.0


def repetition(answers: Sequence[str], n: int = 4) -> float:
    """Mean share of an answer's n-grams that it has said before (Welleck et al., 2020); 0 of short ones."""
    shares = []
    for answer in answers:
        found = grams(answer.split(), n)
        shares.append(1 - len(Counter(found)) / len(found) if found else 0.0)
    return sum(shares) / len(shares) if shares else 0.0

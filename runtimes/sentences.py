"""The sentence around an answer: enough to show and short enough to read."""

import re

MOST = 400  # characters around an answer
# A sentence ends with its mark (and closing quotes) before a blank, with a mark that needs no blank behind
# it, or with its line.
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]|\n+")
_SHORT = re.compile(r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|No|vs|e\.g|i\.e|Jr|Sr|Inc|Ltd|Co|Fig|approx)\.$")


def sentence_around(text: str, start: int, end: int, most: int = MOST) -> tuple[int, int]:
    """(first, last) of the sentences that hold `text[start:end]`, without blanks around them.

    Cut to about `most` characters around the answer; the answer itself is never cut.
    """
    first, last = 0, len(text)
    for mark in _END.finditer(text):
        if _SHORT.search(text[max(0, mark.end() - 12) : mark.end()]):
            continue
        if mark.end() <= start:
            first = mark.end()
        elif mark.end() >= end:
            last = mark.end()
            break
    first, last = max(first, start - most // 2), min(last, end + most // 2)
    while first < start and text[first].isspace():
        first += 1
    while last > end and text[last - 1].isspace():
        last -= 1
    return first, last

"""What `edgewise run` prints of a collection's answers: the answer, its sentence, and where that stands."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from apps.cli.options import emit
from runtimes.ask import Answered, Asker, Found

MOST = 3  # answers, and sources of each, that are printed


def tell(asker: Asker, questions: Sequence[str], as_json: bool) -> None:
    """Ask all and print, for people or as JSON."""
    answered = asker.many(questions)
    if as_json:
        emit([as_row(one) for one in answered])
        return
    for one in answered:
        if len(answered) > 1:
            print(f"? {one.question}")
        _print(one)


def as_row(answered: Answered) -> dict[str, Any]:
    """The answer as plain data, each source with the sentence around it."""
    row = asdict(answered)
    for found, told in zip(answered.found, row["found"], strict=True):
        for source, about in zip(found.sources, told["sources"], strict=True):
            about["sentence"] = source.sentence
    return row


def _print(answered: Answered) -> None:
    if not answered.found:
        print(f"not found in the documents ({answered.searched} passages read)")
    if answered.ask_back:
        print(answered.ask_back)
    for found in answered.found[:MOST]:
        _print_found(found)


def _print_found(found: Found) -> None:
    print(f"{found.text}  {found.confidence:.2f}")
    for source in found.sources[:MOST]:
        place = f"{source.name}, {source.heading}" if source.heading else source.name
        end = source.document_start + source.end - source.start
        print(f"    {place}, characters {source.document_start}–{end}")
        print(f"    │ {' '.join(source.sentence.split())}")

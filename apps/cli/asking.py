"""What `edgewise run` prints of answers from documents, of a reader, of an embedder."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apps.cli.options import emit
from runtimes.ask import Answered, Asker, Found
from runtimes.errors import InputError

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


def read(model: Any, questions: Sequence[str], passage: Path, as_json: bool) -> None:
    """A reader's answers from one text file."""
    try:
        text = passage.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{passage}: {error.strerror}; name a text file") from None
    except UnicodeDecodeError:
        raise InputError(f"{passage}: not UTF-8; convert it") from None
    answers = model.answers([(question, text) for question in questions])
    if as_json:
        rows = zip(questions, answers, strict=True)
        emit([{"question": question, **asdict(answer)} for question, answer in rows])
        return
    for question, answer in zip(questions, answers, strict=True):
        said = f"{answer.text}  ({answer.confidence:.0%}, at {answer.start})"
        print(f"{said if answer.found else 'not in this passage'}  │ {' '.join(question.split())[:80]}")


def near(model: Any, texts: Sequence[str], as_json: bool) -> None:
    """The vectors of texts; in a terminal, the cosine of each with each."""
    vectors = model(texts)
    if as_json:
        rows = zip(texts, vectors, strict=True)
        emit([{"text": text, "vector": vector.tolist()} for text, vector in rows])
        return
    for text, row in zip(texts, vectors @ vectors.T, strict=True):
        print(f"{'  '.join(f'{value:6.3f}' for value in row)}  │ {' '.join(text.split())[:80]}")

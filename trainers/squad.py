"""Questions on passages in SQuAD's shape: from a source by name, or from a user's own file."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.data import SPLITS, origin
from trainers.files import digest_of, read_json, sha256_file, write_json
from trainers.readers import MAX_ROWS, MAX_TEXT_CHARS, SUFFIXES, read_rows
from trainers.sources import find

_SPLITS = {"train": "train", "validation": "validation", "dev": "validation", "test": "test"}


@dataclass(frozen=True)
class Question:
    """`answers`: (start, text) with `context[start : start + len(text)] == text`; none: not in the context.

    `title` names the article that the context is from: whole articles are held out, never single questions.
    """

    id: str
    title: str
    question: str
    context: str
    answers: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class QuestionSet:
    """Questions in splits: what `trainers.data.Dataset` is for labelled texts."""

    name: str
    splits: dict[str, list[Question]]
    source: dict[str, Any] = field(default_factory=dict)
    label_names = ("start", "end")

    @property
    def digest(self) -> str:
        """sha256 over the questions themselves, in their order."""
        return digest_of({name: "\n".join(map(repr, rows)) for name, rows in self.splits.items()})


@dataclass(frozen=True)
class QuestionsConfig:
    """How questions are split. `test` and `validation` name the articles (titles) that are held out, whole;
    where both are empty and the data has no such splits, articles are drawn by `seed` until `share` of the
    questions is in each. `impossible`: the share of questions that is added once more beside a passage
    without their answer, in every split. `max_rows` bounds the train split."""

    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    share: float = 0.1
    impossible: float = 0.0
    max_rows: int | None = None
    seed: int = 0


def check_questions(config: QuestionsConfig) -> None:
    """InputError for a value that cannot work, named as in the recipe."""
    if not 0 < config.share < 0.5 or not 0 <= config.impossible <= 1:
        raise InputError("questions: share must be above 0 and below 0.5, impossible from 0 to 1")
    if config.max_rows is not None and config.max_rows < 1:
        raise InputError(f"questions.max_rows = {config.max_rows}: must be 1 or more")
    both = sorted(set(config.test) & set(config.validation))
    if both:
        raise InputError(f"questions: {both[0]!r} is both in test and in validation; keep one")


def prepare_questions(name_or_path: str | Path, config: QuestionsConfig) -> QuestionSet:
    """Train, validation and test questions of no common article. InputError as `load_questions`."""
    check_questions(config)
    splits = load_questions(name_or_path)
    if config.test or config.validation:
        everything = [one for rows in splits.values() for one in rows]
        rest, test = hold_out(everything, config.test)
        train, validation = hold_out(rest, config.validation)
        splits = {"train": train, "validation": validation, "test": test}
    else:
        splits = _drawn(splits, config)
    if config.max_rows is not None and len(splits["train"]) > config.max_rows:
        chosen = np.random.default_rng(config.seed).permutation(len(splits["train"]))[: config.max_rows]
        splits["train"] = [splits["train"][row] for row in sorted(chosen.tolist())]
    made = {key: with_impossible(rows, config.impossible, config.seed) for key, rows in splits.items()}
    source = {**origin(find(str(name_or_path), "data")), "prepared": asdict(config)}
    return QuestionSet(Path(str(name_or_path)).stem, made, source)


def _drawn(splits: dict[str, list[Question]], config: QuestionsConfig) -> dict[str, list[Question]]:
    """Validation and test, where they are missing, out of train by whole articles."""
    made, random = dict(splits), np.random.default_rng(config.seed)
    for name in ("test", "validation"):
        if made.get(name):
            continue
        titles = sorted({one.title for one in made["train"]})
        if len(titles) < 3:
            raise InputError(
                f"questions: the train split has {len(titles)} titles, and articles are held out by title; "
                "give the rows titles, or give validation and test splits"
            )
        wanted, chosen = config.share * len(splits["train"]), []
        for title in random.permutation(titles).tolist():
            if sum(one.title in chosen for one in made["train"]) >= wanted:
                break
            chosen.append(title)
        made["train"], made[name] = hold_out(made["train"], chosen)
    return made


def save_questions(questions: QuestionSet, folder: Path) -> Path:
    """Write <split>.jsonl and data.json, the folder whole or not at all."""
    with writing(folder) as new:
        for split, rows in questions.splits.items():
            with (new / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
                for row in rows:
                    file.write(json.dumps(_as_row(row), ensure_ascii=False) + "\n")
        files = {f"{split}.jsonl": sha256_file(new / f"{split}.jsonl") for split in questions.splits}
        meta = {"schema": 1, "name": questions.name, "kind": "questions", "files": files}
        write_json(new / "data.json", {**meta, "source": questions.source})
    return folder


def _as_row(one: Question) -> dict[str, Any]:
    answers = {"text": [text for _, text in one.answers], "answer_start": [at for at, _ in one.answers]}
    return {**asdict(one), "answers": answers}


def is_questions(folder: Path) -> bool:
    """Whether `save_questions` wrote it."""
    meta = read_json(folder / "data.json")
    return isinstance(meta, dict) and meta.get("kind") == "questions"


def open_questions(folder: Path) -> QuestionSet:
    """Open what `save_questions` wrote; InputError where a file is missing or altered."""
    if not is_questions(folder):
        raise InputError(f"{folder}: no prepared questions; prepare the data again")
    meta = read_json(folder / "data.json")
    splits: dict[str, list[Question]] = {}
    for split in (s for s in SPLITS if f"{s}.jsonl" in meta["files"]):
        path = folder / f"{split}.jsonl"
        if not path.is_file() or sha256_file(path) != meta["files"][path.name]:
            raise InputError(f"{path}: missing or altered; prepare the data again")
        splits[split] = _checked(str(path), (_row(str(path), n, row) for n, row in read_rows(path)))
    return QuestionSet(str(meta["name"]), splits, dict(meta["source"]))


def load_questions(name_or_path: str | Path) -> dict[str, list[Question]]:
    """Split → questions, of a data set by name (see `sources.find`) or a user's file.

    A file: SQuAD's own JSON (1.1 or 2.0), or CSV, JSON lines or parquet with the columns question, context
    and answers ({"text": [...], "answer_start": [...]}), and perhaps id and title. InputError, one line, for
    each way that it can be wrong; an answer that does not stand where it says is one of them.
    """
    source = find(str(name_or_path), "data")
    if source.path.is_file():
        return {"train": _checked(source.path.name, _from_file(source.path))}
    import datasets

    datasets.utils.logging.disable_progress_bar()
    try:
        opened: Any = datasets.load_dataset(str(source.path))
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{source.name}: cannot be read as a data set ({reason})") from None
    found = {_SPLITS[name]: rows for name, rows in opened.items() if name in _SPLITS}
    return {
        name: _checked(f"{source.name} {name}", (_row(f"{source.name} {name}", n, row)
                       for n, row in enumerate(rows, 1)))
        for name, rows in found.items()
    }  # fmt: skip


def _from_file(path: Path) -> Iterable[Question]:
    if path.suffix.lower() == ".json":
        yield from _squad_json(path)
        return
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: questions are read from .json in SQuAD's form, {', '.join(SUFFIXES)}")
    for number, row in read_rows(path):
        yield _row(str(path), number, row)


def _squad_json(path: Path) -> Iterable[Question]:
    data = read_json(path)
    try:
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = [(one["answer_start"], one["text"]) for one in asked.get("answers", [])]
                    yield Question(
                        str(asked["id"]), str(article.get("title", "")), asked["question"],
                        paragraph["context"], tuple(dict.fromkeys(answers)),
                    )  # fmt: skip
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not in SQuAD's form ({error!r}); it has data, paragraphs, qas") from None


def _row(where: str, number: int, row: dict[str, Any]) -> Question:
    missing = [key for key in ("question", "context", "answers") if key not in row]
    if missing:
        raise InputError(f"{where} row {number}: no column {missing[0]!r}; the columns are: {', '.join(row)}")
    answers = row["answers"]
    try:
        if isinstance(answers, str):
            answers = json.loads(answers)
        pairs = tuple(dict.fromkeys(zip(map(int, answers["answer_start"]), answers["text"], strict=True)))
    except (ValueError, TypeError, KeyError):
        raise InputError(
            f'{where} row {number}: answers must be {{"text": [...], "answer_start": [...]}}'
        ) from None
    return Question(
        str(row.get("id", number)), str(row.get("title") or ""), row["question"], row["context"], pairs
    )


def _checked(where: str, questions: Iterable[Question]) -> list[Question]:
    found: list[Question] = []
    for one in questions:
        if len(found) >= MAX_ROWS:
            raise InputError(f"{where}: over the limit of {MAX_ROWS} questions; split it")
        for name, value in (("question", one.question), ("context", one.context)):
            if not isinstance(value, str) or not value.strip():
                raise InputError(f"{where}: {name} of {one.id} is empty or no text; fill it in or drop it")
        if len(one.context) > MAX_TEXT_CHARS:
            raise InputError(f"{where}: context of {one.id} has {len(one.context)} characters; split it")
        for start, text in one.answers:
            if not text or start < 0 or one.context[start : start + len(text)] != text:
                raise InputError(
                    f"{where}: an answer of {one.id} does not stand at {start} of its context; correct it"
                )
        found.append(one)
    if not found:
        raise InputError(f"{where}: no questions in it")
    return found


def hold_out(questions: Sequence[Question], titles: Sequence[str]) -> tuple[list[Question], list[Question]]:
    """(kept, held out): all questions of the named articles go, so that no passage is on both sides.

    Raises InputError for a title that no question has.
    """
    unknown = sorted(set(titles) - {one.title for one in questions})
    if unknown:
        raise InputError(f"held-out article {unknown[0]!r} is not in the data; correct the list of titles")
    out = set(titles)
    return [one for one in questions if one.title not in out], [one for one in questions if one.title in out]


def with_impossible(questions: Sequence[Question], share: float, seed: int = 0) -> list[Question]:
    """The questions, and for `share` of them a copy beside another passage that has no answer of theirs.

    The passage is of the same article where it has another one, so that its words are near; an answer's text
    (case aside) must not stand in it. Ids get the suffix "-impossible".
    """
    if not 0 <= share <= 1:
        raise InputError(f"impossible = {share}: must be a share from 0 to 1")
    random = np.random.default_rng(seed)
    passages: dict[str, list[str]] = {}
    for one in questions:
        passages.setdefault(one.title, []).append(one.context)
    passages = {title: list(dict.fromkeys(found)) for title, found in passages.items()}
    everywhere = [context for found in passages.values() for context in found]
    chosen = random.permutation(len(questions))[: round(share * len(questions))]
    made = []
    for row in sorted(chosen.tolist()):
        one = questions[row]
        near = _without(passages[one.title], one) or _without(everywhere, one)
        if one.answers and near:
            context = near[int(random.integers(len(near)))]
            made.append(replace(one, id=f"{one.id}-impossible", context=context, answers=()))
    return [*questions, *made]


def _without(passages: Sequence[str], one: Question) -> list[str]:
    said = [text.lower() for _, text in one.answers]
    return [
        context for context in passages
        if context != one.context and not any(text in context.lower() for text in said)
    ]  # fmt: skip

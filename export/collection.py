"""Pack a collection: reader, embedder and index into one sealed bundle, held to answers of its own."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.pack import slim, zipped
from runtimes.ask import Asker, decide, grouped, ranked
from runtimes.bundle import SCHEMA_PARTS, Bundle, open_bundle, seal
from runtimes.collection import GOLDEN, INDEX, ROLES, TASK, Golden, golden_from, golden_of, golden_rows
from runtimes.confidence import Calibration, Evidence
from runtimes.errors import GateError, InputError
from runtimes.files import write_atomic, writing
from runtimes.load import load
from trainers.files import write_json

MOST_GOLDEN = 24
# A question near a border falls either way by rounding alone, which proves nothing.
CLEAR = 0.1
CLEAR_PLACE = 0.05
CLEAR_SPAN = 1.0  # in logits, as of golden vectors


@dataclass(frozen=True)
class AnswersBudget:
    """What the answers elsewhere may differ from those where the collection was packed: the share of golden
    questions that get the same answer from the same place, and the difference in confidence of those."""

    min_agreement: float = 0.97
    max_confidence: float = 0.1


@dataclass(frozen=True)
class PackedCollection:
    """`questions`: how many golden ones are in it; `bytes` of the folder or .zip."""

    path: Path
    bytes: int
    questions: int


def pack_collection(
    index: Path,
    reader: Path,
    embedder: Path,
    questions: Iterable[str],
    out: Path,
    calibration: Calibration | None = None,
) -> PackedCollection:
    """Write the bundle `out` (a folder, or by name a .zip) of an index file and two bundles.

    Of each model the default variant goes in, nothing else. `questions` are asked until enough of them have
    a clear answer; those become the golden ones. Raises InputError where none has, BundleError.
    """
    roles = dict(zip(ROLES, (reader, embedder), strict=True))
    if out.suffix != ".zip":
        with writing(out) as folder:
            count = _fill(folder, index, roles, questions, out.name.removesuffix(".bundle"), calibration)
        return PackedCollection(out, sum(p.stat().st_size for p in out.rglob("*") if p.is_file()), count)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as temporary:
        folder = Path(temporary) / "answers"
        folder.mkdir()
        count = _fill(folder, index, roles, questions, out.stem, calibration)
        write_atomic(out, zipped(folder))
    return PackedCollection(out, out.stat().st_size, count)


def _fill(
    folder: Path, index: Path, roles: dict[str, Path], questions: Iterable[str], name: str,
    calibration: Calibration | None,
) -> int:  # fmt: skip
    for role, source in roles.items():
        slim(source, [], folder / role)
    shutil.copyfile(index, folder / INDEX)
    parts = {role: open_bundle(folder / role) for role in roles}
    manifest = {
        "schema": SCHEMA_PARTS,
        "name": name,
        "task": TASK,
        "parts": {role: role for role in roles},
        "calibration": asdict(calibration or Calibration()),
        "lineage": [
            {"step": "collect", "parts": {role: part.manifest["sha256"] for role, part in parts.items()}}
        ],
    }
    names = [INDEX, *(f"{role}/{file}" for role in roles for file in _files(folder / role))]
    seal(folder, manifest, names)
    asker = load(folder)
    golden = choose_golden(asker, questions)
    write_json(
        folder / GOLDEN, {"budget": asdict(AnswersBudget()), "questions": [asdict(one) for one in golden]}
    )
    (folder / "README.md").write_text(_card(name, asker, len(golden)), encoding="utf-8")
    seal(folder, manifest, [*names, GOLDEN, "README.md"])
    return len(golden)


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def choose_golden(asker: Asker, questions: Iterable[str]) -> list[Golden]:
    """Up to MOST_GOLDEN questions with a clear answer, at most a quarter of them with a clear silence.

    Raises InputError where no question has a clear answer.
    """
    told: list[Golden] = []
    silent: list[Golden] = []
    for question in dict.fromkeys(questions):
        try:
            golden = _clear(asker, question)
        except InputError:  # one that nobody could ask
            continue
        if golden is not None:
            (told if golden.text else silent).append(golden)
        if len(told) >= MOST_GOLDEN:
            break
    if not told:
        raise InputError("no question has a clear answer in this collection; give some with --questions")
    return [*told[: MOST_GOLDEN - len(silent[: MOST_GOLDEN // 4])], *silent[: MOST_GOLDEN // 4]]


def _clear(asker: Asker, question: str) -> Golden | None:
    """The answer as a golden one, None where rounding could change it."""
    evidence = asker.evidence([question])[0]
    every, calibration = ranked(evidence, asker.calibration), asker.calibration
    borders = [calibration.threshold, *(one.confidence for one in every[1:2])]
    if every and any(abs(every[0].confidence - border) < CLEAR for border in borders):
        return None
    answered = decide(question, evidence, calibration)
    if answered.found and _places_are_close(evidence, calibration, answered.found[0].text):
        return None
    if answered.found and _spans_are_close(asker.reader, question, answered.found[0].sources[0].passage):
        return None
    return golden_from(answered)


def _spans_are_close(reader: Any, question: str, passage: str) -> bool:
    """Whether the reader could as well have taken other words of the passage ("1964", "in 1964")."""
    pair = [(question, passage)]
    return bool(reader.sureness(pair, reader.outputs(pair))[0] < CLEAR_SPAN)


def _places_are_close(evidence: Sequence[Evidence], calibration: Calibration, text: str) -> bool:
    """Whether another place says the same as surely as the first, so that either could come first."""
    for group in grouped(evidence):
        sure = sorted(map(calibration.confidence, group), reverse=True)
        if any(one.reading.text == text for one in group) and len(sure) > 1:
            return sure[0] - sure[1] < CLEAR_PLACE
    return False


def check_collection(path: Path) -> dict[str, Any]:
    """The gate here: the golden questions asked again. Raises GateError."""
    bundle = open_bundle(path, parts=True)
    asker = load(path)
    # One by one, as they were asked when it was packed: int8 rounds by what else is in the batch.
    return compare_golden(bundle, [golden_from(asker(one.question)) for one in golden_of(bundle)])


def compare_golden(bundle: Bundle, told: Sequence[Golden]) -> dict[str, Any]:
    """Golden answers against those of another machine: agreement, largest difference in confidence, n.

    Raises GateError where they are outside of the budget that the bundle was packed with.
    """
    golden = golden_of(bundle)
    budget = AnswersBudget(**json.loads(bundle.read(GOLDEN))["budget"])
    if [one.question for one in told] != [one.question for one in golden]:
        raise GateError(
            f"{bundle.name}: {len(told)} of {len(golden)} golden questions were answered; try again"
        )
    same = [_same(one, other) for one, other in zip(golden, told, strict=True)]
    apart = [abs(a.confidence - b.confidence) for a, b, s in zip(golden, told, same, strict=True) if s]
    found = {"agreement": sum(same) / len(same), "max_confidence": max(apart, default=1.0), "n": len(golden)}
    faults = []
    if not found["agreement"] >= budget.min_agreement:
        first = golden[same.index(False)].question
        faults.append(
            f"agreement {found['agreement']:.4f} under {budget.min_agreement:g} (first: {first[:80]!r})"
        )
    if not found["max_confidence"] <= budget.max_confidence:
        faults.append(f"confidence differs by {found['max_confidence']:.2g}, over {budget.max_confidence:g}")
    if faults:
        raise GateError(f"{bundle.name}: does not answer as where it was packed: {'; '.join(faults)}")
    return {"budget": asdict(budget), "golden": found}


def golden_told(bundle: Bundle, rows: Any) -> list[Golden]:
    """Answers as a device told them. Raises GateError for what proves nothing."""
    try:
        return golden_rows(rows)
    except (TypeError, ValueError):
        raise GateError(
            f"{bundle.name}: what was told of the golden questions is damaged; try again"
        ) from None


def _same(one: Golden, other: Golden) -> bool:
    return (one.text, one.document, one.start) == (other.text, other.document, other.start)


def _card(name: str, asker: Asker, questions: int) -> str:
    about = asker.describe()
    index = about["index"]
    models = "\n".join(
        f"- {role}: `{about[role]['bundle']}`, variant `{about[role]['variant']}`" for role in ROLES
    )
    return (
        f"# {name}\n\nAnswers questions from {index['documents']} documents in {index['passages']} passages, "
        f"with the place that it read, and says when it finds nothing.\n\n"
        f'```python\nimport edgewise\n\nask = edgewise.load("{name}.bundle")\n'
        'for found in ask("your question").found:\n'
        "    print(found.text, found.confidence, found.sources[0].name)\n```\n\n"
        f"{models}\n\n`edgewise check` asks {questions} golden questions again, here or on a device, and "
        "compares answers and places. Whoever has the bundle has the text of its passages.\n"
    )

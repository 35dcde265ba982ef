"""Search and reader together on SQuAD: `python -m apps.answers.end_to_end --reader R --embedder E`.

Everything that has a paragraph is in one collection. The articles that the recipe holds out for validation
teach the weights, the threshold and the margin; those held out for the test are measured. Each question is
asked twice: with its article in the collection, and with none of the held-out articles in it, so that
nothing is to be found. `--out FILE` keeps the calibration for `edgewise export --calibration`.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from apps.answers.squad_index import index_of
from apps.recipe import read_recipe
from runtimes.ask import Asker
from runtimes.confidence import Calibration, Evidence
from runtimes.load import load
from trainers.asking import learn, measure
from trainers.files import write_json
from trainers.squad import Question, prepare_questions

RECIPE = Path(__file__).with_name("recipe.toml")
SEED = 0


@dataclass(frozen=True)
class Part:
    """Held-out questions asked with and without their articles, and what was read."""

    read: list[list[Evidence]]
    golds: list[list[str]]
    seconds: float

    def of(self, k: int) -> "Part":
        """The same with the first `k` passages alone."""
        return replace(self, read=[one[:k] for one in self.read])

    def without_ranks(self) -> "Part":
        """The same, not knowing how well a passage was found."""
        blind = [[_without_rank(one) for one in row] for row in self.read]
        return replace(self, read=blind)


def _without_rank(one: Evidence) -> Evidence:
    hit: Any = one.hit
    return replace(one, hit=replace(hit, bm25=None, dense=None))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reader", type=Path, required=True, help="A reader: bundle or checkpoint.")
    parser.add_argument("--embedder", type=Path, required=True, help="An embedder: bundle or checkpoint.")
    parser.add_argument("--k", type=int, nargs="*", default=[Calibration().k], help="Passages to read.")
    parser.add_argument("--questions", type=int, default=1_000, help="At most so many of each part.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="Where the calibration of the first k and figures go.")
    options = parser.parse_args()
    reader, embedder = (load(path, threads=options.threads) for path in (options.reader, options.embedder))
    validation, test, passages = gather(reader, embedder, max(options.k), options.questions)
    found = [figures(validation.of(k), test.of(k), k, passages) for k in options.k]
    print(table(found))
    if options.out is not None:
        write_json(options.out, {**found[0], "reader": reader.describe(), "embedder": embedder.describe()})


def gather(reader: Any, embedder: Any, k: int, most: int) -> tuple[Part, Part, int]:
    """The validation articles' questions, the test articles', and how many passages they were asked of."""
    recipe = read_recipe(RECIPE)
    splits = prepare_questions(recipe.data.name, replace(recipe.questions, impossible=0.0)).splits
    with TemporaryDirectory(prefix="edgewise-") as folder:
        embed = _remembering(embedder)
        whole = index_of([one for rows in splits.values() for one in rows], Path(folder) / "whole", embed)
        without = index_of(splits["train"], Path(folder) / "without", embed)
        validation, test = (
            ask_both(reader, embedder, (whole, without), _some(splits[name], most), k)
            for name in ("validation", "test")
        )
        return validation, test, int(whole.describe()["passages"])


def figures(validation: Part, test: Part, k: int, passages: int) -> dict[str, Any]:
    """The calibration learned on the validation articles, and the figures of the test articles."""
    learned = learn(validation.read, validation.golds, k)
    return {
        "k": k,
        "passages": passages,
        "questions": len(test.read) // 2,
        "calibration": asdict(learned),
        "test": measure(test.read, test.golds, learned),
        "alone": _alone(validation.without_ranks(), test.without_ranks(), k),
        "in_passages": _reachable(test),
        "seconds": test.seconds,
    }


def _alone(validation: Part, test: Part, k: int) -> dict[str, Any]:
    return measure(test.read, test.golds, learn(validation.read, validation.golds, k))


def _remembering(embedder: Any) -> Callable[[list[str]], np.ndarray]:
    """The embedder, asked once for each text: most passages are in both collections."""
    known: dict[str, np.ndarray] = {}

    def embed(texts: list[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, embedder(new) if new else [], strict=True))
        return np.stack([known[text] for text in texts])

    return embed


def _some(questions: Sequence[Question], most: int) -> list[Question]:
    """At most so many, drawn once: the questions of an article stand together."""
    rows = np.random.default_rng(SEED).permutation(len(questions))[:most]
    return [questions[row] for row in sorted(rows.tolist())]


def ask_both(
    reader: Any, embedder: Any, indexes: Sequence[Any], questions: Sequence[Question], k: int
) -> Part:
    """The questions to the collection with their articles, then to the one without."""
    asked = [one.question for one in questions]
    start = time.perf_counter()
    read = [one for index in indexes for one in Asker(reader, embedder, index).evidence(asked, k)]
    seconds = time.perf_counter() - start
    golds = [[text for _, text in one.answers] for one in questions]
    return Part(read, [*golds, *([] for _ in golds)], seconds)


def _reachable(part: Part) -> float:
    """Share of the answerable questions with a right answer's text in one of the passages that were read."""
    pairs = [(read, gold) for read, gold in zip(part.read, part.golds, strict=True) if gold]
    return float(np.mean([_holds(read, gold) for read, gold in pairs]))


def _holds(read: Sequence[Evidence], gold: Sequence[str]) -> bool:
    return any(text in one.hit.passage.text for one in read for text in gold)


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: one row a number of passages and way of judging."""
    lines = [
        "| passages read | judged by | EM | F1 | of answerable: EM | F1 | rightly refused | wrongly refused "
        "| always answered: EM | F1 | right in first 3 | asked back (first, second right) | ECE | risk area "
        "| text in passages |",
        "|---:|---|" + "---:|" * 13,
    ]
    for one in found:
        for name, title in (("alone", "the reader alone"), ("test", "reader and search")):
            lines.append(_row(one, one[name], title))
    first = found[0]
    lines.append(
        f"\n{first['questions']} questions of held-out articles on {first['passages']} passages, each asked "
        "once with its article there and once without. "
        f"F1 of all: 95% interval {_interval(first['test']['f1_ci95'])}. "
        f"Calibration: `{json.dumps(first['calibration'])}`"
    )
    return "\n".join(lines)


def _row(one: dict[str, Any], told: dict[str, Any], title: str) -> str:
    back, some, always = told["asked_back"], told["answerable"], told["always"]
    asked = "none" if not back["n"] else (
        f"{back['share']:.3f} ({back['first_right']:.2f}, {back['second_right']:.2f})"
    )  # fmt: skip
    cells = [
        told["exact_match"], told["f1"], some["exact_match"], some["f1"], told["rightly_refused"],
        told["wrongly_refused"], always["exact_match"], always["f1"], told["first_three"],
    ]  # fmt: skip
    shown = " | ".join(f"{cell:.3f}" for cell in cells)
    return (
        f"| {one['k']} | {title} | {shown} | {asked} | {told['calibration_error']:.3f} "
        f"| {told['risk']['area']:.3f} | {one['in_passages']:.3f} |"
    )


def _interval(pair: Sequence[float]) -> str:
    return f"{pair[0]:.3f} to {pair[1]:.3f}"


if __name__ == "__main__":
    main()

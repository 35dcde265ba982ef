"""How well a collection is searched: `python -m apps.answers.retrieval` (recall, MRR, milliseconds).

Every paragraph of a split of a SQuAD-shaped data set is a passage, every question a query; right is the
question's own paragraph. Paragraphs stand without their titles, so that no heading helps.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.answers.documents import Parsed
from apps.answers.passages import cut
from apps.answers.store import Embed, SqliteStore
from runtimes.errors import EdgewiseError
from runtimes.index import HOW, Hit
from runtimes.load import load
from trainers.squad import load_questions

AT = (1, 5, 20)
MOST = 100  # how deep a rank is looked for, for MRR
Ranked = Callable[[int], Sequence[int]]  # a question's number → numbers of paragraphs, best first


def cases(data: str, split: str) -> tuple[list[str], list[str], np.ndarray]:
    """(paragraphs, questions, number of each question's paragraph)."""
    rows = load_questions(data)[split]
    numbers: dict[str, int] = {}
    right = [numbers.setdefault(row.context, len(numbers)) for row in rows]
    return list(numbers), [row.question for row in rows], np.array(right)


def figures(ranks: np.ndarray) -> dict[str, float]:
    """Recall in per cent and MRR of ranks from 1; 0 for one that was not found."""
    found = {f"recall@{k}": 100 * float(((ranks > 0) & (ranks <= k)).mean()) for k in AT}
    return found | {"mrr": float(np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0).mean())}


def measured(ask: Ranked, right: np.ndarray, timed: int = 1_000) -> dict[str, float]:
    """Figures of a search, and its latency in ms over the first `timed` questions, after ten to warm up."""
    for number in range(10):
        ask(number)
    ranks, times = np.zeros(len(right), int), []
    for number, wanted in enumerate(right):
        start = time.perf_counter()
        found = ask(number)
        times.append(time.perf_counter() - start)
        ranks[number] = next((rank for rank, one in enumerate(found, 1) if one == wanted), 0)
    p50, p95 = np.percentile(np.array(times[:timed]) * 1e3, [50, 95])
    return figures(ranks) | {"p50_ms": float(p50), "p95_ms": float(p95)}


def embedded(texts: Iterable[str], embed: Embed, kept: Path) -> dict[str, np.ndarray]:
    """Text → vector; what the file `kept` (.npz) has is not embedded again, and what is new goes into it."""
    known: dict[str, np.ndarray] = {}
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as old:
            known = dict(zip(old["digests"].tolist(), old["vectors"], strict=True))
    digests = {text: hashlib.sha256(text.encode()).hexdigest() for text in texts}
    new = sorted((text for text, digest in digests.items() if digest not in known), key=len)
    for at in range(0, len(new), 64):
        part = new[at : at + 64]
        known |= zip((digests[text] for text in part), embed(part), strict=True)
    if new:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, digests=np.array(list(known)), vectors=np.stack(list(known.values())))
    return {text: known[digest] for text, digest in digests.items()}


def collection(path: Path, paragraphs: Sequence[str], vectors: dict[str, np.ndarray]) -> SqliteStore:
    """A collection as users make it; document `n` is paragraph n, a long one is cut into passages."""
    dimensions = len(next(iter(vectors.values())))
    blank = np.zeros(dimensions, np.float32)  # for the one text by which a store learns the dimensions
    store = SqliteStore(
        path, lambda texts: np.stack([vectors.get(text, blank) for text in texts]), "measured"
    )
    for number, paragraph in enumerate(paragraphs):
        store.add(Parsed(f"{number}.txt", paragraph), str(number))
    return store


def pieces(paragraphs: Iterable[str]) -> list[str]:
    return [piece.text for one in paragraphs for piece in cut(Parsed("one", one))]


def compared(data: str, split: str, embed: Embed, folder: Path, count: int | None) -> list[dict[str, Any]]:
    """A row of figures for each way to search."""
    paragraphs, questions, right = cases(data, split)
    questions, right = questions[:count], right[:count]
    vectors = embedded([*pieces(paragraphs), *questions], embed, folder / "vectors.npz")
    path = folder / f"{split}.sqlite"
    for old in folder.glob(f"{path.name}*"):
        old.unlink()
    store = collection(path, paragraphs, vectors)
    rows = []
    for how in HOW:

        def ask(number: int, how: str = how) -> list[int]:
            return _documents(store.search(questions[number], vectors[questions[number]], MOST, how=how))

        rows.append({"search": how, "n": len(right), **measured(ask, right)})

    def by_ranks(number: int) -> list[int]:
        hits = store.search(questions[number], vectors[questions[number]], 2 * MOST)
        return _documents(sorted(hits, key=_reciprocal, reverse=True))

    rows.append({"search": "reciprocal ranks", "n": len(right), **measured(by_ranks, right)})
    store.close()
    return rows


def _documents(hits: Iterable[Hit]) -> list[int]:
    return list(dict.fromkeys(int(hit.passage.document) for hit in hits))


def _reciprocal(hit: Hit) -> float:
    """Cormack, Clarke and Büttcher 2009, with their k of 60: what the fused scores are compared with."""
    return sum(1 / (60 + rank) for rank in (hit.bm25, hit.dense) if rank is not None)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| search | recall@1 | recall@5 | recall@20 | MRR | p50 ms | p95 ms |",
        "| --- |" + " ---: |" * 6,
    ]
    for row in rows:
        recalls = " | ".join(f"{row[f'recall@{k}']:.1f}" for k in AT)
        times = f"{row['p50_ms']:.1f} | {row['p95_ms']:.1f}"
        lines.append(f"| {row['search']} | {recalls} | {row['mrr']:.3f} | {times} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m apps.answers.retrieval", description=__doc__)
    parser.add_argument("--data", default="rajpurkar/squad", help="a data set or a file in SQuAD's shape")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--embedder", required=True, type=Path, help="a bundle or checkpoint of an encoder")
    parser.add_argument("--folder", required=True, type=Path, help="where vectors and the index are kept")
    parser.add_argument("--questions", type=int, help="only so many of them")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    try:
        embed = load(given.embedder, threads=1)
        rows = compared(given.data, given.split, embed, given.folder, given.questions)
    except EdgewiseError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write((json.dumps(rows) if given.json else table(rows)) + "\n")


if __name__ == "__main__":
    main()

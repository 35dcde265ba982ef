"""What a collection takes on a device: `python -m apps.answers.footprint --reader R --embedder E`.

Packs one of `--passages` passages of the mirror's texts as a folder and as a .zip, and prints what each part
weighs and what memory a process takes that opens it and answers. `--on` adds a device (an emulated one gives
its emulator's memory along). What is made stays in `--out` and is reused.
"""

import argparse
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from apps.answers.documents import Heading, Parsed
from apps.answers.pack import export_collection
from apps.answers.store import SqliteStore
from apps.measuring import check_collection_on
from runtimes.bundle import open_bundle
from runtimes.collection import golden_of
from runtimes.load import load
from trainers.sources import find

# Data set → the column with a document's text.
TEXTS = {"abisee/cnn_dailymail": "article", "EdinburghNLP/xsum": "document"}
CHILD = """
import sys
from device_bench.child import peak_rss_mb, rss_mb
from runtimes.load import load
ask = load(sys.argv[1], threads=1)
opened = rss_mb()
for question in sys.argv[2:]:
    ask(question)
print(opened, rss_mb(), peak_rss_mb())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reader", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=10_000)
    parser.add_argument("--questions", type=Path, help="For the golden answers, one a line.")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/footprint"))
    parser.add_argument("--on", action="append", default=[], help="A device, such as pi@HOST.")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    source = options.out / f"collection-{options.passages}.sqlite"
    if not source.is_file():
        fill(source, options.embedder, options.passages)
    folder, packed = options.out / "answers.bundle", options.out / "answers.zip"
    for out in (folder, packed):
        told = export_collection(
            source, options.reader, options.embedder, out, options.questions, options.calibration
        )
        print(json.dumps(told))
    print(sizes(folder, packed))
    for out in (folder, packed):
        print(f"{out.name}: {memory(out)}")
        for device, found in check_collection_on(out, options.on).items():
            print(f"{out.name} on {device}: {json.dumps(found)}")


def fill(out: Path, embedder: Path, count: int) -> None:
    """A collection's file with exactly `count` passages."""
    model = load(embedder)
    beside = out.with_suffix(".part")
    beside.unlink(missing_ok=True)
    store = SqliteStore(beside, lambda texts: np.asarray(model(list(texts))), "measured")
    for document in documents():
        store.add(document)
        if store.describe()["passages"] >= count:
            break
    store.close()
    with closing(sqlite3.connect(beside, isolation_level=None)) as connection:
        extra = "SELECT id FROM passages ORDER BY id LIMIT -1 OFFSET ?"
        connection.execute(f"DELETE FROM vectors WHERE passage IN ({extra})", [count])
        connection.execute(f"DELETE FROM passages WHERE id IN ({extra})", [count])
        connection.execute("PRAGMA journal_mode = DELETE")
    beside.rename(out)


def documents() -> Iterator[Parsed]:
    """SQuAD's articles with a heading, then news."""
    import datasets

    articles: dict[str, dict[str, None]] = {}
    for split in datasets.load_dataset(str(find("rajpurkar/squad", "data").path)).values():
        for row in split:
            articles.setdefault(row["title"], {})[row["context"]] = None
    for number, (title, paragraphs) in enumerate(articles.items()):
        yield Parsed(
            f"article {number}.txt", "\n\n".join(paragraphs), (Heading(0, 1, title.replace("_", " ")),)
        )
    for name, column in TEXTS.items():
        data = datasets.load_dataset(str(find(name, "data").path))
        for split in data.values():
            for number, text in enumerate(split[column]):
                if text.strip():
                    yield Parsed(f"{column} {number}.txt", text)


def sizes(folder: Path, packed: Path) -> str:
    """Markdown: what weighs how much, in MB."""
    bundle = open_bundle(folder, parts=True)
    parts: dict[str, int] = {}
    for name, entry in bundle.manifest["files"].items():
        role = name.partition("/")[0]
        parts[role] = parts.get(role, 0) + entry["bytes"]
    lines = ["| part | MB |", "|---|---:|"]
    lines += [f"| {name} | {size / 1e6:.1f} |" for name, size in sorted(parts.items(), key=lambda p: -p[1])]
    lines += [
        f"| of the index: {name} | {size / 1e6:.1f} |" for name, size in tables(folder / "index.sqlite")
    ]
    lines += [f"| the folder | {sum(parts.values()) / 1e6:.1f} |"]
    return "\n".join([*lines, f"| the .zip | {packed.stat().st_size / 1e6:.1f} |"])


def tables(index: Path) -> list[tuple[str, int]]:
    """The five largest tables of the file with their bytes, where this SQLite can tell."""
    with closing(sqlite3.connect(index)) as connection:
        try:
            query = "SELECT name, sum(pgsize) AS size FROM dbstat GROUP BY name ORDER BY size DESC LIMIT 5"
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:  # built without dbstat
            return []


def memory(path: Path) -> dict[str, Any]:
    """MB of a process of its own here: opened, after eight questions, and its peak."""
    asked = [one.question for one in golden_of(open_bundle(path, parts=True))][:8]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), *asked], capture_output=True, text=True, check=True
    )
    opened, after, peak = map(float, done.stdout.split())
    return {"opened_mb": round(opened, 1), "asked_mb": round(after, 1), "peak_rss_mb": round(peak, 1)}


if __name__ == "__main__":
    main()

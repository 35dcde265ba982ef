"""Kill -9 in the middle of a write: the store opens again, and each document is there whole or not at all."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_embedder import embedder

from apps.answers.store import SqliteStore

ROOT = Path(__file__).parents[3]
WRITER = """
import sys
sys.path.insert(0, "tests/support")
from pathlib import Path
from toy_embedder import embedder
from apps.answers.documents import Parsed
from apps.answers.store import SqliteStore
store = SqliteStore(Path(sys.argv[1]), embedder(32), "toy-32")
print("open", flush=True)
for number in range(10_000):
    text = f"Document {number} tells of it. " * 2_000
    document = Parsed("a.txt", text)
    store.add(document, f"d{number}") if number % 3 else store.update("first", document)
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 3, 8])
def test_a_killed_writer_leaves_whole_documents(tmp_path, after):
    from apps.answers.documents import Parsed

    path = tmp_path / "c.sqlite"
    store = SqliteStore(path, embedder(32), "toy-32")
    store.add(Parsed("a.txt", "The first one."), "first")
    store.close()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    done = [writer.stdout.readline() for _ in range(after + 1)][1:]
    time.sleep(0.013 * after)  # somewhere within the next write
    writer.send_signal(signal.SIGKILL)
    done += writer.stdout.read().split()
    writer.wait()

    store = SqliteStore(path, embedder(32), "toy-32")
    kept = {entry.id: entry for entry in store.entries()}
    assert {f"d{int(number)}" for number in done if int(number) % 3} <= set(kept)  # what was said is kept
    for id in kept:
        entry, text = store.get(id)
        pieces = store.passages(id)
        assert len(text) == entry.characters and pieces
        assert pieces[-1].start + len(pieces[-1].text) == len(text.rstrip())
        assert all(text[one.start :].startswith(one.text) for one in pieces)
    with store.index.reading() as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("passages", "vectors", "words")
        ]
    assert len(set(counts)) == 1
    with store._write() as connection:  # FTS5's own check of its index against the passages
        connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert store.add(Parsed("a.txt", "And on it goes."), "after") == "after"
    store.close()

"""What goes into a collection's bundle: a compact file, and questions made of its own sentences."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_answers import PASSAGES, embed

from apps.answers.cloze import question_from, questions_from
from apps.answers.compact import compact, passages_evenly
from apps.answers.documents import Parsed
from apps.answers.footprint import memory, sizes
from apps.answers.pack import export_collection, require_its_embedder
from apps.answers.store import SqliteStore
from export.pack import zipped
from runtimes.errors import InputError
from runtimes.index import Index


def test_questions_are_made_of_sentences():
    sentence = "The old bridge over the river was built in 1964 by two brothers."
    assert question_from(sentence) == "The old bridge over the river was built in what by two brothers?"
    assert question_from("In the end the prize went to Marie Curie and her group.") == (
        "In the end the prize went to what and her group?"
    )
    assert question_from("Paris is a town without any other name or number in it.") is None
    assert question_from("Ran 5 times.") is None
    made = list(questions_from([f"Short. {sentence} {sentence}", "nothing here"]))
    assert made == ["The old bridge over the river was built in what by two brothers?"]


@given(st.text(max_size=400))
def test_any_text_may_be_asked_of(text):
    for question in questions_from([text]):
        assert question.endswith("?") and "\n" not in question and "what" in question


def test_a_copy_of_a_store_that_is_in_use(answer_parts, tmp_path):
    store = SqliteStore(tmp_path / "kept.sqlite", embed(answer_parts["embedder"]), "tiny")
    for number, text in enumerate(PASSAGES):
        store.add(Parsed(f"{number}.txt", text), f"d{number}")
    store.delete("d0")
    out = compact(tmp_path / "kept.sqlite", tmp_path / "index.sqlite")
    store.add(Parsed("later.txt", PASSAGES[0]), "later")
    index = Index.open(out)
    assert index.describe()["documents"] == 5
    vector = embed(answer_parts["embedder"])(["oil barrels"])[0]
    hits = index.search("oil barrels", vector, 3)
    assert hits[0].passage.document == "d1" and hits[0].bm25 == 1 and hits[0].dense
    with closing(sqlite3.connect(out)) as connection:
        assert connection.execute("SELECT count(*) FROM texts").fetchone() == (0,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert "wheat" not in out.read_bytes().decode("latin-1")  # what was deleted left nothing behind
    assert list(passages_evenly(out, 2)) == [PASSAGES[1], PASSAGES[3]]
    store.close()


def test_what_is_no_collection_is_one_line(answer_parts, tmp_path):
    (tmp_path / "text.sqlite").write_text("no database")
    with closing(sqlite3.connect(tmp_path / "empty.sqlite")) as connection:
        connection.execute("CREATE TABLE other (x)")
    SqliteStore(tmp_path / "none.sqlite", embed(answer_parts["embedder"]), "tiny").close()
    for name in ("missing", "text", "empty", "none"):
        with pytest.raises(InputError) as caught:
            export_collection(tmp_path / f"{name}.sqlite", **answer_parts, out=tmp_path / "out.bundle",
                              questions=None, calibration=None)  # fmt: skip
        assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not (tmp_path / "out.bundle").exists()


def test_the_footprint_tells_parts_and_memory(tiny_answers, tmp_path):
    packed = tmp_path / "tiny.zip"
    packed.write_bytes(zipped(tiny_answers))
    told = sizes(tiny_answers, packed)
    assert "| reader |" in told and "| index.sqlite |" in told and "| the .zip |" in told
    found = memory(packed)
    assert 10 < found["opened_mb"] <= found["peak_rss_mb"] < 2_000


def test_another_embedder_is_refused(answer_parts, tiny_collection, tmp_path):
    """Vectors of the same size that point elsewhere."""
    require_its_embedder(tiny_collection, answer_parts["embedder"])
    other = Path(shutil.copy(tiny_collection, tmp_path / "other.sqlite"))
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        for id, vector in connection.execute("SELECT passage, vector FROM vectors").fetchall():
            turned = np.roll(np.frombuffer(vector, np.int8), 1).tobytes()
            connection.execute("UPDATE vectors SET vector = ? WHERE passage = ?", [turned, id])
    with pytest.raises(InputError, match="not the collection's"):
        require_its_embedder(other, answer_parts["embedder"])


def test_bundles_in_the_wrong_roles_and_a_file_of_somebody_else(answer_parts, tiny_collection, tmp_path):
    swapped = {"reader": answer_parts["embedder"], "embedder": answer_parts["reader"]}
    with pytest.raises(InputError, match="--reader .* its task is feature-extraction"):
        export_collection(
            tiny_collection, **swapped, out=tmp_path / "x.zip", questions=None, calibration=None
        )
    (tmp_path / "mine.zip").write_text("my notes")
    with pytest.raises(InputError, match=r"mine\.zip: exists and is no bundle"):
        export_collection(tiny_collection, **answer_parts, out=tmp_path / "mine.zip", questions=None,
                          calibration=None)  # fmt: skip
    assert (tmp_path / "mine.zip").read_text() == "my notes"

"""The store: the same on SQLite, on LanceDB in a folder, and on LanceDB on a real S3 endpoint."""

import importlib.util
import os
import threading

import numpy as np
import pytest
from s3 import s3
from toy_embedder import embedder

from apps.answers.documents import Heading, Parsed
from apps.answers.store import SqliteStore
from runtimes.errors import BundleError, InputError

CATS = Parsed("cats.txt", "Cats sleep in the sun. They purr when they are glad.", metadata={"team": "pets"})
WHEAT = Parsed(
    "wheat.txt", "Wheat grows in the field. Farmers harvest it in August.", metadata={"team": "farm"}
)

TOY = embedder(32)


def need_lance():
    if importlib.util.find_spec("lancedb") is None:
        if os.environ.get("EDGEWISE_ALL_TESTS"):
            pytest.fail('no lancedb; pip install "edgewise[lance]"')
        pytest.skip("no lancedb")


@pytest.fixture(params=["sqlite", "lance"])
def make(request, tmp_path):
    """A function that opens the same collection, again and again."""
    opened = []

    def open_(embed=TOY, digest="toy-32"):
        if request.param == "sqlite":
            opened.append(SqliteStore(tmp_path / "c.sqlite", embed, digest))
        else:
            opened.append(lance(str(tmp_path / "c"), embed, digest))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


def lance(place, embed, digest, options=None):
    need_lance()
    from apps.answers.lance import LanceStore

    return LanceStore(place, embed, digest, options)


@pytest.fixture
def store(make):
    return filled(make())


def filled(store):
    store.add(CATS, "cats")
    store.add(WHEAT, "wheat")
    return store


def found(store, question, **how):
    return [hit.passage.document for hit in store.search(question, **how)]


def test_a_document_is_found_by_words_by_vector_and_by_both(store):
    for how in ("bm25", "dense", "hybrid"):
        first = store.search("who will harvest wheat?", how=how)[0]
        assert first.passage.document == "wheat" and first.passage.name == "wheat.txt", how
        assert first.passage.metadata == {"team": "farm"}
        assert first.passage.text == WHEAT.text[first.passage.start :][: len(first.passage.text)]
    both = store.search("who will harvest wheat?")[0]
    assert (both.bm25, both.dense) == (1, 1)
    assert store.search("who will harvest wheat?", how="bm25")[0].dense is None


def test_filters_hold_for_words_and_vectors(store):
    assert found(store, "wheat harvest", where={"team": "pets"}) == ["cats"]
    assert found(store, "wheat harvest", where={"team": "pets"}, how="bm25") == []
    assert found(store, "wheat", where={"team": "farm", "year": "1"}) == []
    assert found(store, "wheat", where={"team') OR 1=1 --": "x' OR '1'='1"}) == []


def test_add_get_list_update_delete(store):
    entry, text = store.get("cats")
    assert text == CATS.text and entry.name == "cats.txt" and entry.characters == len(text)
    assert [one.id for one in store.entries()] == ["cats", "wheat"]
    assert [one.id for one in store.entries({"team": "farm"})] == ["wheat"]
    with pytest.raises(InputError, match="exists"):
        store.add(CATS, "cats")
    with pytest.raises(InputError, match="no document 'dogs'"):
        store.update("dogs", CATS)
    store.update("cats", Parsed("cats.txt", "Lions roar at night."))
    assert found(store, "purr", how="bm25") == [] and found(store, "roar", how="bm25") == ["cats"]
    assert store.delete("cats") and not store.delete("cats")
    assert store.get("cats") is None and store.passages("cats") == []
    assert found(store, "lions roar", k=5) == ["wheat"]
    assert store.describe()["documents"] == store.describe()["passages"] == 1


@pytest.mark.parametrize("id", ["", "../x", "a b", "a'b", ".x", "x" * 129, "a\nb"])
def test_an_id_is_plain(make, id):
    with pytest.raises(InputError, match="no document id"):
        make().add(CATS, id)


def test_headings_are_searched_and_shown(make):
    store = make()
    text = "Storage\n\nKeep it cool.\n\nCleaning\n\nWipe it with a cloth."
    store.add(Parsed("m.md", text, (Heading(0, 1, "Storage"), Heading(24, 1, "Cleaning"))), "m")
    assert [one.heading for one in store.passages("m")] == ["Storage", "Cleaning"]
    assert store.search("how to do the cleaning?", k=1)[0].passage.heading == "Cleaning"


def test_what_another_opener_deleted_is_not_found(make, store):
    other = make()
    assert found(other, "wheat", how="hybrid")[0] == "wheat"
    store.delete("wheat")
    assert found(other, "wheat harvest", k=5) == ["cats"]
    store.add(WHEAT, "again")
    assert found(other, "wheat harvest", k=5)[0] == "again"


def test_reindex_changes_the_embedder_and_asks_for_it(make, store):
    store.reindex(embedder(16), "toy-16")
    assert store.describe()["dimensions"] == 16 and store.describe()["embedder"] == "toy-16"
    assert found(store, "harvest wheat", how="dense")[0] == "wheat"
    old = make()  # of the first embedder
    with pytest.raises(InputError, match="dimensions|another embedder"):
        old.search("wheat")
    with pytest.raises(InputError, match="reindex"):
        old.add(CATS)
    assert found(old, "wheat", how="bm25") == ["wheat"]


def test_questions_are_answered_while_documents_come_and_go(store):
    """No error, and never a passage of a document whose delete had returned before the search began."""
    stop, failed, gone = threading.Event(), [], set()

    def ask():
        while not stop.is_set():
            before = set(gone)
            try:
                stale = set(found(store, "zebra stripes wheat", k=20)) & before
            except Exception as error:
                failed.append(error)
                return
            if stale:
                failed.append(stale)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(6):
        store.add(Parsed("z.txt", f"Zebra stripes number {number}."), f"z{number}")
        if number == 3:
            store.reindex(embedder(16), "toy-16")
        store.delete(f"z{number}")
        gone.add(f"z{number}")
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(one.id for one in store.entries()) == ["cats", "wheat"]


@pytest.mark.device
def test_the_same_on_a_real_s3_endpoint(tmp_path):
    need_lance()
    with s3(tmp_path) as options:

        def make(embed=TOY, digest="toy-32", place="one"):
            return lance(f"s3://tests/{place}", embed, digest, options)

        test_a_document_is_found_by_words_by_vector_and_by_both(filled(make()))
        test_what_another_opener_deleted_is_not_found(make, make())
        test_filters_hold_for_words_and_vectors(filled(make(place="two")))
        test_add_get_list_update_delete(filled(make(place="three")))
        test_questions_are_answered_while_documents_come_and_go(filled(make(place="four")))
        with pytest.raises(InputError, match="cannot be opened"):
            lance("s3://no-such-bucket/x", TOY, "toy-32", options | {"aws_secret_access_key": "wrong"})


def test_a_failed_write_leaves_nothing(make):
    calls = []

    def failing(texts):
        calls.append(texts)
        if any("fail" in text for text in texts):
            raise RuntimeError("the embedder fell")
        return np.ones((len(texts), 4), np.float32)

    store = make(failing, "failing")
    with pytest.raises(RuntimeError):
        store.add(Parsed("a.txt", "this will fail"))
    assert store.entries() == [] and store.describe()["passages"] == 0


@pytest.mark.parametrize("damage", ["text", "other database", "cut short", "newer schema"])
def test_a_file_that_is_no_collection_is_refused_in_one_line(tmp_path, damage):
    import sqlite3

    path = tmp_path / "c.sqlite"
    if damage == "text":
        path.write_bytes(b"hello " * 1000)
    elif damage == "other database":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE t (x)")
    else:
        store = SqliteStore(path, embedder(32), "toy-32")
        store.add(CATS)
        if damage == "newer schema":
            store._writer.execute("UPDATE about SET value = '99' WHERE key = 'schema'")
        store.close()
        if damage == "cut short":
            path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BundleError) as caught:
        SqliteStore(path, embedder(32), "toy-32").entries()
    assert "\n" not in str(caught.value)

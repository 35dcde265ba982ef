"""The index on its own: opened from a file or bytes, searched with questions that are only data."""

import sqlite3
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from toy_embedder import embedder

from apps.answers.compact import compact
from apps.answers.documents import Parsed
from apps.answers.store import SqliteStore
from runtimes.errors import BundleError, InputError
from runtimes.index import Index, fuse, words
from runtimes.vectors import pack

TOY = embedder(32)
TEXTS = {
    "tea": "Tea is brewed with hot water. Green tea needs less heat.",
    "rail": "The railway was opened in 1884 by the mayor.",
    "moon": "The moon pulls the sea: tides rise and fall twice a day.",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    store = SqliteStore(folder / "c.sqlite", TOY, "toy-32")
    for name, text in TEXTS.items():
        store.add(Parsed(f"{name}.txt", text, metadata={"of": name}), name)
    store.close()
    return compact(folder / "c.sqlite", folder / "index.sqlite")


@pytest.fixture(params=["file", "bytes"])
def index(request, exported):
    index = Index.open(exported if request.param == "file" else exported.read_bytes())
    yield index
    index.close()


def test_file_and_bytes_answer_alike(index):
    question = "when was the railway opened?"
    for how in ("hybrid", "bm25", "dense"):
        hits = index.search(question, TOY([question])[0], 2, how=how)
        assert hits[0].passage.document == "rail" and len(hits) <= 2
    assert index.describe() | {"version": ""} == {
        "schema": 1, "embedder": "toy-32", "dimensions": 32, "embedding": "0", "version": "",
        "documents": 3, "passages": 3,
    }  # fmt: skip
    assert [one.text for one in index.passages("tea")] == [TEXTS["tea"]]
    assert index.passages("none") == [] and index.around(10**9) == []


def test_an_export_holds_no_whole_texts_and_one_file(exported):
    with sqlite3.connect(exported) as connection:
        assert connection.execute("SELECT count(*) FROM texts").fetchone() == (0,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert not list(exported.parent.glob("index.sqlite-*"))


def test_a_read_only_folder_is_enough(exported, tmp_path):
    copy = tmp_path / "index.sqlite"
    copy.write_bytes(exported.read_bytes())
    copy.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert Index.open(copy).search("tea", None)[0].passage.document == "tea"
        assert [one.name for one in tmp_path.iterdir()] == ["index.sqlite"]
    finally:
        tmp_path.chmod(0o700)


SYNTAX = [
    '"', "'", "tea OR moon", "NEAR(tea moon, 2)", "text : tea", "heading:tea", "te*", "^tea", "-tea",
    "tea AND", "{heading text} : x", '"unclosed', "'; DROP TABLE passages; --", ") OR 1=1", "words MATCH 'x'",
    "\0tea", "%", "tea\ud800", "a" * 100_000, "tea " * 50_000, "(((((((", "? :1 @a $b", "NOT", "AND OR NOT",
    "\x1f\u2028",
]  # fmt: skip


@pytest.mark.parametrize("question", SYNTAX, ids=range(len(SYNTAX)))
def test_no_syntax_in_a_question_acts(index, question):
    before = index.describe()
    hits = index.search(question, None, 10)
    assert index.describe() == before
    # What comes back are passages with one of the words, as if each was looked up on its own.
    wanted = {hit.passage.document for word in words(question) for hit in index.search(word, None, 10)}
    assert {hit.passage.document for hit in hits} == wanted


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60), st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2))
def test_any_text_is_a_question_and_a_filter(exported, question, where):
    index = Index.open(exported.read_bytes())
    found = index.search(question, TOY([question])[0], 5, where)
    assert where or len(found) == 3


def test_bad_searches_are_refused(index):
    vector = TOY(["tea"])[0]
    for change, message in (
        ({"k": 0}, "k must be"),
        ({"how": "fast"}, "how must be"),
        ({"vector": None, "how": "dense"}, "vector"),
        ({"vector": vector[:5]}, "32 dimensions"),
        ({"embedder": "other"}, "another embedder"),
    ):
        with pytest.raises(InputError, match=message):
            index.search(**{"question": "tea", "vector": vector, **change})


def test_many_threads_search_at_once(index):
    failed = []

    def ask():
        try:
            for _ in range(20):
                assert index.search("green tea", TOY(["green tea"])[0], 1)[0].passage.document == "tea"
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"noise" * 999])
def test_what_is_no_index_is_refused(tmp_path, data):
    (tmp_path / "x.sqlite").write_bytes(data)
    for source in (data, tmp_path / "x.sqlite", tmp_path / "none.sqlite"):
        with pytest.raises(BundleError) as caught:
            Index.open(source)
        assert "\n" not in str(caught.value)


def test_scores_are_fused_and_ranks_are_kept():
    both = fuse([(1, 10.0), (2, 8.0)], [(2, 0.9), (3, 0.8)], "hybrid")
    assert {row[0]: row[2:] for row in both} == {1: (1, None), 2: (2, 1), 3: (None, 2)}
    scores = {row[0]: row[1] for row in both}
    assert scores == pytest.approx({2: 0.87, 1: 0.86, 3: 0.56})
    assert [row[0] for row in both] == [2, 1, 3]
    assert fuse([(1, 9.0)], [], "bm25") == [(1, 9.0, 1, None)]
    assert [row[0] for row in fuse([(1, 9.0), (5, 2.0)], [], "hybrid")] == [1, 5]  # no vector: words alone


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_int8_keeps_cosines(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(20, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    packed = np.stack([np.frombuffer(one, np.int8) for one in pack(vectors)]).astype(np.float32)
    packed /= np.linalg.norm(packed, axis=1, keepdims=True)
    assert np.abs(packed @ vectors.T - vectors @ vectors.T).max() < 0.01


def test_the_array_in_memory_follows_the_file(tmp_path):
    """Adds, deletes and updates in any order: dense search sees exactly what is there."""
    store = SqliteStore(tmp_path / "c.sqlite", TOY, "toy-32")
    reader = Index.open(tmp_path / "c.sqlite")
    rng, there = np.random.default_rng(0), {}
    for number in range(60):
        name = f"d{rng.integers(8)}"
        text = f"word{number} here. " * int(rng.integers(1, 200))
        if name not in there:
            store.add(Parsed("a.txt", text), name)
            there[name] = text
        elif rng.random() < 0.5:
            store.update(name, Parsed("a.txt", text))
            there[name] = text
        else:
            store.delete(name)
            del there[name]
        hits = reader.search("word", TOY(["word"])[0], 1000, how="dense")
        assert {hit.passage.document for hit in hits} == set(there)
        assert all(hit.passage.text in there[hit.passage.document] for hit in hits)
        assert len(hits) == reader.describe()["passages"]
    store.close()

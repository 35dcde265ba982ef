"""Questions in SQuAD's shape: every way they come in, and what is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.errors import InputError
from trainers.squad import Question, hold_out, load_questions, with_impossible

CONTEXT = "Anna wrote the book in spring. Ben read it."
ROW = {"id": "1", "title": "Book", "question": "Who wrote it?", "context": CONTEXT,
       "answers": {"text": ["Anna", "Anna"], "answer_start": [0, 0]}}  # fmt: skip


def save(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_and_squads_own_form_agree(tmp_path):
    asked = {"id": "1", "question": ROW["question"], "answers": [{"text": "Anna", "answer_start": 0}]}
    nothing = {"id": "2", "question": "Who?", "answers": [], "is_impossible": True}
    article = {"title": "Book", "paragraphs": [{"context": CONTEXT, "qas": [asked, nothing]}]}
    (tmp_path / "a.json").write_text(json.dumps({"version": "v2.0", "data": [article]}))
    own = load_questions(tmp_path / "a.json")["train"]
    empty = {**ROW, "id": "2", "question": "Who?", "answers": {"text": [], "answer_start": []}}
    assert own == load_questions(save(tmp_path / "a.jsonl", ROW, empty))["train"]
    assert own[0].answers == ((0, "Anna"),) and own[1].answers == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"answers": {"text": ["Ben"], "answer_start": [0]}}, "does not stand at 0"),
        ({"answers": {"text": ["Anna"], "answer_start": [-43]}}, "does not stand at -43"),
        ({"answers": {"text": ["Anna"], "answer_start": []}}, "answers must be"),
        ({"answers": "Anna"}, "answers must be"),
        ({"question": " "}, "question of 1 is empty"),
        ({"context": None}, "context of 1 is empty"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, change, told):
    with pytest.raises(InputError, match=told):
        load_questions(save(tmp_path / "a.jsonl", {**ROW, **change}))


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.json").write_text('{"data": [{"x": 1}]}')
    with pytest.raises(InputError, match="not in SQuAD's form"):
        load_questions(tmp_path / "a.json")
    with pytest.raises(InputError, match="no column 'answers'"):
        load_questions(save(tmp_path / "b.jsonl", {"question": "x", "context": "y"}))
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(InputError, match="questions are read from"):
        load_questions(tmp_path / "a.pdf")


def test_articles_go_whole():
    rows = [Question(str(n), title, "q", "c", ()) for n, title in enumerate("abcab")]
    kept, out = hold_out(rows, ["a"])
    assert [one.title for one in kept] == ["b", "c", "b"] and [one.id for one in out] == ["0", "3"]
    with pytest.raises(InputError, match="'z' is not in the data"):
        hold_out(rows, ["z"])


words = st.sampled_from(["anna", "book", "spring", "Ben"])


@settings(max_examples=50)
@given(st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=4)), max_size=8), st.floats(0, 1))
def test_what_is_impossible_has_no_answer_in_its_passage(rows, share):
    questions = [
        Question(str(n), "t", "?", " ".join(context), ((0, context[0]),))
        for n, (_, context) in enumerate(rows)
    ]
    found = with_impossible(questions, share)
    assert found[: len(questions)] == questions and len(found) - len(questions) <= round(
        share * len(questions)
    )
    for one in found[len(questions) :]:
        original = questions[int(one.id.removesuffix("-impossible"))]
        assert not one.answers and one.question == original.question
        assert original.answers[0][1].lower() not in one.context.lower()
    assert found == with_impossible(questions, share)

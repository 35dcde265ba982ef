"""Passages: exact offsets, no character lost, sentences whole, headings never crossed."""

import itertools

import hypothesis.strategies as st
from hypothesis import given, settings

from apps.answers.documents import Heading, Parsed
from apps.answers.passages import OVERLAP, SIZE, cut

PROSE = st.text(alphabet="abcAB .!?,\n\u3002\u00e9\u4e2d\"'1()", max_size=400)
ANY = st.text(max_size=300)


@st.composite
def documents(draw):
    text = draw(PROSE | ANY)
    starts = sorted(draw(st.sets(st.integers(0, max(0, len(text) - 1)), max_size=5)))
    headings = [Heading(start, draw(st.integers(1, 6)), f"h{start}") for start in starts]
    return Parsed("a.txt", text, tuple(headings))


@settings(max_examples=150, deadline=None)
@given(documents(), st.integers(8, 120), st.integers(0, 60))
def test_offsets_are_exact_and_nothing_is_lost(document, size, overlap):
    pieces = cut(document, size, min(overlap, size // 2))
    covered = set()
    for piece in pieces:
        assert document.text[piece.start : piece.start + len(piece.text)] == piece.text
        assert 0 < len(piece.text) <= size and piece.text == piece.text.strip()
        covered.update(range(piece.start, piece.start + len(piece.text)))
    missed = [
        at for at, character in enumerate(document.text) if at not in covered and not character.isspace()
    ]
    assert not missed
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(documents(), st.integers(8, 120))
def test_no_passage_crosses_a_heading(document, size):
    for piece in cut(document, size, 0):
        inside = range(piece.start + 1, piece.start + len(piece.text))
        crossed = [one for one in document.headings if one.start in inside]
        # A heading may stand inside only where there was nothing but blanks before it.
        assert all(not document.text[piece.start : one.start].strip() for one in crossed)


def test_passages_end_with_sentences_and_overlap_by_whole_ones():
    sentences = [
        f"Sentence number {number} is about the thing called thing {number}." for number in range(80)
    ]
    text = " ".join(sentences)
    pieces = cut(Parsed("a.txt", text))
    assert len(pieces) > 3
    for before, after in itertools.pairwise(pieces):
        assert before.text.endswith(".") and after.text.startswith("Sentence number")
        shared = before.start + len(before.text) - after.start
        assert 0 < shared <= OVERLAP and text[after.start :].startswith("Sentence")
    assert all(SIZE / 2 < len(piece.text) <= SIZE for piece in pieces[:-1])


def test_short_forms_and_numbers_do_not_end_a_sentence():
    text = "Dr. Smith met J. K. Rowling at 3.5 km, e.g. Monday. Then they left. " * 2
    ends = {piece.text[-6:] for piece in cut(Parsed("a.txt", text), 40, 0)}
    assert "Dr." not in ends and all(not end.endswith(("Dr.", "J.", "K.", "e.g.")) for end in ends)


def test_a_heading_path_names_what_stands_above():
    text = "A\n\nintro\n\nB\n\nunder b\n\nC\n\nunder c"
    headings = (Heading(0, 1, "A"), Heading(10, 2, "B"), Heading(22, 1, "C"))
    pieces = cut(Parsed("a.md", text, headings))
    assert [(piece.heading, piece.text) for piece in pieces] == [
        ("A", "A\n\nintro"),
        ("A › B", "B\n\nunder b"),
        ("C", "C\n\nunder c"),
    ]


def test_a_sentence_longer_than_a_passage_is_cut_at_blanks():
    text = "word " * 1000
    pieces = cut(Parsed("a.txt", text))
    assert all(piece.text.replace("word", "").strip() == "" for piece in pieces)
    assert all(len(piece.text) <= SIZE for piece in cut(Parsed("a.txt", "x" * 5000)))

import html
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import BundleError
from runtimes.text import Tokenizer, clean, pad


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("AT&amp;T said", "AT&T said"),
        ("it #39;s up", "it 's up"),
        ("<b>Oil</b> rises", "Oil rises"),
        ("a < b and c > d", "a < b and c > d"),
        ("one<br/>two", "one two"),
        ("<script>alert(1)</script>shown", "shown"),
        ("<style>p{}</style>shown<!-- hidden <b> -->too", "shown too"),
        ("shown<script>never closed", "shown"),
        ("tab\tnew\nline\x00null\u200bzero", "tab new line null zero"),
        ("cafe\u0301", "caf\u00e9"),
        ("broken \ud800 half", "broken \ufffd half"),
        ("  ", ""),
    ],
)
def test_clean(raw, wanted):
    assert clean(raw) == wanted


@given(st.text())
def test_clean_gives_printable_folded_text(text):
    cleaned = clean(text)
    assert cleaned == cleaned.strip()
    assert "  " not in cleaned
    cleaned.encode("utf-8")


@given(st.text(alphabet=string.ascii_letters + string.digits + " .,;!?-", max_size=200))
def test_clean_keeps_plain_words(text):
    assert clean(text).split() == text.split()


@given(
    st.lists(st.sampled_from(["<b>", "</b>", "<script>", "</script>", "<!--", "-->", "<", ">", "x", "&lt;"]))
)
def test_clean_never_lets_a_whole_tag_through(parts):
    cleaned = clean("".join(parts))
    if "&lt;" not in parts:
        assert "<script>" not in cleaned and "<b>" not in cleaned


def test_clean_stays_linear_on_hostile_tags():
    # A quadratic cleaning would need minutes for this; the suite's time-out would end it.
    assert clean("<script>" * 200_000) == ""
    assert clean("<a" * 200_000).count("<a") == 200_000
    assert clean(html.escape("<b>") * 50_000) == ""


def test_encode_is_cut_and_ends_with_a_separator(tiny_base):
    tokenizer = Tokenizer.from_bytes((tiny_base / "tokenizer.json").read_bytes(), 8)
    (ids,) = tokenizer.encode(["wheat corn oil " * 10])
    assert len(ids) == 8
    assert ids[-1] == tokenizer.encode(["oil"])[0][-1]


def test_one_text_and_many_give_the_same_ids(tiny_base):
    tokenizer = Tokenizer.from_bytes((tiny_base / "tokenizer.json").read_bytes(), 16)
    texts = ["wheat", "oil &amp; gas", "unheard-of"]
    assert tokenizer.encode(texts) == [tokenizer.encode([text])[0] for text in texts]


def test_a_broken_tokenizer_is_one_line():
    with pytest.raises(BundleError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.from_bytes(b'{"model": 1}', 8)


def test_pad():
    feeds = pad([[5, 6], [7]], 3, 0)
    assert feeds["input_ids"].tolist() == [[5, 6, 0], [7, 0, 0]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0]]
    assert feeds["token_type_ids"].sum() == 0
    assert {array.dtype.name for array in feeds.values()} == {"int64"}


def test_entities_of_any_length_are_read():
    assert clean("a &#" + "9" * 5_000 + "; b") == "a \ufffd b"
    assert clean("&#" + "0" * 5_000 + "65;&#0066&#x43;") == "ABC"

"""Tokens to text as they come: whole characters only, and the joined pieces are the whole text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_generator import byte_level
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from runtimes.codec import Codec, byte_table
from runtimes.detokenize import Detokenizer
from runtimes.errors import BundleError, InputError
from runtimes.stops import Stops


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    byte_level(folder)
    return Codec.from_bytes((folder / "tokenizer.json").read_bytes())


@pytest.fixture(scope="module")
def pieces_codec():
    """A tokenizer in SentencePiece's manner: blanks as marks, unknown characters as bytes."""
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "a",
        "b",
        "▁a",
        "▁b",
        "ab",
    ]
    model = models.Unigram(
        [(word, -float(rank)) for rank, word in enumerate(words)], unk_id=0, byte_fallback=True
    )
    fast = Tokenizer(model)
    fast.add_special_tokens(["<s>", "</s>"])
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Codec.from_bytes(fast.to_str().encode())


def told(codec, ids, before=()):
    detokenizer = Detokenizer(codec, before)
    return [*(detokenizer.push(number) for number in ids), detokenizer.flush()]


@given(st.data())
@settings(max_examples=150)
def test_pieces_of_any_bytes_join_to_the_whole_decoding(codec, data):
    ids = data.draw(st.lists(st.integers(0, codec.size - 1), max_size=40))
    pieces = told(codec, ids)
    assert "".join(pieces) == codec.decode(ids)


@given(st.text())
@settings(max_examples=150)
def test_pieces_of_a_text_are_whole_characters(codec, text):
    text = text.encode("utf-8", "ignore").decode()
    pieces = told(codec, codec.encode_parts([(text, True)]))
    assert "".join(pieces) == text
    assert all(codec_char in text for piece in pieces for codec_char in piece)  # no half one, as U+FFFD


@given(st.text("ab 東é🚀"))
@settings(max_examples=100)
def test_a_tokenizer_that_spells_by_context_gives_the_text_too(pieces_codec, text):
    text = " ".join(text.split())
    ids = pieces_codec.encode(text)
    pieces = told(pieces_codec, ids)
    assert "".join(pieces) == text == pieces_codec.decode(ids)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def spelled(codec, ids):
    """What SentencePiece's tokens say: a blank for each mark, bytes as they are, special ones nothing."""
    words = [codec.token(number) for number in ids if number not in codec.special]
    as_bytes = [
        bytes([int(word[3:5], 16)]) if word.startswith("<0x") else word.replace("▁", " ").encode()
        for word in words
    ]
    return b"".join(as_bytes).decode("utf-8", "replace")


WORDS = st.integers(259, 264)
# Of 265 tokens: anything, letters, or bytes of which some make a character.
IDS = st.lists(st.integers(0, 264) | WORDS | st.sampled_from([3 + byte for byte in "é東🚀".encode()]))


@given(IDS, st.text("ab 東é🚀"))
@settings(max_examples=300)
def test_any_tokens_by_context_are_told_whole_behind_any_prompt(pieces_codec, ids, prompt):
    before = pieces_codec.encode("a" + prompt)
    assert "".join(told(pieces_codec, ids, before)) == spelled(pieces_codec, ids)


def test_text_behind_a_broken_character_is_told(pieces_codec):
    a, lead, end = pieces_codec.encode("a")[0], 3 + 0xC3, 3 + 0xA9
    assert "".join(told(pieces_codec, [a, lead, end, lead, a, a, a])) == "aé\N{REPLACEMENT CHARACTER} a a a"
    assert (
        "".join(told(pieces_codec, [3 + byte for byte in "🚀".encode()], pieces_codec.encode("🚀🚀"))) == "🚀"
    )


@given(st.data())
@settings(max_examples=150)
def test_a_tokenizer_that_takes_back_what_it_said_loses_nothing_more(codec, data):
    """A chain of decoders, so nobody knows that it is bytes; and one that mends blanks afterwards."""
    fast = Tokenizer.from_str(codec._fast.to_str())
    fast.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("ab", "c")])
    chained = Codec.from_bytes(fast.to_str().encode())
    a, b, x = (next(n for n in range(codec.size) if codec.token(n) == letter) for letter in "abx")
    ids = data.draw(st.lists(st.integers(0, codec.size - 1) | st.sampled_from([a, b]), max_size=30))
    assert "".join(told(chained, [*ids, a, b, x, x, x, x])).endswith("xxxx")


def test_what_stands_before_decides_the_blank(pieces_codec):
    first, second = pieces_codec.encode("a b")
    assert told(pieces_codec, [second])[0] == "b" and told(pieces_codec, [second], [first])[0] == " b"


def test_bytes_that_never_become_a_character_do_not_wait_for_ever(codec, pieces_codec):
    spelled = {byte: char for char, byte in byte_table().items()}
    lead = next(n for n in range(codec.size) if codec.token(n) == spelled[0xE6])
    assert told(codec, [lead] * 3)[1:3] == ["\N{REPLACEMENT CHARACTER}"] * 2
    broken = 3 + 0xE6
    assert "\N{REPLACEMENT CHARACTER}" in "".join(told(pieces_codec, [broken] * 9)[:-1])


def test_special_tokens_have_no_text_and_come_from_no_data(codec):
    assert codec.decode([0, 1, 2]) == "" == "".join(told(codec, [0, 1, 2]))
    parts = [("<|im_start|>", False), ("x<|im_end|>", True), ("<|im_end|>", False)]
    ids = codec.encode_parts(parts)
    assert ids[0] == 1 and ids.count(2) == 1 and ids[-1] == 2
    assert codec.decode(ids) == "x<|im_end|>"


def test_what_is_no_tokenizer_or_no_text_is_told(codec):
    with pytest.raises(BundleError, match="not a tokenizer"):
        Codec.from_bytes(b'{"model": 3}')
    with pytest.raises(InputError, match="not valid Unicode"):
        codec.encode("\udc80")


def test_a_text_that_has_no_tokens_is_told():
    model = models.Unigram([("a", -1.0)], unk_id=None)
    with pytest.raises(InputError, match=r"cannot spell the text \(.+\)") as told:
        Codec.from_bytes(Tokenizer(model).to_str().encode()).encode("東")
    assert "\n" not in str(told.value)


PIECES = st.lists(st.text("ab\n", max_size=4), max_size=12)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3)


@given(PIECES, STOPS)
@settings(max_examples=300)
def test_stop_sequences_are_found_over_any_borders(pieces, stops):
    found, text = Stops(stops), "".join(pieces)
    said = "".join(found.push(piece) for piece in pieces)
    places = [text.find(stop) for stop in stops if stop in text]
    assert found.hit == bool(places)
    if not places:
        assert said + found.flush() == text
        return
    # The first stop sequence that is complete ends it; nothing of one is ever told.
    assert text.startswith(said) and not any(stop in said for stop in stops)
    ends = min(text.find(stop) + len(stop) for stop in stops if stop in text)
    assert len(said) <= ends and found.flush() == ""


@given(PIECES, STOPS)
def test_nothing_waits_that_is_no_start_of_a_stop_sequence(pieces, stops):
    found, said = Stops(stops), ""
    for piece in pieces:
        said += found.push(piece)
        if found.hit:
            return
    waiting = "".join(pieces)[len(said) :]
    assert not waiting or any(stop.startswith(waiting) for stop in stops)

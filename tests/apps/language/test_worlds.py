import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.language.align.worlds import RowsConfig, make_world, open_world, save_world, whole_sentences
from runtimes.errors import InputError
from trainers.reward import as_text

FEW = RowsConfig(reward=8, judge=8, test=6, held_out=6, watched=2, policy=10)


@given(st.text(alphabet="ab .!?\n", max_size=60), st.integers(1, 12))
def test_a_text_is_cut_at_the_end_of_a_sentence(text, most):
    short = whole_sentences(text, most)
    assert " ".join(text.split()).startswith(short)
    assert len(short.split()) <= most
    assert not short or short[-1] in ".!?"


def test_the_longest_whole_start_is_taken():
    assert whole_sentences("One two. Three  four! Five six seven.", 5) == "One two. Three four!"
    assert whole_sentences("No end here", 5) == ""


@pytest.fixture
def reviews(tmp_path):
    rows = ["text,label"]
    for i in range(60):
        for star, word in ((1, "awful"), (4, "fair"), (5, "lovely")):
            rows.append(f"Dress {star} number {i} I bought is {word} and so on. It was {word} too.,{star}")
    (tmp_path / "reviews.csv").write_text("\n".join(rows))
    return str(tmp_path / "reviews.csv")


def test_no_text_stands_in_two_parts_and_both_labels_stand_in_each(reviews):
    world = make_world("sentiment", reviews, FEW)
    assert world.counts() == {
        "sft": 10, "pairs": 0, "reward": 8, "judge": 8, "test": 6, "held_out": 6, "watched": 2
    }  # fmt: skip
    judged = [row["text"] for part in (world.reward, world.judge, world.test) for row in part]
    told = [
        row["prompt"] + row["response"] for part in (world.sft, world.held_out, world.watched) for row in part
    ]
    assert len(set(judged + told)) == len(judged + told)
    for part in (world.reward, world.judge, world.test):
        assert sum(row["label"] for row in part) == len(part) / 2
    assert all(row["response"].startswith(" ") for row in world.sft)
    assert not any("fair" in text for text in judged + told)  # four stars are left out


def test_the_same_seed_the_same_world_and_another_another(reviews, tmp_path):
    world = make_world("sentiment", reviews, FEW)
    assert world == make_world("sentiment", reviews, FEW)
    assert world.sft != make_world("sentiment", reviews, RowsConfig(**{**vars(FEW), "seed": 1})).sft
    assert open_world(save_world(world, tmp_path / "world.json")) == world


def test_too_few_rows_are_told(reviews):
    with pytest.raises(InputError, match="no rows are left for"):
        make_world("sentiment", reviews, RowsConfig(reward=100, judge=100))


def dialogue(*turns):
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {turn}" for i, turn in enumerate(turns))


def test_dialogues_that_open_alike_share_a_part(tmp_path):
    folder = tmp_path / "helpful-base"
    folder.mkdir()
    rows = []
    for i in range(40):
        for second in ("more", "less"):
            heads = (f"question {i}", "answer", second)
            rows.append({"chosen": dialogue(*heads, "good"), "rejected": dialogue(*heads, "bad")})
    rows.append({"chosen": dialogue("q", "x" * 999), "rejected": dialogue("q", "y")})
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    world = make_world("helpful", str(tmp_path), FEW)
    openings = [
        {row["prompt"][0]["content"] for row in part}
        for part in (world.pairs, world.judge, world.test, world.held_out, world.watched)
    ]
    assert len(set.union(*openings)) == sum(map(len, openings))
    assert world.reward == world.pairs[:8] and "q" not in set.union(*openings)
    assert len({as_text(row["prompt"]) for row in world.held_out}) == len(world.held_out)


def test_a_file_that_is_no_world_is_refused(tmp_path):
    (tmp_path / "world.json").write_text('{"name": "x"}')
    with pytest.raises(InputError, match="not a world"):
        open_world(tmp_path / "world.json")

"""Instructions and pairs: every form that is read, what is counted and what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import InputError
from trainers.conversations import parse_dialogue
from trainers.instructions import check_instructions, load_instructions
from trainers.pairs import check_pairs, load_pairs

USER = [{"role": "user", "content": "Hi"}]
WANTED = {"prompt": USER, "chosen": "Good", "rejected": "Bad"}


def written(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
    return folder / name


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": USER, "response": "Hello"},
        {"messages": [*USER, {"role": "assistant", "content": " Hello\n"}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"instruction": "Hi", "output": "Hello", "other": 1},
    ],
)
def test_forms_of_instructions(row: dict, tmp_path: Path) -> None:
    read = load_instructions(written(tmp_path, [row]))
    assert read.splits == {"train": [{"prompt": USER, "response": "Hello"}]}
    assert read.dropped == {}
    assert check_instructions(read.splits["train"])


@pytest.mark.parametrize(
    "row",
    [
        WANTED,
        {"instruction": "Hi", "input": None, "output": "-", "chosen": "Good", "rejected": "Bad"},
        {"chosen": [*USER, {"role": "assistant", "content": "Good"}],
         "rejected": [*USER, {"role": "assistant", "content": "Bad"}]},
        {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Good"},
         "rejected": {"from": "gpt", "value": "Bad"}},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Good", "rejected": "\n\nHuman: Hi\n\nAssistant: Bad"},
    ],
)  # fmt: skip
def test_forms_of_pairs(row: dict, tmp_path: Path) -> None:
    read = load_pairs(written(tmp_path, [row]))
    assert read.splits == {"train": [WANTED]}
    assert check_pairs(read.splits["train"])


def test_a_text_prompt_keeps_its_spaces(tmp_path: Path) -> None:
    row = {"prompt": "Once upon", "response": " a time"}
    assert load_instructions(written(tmp_path, [row])).splits["train"] == [row]


def test_files_of_a_folder_are_splits_and_parts(tmp_path: Path) -> None:
    written(tmp_path, [WANTED], "helpful-base/train.jsonl")
    written(tmp_path, [WANTED, WANTED], "helpful-base/test-00000-of-00001.jsonl")
    written(tmp_path, [WANTED] * 3, "harmless-base/train.jsonl")
    (tmp_path / "helpful-online").mkdir()
    packed = gzip.compress(json.dumps(WANTED).encode())
    (tmp_path / "helpful-online" / "train.jsonl.gz").write_bytes(packed)
    (tmp_path / "helpful-online" / "list.json").write_text(json.dumps([WANTED, WANTED]))
    read = load_pairs(tmp_path, part="helpful-*")
    assert {split: len(rows) for split, rows in read.splits.items()} == {"train": 4, "test": 2}
    assert read.source["part"] == "helpful-*"
    with pytest.raises(InputError, match="no rows of nothing"):
        load_pairs(tmp_path, part="nothing")


def test_what_teaches_nothing_is_counted(tmp_path: Path) -> None:
    turn = "\n\nHuman: Hi\n\nAssistant: "
    rows = [
        WANTED,
        {**WANTED, "rejected": "Good"},
        {**WANTED, "chosen": "  "},
        {"chosen": turn + "Good", "rejected": "Human: Ho\n\nAssistant: Bad"},
        {"chosen": turn + "Good", "rejected": "Bad"},
        {"chosen": "\n\nHuman: Hi\n\nHuman: Ho\n\nAssistant: Good", "rejected": turn + "Bad"},
    ]
    read = load_pairs(written(tmp_path, rows))
    assert len(read.splits["train"]) == 1
    assert read.dropped == {"equal": 1, "empty": 1, "of two prompts": 1, "not in turns": 2}
    with pytest.raises(InputError, match=r"nothing to train on \(1 equal, 1 empty\)"):
        load_pairs(written(tmp_path, rows[1:3]))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": 5, "chosen": "a", "rejected": "b"}, "messages are a int"),
        ({"prompt": "x", "chosen": 1.5, "rejected": "b"}, "line 1: chosen is a float, not text"),
        ({"prompt": "x", "chosen": "a"}, "no column 'rejected'"),
        ({"prompt": "x", "chosen": "half \ud83d", "rejected": "b"}, "half a character"),
        ({"prompt": [{"role": "wizard", "content": "x"}], "chosen": "a", "rejected": "b"}, "role 'wizard'"),
        (
            {"prompt": [*USER, {"role": "assistant", "content": "x"}], "chosen": "a", "rejected": "b"},
            "user's",
        ),
        ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "content is missing"),
    ],
)
def test_what_is_no_pair_is_refused_in_one_line(row: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_pairs(written(tmp_path, [row]))
    assert "\n" not in str(caught.value)


def test_broken_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"prompt": "caf\xe9"}')
    with pytest.raises(InputError, match="not UTF-8"):
        load_pairs(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl.gz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(InputError, match="broken gzip"):
        load_pairs(tmp_path / "rows.jsonl.gz")
    (tmp_path / "rows.json").write_text('[{"a": 1}, 2]')
    with pytest.raises(InputError, match="no column 'chosen'"):
        load_pairs(tmp_path / "rows.json")


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([], "the list is empty"),
        ([WANTED, {**WANTED, "rejected": "Good"}], "row 1: chosen and rejected are equal"),
        ([{**WANTED, "rejected": ""}], "an empty answer"),
        ([["a", "b"]], "a list, not a row"),
    ],
)
def test_pairs_that_a_caller_hands_over(pairs: list, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_pairs(pairs)


TURN = st.text(min_size=1, max_size=30).filter(
    lambda text: text.strip() and "Human:" not in text and "Assistant:" not in text
)


@given(turns=st.lists(TURN, min_size=2, max_size=6))
def test_a_dialogue_is_read_back(turns: list[str]) -> None:
    names = ("Human", "Assistant")
    text = "".join(f"\n\n{names[at % 2]}: {turn}" for at, turn in enumerate(turns))
    read = parse_dialogue(text)
    assert read is not None
    assert [one["content"] for one in read] == [turn.strip() for turn in turns]
    assert [one["role"] for one in read] == [("user", "assistant")[at % 2] for at in range(len(turns))]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "from", "value", "prompt"]), inner, max_size=3
    ),
    max_leaves=8,
)  # fmt: skip


@given(row=st.dictionaries(
    st.sampled_from(["prompt", "chosen", "rejected", "messages", "instruction", "input", "response"]), ANY,
    max_size=5
))  # fmt: skip
def test_any_row_is_read_counted_or_refused(row: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = written(tmp_path_factory.mktemp("any"), [row])
    for load, check in ((load_pairs, check_pairs), (load_instructions, check_instructions)):
        try:
            read = load(file)
        except InputError as error:
            assert "\n" not in str(error).replace(repr(row), "")
        else:
            check(read.splits["train"])


def test_what_tells_of_a_data_set_is_none_of_its_rows(tmp_path: Path) -> None:
    written(tmp_path, [WANTED], "data/train.jsonl")
    (tmp_path / "dataset_infos.json").write_text(json.dumps({"default": {"splits": {}}}))
    (tmp_path / "data" / "other.csv.gz").write_bytes(gzip.compress(b"prompt,chosen\n"))
    assert load_pairs(tmp_path).splits == {"train": [WANTED]}

"""Data sets by name and from files; each way that a user's file can be wrong."""

from pathlib import Path

import pytest

from runtimes.errors import InputError
from trainers import data, readers, sources
from trainers.data import Dataset, Split, load_data, open_data, save_data

GOOD = "text,label\n" + "".join(f"{word} {i},{word}\n" for word in ("red", "blue") for i in range(4))
NEW = "text,label\nred nine,red\nblue nine,blue\n"

BAD: list[tuple[str, dict[str, str | bytes], str]] = [
    (
        "missing text column",
        {"a.csv": "title,label\nx,y\n"},
        r"line 2: no column 'text'; .*title, label",
    ),
    ("missing label column", {"a.jsonl": '{"text": "x"}\n'}, r"a\.jsonl line 1: no column 'label'; .*text"),
    ("one class", {"a.csv": "text,label\na,x\nb,x\nc,x\n"}, r"a\.csv: one class only \('x'\)"),
    ("empty text", {"a.csv": GOOD + "  ,red\n"}, r"a\.csv line 10: 'text' is empty"),
    ("null text", {"a.jsonl": '{"text": null, "label": "x"}'}, r"line 1: 'text' is empty"),
    ("text is a number", {"a.jsonl": '{"text": 3, "label": "x"}'}, r"line 1: 'text' is a int, not text"),
    ("label missing", {"a.csv": GOOD + "green,\n"}, r"a\.csv line 10: 'label' is missing"),
    ("label is a list", {"a.jsonl": '{"text": "t", "label": ["x"]}'}, r"line 1: 'label' is a list"),
    ("label is a float", {"a.jsonl": '{"text": "t", "label": 0.5}'}, r"line 1: 'label' is a float"),
    ("latin-1", {"a.csv": b"text,label\ncaf\xe9,x\n"}, r"a\.csv line 2: not UTF-8 .*0xe9 at byte offset 14"),
    ("utf-16", {"a.csv": "text,label".encode("utf-16")}, r"a\.csv: UTF-16"),
    ("broken json", {"a.jsonl": '{"text": "t", "label": "x"}\n{"text": '}, r"a\.jsonl line 2: broken JSON"),
    ("json array", {"a.jsonl": '["t", "x"]'}, r"line 1: a JSON list, not an object"),
    ("deep json", {"a.jsonl": "[" * 100_000}, r"line 1: broken JSON"),
    ("no rows", {"a.csv": "text,label\n"}, r"a\.csv: no rows"),
    ("empty file", {"a.jsonl": ""}, r"a\.jsonl: no rows"),
    ("too few of a class", {"a.csv": GOOD + "green 1,green\n"}, r"class 'green' has 1 of the 3 rows"),
    ("ragged row", {"a.csv": GOOD + "a,b,c\n"}, r"a\.csv line 10: 3 fields, but the header has 2"),
    ("open quote", {"a.csv": GOOD + '"never closed,red\n'}, r"a\.csv line 10: broken table row"),
    ("column twice", {"a.csv": "text,text,label\na,b,c\n"}, r"column 'text' stands twice"),
    ("not parquet", {"a.parquet": b"PAR1 not really"}, r"a\.parquet: not readable as parquet"),
    ("unknown suffix", {"a.xlsx": b"PK"}, r"a\.xlsx: \.xlsx suffix is not known; use one of \.csv"),
    ("no train file", {"d/test.csv": GOOD}, r"d: no train file"),
    ("two train files", {"d/train.csv": GOOD, "d/train.tsv": GOOD}, r"train\.csv and train\.tsv are both"),
    (
        "rows in two splits",
        {"d/train.csv": GOOD, "d/test.csv": GOOD},
        r"8 of its texts stand in train\.csv",
    ),
    (
        "rows in validation and test",
        {"d/train.csv": GOOD, "d/dev.csv": NEW, "d/test.csv": NEW},
        r"test\.csv: 2 of its texts stand in dev\.csv",
    ),
    (
        "label only in test",
        {"d/train.csv": GOOD, "d/test.csv": NEW + "sky,green\n"},
        r"test\.csv: label 'green' is not in the train rows",
    ),
    ("no test rows", {"d/train.csv": GOOD, "d/test.csv": "text,label\n"}, r"test\.csv: no rows"),
]


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    first = next(iter(files))
    return root / (first.split("/")[0] if "/" in first else first)


@pytest.mark.parametrize(("files", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_file(tmp_path: Path, files: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_data(write(tmp_path, files))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_size_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"a.csv": GOOD})
    monkeypatch.setattr(data, "MAX_TEXT_CHARS", 4)
    with pytest.raises(InputError, match=r"line 2: 5 characters, over the limit of 4"):
        load_data(path)
    monkeypatch.setattr(readers, "MAX_FILE_BYTES", 20)
    with pytest.raises(InputError, match="over the limit"):
        load_data(path)


def test_missing_file() -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        load_data("no/such/file.csv")


def test_file_and_folder(tmp_path: Path) -> None:
    one = load_data(write(tmp_path, {"a.csv": GOOD}))
    assert one.label_names == ["blue", "red"]
    assert list(one.splits) == ["train"]
    assert one.splits["train"].texts[0] == "red 0"
    assert one.splits["train"].labels[0] == 1
    assert one.source["place"] == "file"
    two = load_data(write(tmp_path, {"d/train.csv": GOOD, "d/test.csv": NEW}))
    assert list(two.splits) == ["train", "test"]
    assert two.splits["test"] == Split(["red nine", "blue nine"], [1, 0])
    assert two.source["digest"] != one.source["digest"]


def test_other_columns_and_whole_number_labels(tmp_path: Path) -> None:
    rows = "".join(f'{{"body": "t{i}", "y": {i % 11}}}\n' for i in range(33))
    read = load_data(write(tmp_path, {"a.jsonl": rows}), text="body", label="y")
    assert read.label_names == [str(i) for i in range(11)]  # in the order of numbers


def test_save_and_open(tmp_path: Path, dataset: Dataset) -> None:
    odd = Split(["line\nbreak\u2028 \u0085 “quotes”", "tab\t"], [0, 1])
    kept = Dataset("odd", dataset.label_names, {**dataset.splits, "test": odd}, {"place": "file"})
    folder = save_data(kept, tmp_path / "saved")
    assert open_data(folder) == kept
    assert load_data(folder).digest == kept.digest
    (folder / "test.jsonl").write_text('{"text": "other", "label": "arts"}\n')
    with pytest.raises(InputError, match=r"test\.jsonl: missing or altered"):
        open_data(folder)


def test_published_tab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "Category\tText\nd\tstring\nclass\t\n\n"
    (tmp_path / "train.tab").write_text(head + 'b\tone two\na\tthree "four"\n')
    (tmp_path / "test.tab").write_text(head + "a\tfive\n")
    entry = {"splits": {"train": "train.tab", "test": "test.tab"}, "labels": {"a": "Ants"}, "licence": "none"}
    monkeypatch.setattr(data, "index_entry", lambda name, kind: entry)
    source = sources.Source("x/y", "index", "w==1", "0" * 64, tmp_path)
    monkeypatch.setattr(data, "find", lambda name, kind: source)
    read = load_data("x/y")
    assert read.label_names == ["Ants", "b"]
    assert read.splits["train"] == Split(["one two", 'three "four"'], [1, 0])
    assert read.source["revision"] == "w==1"


def hub_folder(root: Path, train: dict, test: dict, names: str = "") -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (root / "data").mkdir(parents=True)
    for split, columns in {"train": train, "test": test}.items():
        pq.write_table(pa.table(columns), root / "data" / f"{split}-00000-of-00001.parquet")
    (root / "README.md").write_text(names)
    return root


FEATURES = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': World
          '1': Sports
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
---
"""


def test_mirror_with_label_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = {"text": ["a", "b", "c"], "label": [1, 0, 1]}
    hub_folder(tmp_path / "own" / "set", train, {"text": ["d"], "label": [0]}, FEATURES)
    monkeypatch.setenv("EDGEWISE_MIRROR", str(tmp_path))
    read = load_data("own/set")
    assert read.label_names == ["World", "Sports"]
    assert read.splits["train"] == Split(["a", "b", "c"], [1, 0, 1])
    assert read.source["place"] == "mirror"
    with pytest.raises(InputError, match=r"no column 'body'; the columns are: text, label"):
        load_data("own/set", text="body")


def test_withheld_test_labels_are_left_out(tmp_path: Path) -> None:
    folder = hub_folder(
        tmp_path / "set", {"text": ["a", "b"], "label": [1, 0]}, {"text": ["d"], "label": [-1]}, FEATURES
    )
    assert list(load_data(folder).splits) == ["train"]


def test_published_string_labels(tmp_path: Path) -> None:
    folder = hub_folder(
        tmp_path / "set", {"text": ["a", "b"], "label": ["y", "x"]}, {"text": ["d"], "label": ["y"]}
    )
    assert load_data(folder).splits["train"] == Split(["a", "b"], [1, 0])

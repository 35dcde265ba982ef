import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import InputError
from trainers.readers import decode, read_rows

fields = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
tables = st.lists(st.tuples(fields, fields), max_size=8)


def rows_from(folder: Path, name: str, raw: bytes) -> list[tuple[int, dict]]:
    path = folder / name
    path.write_bytes(raw)
    return list(read_rows(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


@given(table=tables, bom=st.booleans(), delimiter=st.sampled_from([",", "\t"]))
def test_what_csv_writes_is_read_back(folder: Path, table: list, bom: bool, delimiter: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *table])
    raw = out.getvalue().encode("utf-8-sig" if bom else "utf-8")
    name = "a.csv" if delimiter == "," else "a.tsv"
    assert [(r["text"], r["label"]) for _, r in rows_from(folder, name, raw)] == table


@given(table=tables, ascii=st.booleans())
def test_what_json_writes_is_read_back(folder: Path, table: list, ascii: bool) -> None:
    lines = [json.dumps({"text": t, "label": y}, ensure_ascii=ascii) for t, y in table]
    read = rows_from(folder, "a.jsonl", "\n".join(lines).encode())
    assert [(r["text"], r["label"]) for _, r in read] == table
    assert [number for number, _ in read] == list(range(1, len(table) + 1))


@given(raw=st.binary(max_size=200), name=st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet"]))
def test_any_bytes_give_rows_or_one_line(folder: Path, raw: bytes, name: str) -> None:
    try:
        rows_from(folder, name, raw)
    except InputError as error:
        assert "\n" not in str(error)
        assert name in str(error)


def test_lines_are_counted_through_quoted_line_breaks(tmp_path: Path) -> None:
    raw = b'text,label\n"one\ntwo",a\n\nthree,b\n'
    assert [number for number, _ in rows_from(tmp_path, "a.csv", raw)] == [2, 5]


@given(good=st.text("abc é\n", max_size=50), bom=st.booleans())
def test_byte_offset_of_bad_encoding(good: str, bom: bool) -> None:
    raw = (b"\xef\xbb\xbf" if bom else b"") + good.encode() + b"\xff" + b"tail"
    with pytest.raises(InputError, match=rf"byte offset {raw.index(0xFF)}\)"):
        decode(Path("x.csv"), raw)

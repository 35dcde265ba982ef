import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import InputError
from trainers.texts import is_texts, open_texts, running_texts, save_texts, windows


class _Letters:
    def encode(self, text):
        return [ord(sign) for sign in text]


def _wikitext(folder, rows):
    import pyarrow
    import pyarrow.parquet

    for split, texts in rows.items():
        file = folder / "wikitext-2-v1" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file)


def test_paragraphs_of_a_file_with_every_fifth_set_aside(tmp_path):
    file = tmp_path / "book.txt"
    file.write_text("\n\n".join(f"paragraph {number}" for number in range(10)) + "\n\n \n")
    texts = running_texts(str(file))
    assert texts.splits["test"] == ["paragraph 4", "paragraph 9"] and len(texts.splits["train"]) == 8
    assert texts.name == "book.txt" and texts.source["place"] == "file"


def test_one_column_of_rows_whose_labels_do_not_matter(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"body": f"text {n}", "label": 1}) + "\n" for n in range(5)))
    assert running_texts(str(file), "body").splits["test"] == ["text 4"]
    with pytest.raises(InputError, match=r"rows.jsonl: no column 'text'; the columns are: body, label"):
        running_texts(str(file))


def test_wikitext_is_read_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEWISE_MIRROR", str(tmp_path))
    long = 'It \'s a line of 1 @,@ 200 words ( nearly ) , and well @-@ known . He said " no " . ' * 4
    rows = [" = Title = ", long + "The <unk> is left out . ", "too short", ""]
    _wikitext(tmp_path / "some" / "wikitext", {"validation": rows, "test": rows})
    (tmp_path / "some" / "wikitext" / "README.md").write_text("made up")
    [text] = running_texts("some/wikitext").splits["test"]
    assert text.startswith('It\'s a line of 1,200 words (nearly), and well-known. He said "no".')
    assert "<unk>" not in text and "left out" not in text


def test_saved_texts_open_again_and_are_known(tmp_path):
    file = tmp_path / "two.txt"
    file.write_text("naïve 東京\n\nsecond")
    texts = running_texts(str(file))
    folder = save_texts(texts, tmp_path / "saved")
    assert is_texts(folder) and running_texts(str(folder)) == texts == open_texts(folder)
    assert open_texts(folder).digest == texts.digest
    (folder / "test.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"test.jsonl: missing or altered"):
        open_texts(folder)


def test_too_little_text_is_refused(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("only one")
    with pytest.raises(InputError, match="at least 2 texts are needed"):
        running_texts(str(file))
    with pytest.raises(InputError, match="fewer than two tokens"):
        windows(["x"], _Letters(), 8, 2)


@given(
    st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=8), st.integers(2, 30), st.integers(1, 5)
)
def test_stretches_are_whole_in_order_and_of_the_text(texts, length, most):
    joined = "\n".join(texts)
    if len(joined) < 2:
        return
    found = windows(texts, _Letters(), length, most)
    assert 1 <= len(found) <= most
    assert len({len(one) for one in found}) == 1 and 2 <= len(found[0]) <= length
    at = 0
    for one in found:
        at = joined.index("".join(map(chr, one)), at) + 1

import numpy as np
import pytest

from compress.calibrate import LEAST, Calibration, check_calibration, read_rows, single_feeds, write_rows
from runtimes.errors import InputError


def texts(count):
    return [f"wheat harvest in region {index} said today" for index in range(count)]


@pytest.mark.parametrize(
    "given,message",
    [
        (Calibration([], []), "0 rows, at least 32 are needed"),
        (Calibration(texts(31), [0] * 31), "31 rows, at least 32"),
        (Calibration(texts(40), [0] * 40, most=8), "8 rows, at least 32"),
        (Calibration(texts(40), [0] * 39), "40 texts but 39 labels"),
        (Calibration([*texts(39), " \n"], [0] * 40), "row 39 has no text"),
        (Calibration([*texts(39), None], [0] * 40), "row 39 has no text"),
        (Calibration([*texts(39), 7.5], [0] * 40), "row 39 has no text"),
        (Calibration(texts(40), [*[0] * 39, 4]), "row 39 has label 4, not one of the model's 4"),
        (Calibration(texts(40), [-1, *[0] * 39]), "row 0 has label -1"),
        (Calibration(texts(40), ["grain"] * 40), "row 0 has label 'grain'"),
        (Calibration(texts(40), [True] * 40), "row 0 has label True"),
    ],
)
def test_rows_that_are_no_use(given, message):
    with pytest.raises(InputError, match=message) as caught:
        check_calibration(given, 4)
    assert "\n" not in str(caught.value)


def test_rows_that_are_all_alike(tiny_checkpoint, tmp_path):
    with pytest.raises(InputError, match="all rows are the same text"):
        write_rows(Calibration(["wheat harvest"] * 40, [0] * 40), tiny_checkpoint.path, tmp_path / "x.npz")


def test_rows_that_the_model_would_cut(tiny_checkpoint, tmp_path):
    long = [f"wheat {index} " * 60 for index in range(40)]
    with pytest.raises(InputError, match="only 0 rows have 1 to 32 tokens"):
        write_rows(Calibration(long, [0] * 40), tiny_checkpoint.path, tmp_path / "x.npz")


def test_picked_by_seed_tokenized_like_the_checkpoint(tiny_checkpoint, tiny_data, tmp_path):
    train = tiny_data.splits["train"]
    written = [
        read_rows(
            str(
                write_rows(
                    Calibration(train.texts, train.labels, seed, 48), tiny_checkpoint.path, tmp_path / name
                )
            )
        )
        for seed, name in ((0, "a.npz"), (0, "b.npz"), (1, "c.npz"))
    ]
    first, again, other = written
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["labels"], other["labels"])
    assert len(first["labels"]) == 48 >= LEAST
    assert first["input_ids"].shape == first["attention_mask"].shape
    feeds = single_feeds(first)
    assert len(feeds) == 48
    for row, feed in enumerate(feeds):
        length = int(first["attention_mask"][row].sum())
        assert feed["input_ids"].shape == (1, length) and feed["attention_mask"].all()

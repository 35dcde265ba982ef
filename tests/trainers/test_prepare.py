from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import InputError
from runtimes.text import clean
from trainers.data import Dataset, Split
from trainers.prepare import PrepareConfig, class_weights, prepare, stratified, subset

label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=120)


@given(label_lists, st.floats(0.01, 0.85), st.integers(0, 9))
def test_stratified_shares_out_every_row_once(labels: list[int], share: float, seed: int) -> None:
    rest, part = stratified(labels, share, seed)
    assert sorted(rest + part) == list(range(len(labels)))
    assert (rest, part) == stratified(labels, share, seed)
    for label, count in Counter(labels).items():
        taken = sum(labels[row] == label for row in part)
        assert taken < count  # something is left to train on
        assert taken > 0 or count == 1
        if count > 1:
            assert abs(taken - share * count) <= 1 or taken in (1, count - 1)


@given(label_lists, st.integers(1, 130), st.integers(0, 9))
def test_subset_has_its_size_and_shares(labels: list[int], total: int, seed: int) -> None:
    split = Split([str(i) for i in range(len(labels))], labels)
    got = subset(split, total, seed)
    assert len(got) == min(total, len(labels))
    assert len(set(got.texts)) == len(got)
    assert all(labels[int(text)] == label for text, label in zip(got.texts, got.labels, strict=True))
    if total >= 2 * len(set(labels)):
        assert set(got.labels) == set(labels)


def rows(n: int, label: int, mark: str = "t") -> Split:
    return Split([f"{mark} {label} {i}" for i in range(n)], [label] * n)


def join(*splits: Split) -> Split:
    return Split([t for s in splits for t in s.texts], [y for s in splits for y in s.labels])


def two_classes(a: int, b: int, **splits: Split) -> Dataset:
    return Dataset("d", ["a", "b"], {"train": join(rows(a, 0), rows(b, 1)), **splits}, {"name": "d"})


def test_dirty_train_rows_are_dropped_and_counted() -> None:
    dirty = Split(
        ["<br>", "t 0 0", "two ways", "two ways", "It&#39;s <b>in</b> test", "t 1 0"], [0, 0, 0, 1, 1, 1]
    )
    test = Split(["It's in test", "It's in test", "<p></p>"], [0, 0, 1])
    dataset = two_classes(20, 20, test=test)
    splits = {**dataset.splits, "train": join(dataset.splits["train"], dirty)}
    made = prepare(replace(dataset, splits=splits))
    dropped = made.source["prepared"]["dropped"]
    assert dropped == {"empty": 1, "in_other_split": 1, "contradictory": 2, "duplicate": 2}
    assert len(made.splits["train"]) + len(made.splits["validation"]) == 40
    assert made.splits["test"].texts == [clean(text) for text in test.texts]  # all rows, in their order


def test_splits_do_not_overlap_and_follow_the_seed() -> None:
    dataset = two_classes(60, 30)
    made = prepare(dataset, PrepareConfig(seed=3))
    sets = {name: set(split.texts) for name, split in made.splits.items()}
    assert {name: len(found) for name, found in sets.items()} == {"train": 73, "validation": 8, "test": 9}
    assert len(set.union(*sets.values())) == 90
    assert made.digest == prepare(dataset, PrepareConfig(seed=3)).digest
    assert made.digest != prepare(dataset, PrepareConfig(seed=4)).digest


def test_max_rows_keeps_the_given_test() -> None:
    test = join(rows(50, 0, "x"), rows(50, 1, "x"))
    made = prepare(two_classes(300, 100, test=test), PrepareConfig(max_rows=40))
    assert made.splits["test"] == test
    assert Counter(made.splits["train"].labels) == {0: 30, 1: 10}
    assert len(made.splits["validation"]) == 4


@pytest.mark.parametrize(("balance", "counts"), [
    ("none", {0: 90, 1: 27}), ("weights", {0: 90, 1: 27}),
    ("oversample", {0: 90, 1: 90}), ("undersample", {0: 27, 1: 27}),
])  # fmt: skip
def test_balance_touches_train_only(balance: str, counts: dict[int, int]) -> None:
    made = prepare(two_classes(100, 30, test=rows(5, 0, "x")), PrepareConfig(balance=balance))  # type: ignore[arg-type]
    assert Counter(made.splits["train"].labels) == counts
    assert len(made.splits["test"]) == 5
    assert Counter(made.splits["validation"].labels) == {0: 10, 1: 3}
    assert ("class_weights" in made.source["prepared"]) == (balance == "weights")
    rare = {t for t, y in zip(made.splits["train"].texts, made.splits["train"].labels, strict=True) if y == 1}
    assert len(rare) == 27  # oversampling repeats every rare row, not some


def test_class_weights_are_balanced() -> None:
    assert class_weights([0, 0, 0, 1], 3) == pytest.approx([4 / 6, 2.0, 0.0])


@pytest.mark.parametrize(("config", "message"), [
    (PrepareConfig(validation=0), "prepare.validation = 0"), (PrepareConfig(test=1.5), "prepare.test = 1.5"),
    (PrepareConfig(max_rows=1), "prepare.max_rows = 1"),
    (PrepareConfig(balance="up"), "prepare.balance = 'up'"),  # type: ignore[arg-type]
])  # fmt: skip
def test_bad_config(config: PrepareConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(two_classes(10, 10), config)


def test_too_small_to_split() -> None:
    with pytest.raises(InputError, match="no rows"):
        prepare(two_classes(1, 1))

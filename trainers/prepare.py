"""Clean, deduplicate, split and balance a data set."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from runtimes.errors import InputError
from runtimes.text import clean as clean_text
from trainers.data import Dataset, Split


@dataclass(frozen=True)
class PrepareConfig:
    """`max_rows`: at most so many train rows, by class share. `validation`, `test`: share of the train rows
    that is split off where the data has no such split. `balance`: what is done about rare classes."""

    max_rows: int | None = None
    validation: float = 0.1
    test: float = 0.1
    balance: Literal["none", "weights", "oversample", "undersample"] = "none"
    clean: bool = True
    seed: int = 0


def prepare(dataset: Dataset, config: PrepareConfig | None = None) -> Dataset:
    """The data set, ready for training. What was done is counted in `source["prepared"]`.

    Train rows that are empty, twice there, labelled two ways, or also in validation or test are dropped. A
    validation or test split that the data came with keeps all its rows, so that figures stay comparable.
    """
    config = config or PrepareConfig()
    check_prepare(config)
    splits = {name: _cleaned(split) if config.clean else split for name, split in dataset.splits.items()}
    splits["train"], counts = _tidy_train(splits)
    splits = _split(splits, config)
    prepared: dict[str, Any] = {"config": asdict(config), "dropped": counts}
    classes = len(dataset.label_names)
    splits["train"] = _balanced(splits["train"], config)
    if config.balance == "weights":
        prepared["class_weights"] = class_weights(splits["train"].labels, classes)
    prepared["rows"] = {name: len(split) for name, split in splits.items()}
    if len(set(splits["train"].labels)) < 2:
        raise InputError(f"{dataset.name}: fewer than two classes are left in train; raise prepare.max_rows")
    order = {name: splits[name] for name in ("train", "validation", "test")}
    return replace(dataset, splits=order, source={**dataset.source, "prepared": prepared})


def new_texts(dataset: Dataset, texts: Iterable[str], most: int, seed: int) -> list[str]:
    """Cleaned texts that stand in no split of the data set, each once, at most `most` (chosen by `seed`)."""
    seen = {text for split in dataset.splits.values() for text in split.texts}
    found = [text for text in dict.fromkeys(clean_text(text) for text in texts) if text and text not in seen]
    if len(found) <= most:
        return found
    chosen = sorted(random.Random(seed).sample(range(len(found)), most))
    return [found[row] for row in chosen]


def check_prepare(config: PrepareConfig) -> None:
    for key in ("validation", "test"):
        if not 0 < getattr(config, key) < 0.9:
            raise InputError(f"prepare.{key} = {getattr(config, key)}: must be a share between 0 and 0.9")
    if config.max_rows is not None and config.max_rows < 2:
        raise InputError(f"prepare.max_rows = {config.max_rows}: must be 2 or more")
    if config.balance not in ("none", "weights", "oversample", "undersample"):
        known = "none, weights, oversample or undersample"
        raise InputError(f"prepare.balance = {config.balance!r}: must be {known}")


def _cleaned(split: Split) -> Split:
    return Split([clean_text(text) for text in split.texts], list(split.labels))


def _tidy_train(splits: dict[str, Split]) -> tuple[Split, dict[str, int]]:
    """Train without empty, repeated, contradictory and leaked rows, and how many of each there were."""
    train = splits["train"]
    held_out = {text for name, split in splits.items() if name != "train" for text in split.texts}
    labels_of: dict[str, set[int]] = {}
    for text, label in zip(train.texts, train.labels, strict=True):
        labels_of.setdefault(text, set()).add(label)
    counts = {"empty": 0, "in_other_split": 0, "contradictory": 0, "duplicate": 0}
    seen: set[str] = set()
    kept: list[int] = []
    for row, text in enumerate(train.texts):
        if not text.strip():
            counts["empty"] += 1
        elif text in held_out:
            counts["in_other_split"] += 1
        elif len(labels_of[text]) > 1:
            counts["contradictory"] += 1
        elif text in seen:
            counts["duplicate"] += 1
        else:
            seen.add(text)
            kept.append(row)
    return train.take(kept), counts


def _split(splits: dict[str, Split], config: PrepareConfig) -> dict[str, Split]:
    """Split test and validation off train where they are missing; subset train to `max_rows`."""
    splits = dict(splits)
    if "test" not in splits:
        rest, part = stratified(splits["train"].labels, config.test, config.seed)
        splits["test"], splits["train"] = splits["train"].take(part), splits["train"].take(rest)
    train = splits["train"]
    if "validation" not in splits:
        if config.max_rows and len(train) * (1 - config.validation) > config.max_rows:
            train = subset(train, round(config.max_rows / (1 - config.validation)), config.seed)
        rest, part = stratified(train.labels, config.validation, config.seed + 1)
        splits["validation"], train = train.take(part), train.take(rest)
    if config.max_rows and len(train) > config.max_rows:
        train = subset(train, config.max_rows, config.seed)
    splits["train"] = train
    for name, split in splits.items():
        if not len(split):
            raise InputError(f"the {name} split has no rows; the data is too small for the shares asked for")
    return splits


def _by_class(labels: Iterable[int], seed: int) -> dict[int, list[int]]:
    """Row numbers of each class, shuffled."""
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    for label in sorted(rows):
        random.Random(f"{seed}-{label}").shuffle(rows[label])
    return {label: rows[label] for label in sorted(rows)}


def _quotas(sizes: dict[int, int], total: int) -> dict[int, int]:
    """Share `total` over classes by size (largest remainder); no class gets more than it has."""
    whole = sum(sizes.values())
    exact = {label: total * size / whole for label, size in sizes.items()}
    quotas = {label: int(share) for label, share in exact.items()}
    order = sorted(sizes, key=lambda label: (quotas[label] - exact[label], label))
    for label in order[: total - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def stratified(labels: list[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers (rest, part): `part` is about `share` of every class.

    A class with two or more rows gives one at least and keeps one at least; a class of one row stays in rest.
    """
    rows = _by_class(labels, seed)
    quotas = _quotas({label: len(found) for label, found in rows.items()}, round(share * len(labels)))
    part: list[int] = []
    for label, found in rows.items():
        part += found[: min(max(quotas[label], 1), len(found) - 1)]
    taken = set(part)
    return [row for row in range(len(labels)) if row not in taken], sorted(part)


def some(rows: Any, total: int, seed: int) -> Any:
    """At most `total` of a Split (see `subset`) or of questions, drawn by `seed`."""
    if isinstance(rows, Split):
        return subset(rows, total, seed)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:total]
    return [rows[row] for row in sorted(chosen.tolist())]


def subset(split: Split, total: int, seed: int) -> Split:
    """At most `total` rows with the classes in their proportions, each class kept where there is room."""
    if total >= len(split):
        return split
    rows = _by_class(split.labels, seed)
    quotas = _quotas({label: len(found) for label, found in rows.items()}, total)
    for label in (label for label in quotas if not quotas[label]):
        largest = max(quotas, key=lambda other: quotas[other])
        if quotas[largest] > 1:
            quotas[largest] -= 1
            quotas[label] = 1
    return split.take(sorted(row for label, found in rows.items() for row in found[: quotas[label]]))


def _balanced(train: Split, config: PrepareConfig) -> Split:
    rows = _by_class(train.labels, config.seed)
    sizes = [len(found) for found in rows.values()]
    if config.balance == "undersample":
        return train.take(sorted(row for found in rows.values() for row in found[: min(sizes)]))
    if config.balance == "oversample":
        most = max(sizes)
        return train.take(sorted(found[i % len(found)] for found in rows.values() for i in range(most)))
    return train


def class_weights(labels: list[int], classes: int) -> list[float]:
    """n / (classes * n_c), as scikit-learn's "balanced"; 0 for a class without rows."""
    counts = Counter(labels)
    return [len(labels) / (len(counts) * counts[c]) if counts[c] else 0.0 for c in range(classes)]

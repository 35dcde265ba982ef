"""Labelled texts in splits: from a source by name, or from a user's own files."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.files import digest_of, read_json, sha256_file, write_json
from trainers.readers import MAX_ROWS, MAX_TEXT_CHARS, SUFFIXES, read_rows
from trainers.sources import Source, find, index_entry

SPLITS = ("train", "validation", "test")
MIN_ROWS_PER_CLASS = 3
_ALIASES = {split: split for split in SPLITS} | {"valid": "validation", "dev": "validation"}


@dataclass(frozen=True)
class Split:
    """Rows of one split; `labels` are indices into the data set's `label_names`."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> "Split":
        """The split with these rows only, in this order."""
        chosen = list(rows)
        return Split([self.texts[i] for i in chosen], [self.labels[i] for i in chosen])


@dataclass(frozen=True)
class Dataset:
    """`splits` has train, and validation and test where they exist. `source` says where it is from:
    name, place, revision, digest, and what `prepare` did."""

    name: str
    label_names: list[str]
    splits: dict[str, Split]
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 over the labels and texts themselves, in their order."""
        rows = {
            name: "\n".join(json.dumps([t, y]) for t, y in zip(s.texts, s.labels, strict=True))
            for name, s in self.splits.items()
        }
        return digest_of({**rows, "labels": json.dumps(self.label_names)})


def load_data(
    name_or_path: str | Path, text: str = "text", label: str = "label", config: str | None = None
) -> Dataset:
    """A data set by name (see `sources.find`), or a user's file or folder of files.

    A file: CSV, TSV, JSON lines or parquet with the columns `text` and `label`. A folder: files named
    train, validation and test; or one written by `save_data`; or one laid out like a hub data set.
    InputError, one line, for each way that it can be wrong.
    """
    source = find(str(name_or_path), "data")
    if source.place == "index":
        return _from_index(source)
    if source.place != "file":
        return _from_hub_layout(source, text, label, config)
    if source.path.is_dir() and (source.path / "data.json").is_file():
        return open_data(source.path)
    files = _split_files(source.path)
    if not files and list(source.path.rglob("*.parquet")):
        return _from_hub_layout(source, text, label, config)
    return _from_files(source, files, text, label)


def load_texts(name_or_path: str | Path, text: str = "text") -> list[str]:
    """The train texts of a data set or file, whose labels, if it has any, are not looked at.

    InputError as `load_data`.
    """
    source = find(str(name_or_path), "data")
    if source.place == "file" and source.path.is_file():
        rows = [(number, row) for number, row in read_rows(source.path)]
        if rows and text not in rows[0][1]:
            have = ", ".join(map(str, rows[0][1]))
            raise InputError(f"{source.path}: no column {text!r}; the columns are: {have}")
        return [_text(source.path, number, text, row[text]) for number, row in rows]
    if source.place in ("mirror", "hub"):
        table = _open_hub_layout(source, None)["train"]
        if text not in table.column_names:
            raise InputError(f"{source.name}: no column {text!r}; it has {', '.join(table.column_names)}")
        return [str(one) for one in table[text]]
    return load_data(name_or_path, text=text).splits["train"].texts


def origin(source: Source) -> dict[str, Any]:
    """What a checkpoint tells of its data: name, place, revision, digest."""
    origin = {k: getattr(source, k) for k in ("name", "place", "revision", "digest")}
    if source.place == "file":
        origin["name"] = source.path.name
    return origin


# a user's own files


def _split_files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"train": path}
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        split = _ALIASES.get(file.stem.lower())
        if split and file.suffix.lower() in SUFFIXES and file.is_file():
            if split in files:
                both = f"{files[split].name} and {file.name}"
                raise InputError(f"{path}: {both} are both the {split} split; keep one")
            files[split] = file
    return files


def _from_files(source: Source, files: dict[str, Path], text: str, label: str) -> Dataset:
    if "train" not in files:
        raise InputError(f"{source.path}: no train file; name it train.csv, .tsv, .jsonl or .parquet")
    named = {split: _read_split(files[split], text, label) for split in SPLITS if split in files}
    label_names = _label_names([label for _, labels in named.values() for label in labels])
    _check_classes(files, named)
    _check_overlap(files, named)
    index = {name: i for i, name in enumerate(label_names)}
    splits = {split: Split(texts, [index[y] for y in labels]) for split, (texts, labels) in named.items()}
    return Dataset(source.path.stem, label_names, splits, origin(source))


def _read_split(path: Path, text: str, label: str) -> tuple[list[str], list[str]]:
    texts: list[str] = []
    labels: list[str] = []
    for number, row in read_rows(path):
        for column in (text, label):
            if column not in row:
                have = ", ".join(map(str, row)) or "none"
                raise InputError(f"{path} line {number}: no column {column!r}; the columns are: {have}")
        texts.append(_text(path, number, text, row[text]))
        labels.append(_label(path, number, label, row[label]))
        if len(texts) > MAX_ROWS:
            raise InputError(f"{path}: over the limit of {MAX_ROWS} rows; split it")
    if not texts:
        raise InputError(f"{path}: no rows; give it a line for each text")
    return texts, labels


def _text(path: Path, number: int, column: str, value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise InputError(f"{path} line {number}: {column!r} is empty; fill it in or drop the row")
    if not isinstance(value, str):
        raise InputError(f"{path} line {number}: {column!r} is a {type(value).__name__}, not text")
    if len(value) > MAX_TEXT_CHARS:
        raise InputError(f"{path} line {number}: {len(value)} characters, over the limit of {MAX_TEXT_CHARS}")
    return value


def _label(path: Path, number: int, column: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        kind = type(value).__name__
        raise InputError(f"{path} line {number}: {column!r} is a {kind}, not a name or a whole number")
    name = "" if value is None else str(value).strip()
    if not name:
        raise InputError(f"{path} line {number}: {column!r} is missing; label the row or drop it")
    return name


def _label_names(labels: Iterable[str]) -> list[str]:
    names = set(labels)
    whole = all(name.lstrip("-").isdecimal() for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if whole else None)


def _check_classes(files: dict[str, Path], named: dict[str, tuple[list[str], list[str]]]) -> None:
    counts = Counter(named["train"][1])
    if len(counts) < 2:
        only = next(iter(counts))
        raise InputError(f"{files['train']}: one class only ({only!r}); a classifier needs two or more")
    few, rows = min(counts.items(), key=lambda item: (item[1], item[0]))
    if rows < MIN_ROWS_PER_CLASS:
        raise InputError(
            f"{files['train']}: class {few!r} has {rows} of the {MIN_ROWS_PER_CLASS} rows that are needed; "
            f"add rows or drop the class"
        )
    for split, (_, labels) in named.items():
        unknown = sorted(set(labels) - set(counts))
        if unknown:
            raise InputError(f"{files[split]}: label {unknown[0]!r} is not in the train rows; add it there")


def _check_overlap(files: dict[str, Path], named: dict[str, tuple[list[str], list[str]]]) -> None:
    seen: dict[str, set[str]] = {split: {t.strip() for t in texts} for split, (texts, _) in named.items()}
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        both = len(seen.get(first, set()) & seen.get(second, set()))
        if both:
            raise InputError(
                f"{files[second]}: {both} of its texts stand in {files[first].name} too; "
                f"drop them from one of the two"
            )


# published data sets


def _from_index(source: Source) -> Dataset:
    entry = index_entry(source.name, "data")
    assert entry is not None
    if "splits" not in entry:
        raise InputError(f"{source.name}: holds a series, not labelled texts; see trainers/series_sets.py")
    columns = entry.get("columns")
    named = {
        split: _read_columns(source.path / file, columns) if columns else _read_tab(source.path / file)
        for split, file in entry["splits"].items()
    }
    raw = _label_names(label for labels, _ in named.values() for label in labels)
    index = {name: i for i, name in enumerate(raw)}
    splits = {split: Split(texts, [index[y] for y in labels]) for split, (labels, texts) in named.items()}
    readable = entry.get("labels", {})
    about = {**origin(source), "licence": entry["licence"]}
    return Dataset(source.name, [readable.get(name, name) for name in raw], splits, about)


def _read_tab(path: Path) -> tuple[list[str], list[str]]:
    """Labels and texts of an Orange tab file: a header, two lines of column types, then the rows."""
    lines = path.read_text(encoding="utf-8").split("\n")[3:]
    rows = [line.split("\t", 1) for line in lines if line.strip()]
    return [row[0] for row in rows], [row[1] for row in rows]


def _read_columns(path: Path, columns: dict[str, str]) -> tuple[list[str], list[str]]:
    """Labels and texts of a parquet table; rows without a text are left out."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=[columns["label"], columns["text"]])
    labels, texts = (column.to_pylist() for column in table.columns)
    rows = [(str(y), text) for y, text in zip(labels, texts, strict=True) if text and text.strip()]
    return [y for y, _ in rows], [text for _, text in rows]


def _from_hub_layout(source: Source, text: str, label: str, config: str | None) -> Dataset:
    rows = _open_hub_layout(source, config)
    splits: dict[str, Split] = {}
    names: list[str] | None = None
    for split, table in rows.items():
        for column in (text, label):
            if column not in table.column_names:
                have = ", ".join(table.column_names)
                raise InputError(f"{source.name} {split}: no column {column!r}; the columns are: {have}")
        names = names or getattr(table.features[label], "names", None)
        splits[split] = (list(table[text]), list(table[label]))  # type: ignore[assignment]
    return _named(source, splits, names)  # type: ignore[arg-type]


def _open_hub_layout(source: Source, config: str | None) -> dict[str, Any]:
    import datasets

    from trainers.sources import cache_folder

    datasets.utils.logging.disable_progress_bar()
    try:
        cache = str(cache_folder() / "datasets")
        opened: Any = datasets.load_dataset(str(source.path), config, cache_dir=cache)
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{source.name}: cannot be read as a data set ({reason})") from None
    rows = {_ALIASES[name]: table for name, table in opened.items() if name in _ALIASES}
    if "train" not in rows:
        raise InputError(f"{source.name}: no train split; it has {', '.join(opened)}")
    return rows


def _named(source: Source, rows: dict[str, tuple[list[Any], list[Any]]], names: list[str] | None) -> Dataset:
    """Label names to indices; a split whose labels are all withheld (-1) is left out."""
    rows = {split: row for split, row in rows.items() if not all(y in (-1, None) for y in row[1])}
    if names is None:
        names = _label_names(str(y) for _, labels in rows.values() for y in labels)
        index = {name: i for i, name in enumerate(names)}
        rows = {split: (texts, [index[str(y)] for y in labels]) for split, (texts, labels) in rows.items()}
    splits: dict[str, Split] = {}
    for split, (texts, labels) in rows.items():
        for i, (t, y) in enumerate(zip(texts, labels, strict=True)):
            if not isinstance(t, str) or not isinstance(y, int) or not 0 <= y < len(names):
                raise InputError(f"{source.name} {split} row {i}: no text or no label; clean this set first")
        splits[split] = Split(texts, labels)
    if "train" not in splits:
        raise InputError(f"{source.name}: the train split has no labels")
    return Dataset(source.name, names, splits, origin(source))


# save and open


def save_data(dataset: Dataset, folder: Path) -> Path:
    """Write <split>.jsonl of {"text", "label"} and data.json, the folder whole or not at all."""
    with writing(folder) as new:
        for split, rows in dataset.splits.items():
            with (new / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
                for text, label in zip(rows.texts, rows.labels, strict=True):
                    row = {"text": text, "label": dataset.label_names[label]}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        files = {f"{split}.jsonl": sha256_file(new / f"{split}.jsonl") for split in dataset.splits}
        meta = {"schema": 1, "name": dataset.name, "label_names": dataset.label_names, "files": files}
        write_json(new / "data.json", {**meta, "source": dataset.source})
    return folder


def open_data(folder: Path) -> Dataset:
    """Open what `save_data` wrote; InputError where a file is missing or altered."""
    meta = read_json(folder / "data.json")
    try:
        names, files = list(meta["label_names"]), dict(meta["files"])
        dataset = Dataset(str(meta["name"]), names, {}, dict(meta["source"]))
    except (TypeError, KeyError) as error:
        where = folder / "data.json"
        raise InputError(f"{where}: {error} missing or wrong; prepare the data again") from None
    index = {name: i for i, name in enumerate(names)}
    splits: dict[str, Split] = {}
    for split in (s for s in SPLITS if f"{s}.jsonl" in files):
        path = folder / f"{split}.jsonl"
        if not path.is_file() or sha256_file(path) != files[path.name]:
            raise InputError(f"{path}: missing or altered; prepare the data again")
        rows = [row for _, row in read_rows(path)]
        splits[split] = Split([row["text"] for row in rows], [index[row["label"]] for row in rows])
    return replace(dataset, splits=splits)

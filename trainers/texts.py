"""Running text in splits: what a text generator is measured on (test) and its rounding fitted to (train)."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.data import load_data, load_texts, origin
from trainers.files import digest_of, read_json, sha256_file, write_json
from trainers.readers import decode, read_rows
from trainers.sources import Source, find

SPLITS = ("train", "test")
WIKITEXT = "wikitext"
LEAST = 2
_TEST_PART = 5  # where nothing is set aside, every fifth text is


@dataclass(frozen=True)
class Texts:
    """`splits` has train and test, texts of some sentences each. `source` as in `trainers.data.Dataset`."""

    name: str
    splits: dict[str, list[str]] = field(repr=False)
    source: dict[str, Any]

    @property
    def digest(self) -> str:
        """sha256 over the texts, in their order."""
        return digest_of({name: json.dumps(texts) for name, texts in self.splits.items()})


def running_texts(name_or_path: str, column: str = "text") -> Texts:
    """Texts of a data set by name, of a folder that `save_texts` wrote, or of a file: .txt (paragraphs), or
    one that `trainers.readers` reads, of whose rows one column is taken.

    A set without a test split gets one: every fifth text. WikiText is read as plain English (see `_plain`).
    Raises InputError where there are none, or fewer than two.
    """
    folder = Path(name_or_path)
    if is_texts(folder):
        return open_texts(folder)
    source = find(name_or_path, "data")
    if source.place != "index" and list(source.path.glob(f"{WIKITEXT}-2*")):
        splits = {"train": _wikitext(source, "validation"), "test": _wikitext(source, "test")}
    elif source.path.is_file() and source.path.suffix == ".txt":
        text = decode(source.path, source.path.read_bytes())
        splits = _set_aside([part.strip() for part in re.split(r"\n\s*\n", text)])
    elif source.place == "index":
        found = load_data(name_or_path).splits
        splits = {name: rows.texts for name, rows in found.items() if name in SPLITS}
        splits = splits if "test" in splits else _set_aside(splits["train"])
    else:
        splits = _set_aside(load_texts(name_or_path, column))
    kept = {name: [text for text in texts if text.strip()] for name, texts in splits.items()}
    if len(kept["train"]) < 1 or len(kept["test"]) < 1:
        raise InputError(f"{source.name}: at least {LEAST} texts are needed, one of them to measure on")
    return Texts(source.name if source.place != "file" else source.path.name, kept, origin(source))


def _set_aside(texts: Sequence[str]) -> dict[str, list[str]]:
    texts = [text for text in texts if text.strip()]
    test = set(range(len(texts) - 1, -1, -_TEST_PART))
    return {
        "train": [text for row, text in enumerate(texts) if row not in test],
        "test": [text for row, text in enumerate(texts) if row in test],
    }


def _wikitext(source: Source, split: str) -> list[str]:
    """Paragraphs of WikiText-2 (Merity et al. 2016), which is split into words, as they were written."""
    files = sorted(source.path.glob(f"{WIKITEXT}-2*/{split}*.parquet"))
    if not files:
        raise InputError(f"{source.name}: no {split} split of WikiText-2 in {source.path}")
    lines = [str(row["text"]).strip() for file in files for _, row in read_rows(file)]
    plain = [_plain(line) for line in lines if not line.startswith("=")]
    return [line for line in plain if len(line) >= 200]


def _plain(line: str) -> str:
    """Without the spaces that stand around signs; a sentence with an unknown word in it is left out."""
    whole = " ".join(one for one in re.split(r"(?<= [.!?]) ", line) if "<unk>" not in one)
    whole = re.sub(r" @([-,.])@ ", r"\1", whole)
    whole = re.sub(r" ([,.;:!?)\]%]|'s\b|n't\b)", r"\1", whole)
    return re.sub(r'" ([^"]*) "', r'"\1"', re.sub(r"([(\[$]) ", r"\1", whole))


def is_texts(folder: Path) -> bool:
    """Whether `save_texts` wrote it."""
    file = folder / "data.json"
    return file.is_file() and read_json(file).get("kind") == "texts"


def save_texts(texts: Texts, folder: Path) -> Path:
    """Write <split>.jsonl of {"text"} and data.json, the folder whole or not at all."""
    with writing(folder) as new:
        for split, rows in texts.splits.items():
            lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in rows]
            (new / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
        files = {f"{split}.jsonl": sha256_file(new / f"{split}.jsonl") for split in texts.splits}
        meta = {"schema": 1, "kind": "texts", "name": texts.name, "files": files, "source": texts.source}
        write_json(new / "data.json", meta)
    return folder


def open_texts(folder: Path) -> Texts:
    """What `save_texts` wrote. InputError where a file is missing or altered."""
    meta, splits = read_json(folder / "data.json"), {}
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        if not path.is_file() or sha256_file(path) != meta["files"].get(path.name):
            raise InputError(f"{path}: missing or altered; prepare the data again")
        splits[split] = [str(row["text"]) for _, row in read_rows(path)]
    return Texts(str(meta["name"]), splits, dict(meta["source"]))


def windows(texts: Sequence[str], codec: Any, length: int, most: int) -> list[list[int]]:
    """Token ids of up to `most` stretches of `length` tokens, spread evenly over the texts put in a row.

    One stretch, and a shorter one, where there are no more tokens than that. `codec` is a
    `runtimes.codec.Codec`. Raises InputError for fewer than two tokens.
    """
    joined = "\n".join(texts)
    ids = list(codec.encode(joined[: 24 * length * most]))  # no token is longer, as a rule
    if len(ids) < 2:
        raise InputError("the texts hold fewer than two tokens; give longer ones")
    if len(ids) <= length:
        return [ids]
    count = min(most, len(ids) // length)
    step = len(ids) // count
    return [ids[at * step : at * step + length] for at in range(count)]

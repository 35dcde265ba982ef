"""The series of a recipe, kept on disk, and what is cut out of them for export, gate and bench."""

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from runtimes import windows
from runtimes.errors import InputError
from runtimes.files import writing
from runtimes.profile import scales
from trainers.files import digest_of, read_json, sha256_file, write_json
from trainers.series import Series, SeriesConfig, read_series

MOST_WINDOWS = 20_000
_KIND = "series"


@dataclass(frozen=True)
class SeriesData:
    """Series with a part to train on and a rest; `source` has name, place, revision and digest."""

    name: str
    series: list[Series] = field(repr=False)
    source: dict[str, Any]


def prepare_series(name: str, config: SeriesConfig) -> SeriesData:
    """Read the series that a recipe names, and say where they came from. Raises InputError.

    One of the published sets by its short name (`trainers.series_sets`) has training parts of its own; for
    the rest `config` counts.
    """
    from trainers.series_sets import read_set, set_names
    from trainers.sources import find

    if name in set_names():
        found = read_set(name)
        parts = {str(n): sha256(one.values.tobytes()).hexdigest() for n, one in enumerate(found)}
        return SeriesData(name, found, {"name": name, "revision": None, "digest": digest_of(parts)})
    source = find(name, "data")
    found = read_series(name, config)
    told = {"name": name, "place": source.place, "revision": source.revision, "digest": source.digest}
    return SeriesData(Path(name).stem, found, told)


def save_series(data: SeriesData, folder: Path) -> Path:
    """Write one .npz a series and data.json, the folder whole or not at all."""
    with writing(folder) as new:
        rows = []
        for number, one in enumerate(data.series):
            file = f"{number:05}.npz"
            arrays = {"times": one.times, "values": one.values}
            if one.labels is not None:
                arrays["labels"] = np.asarray(one.labels, bool)
            np.savez_compressed(new / file, allow_pickle=False, **arrays)  # type: ignore[arg-type]
            about = {key: getattr(one, key) for key in ("name", "family", "train_end", "step", "notes")}
            rows.append({**about, "names": list(one.names), "file": file, "sha256": sha256_file(new / file)})
        meta = {"schema": 1, "kind": _KIND, "name": data.name, "source": data.source, "series": rows}
        write_json(new / "data.json", meta)
    return folder


def is_series(folder: Path) -> bool:
    """Whether `save_series` wrote this folder."""
    meta = read_json(folder / "data.json")
    return isinstance(meta, dict) and meta.get("kind") == _KIND


def open_series(folder: Path) -> SeriesData:
    """Open what `save_series` wrote. Raises InputError where a file is missing or altered."""
    meta = read_json(folder / "data.json")
    try:
        rows, name, source = list(meta["series"]), str(meta["name"]), dict(meta["source"])
        found = [_read(folder, row) for row in rows]
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{folder / 'data.json'}: {error} is wrong; prepare the data again") from None
    return SeriesData(name, found, source)


def _read(folder: Path, row: dict[str, Any]) -> Series:
    path = folder / Path(str(row["file"])).name
    if not path.is_file() or sha256_file(path) != row["sha256"]:
        raise InputError(f"{path}: missing or altered; prepare the data again")
    with np.load(path, allow_pickle=False) as arrays:
        labels = arrays["labels"] if "labels" in arrays.files else None
        return Series(
            row["name"], row["family"], arrays["times"], arrays["values"], tuple(row["names"]), labels,
            int(row["train_end"]), float(row["step"]), dict(row["notes"]),
        )  # fmt: skip


def windows_of(data: SeriesData, window: int, patch: int, rest: bool = False) -> list[np.ndarray]:
    """Normalised float32 windows (window,) as the graph takes them, one a hop of `patch` points.

    Of the training parts, or of the `rest` behind them; of many, evenly spaced ones. Series are scaled by
    their training part, as a profile does it; windows with too many gaps are left out.
    """
    found: list[np.ndarray] = []
    for one in data.series:
        start = max(one.train_end - window, 0) if rest else 0
        part = one.values[start:] if rest else one.values[: one.train_end]
        ends = np.arange(window, len(part) + 1, patch)
        if not len(ends) or one.train_end < 1:
            continue
        with np.errstate(all="ignore"):
            centre, scale, _ = scales(one.values[: one.train_end])
        raw = windows.cut((part - centre) / scale, window, ends).reshape(-1, window)
        seen = (~np.isnan(raw)).mean(axis=1) >= windows.SEEN
        found.append(windows.normalise(windows.bridge(raw[seen]))[0])
    rows = np.concatenate(found) if found else np.empty((0, window), np.float32)
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_WINDOWS)).astype(int))
    return list(rows[chosen]) if len(rows) else []

"""The published sets that detectors are judged on, and which part of each series they may train on.

- nab: 58 series in 7 families. Training part: NAB's own probation, the first 15% of at most 5,000
  points; two short series get 200 points instead of 186, as a detector needs that many.
- skab: 34 files of a water circulation test bed. Training part: the first 400 points, as its authors have it
  (in one file the anomaly starts before that). The anomaly-free file is a family of its own, half and half.
- smd: 8 server machines of 38 channels. Training part: their own, before the labelled part.
- ucr: series of the UCR anomaly archive. Training part: their own.
- ecg: heart beats. Training part: the first 10%, which holds some odd beats too, as it would in life.

Rows stay as published: put in order and, where a time is repeated, merged; never resampled.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import InputError
from trainers.series import Series, merge, with_train
from trainers.sources import find

NAB_PROBATION = (0.15, 5000)
NAB_LEAST = 200
SKAB_TRAIN = 400
ECG_TRAIN = 0.1
ANOMALY_FREE = "skab-anomaly-free"
# Sampling of the ECGs: the supraventricular records have 128 Hz, the arrhythmia database 360 Hz.
_ECG_STEP, _MITDB_STEP = 1 / 128, 1 / 360


def set_names() -> list[str]:
    """The names that `read_set` takes."""
    return list(_readers())


def read_set(name: str) -> list[Series]:
    """The series of one set, in a fixed order. From the mirror, or what the package index has of it (one
    series of ucr, one ecg). InputError for a name that is none, or a set that is nowhere to be had."""
    readers = _readers()
    if name not in readers:
        raise InputError(f"no set is called {name!r}; there are {', '.join(readers)}")
    return readers[name]()


def _readers() -> dict[str, Callable[[], list[Series]]]:
    return {"nab": read_nab, "skab": read_skab, "smd": read_smd, "ucr": read_ucr, "ecg": read_ecg}


def _tables(folder: Path) -> Iterable[tuple[Path, Any]]:
    import pandas as pd

    for path in sorted(folder.rglob("*.parquet")):
        yield path, pd.read_parquet(path)


def _seconds(times: Any) -> np.ndarray:
    whole: np.ndarray = times.to_numpy().astype("datetime64[us]").astype(np.int64)
    return whole / 1e6


def _rows(
    name: str, family: str, times: np.ndarray, values: np.ndarray, labels: np.ndarray, names: Iterable[str]
) -> Series:
    """A series of rows with their own times; its training part is yet to be set."""
    times, values, marks, notes = merge(times, values.astype(np.float64), labels.astype(bool))
    step = float(np.median(np.diff(times)))
    return Series(name, family, times, values, tuple(names), marks, 0, step, notes)


def read_nab() -> list[Series]:
    """numenta/nab: 58 univariate series; the family is its folder."""
    found = []
    for path, table in _tables(find("numenta/nab").path):
        for name, rows in table.groupby("series", sort=True):
            times, values = _seconds(rows["timestamp"]), rows["value"].to_numpy()[:, None]
            short = str(name).rsplit("/", 1)[-1].removesuffix(".csv")
            one = _rows(short, f"nab-{path.parent.name}", times, values, rows["label"].to_numpy(), ("value",))
            share, most = NAB_PROBATION
            found.append(with_train(one, max(NAB_LEAST, int(share * min(len(one), most)))))
    return found


def read_skab() -> list[Series]:
    """waico/skab: 34 labelled files of 8 channels, and the anomaly-free one."""
    found = []
    for path, table in _tables(find("waico/skab").path):
        channels = list(table.columns[1:9])
        for name, rows in table.groupby("file", sort=True):
            labels = rows["anomaly"].fillna(0).to_numpy()
            free = path.parent.name == "anomaly-free"
            family = ANOMALY_FREE if free else "skab"
            short = ANOMALY_FREE if free else f"{path.parent.name}-{str(name).removesuffix('.csv')}"
            one = _rows(
                short, family, _seconds(rows["datetime"]), rows[channels].to_numpy(), labels, channels
            )
            found.append(with_train(one, len(one) // 2 if free else SKAB_TRAIN))
    return found


def read_smd() -> list[Series]:
    """netmanaiops/smd: the train rows of a machine and then its test rows, a minute apart."""
    folder = find("netmanaiops/smd").path / "data"
    (_, test), (_, train) = _tables(folder)
    found = []
    for name, rows in test.groupby("machine", sort=True):
        first = train[train["machine"] == name]
        channels = [column for column in rows.columns if column.startswith("f")]
        values = np.concatenate([first[channels].to_numpy(), rows[channels].to_numpy()])
        labels = np.concatenate([np.zeros(len(first), bool), rows["label"].to_numpy() > 0])
        one = _rows(str(name), "smd", np.arange(len(values)) * 60.0, values, labels, channels)
        found.append(with_train(one, len(first)))
    return found


def read_ucr() -> list[Series]:
    """Series of the UCR anomaly archive, a second apart by convention: four from the mirror, else one."""
    try:
        folder = find("tsb/univariate-samples").path / "ucr"
    except InputError:
        return [_ucr_from_index()]
    import pandas as pd

    table = pd.concat([table for _, table in _tables(folder)])
    found = []
    for name, rows in table.sort_values(["series", "t"]).groupby("series", sort=True):
        values = rows["value"].to_numpy()[:, None]
        one = _rows(str(name), "ucr", rows["t"].to_numpy(float), values, rows["label"].to_numpy(), ("value",))
        found.append(with_train(one, int((rows["part"] == "train").sum())))
    return found


def _ucr_from_index() -> Series:
    import pandas as pd

    source = find("ucr/internal-bleeding-16")
    rows = pd.read_csv(next(source.path.glob("*_TEST.csv")))
    name = "135_UCR_Anomaly_InternalBleeding16_1200_4187_4199"
    times, values = rows["timestamp"].to_numpy(float), rows["value"].to_numpy()[:, None]
    return with_train(_rows(name, "ucr", times, values, rows["is_anomaly"].to_numpy(), ("value",)), 1200)


def read_ecg() -> list[Series]:
    """Three records of TSB-UAD's ECG part where the mirror has them, and an excerpt of MIT-BIH."""
    import pandas as pd

    found = []
    try:
        folder = find("tsb/univariate-samples").path / "ecg"
    except InputError:
        folder = Path()
    for _, table in _tables(folder) if folder.name else ():
        for name, rows in table.groupby("series", sort=True):
            times, values = rows["t"].to_numpy() * _ECG_STEP, rows["value"].to_numpy()[:, None]
            found.append(_rows(str(name), "ecg", times, values, rows["label"].to_numpy(), ("value",)))
    rows = pd.read_csv(find("physionet/mitdb").path / "mitdb.csv")
    times, values = np.arange(len(rows)) * _MITDB_STEP, rows["data"].to_numpy()[:, None]
    found.append(_rows("mitdb", "ecg", times, values, rows["label"].to_numpy(), ("value",)))
    return [with_train(one, int(ECG_TRAIN * len(one))) for one in found]

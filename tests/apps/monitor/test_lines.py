"""Points from lines: what is read, what is refused, and that nothing grows."""

import json
import math
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from apps.monitor import lines as module
from apps.monitor.lines import Lines, parse_time, read_batches
from runtimes.errors import InputError


def read(*rows: str, start: float = 0.0):
    told: list[str] = []
    lines = Lines(told.append, start)
    return lines.batch([row.encode() for row in rows]), told, lines


def test_csv_with_a_header_and_labels_left_out():
    batch, told, _ = read("time,load,label", "2026-01-01T00:00:00Z,1.5,0", "2026-01-01T00:01:00Z,,1")
    assert batch.names == ("load",) and not told
    assert np.diff(batch.times).tolist() == [60.0] and math.isnan(batch.values[1, 0])


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_numbers_alone_are_channels_a_second_apart(mark):
    batch, told, _ = read(f"1{mark}2", f"3{mark}4", start=100.0)
    assert batch.names == ("c0", "c1") and batch.times.tolist() == [101.0, 102.0] and not told
    assert batch.values.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_json_objects_lack_and_have_more():
    rows = [{"ts": 1_700_000_000, "a": 1, "b": 2, "note": "x"}, {"ts": 1_700_000_001_000, "b": 3, "z": 9}]
    batch, told, _ = read(*map(json.dumps, rows))
    assert batch.names == ("a", "b") and not told
    assert batch.times.tolist() == [1_700_000_000, 1_700_000_001] and math.isnan(batch.values[1, 0])


def test_the_units_of_times():
    for unit in (1, 1e3, 1e6, 1e9):
        assert parse_time(1_700_000_000 * unit) == 1_700_000_000
    assert parse_time("2026-01-01 02:00:00+02:00") == parse_time("2026-01-01T00:00:00") == 1_767_225_600
    for wrong in ("", "soon", float("nan"), True, None, 1e30, [1]):
        with pytest.raises((ValueError, TypeError)):
            parse_time(wrong)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("1,2,3", "3 fields, not 2"),
        ("x", "1 fields, not 2"),
        ("soon,2", "isoformat"),
        ("1,high", "could not convert"),
        ("\udcff,1", "decode"),
    ],
)
def test_a_bad_line_is_told_and_left_out(row, why):
    told: list[str] = []
    lines = Lines(told.append)
    batch = lines.batch([b"time,load", row.encode("utf-8", "surrogateescape"), b"1,2"])
    assert batch.values.tolist() == [[2.0]] and lines.bad == 1
    assert why in told[0] and told[0].startswith("line 2: ") and told[0].endswith("; left out")


def test_many_bad_lines_are_only_counted():
    told: list[str] = []
    lines = Lines(told.append)
    lines.batch([b"time,load"] + [b"broken"] * 1_000)
    assert lines.bad == 1_000 and len(told) == module.TELL and "only counted" in told[-1]


@pytest.mark.parametrize("first", ["time", "a,a", ",".join(map(str, range(600))), '{"a": "x"}'])
def test_a_first_line_without_channels_is_refused(first):
    with pytest.raises(InputError, match="the first line"):
        read(first)


@given(some.lists(some.binary(max_size=60), max_size=20))
def test_whatever_comes_is_points_or_told(rows):
    lines = Lines(lambda line: None)
    try:
        batch = lines.batch(rows)
    except InputError:
        return
    assert batch.values.shape == (len(batch.times), len(batch.names))
    assert np.isfinite(batch.times).all() and not np.isinf(batch.values).any()


def test_a_pipe_is_read_as_it_comes(monkeypatch):
    """Pieces of lines, a line without an end that is too long, silence, and no newline at the end."""
    monkeypatch.setattr(module, "WAIT_S", 0.02)
    out, into = os.pipe()
    quiet = threading.Event()

    def write():
        os.write(into, b"time,load\n1,1")
        quiet.wait(5)
        os.write(into, b"0\n")
        os.write(into, b"9" * (3 * module.MAX_LINE))
        os.write(into, b"\n2,20\n3,30")
        os.close(into)

    thread = threading.Thread(target=write)
    thread.start()
    told: list[str] = []
    found, empty = [], 0
    for batch in read_batches(out, Lines(told.append)):
        found += batch.values.ravel().tolist()
        empty += not len(batch.times)
        quiet.set() if empty else None
    thread.join()
    os.close(out)
    assert found == [10.0, 20.0, 30.0] and empty and "64 KB without an end" in told[0] and len(told) == 1


def test_a_time_far_ahead_is_left_out():
    batch, told, _ = read("time,a", "1700000000,1", "99999999999,2", "1700000001,3")
    assert batch.times.tolist() == [1_700_000_000, 1_700_000_001]
    assert len(told) == 1 and "ahead of this machine's clock" in told[0]


def test_bare_numbers_may_begin_with_unix_time():
    batch, told, _ = read("1700000000,5,6", "1700000060,7,8")
    assert batch.names == ("c0", "c1") and not told
    assert batch.times.tolist() == [1_700_000_000, 1_700_000_060] and batch.values[1].tolist() == [7, 8]


def test_what_is_not_finite_is_told():
    batch, told, _ = read("a", "1", "inf", "1e400", "2")
    assert batch.values[:, 0].tolist() == [1, 2] and len(told) == 2 and "not finite" in told[0]


def test_names_that_would_steer_a_terminal_are_refused():
    with pytest.raises(InputError, match="cannot be printed"):
        read("\x1b[31mred,b", "1,2")

"""`edgewise run --stream`: what it finds, that it goes on after kill -9, that it stays small."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from tiny_monitor import STEP, csv, values

from apps.cli.main import run
from apps.monitor.machine import NAMES, machine_batches
from device_bench.child import rss_mb

LEARN = 2_000
LONG = 5_000


@pytest.fixture(scope="module")
def series():
    """Normal points with a spike, a drift and a stuck sensor, far apart: (points, kind → (start, end))."""
    points = values(LONG, seed=3)
    points[2500:2503, 0] += 12
    points[3200:3400, 1] += np.linspace(0, 4, 200)
    points[4000:4120, 0] = points[4000, 0]
    return points, {"spike": (2500, 2503), "drift": (3200, 3400), "stuck": (4000, 4120)}


def rows_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def streamed(bundle, file, *more, capsys):
    words = ["run", str(bundle), "--stream", "--file", str(file), "--learn", str(LEARN), "--json"]
    assert run([*words, "--variant", "tflite-full_int8", *more]) == 0
    return rows_of(capsys.readouterr().out)


def test_a_spike_a_drift_and_a_stuck_sensor_are_found(detector_bundle, series, tmp_path, capsys):
    points, put = series
    (tmp_path / "odd.csv").write_text(csv(points))
    rows = streamed(detector_bundle, tmp_path / "odd.csv", capsys=capsys)
    assert rows[0]["kind"] == "learned" and rows[0]["step"] == STEP
    assert rows[-1] == {"kind": "end", "points": LONG, "late": 0, "learned": True}
    first = float(csv(points).splitlines()[1].split(",")[0])

    def place(row, key):
        return (row[key] - first) / STEP

    scores = {int(place(row, "time")): row["score"] for row in rows if row["kind"] == "point"}
    calm = max(scores[n] for n in range(LEARN, 2_490))
    alarms = [row for row in rows if row["kind"] in ("opened", "closed")]
    for kind, (start, end) in put.items():
        assert max(scores[n] for n in range(start, end + 40)) > 3 * calm, kind
        assert any(place(row, "start") <= end + 40 and place(row, "end") >= start for row in alarms), kind


def test_a_batch_gives_the_very_scores(detector_bundle, series, tmp_path, capsys):
    import edgewise

    points, _ = series
    (tmp_path / "odd.csv").write_text(csv(points))
    rows = streamed(detector_bundle, tmp_path / "odd.csv", capsys=capsys)
    got = np.array([row["score"] for row in rows if row["kind"] == "point"])
    model = edgewise.load(detector_bundle, variant="tflite-full_int8", threads=1)
    rounded = np.round(points, 4)
    wanted = model.score(rounded, model.fit(rounded[:LEARN], ("load", "warmth"), STEP)).score
    np.testing.assert_allclose(got, wanted[LEARN:], rtol=1e-4, atol=1e-4)


def started(bundle, state, *more, out, err=subprocess.DEVNULL):
    command = [sys.executable, "-m", "apps.cli", "run", str(bundle), "--stream", "--learn", str(LEARN),
               "--json", "--state", str(state), "--variant", "onnx-int8", *more]  # fmt: skip
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=err)


def told_is_saved(log, state) -> bool:
    """Whether all alarms that were told are in the state: between the two a kill would tell one twice."""
    told = rows_of(log.read_text().rpartition("\n")[0])
    opened = sum(row["kind"] == "opened" for row in told)
    still = sum(row["kind"] == "closed" for row in told) < opened
    alarms = json.loads(state.read_text())["alarms"] if state.exists() else {"told": 0, "run": None}
    return alarms["told"] == opened and bool(alarms["run"] and alarms["run"]["open"]) == still


def test_kill_and_restart_tells_each_alarm_once(detector_bundle, series, tmp_path, capsys):
    """kill -9 in the middle of the stream; then the whole file again, as a collector would send it."""
    points, _ = series
    (tmp_path / "odd.csv").write_text(csv(points))
    whole = streamed(detector_bundle, tmp_path / "odd.csv", "--variant", "onnx-int8", capsys=capsys)
    state, log = tmp_path / "state.json", tmp_path / "log"
    with log.open("wb") as out:
        child = started(detector_bundle, state, out=out)
        assert child.stdin is not None
        child.stdin.write(csv(points[:2600]).encode())
        child.stdin.flush()
        while b'"opened"' not in log.read_bytes():
            assert child.poll() is None
            time.sleep(0.02)
        child.stdin.write(csv(points[2600:3300], 2600, header=False).encode())
        child.stdin.flush()
        while log.read_bytes().count(b'"point"') < 1_200 or not told_is_saved(log, state):
            assert child.poll() is None
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    before = rows_of(log.read_text().rpartition("\n")[0])
    after = streamed(
        detector_bundle, tmp_path / "odd.csv", "--variant", "onnx-int8", "--state", str(state), capsys=capsys
    )
    assert not [row for row in after if row["kind"] == "learned"]
    assert after[-1]["late"] >= 2_600

    def alarms(rows):
        return [(row["kind"], row["id"]) for row in rows if row["kind"] in ("opened", "closed")]

    assert alarms(before) and alarms(before) + alarms(after) == alarms(whole)
    scores = {row["time"]: row["score"] for row in whole if row["kind"] == "point"}
    again = {row["time"]: row["score"] for row in (*before, *after) if row["kind"] == "point"}
    assert again.keys() == scores.keys()
    assert max(abs(again[when] - scores[when]) for when in scores) < 1e-3


def test_sigterm_saves_what_is_learned_so_far(detector_bundle, tmp_path):
    """A line that is none is told at once: then it is past its start-up, where SIGTERM would just end it."""
    state = tmp_path / "state.json"
    child = started(detector_bundle, state, out=subprocess.DEVNULL, err=subprocess.PIPE)
    assert child.stdin is not None and child.stderr is not None
    child.stdin.write((csv(values(200)) + "no point\n").encode())
    child.stdin.flush()
    while b"left out" not in (line := child.stderr.readline()):
        assert line, "it ended"
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    told = json.loads(state.read_text())
    assert told["seen"] == 200 and "profile" not in told and len(base64.b64decode(told["times"])) == 1_600


def test_another_series_or_a_broken_state_is_refused(detector_bundle, tmp_path, capsys):
    (tmp_path / "one.csv").write_text(csv(values(2_200)))
    (tmp_path / "other.csv").write_text("time,heat\n1700009000,1\n1700099000,1\n")
    state = tmp_path / "state.json"
    streamed(detector_bundle, tmp_path / "one.csv", "--state", str(state), capsys=capsys)
    words = ["run", str(detector_bundle), "--stream", "--file", str(tmp_path / "other.csv")]
    assert run([*words, "--state", str(state)]) == 2
    assert "the channels are heat, not load, warmth as before" in capsys.readouterr().err
    whole = json.loads(state.read_text())
    for wrong in ("", "{}", "[]", json.dumps(whole | {"schema": 9}), json.dumps(whole | {"profile": {}}),
                  json.dumps(whole | {"stream": {}}), json.dumps(whole | {"last": "soon"})):  # fmt: skip
        state.write_text(wrong)
        assert run([*words, "--state", str(state)]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith(f"edgewise: {state}: "), said


def test_points_that_come_late_or_twice_are_counted(detector_bundle, tmp_path, capsys):
    rows = csv(values(2_200)).splitlines()
    rows = [*rows[:1100], rows[1050], rows[1099], *rows[1100:]]
    (tmp_path / "twice.csv").write_text("\n".join(rows))
    told = streamed(detector_bundle, tmp_path / "twice.csv", capsys=capsys)
    assert told[-1] == {"kind": "end", "points": 2_200, "late": 2, "learned": True}


def test_memory_stays_flat(detector_bundle, tmp_path):
    """Half a million points; `python -m apps.monitor.footprint` does ten million."""
    with (tmp_path / "log").open("wb") as out:
        child = started(detector_bundle, tmp_path / "state.json", out=out)
        assert child.stdin is not None
        status, held = Path(f"/proc/{child.pid}/status"), []
        for block in range(10):
            child.stdin.write(csv(values(50_000, block), 50_000 * block, header=block == 0).encode())
            held.append(rss_mb(status))
            out.truncate(0)
        child.stdin.close()
        assert child.wait() == 0
    assert max(held[5:]) - min(held[5:]) < 4, held
    assert json.loads((tmp_path / "state.json").read_text())["seen"] == 500_000
    assert (tmp_path / "state.json").stat().st_size < 20_000


def test_this_machine_is_a_series():
    first, second = islice(machine_batches(0.05), 2)
    assert first.names == NAMES and first.values.shape == (1, 6)
    assert 0 <= first.values[0, 1] <= 100 and second.times[0] > first.times[0]
    assert (first.values[0, 2:][np.isfinite(first.values[0, 2:])] >= 0).all()


@pytest.mark.parametrize("threshold", ["often", "nan", "inf", ""])
def test_a_threshold_that_is_none_is_refused(detector_bundle, threshold, capsys):
    assert run(["run", str(detector_bundle), "--stream", "--threshold", threshold]) == 2
    assert "give pot, quantile, spot or a score" in capsys.readouterr().err


def test_thresholds_and_drift_on_the_command_line(detector_bundle, tmp_path, capsys):
    points = np.concatenate([values(5_500), values(2_000, 1) * 2])
    (tmp_path / "moved.csv").write_text(csv(points))
    for threshold in ("3.5", "quantile", "spot"):
        rows = streamed(detector_bundle, tmp_path / "moved.csv", "--threshold", threshold, capsys=capsys)
        drifts = [row for row in rows if row["kind"] == "drift"]
        assert len(drifts) == 1 and drifts[0]["time"] > rows[-2]["time"] - 60 * 2_000
        assert threshold != "3.5" or rows[0]["threshold"] == 3.5
    words = ["run", str(detector_bundle), "--stream", "--file", str(tmp_path / "moved.csv")]
    assert run([*words, "--state", str(tmp_path / "state")]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("drift ")]
    assert len(said) == 1 and "usual spreads" in said[0]
    assert run([*words, "--threshold", "quantile", "--state", str(tmp_path / "state")]) == 2
    assert json.loads((tmp_path / "state").read_text())["drift"]["drifted"]

"""`edgewise run --stream`: what it finds, that it goes on after kill -9, that it stays small."""

import json
import os
import signal
import subprocess
import sys
import time
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


def started(bundle, state, *more, out):
    command = [sys.executable, "-m", "apps.cli", "run", str(bundle), "--stream", "--learn", str(LEARN),
               "--json", "--state", str(state), "--variant", "onnx-int8", *more]  # fmt: skip
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL)


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
        while log.read_bytes().count(b'"point"') < 1_200:
            assert child.poll() is None
            time.sleep(0.02)
        time.sleep(
            1
        )  # what was told is saved then: between the two an alarm would come twice, by the same id
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
    state = tmp_path / "state.json"
    with (tmp_path / "log").open("wb") as out:
        child = started(detector_bundle, state, out=out)
        assert child.stdin is not None
        child.stdin.write(csv(values(200)).encode())
        child.stdin.flush()
        while child.poll() is None and not state.exists():
            time.sleep(0.2)
            child.send_signal(signal.SIGTERM) if _reading(child.pid) else None
        assert child.wait(20) == 0
    told = json.loads(state.read_text())
    assert told["seen"] == 200 and len(told["times"]) == 200 and "profile" not in told


def _reading(pid: int) -> bool:
    """Whether it waits for more: before, SIGTERM would just end the start-up."""
    return (
        "pipe_read" in Path(f"/proc/{pid}/wchan").read_text()
        or "poll" in Path(f"/proc/{pid}/wchan").read_text()
    )


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
    clock = iter(np.arange(0.0, 100.0, 0.25).tolist())
    batches = machine_batches(1.0, lambda: next(clock), lambda seconds: None)
    first, second = next(batches), next(batches)
    assert first.names == NAMES and first.values.shape == (1, 6)
    assert 0 <= first.values[0, 1] <= 100 and second.times[0] > first.times[0]
    assert (first.values[0, 2:][np.isfinite(first.values[0, 2:])] >= 0).all()

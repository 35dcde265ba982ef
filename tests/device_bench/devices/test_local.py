"""This machine as a device, with and without the limits of a profile."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from control_groups import left_behind, need_control_groups

from device_bench.bench import BenchConfig
from device_bench.devices import profiles, reach
from device_bench.devices.profiles import PROFILES, Profile
from device_bench.remote import bench_on
from runtimes.bundle import open_bundle
from runtimes.errors import EngineError, InputError

ROOT = Path(__file__).parents[3]
SHORT = BenchConfig(rounds=8, seconds=5.0, cold_starts=1)


@pytest.fixture
def small_profile(monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A profile that lets a test be quick."""
    need_control_groups()
    made = Profile("a test", cores=1, memory_mb=300, share=0.5)
    monkeypatch.setitem(PROFILES, "test", made)
    return made


def test_a_bundle_under_a_profile(small_profile: Profile, small_bundle: Path) -> None:
    before = left_behind()
    config = BenchConfig(rounds=8, seconds=5.0, cold_starts=1, sustained=0.01)
    with reach("local", profile="test") as device:
        about = device.describe()["device"]
        assert (about["cores"], about["memory_mb"]) == (1, 300)
        rows = bench_on(
            device, open_bundle(small_bundle), None, ["a goal", "the vote"], [0, 1], config, "test"
        )
    assert left_behind() == before
    for row in rows:
        assert row["simulated_profile"] == "test"
        assert "simulated: profile test slows this machine down" in row["note"]
        assert "busy machine" not in row["note"]
        assert row["energy_mj"] is None
        assert "says nothing of the simulated one" in row["note"]
    assert rows[0]["sustained"]["slices"]
    assert rows[1]["sustained"] is None


def test_without_a_profile_rows_say_nothing_of_one(small_bundle: Path) -> None:
    with reach("local") as device:
        rows = bench_on(device, open_bundle(small_bundle), None, ["a goal"], None, SHORT)
    assert {row["simulated_profile"] for row in rows} == {None}
    assert "simulated" not in rows[0]["note"]


def test_the_memory_cap_is_one_clear_line(small_profile: Profile, small_bundle: Path) -> None:
    PROFILES["test"] = Profile("a test", cores=1, memory_mb=12, share=1.0)
    before = left_behind()
    with pytest.raises(EngineError) as caught, reach("local", profile="test") as device:
        bench_on(device, open_bundle(small_bundle), None, ["a goal"], None, SHORT)
    assert (
        str(caught.value)
        == "local: killed at the 12 MB of profile test; bench one --variant alone, or a smaller one"
    )
    assert left_behind() == before


def test_profiles() -> None:
    assert list(PROFILES) == ["pi-zero", "pi4", "phone-low"]
    for known in PROFILES.values():
        assert profiles.LEAST_MS <= known.quota_ms(1) < profiles.PERIOD_MS
        assert known.quota_ms(64) == pytest.approx(known.share * known.cores * profiles.PERIOD_MS)
    assert Profile("x", 1, 1, 0.01).quota_ms(1) == profiles.LEAST_MS
    with pytest.raises(InputError, match="profile 'pi3': there is pi-zero, pi4, phone-low"):
        profiles.profile("pi3")


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(small_bundle: Path, tmp_path: Path) -> None:
    need_control_groups()
    before = left_behind()
    command = [sys.executable, "-m", "apps.cli", "bench", str(small_bundle), "--profile", "phone-low"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "rows.jsonl")],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment,
    ) as child:  # fmt: skip
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("bench: rounds"):
                break
        assert len(left_behind()) > len(before)
        child.send_signal(signal.SIGINT)  # to this process alone, as a supervisor would
        assert child.wait(60) == 130
    end = time.monotonic() + 20
    while left_behind() != before and time.monotonic() < end:
        time.sleep(0.05)
    assert left_behind() == before
    assert not list(tmp_path.iterdir())

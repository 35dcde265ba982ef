"""Real control groups of the version that this machine has; the other on folders that look like it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from control_groups import left_behind, need_control_groups
from hypothesis import given, settings
from hypothesis import strategies as st

from device_bench.devices import cgroups
from device_bench.devices.local import LocalChannel
from runtimes.errors import DeviceError


@pytest.fixture
def group():
    need_control_groups()
    made = cgroups.make(cores=1, memory_mb=64, quota_ms=1, period_ms=10)
    yield made
    made.close()
    assert not any(folder.exists() for folder in made.folders)


def python(group: cgroups.Group, code: str) -> "subprocess.CompletedProcess[str]":
    command = group.inside([sys.executable, "-c", code])
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_inside_there_is_one_core_and_a_tenth_of_it(group: cgroups.Group) -> None:
    code = (
        "import os, time; end = time.monotonic() + 1; start = time.process_time()\n"
        "while time.monotonic() < end: pass\n"
        "print(len(os.sched_getaffinity(0)), time.process_time() - start)"
    )
    done = python(group, code)
    assert done.returncode == 0, done.stderr
    cores, busy = done.stdout.split()
    assert cores == "1"
    assert float(busy) < 0.5  # of a second; without the quota as much as the machine has free
    throttled = [
        line.split() for folder in group.folders for line in cgroups._text(folder / "cpu.stat").splitlines()
    ]
    assert int(dict(pair for pair in throttled if len(pair) == 2)["nr_throttled"]) > 10


def test_the_memory_cap_kills_and_is_told(group: cgroups.Group) -> None:
    done = python(group, "held = bytearray(200 << 20); print('still here')")
    assert (done.returncode, done.stdout) == (-9, "")
    assert group.out_of_memory() == 1


def test_what_is_left_is_killed_and_the_group_removed() -> None:
    need_control_groups()
    group = cgroups.make(1, 64, 10, 10)
    with subprocess.Popen(group.inside(["sh", "-c", "sleep 600 & sleep 600"])) as child:
        while len(cgroups._text(group.folders[0] / "cgroup.procs").split()) < 2:
            time.sleep(0.01)
        group.close()
        assert child.wait(10) == -9
    assert not any(folder.exists() for folder in group.folders)


def test_groups_of_processes_that_died_are_swept_away() -> None:
    need_control_groups()
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    parents = set(cgroups._parents(Path("/")).values())
    stale = [parent / f"{cgroups.PREFIX}{gone.pid}-1" for parent in parents]
    for folder in stale:
        folder.mkdir()
    cgroups.make(1, 64, 10, 10).close()
    assert not any(folder.exists() for folder in stale)
    assert not [name for name in left_behind() if f"{cgroups.PREFIX}{os.getpid()}-" in name]


def version_2(
    root: Path, own: str = "/user.slice/session.scope", given: str = "cpuset cpu io memory"
) -> Path:
    """Folders and files as a system with version 2 shows them."""
    mount = root / "sys/fs/cgroup"
    (mount / own.lstrip("/")).mkdir(parents=True)
    (mount / "cgroup.subtree_control").write_text(given)
    (mount / own.lstrip("/") / "cgroup.subtree_control").write_text("\n")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::{own}\n")
    (root / "proc/self/mountinfo").write_text(
        "24 1 0:22 / /sys rw,nosuid - sysfs sysfs rw\n"
        "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    return mount


def test_version_2_is_one_folder_where_controllers_are_handed_down(tmp_path: Path) -> None:
    mount = version_2(tmp_path)
    group = cgroups.make(cores=1, memory_mb=512, quota_ms=2, period_ms=10, root=tmp_path)
    (folder,) = group.folders
    assert folder.parent == mount
    told = {file.name: file.read_text() for file in folder.iterdir()}
    first = str(min(os.sched_getaffinity(0)))
    assert told == {"memory.max": str(512 << 20), "cpu.max": "2000 10000", "cpuset.cpus": first}
    (folder / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 0\n")
    assert group.out_of_memory() == 3
    assert group.inside(["true", "a b"])[-4:] == [str(folder), "--", "true", "a b"]


def test_version_2_that_hands_nothing_down(tmp_path: Path) -> None:
    version_2(tmp_path, given="cpu pids")
    with pytest.raises(DeviceError, match="no control groups with memory, cpu, cpuset here .* run as root"):
        cgroups.make(1, 512, 2, 10, root=tmp_path)


def test_a_group_that_may_not_be_entered(tmp_path: Path) -> None:
    gone = cgroups.Group([tmp_path / "gone"])
    device = LocalChannel(gone, "a cap")
    try:
        with pytest.raises(DeviceError, match="local: no right to enter the control group; run as root"):
            device.exec(["true"], 10, lambda line: None)
    finally:
        device.close()


def test_no_right_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_2(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # the tests may run as root, who may make everything
    with pytest.raises(
        DeviceError, match=r"under .*/sys/fs/cgroup: Permission denied; run as root \(sudo\)$"
    ):
        cgroups.make(1, 512, 2, 10, root=tmp_path)


def test_a_system_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="no control groups with"):
        cgroups.make(1, 512, 2, 10, root=tmp_path)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(DeviceError, match="needs the control groups of Linux, which darwin has not"):
        cgroups.make(1, 512, 2, 10)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.sampled_from([" - cgroup cgroup rw,cpu", "1 2 3 / /sys/fs/x", ":", "\n", "4:memory:/a"])
        | st.text()
    )
)
def test_any_mountinfo_is_read_without_an_error(parts: list[str]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "proc/self").mkdir(parents=True)
        for name in ("mountinfo", "cgroup"):
            (root / "proc/self" / name).write_text("".join(parts))
        cgroups._mounts(root)
        cgroups._own(root)

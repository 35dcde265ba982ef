"""A control group with a processor quota, cores and a memory cap: version 1 or 2, whichever the system has.

Source: Linux, Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from runtimes.errors import DeviceError

WANTED = ("memory", "cpu", "cpuset")
PREFIX = "edgewise-"
SWAP = ("memory.swap.max", "memory.memsw.limit_in_bytes")  # not counted on every system
REFUSED = 125
# Enters every group (arguments before --), then becomes the command.
ENTER = (
    f'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit {REFUSED}; shift; done; shift; exec "$@"'
)
_numbers = count(1)


class Group:
    """One group, in one folder (version 2) or in one for each controller (version 1)."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that starts another one in the group."""
        return ["/bin/sh", "-c", ENTER, "sh", *map(str, self.folders), "--", *command]

    def out_of_memory(self) -> int:
        """How many processes the memory cap has killed."""
        told = [
            _text(folder / name)
            for folder in self.folders
            for name in ("memory.oom_control", "memory.events")
        ]
        return sum(int(number) for text in told for number in re.findall(r"^oom_kill (\d+)$", text, re.M))

    def close(self, patience: float = 10.0) -> None:
        """Kills what is left in the group and removes it."""
        end = time.monotonic() + patience
        left = self.folders
        while left and time.monotonic() < end:
            for folder in left:
                for process in _text(folder / "cgroup.procs").split():
                    with suppress(OSError):
                        os.kill(int(process), signal.SIGKILL)
                with suppress(OSError):
                    folder.rmdir()
            left = [folder for folder in left if folder.exists()]
            if left:
                time.sleep(0.02)


def make(cores: int, memory_mb: int, quota_ms: float, period_ms: float, root: Path = Path("/")) -> Group:
    """A new group with these limits: at most `cores` of those that this process may use.

    Raises DeviceError where the system has no control groups or this user may not make one. `root` stands
    for `/` (tests).
    """
    if not sys.platform.startswith("linux"):
        raise DeviceError(
            f"profile: needs the control groups of Linux, which {sys.platform} has not; bench without"
        )
    parents = _parents(root)
    usable = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
    quota, period, size = round(quota_ms * 1000), round(period_ms * 1000), memory_mb << 20
    name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
    group = Group(list(dict.fromkeys(parent / name for parent in parents.values())))
    limits: dict[str, object] = {"memory.max": size, "memory.swap.max": 0, "cpu.max": f"{quota} {period}"}
    if (parents["memory"] / "memory.limit_in_bytes").exists():  # version 1
        limits = {
            "memory.limit_in_bytes": size, "memory.memsw.limit_in_bytes": size,
            "cpu.cfs_period_us": period, "cpu.cfs_quota_us": quota,
            "cpuset.mems": _text(parents["cpuset"] / "cpuset.mems"),
        }  # fmt: skip
    try:
        for folder in group.folders:
            _sweep(folder.parent)
            folder.mkdir()
        for file, value in {**limits, "cpuset.cpus": usable}.items():
            place = parents[file.partition(".")[0]] / name / file
            if file not in SWAP or place.exists():
                place.write_text(f"{value}")
    except BaseException as error:
        group.close()
        if not isinstance(error, OSError):
            raise
        where = next(iter(parents.values()))
        raise DeviceError(
            f"profile: no control group under {where}: {error.strerror or error}; run as root (sudo)"
        ) from None
    return group


def _parents(root: Path) -> dict[str, Path]:
    """Controller → the folder under which a group can be made."""
    first, second = _mounts(root)
    own = _own(root)
    if all(name in first for name in WANTED):
        return {name: _inside(first[name], own.get(name, "/")) for name in WANTED}
    if second is not None:
        # A group that has processes hands no controllers down, so look further up.
        start = _inside(second, own.get("", "/"))
        for folder in [start, *start.parents]:
            given = _text(folder / "cgroup.subtree_control").split()
            if all(name in given for name in WANTED):
                return dict.fromkeys(WANTED, folder)
            if folder == second:
                break
    raise DeviceError(
        f"profile: no control groups with {', '.join(WANTED)} here (a container, or not handed down); "
        "run as root on the machine itself, or bench without --profile"
    )


def _mounts(root: Path) -> tuple[dict[str, Path], Path | None]:
    """Mount points: of each controller (version 1), and of version 2."""
    first: dict[str, Path] = {}
    second = None
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or len(after.split()) < 3:
            continue
        point, (kind, _, options) = root / before.split()[4].lstrip("/"), after.split()[:3]
        if kind == "cgroup":
            first |= dict.fromkeys(options.split(","), point)
        elif kind == "cgroup2":
            second = point
    return first, second


def _own(root: Path) -> dict[str, str]:
    """Controller ("" for version 2) → the group that this process is in."""
    found: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _inside(mount: Path, path: str) -> Path:
    """The group's folder; in a container, which sees its own group as the root, the mount point."""
    folder = mount / path.lstrip("/")
    return folder if folder.is_dir() else mount


def _sweep(parent: Path) -> None:
    """Removes groups of ours whose process was killed before it could."""
    for folder in parent.glob(f"{PREFIX}*"):
        process = folder.name.removeprefix(PREFIX).partition("-")[0]
        if process.isdigit() and not Path("/proc", process).exists():
            with suppress(OSError):
                folder.rmdir()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""

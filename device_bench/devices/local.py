"""This machine as a device: the runner in a process of its own, in a work folder of its own.

With a profile, in a control group too, which makes it a weaker machine.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from device_bench.devices import Progress, cgroups, profiles
from device_bench.devices.host import Done, HostDevice
from runtimes.errors import DeviceError, EngineError

# Programs of ours that talk to devices. In threads nothing else ends them before their time.
LIVE: set["subprocess.Popen[bytes]"] = set()


def end_live() -> None:
    """End what talks to devices, in whatever thread: each is let go as if its cable was pulled."""
    for child in list(LIVE):
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)


class LocalChannel:
    """Commands as child processes, files as files."""

    name = "local"
    python: Sequence[str] = (sys.executable,)

    def __init__(self, group: cgroups.Group | None = None, cap: str = "") -> None:
        """`group`: where commands run; `cap`: what its memory cap is called when it kills one."""
        self._group, self._cap = group, cap
        self.work = tempfile.mkdtemp(prefix="edgewise-bench-")

    def exec(self, command: Sequence[str], timeout: float, progress: Progress) -> Done:
        if self._group is None:
            return follow(list(command), timeout, progress, self.name)
        before = self._group.out_of_memory()
        done = follow(self._group.inside(command), timeout, progress, self.name)
        if self._group.out_of_memory() > before:
            raise EngineError(
                f"{self.name}: killed at {self._cap}; bench one --variant alone, or a smaller one"
            )
        if done.code == cgroups.REFUSED and "cgroup.procs" in done.stderr:
            raise DeviceError(f"{self.name}: no right to enter the control group; run as root (sudo)")
        return done

    def put(self, data: Path | bytes, name: str) -> None:
        target = Path(self.work, name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                target.write_bytes(data)
            else:
                shutil.copyfile(data, target)
        except OSError as error:
            raise DeviceError(f"{self.name}: {name} was not written: {error.strerror}") from None

    def get(self, name: str) -> bytes:
        try:
            return Path(self.work, name).read_bytes()
        except OSError as error:
            raise DeviceError(f"{self.name}: {name}: {error.strerror}") from None

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
        shutil.rmtree(self.work, ignore_errors=True)


def follow(command: list[str], timeout: float, progress: Progress, name: str) -> Done:
    """A child process with its standard input held open; lines of its standard error go to `progress`.

    Raises DeviceError where it takes longer than `timeout` seconds.
    """
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    ) as child:  # in a group of its own: Ctrl-C is for us, and we end all of it
        LIVE.add(child)
        last: list[str] = []

        def read() -> None:
            assert child.stderr is not None
            for raw in child.stderr:
                line = raw.decode(errors="replace").rstrip()
                last.append(line)
                del last[:-20]
                progress(line)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        timer = threading.Timer(timeout, child.kill)
        timer.start()
        try:
            assert child.stdout is not None
            out = child.stdout.read()
            code = child.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.kill()
            raise
        finally:
            LIVE.discard(child)
            late = not timer.is_alive()
            timer.cancel()
        reader.join()
    if late:
        raise DeviceError(f"{name}: no answer within {timeout:g} s")
    return Done(code, out, "\n".join(last))


def open(address: str, profile: str | None = None, threads: int = 1) -> HostDevice:
    """This machine; with a profile (`profiles.PROFILES`), under its limits for so many threads.

    Raises InputError for an unknown profile, DeviceError where no control group can be made.
    """
    if profile is None:
        return HostDevice(LocalChannel())
    limits = profiles.profile(profile)
    quota = limits.quota_ms(threads)
    group = cgroups.make(limits.cores, limits.memory_mb, quota, profiles.PERIOD_MS)
    try:
        return HostDevice(LocalChannel(group, f"the {limits.memory_mb} MB of profile {profile}"))
    except BaseException:
        group.close()
        raise

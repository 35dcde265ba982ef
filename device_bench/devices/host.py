"""A device with Python on it, behind a channel that runs commands and carries files."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from device_bench.devices import Progress, wheels
from runtimes import errors
from runtimes.errors import DeviceError, EngineError

ROOT = Path(__file__).resolve().parents[2]
CODE = "runner.zip"
SITE = "site"
LEAST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code, standard output, and the last lines of standard error."""

    code: int
    stdout: bytes
    stderr: str


class Channel(Protocol):
    """How to reach a machine. `work` is a folder of ours there (absolute), `python` how to start Python."""

    name: str
    work: str
    python: Sequence[str]

    def exec(self, command: Sequence[str], timeout: float, progress: Progress) -> Done:
        """Runs a command there (nothing is read by a shell), standard input open until it ends.

        Lines of standard error go to `progress`. Raises DeviceError where the device went away.
        """

    def put(self, data: Path | bytes, name: str) -> None:
        """A file into the work folder. Raises DeviceError (a full disk is told as such)."""

    def get(self, name: str) -> bytes:
        """A file of the work folder."""

    def close(self) -> None:
        """Removes the work folder."""


def quiet(line: str) -> None:
    """No progress."""


class HostDevice:
    """`describe`, `push`, `run` and `pull` on any channel. The runner's code is pushed at first need."""

    def __init__(self, channel: Channel) -> None:
        self.name = channel.name
        self._channel = channel
        self._requests = 0

    def describe(self) -> dict[str, Any]:
        return self._about

    @cached_property
    def _about(self) -> dict[str, Any]:
        self._require_python()
        self._channel.put(code(), CODE)
        return self.run({"do": "describe"})

    def _require_python(self) -> None:
        script = "import sys; print(*sys.version_info[:2])"
        done = self._channel.exec([*self._channel.python, "-c", script], 60, quiet)
        try:
            version = tuple(map(int, done.stdout.split()))
        except ValueError:
            version = ()
        if done.code or version < LEAST_PYTHON:
            told = ".".join(map(str, version)) if version else "no Python that starts"
            raise EngineError(f"{self.name}: {told} there; edgewise needs Python 3.11 or newer on a device")

    def push(self, files: Mapping[str, Path | bytes]) -> None:
        for name, data in files.items():
            self._channel.put(data, name)

    def provide(self, engines: Sequence[str], progress: Progress = quiet) -> list[str]:
        """Push packages that the engines need and the device lacks; the engines that it has then."""
        archive, has = wheels.missing(self.describe(), engines, progress)
        if archive is not None:
            size = archive.stat().st_size / 1e6
            progress(f"{self.name}: pushing packages for {', '.join(has)}, {size:.0f} MB")
            self.push({"site.zip": archive})
            self.run({"do": "unpack", "archive": f"{self._channel.work}/site.zip", "folder": self._site})
            self._about = self.run({"do": "describe"})  # with what was pushed
        return has

    def run(
        self, request: dict[str, Any], progress: Progress = quiet, timeout: float = 24 * 3600.0
    ) -> dict[str, Any]:
        self._requests += 1
        asked, told = (f"{kind}-{self._requests}.json" for kind in ("request", "answer"))
        work = self._channel.work
        self._channel.put(json.dumps({**request, "lease": work}).encode(), asked)
        paths = f"{self._site}:{work}/{CODE}"
        command = ["env", f"PYTHONPATH={paths}", "PYTHONDONTWRITEBYTECODE=1", "ORT_DISABLE_TELEMETRY=1",
                   *self._channel.python, "-P", "-m", "device_bench.runner",
                   f"{work}/{asked}", f"{work}/{told}"]  # fmt: skip
        done = self._channel.exec(command, timeout, progress)
        if done.code not in (0, 1):
            raise EngineError(f"{self.name}: {_death(done)}")
        try:
            answer = dict(json.loads(self._channel.get(told)))
        except (DeviceError, ValueError, TypeError, RecursionError):
            raise EngineError(f"{self.name}: {_death(done)}") from None
        if "error" in answer:
            kind = errors.named(answer["error"], EngineError)
            raise kind(f"{self.name}: {str(answer.get('message'))[:500]}")
        return answer

    @property
    def _site(self) -> str:
        return f"{self._channel.work}/{SITE}"

    def pull(self, name: str) -> bytes:
        return self._channel.get(name)

    def path(self, name: str) -> str:
        """Where a pushed file lies, as the runner sees it."""
        return f"{self._channel.work}/{name}"

    def close(self) -> None:
        self._channel.close()


def _death(done: Done) -> str:
    if done.code in (137, -9):
        return "the runner was killed there: often too little memory; take a smaller variant"
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"the runner ended with code {done.code} and no answer: {last[:300]}"


def code() -> bytes:
    """The two floors that run on a device, as an archive that Python imports from."""
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in [ROOT / "edgewise.py", *_sources("runtimes"), *_sources("device_bench")]:
            name = zipfile.ZipInfo(str(path.relative_to(ROOT)), (1980, 1, 1, 0, 0, 0))
            archive.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return kept.getvalue()


def _sources(folder: str) -> list[Path]:
    found = (ROOT / folder).rglob("*.py")
    return sorted(path for path in found if "devices" not in path.relative_to(ROOT).parts)

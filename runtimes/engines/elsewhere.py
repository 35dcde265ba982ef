"""An engine whose pins fit no common environment: a child process of another Python runs it.

Parent and child speak over pipes in frames: eight bytes of little-endian length, then that many bytes. The
parent sends the request to open (JSON) and the graph (its path, or its bytes), then one .npz of inputs for
each run. The child answers each with one frame: `+` and JSON or .npz, or `!` and the words of the error.
Nothing is unpickled on either side.
"""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np

from runtimes.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]
MAX_FRAME = 4 << 30
OPEN_SECONDS = 180.0
RUN_SECONDS = 60.0
# Engines that may live elsewhere: each imports as `runtimes.engines.<name>` and has `open_here`.
APART = ("executorch",)


def interpreter(engine: str) -> Path | None:
    """The Python that has the engine to itself: `EDGEWISE_<ENGINE>`, else `.venv-<engine>` of this source.

    Raises EngineError where the variable names no file.
    """
    if engine not in APART:
        return None
    variable = f"EDGEWISE_{engine.upper()}"
    named = os.environ.get(variable)
    if named and not Path(named).is_file():
        raise EngineError(f"{variable}={named}: no such Python; run `make {engine}` and unset it")
    path = Path(named) if named else ROOT / f".venv-{engine}" / "bin" / "python"
    return path.absolute() if path.is_file() else None


class ElsewhereSession:
    """A session in a child process. One question at a time; the child ends with this object or the parent."""

    def __init__(self, python: Path, engine: str, source: Path | bytes, how: dict[str, Any]) -> None:
        self._engine = engine
        self._python = str(python)
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._child = subprocess.Popen(
            [self._python, "-c", "from runtimes.engines.elsewhere import main; main()", engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
            start_new_session=True,  # an interrupt at the keyboard is the parent's to handle
        )
        self._end = weakref.finalize(self, _end, self._child)
        request = {**how, "path": None if isinstance(source, bytes) else str(source.resolve())}
        graph = source if isinstance(source, bytes) else b""
        opened = json.loads(self._ask(OPEN_SECONDS, json.dumps(request).encode(), graph))
        self.lengths: list[int] | None = opened["lengths"]
        self._about: dict[str, Any] = opened["about"]

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return _arrays(self._ask(RUN_SECONDS, _packed(feeds)))

    def describe(self) -> dict[str, Any]:
        """As the session in the child tells, and `elsewhere`: the Python that runs it."""
        return {**self._about, "elsewhere": self._python}

    def close(self) -> None:
        """End the child now."""
        self._end()

    def _ask(self, seconds: float, *frames: bytes) -> bytes:
        """One exchange. Raises EngineError: the child's own words, or how it died."""
        assert self._child.stdin is not None and self._child.stdout is not None
        late = threading.Event()
        watch = threading.Timer(seconds, _end_late, (self._child, late))
        watch.daemon = True
        with self._lock:
            watch.start()
            try:
                for frame in frames:
                    _send(self._child.stdin, frame)
                answer = _receive(self._child.stdout)
            except (OSError, ValueError):
                answer = None
            except BaseException:  # an interrupt leaves half a frame in the pipe
                self.close()
                raise
            finally:
                watch.cancel()
        if answer is None:
            self.close()
            raise EngineError(
                f"{self._engine} took over {seconds:g} s and was ended"
                if late.is_set()
                else f"{self._engine} {self._death()}"
            )
        if answer[:1] == b"!":
            raise EngineError(answer[1:].decode(errors="replace"))
        return answer[1:]

    def _death(self) -> str:
        code = self._child.wait()
        if code < 0:
            return f"crashed ({signal.Signals(-code).name}): the model file is damaged or not for this engine"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        return f"in {self._python} ended: {lines[-1][:300]}"


def open_elsewhere(engine: str, source: Path | bytes, how: dict[str, Any]) -> ElsewhereSession:
    """Open a graph in the engine's own environment. Raises EngineError where there is none, or it fails."""
    python = interpreter(engine)
    if python is None:
        raise EngineError(f"engine {engine!r} has no environment; run `make {engine}`")
    return ElsewhereSession(python, engine, source, how)


def _environment() -> dict[str, str]:
    """Of a source tree that very source; installed in site-packages, only what the other Python has itself.

    A path to site-packages would put this environment's packages before the other's.
    """
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    own = {"PYTHONPATH": str(ROOT)} if (ROOT / "pyproject.toml").is_file() else {}
    return {**kept, **own, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def _end_late(child: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    child.kill()


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was not yet written goes nowhere
                continue


def _send(pipe: IO[bytes], frame: bytes) -> None:
    pipe.write(len(frame).to_bytes(8, "little"))
    pipe.write(frame)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """Raises ValueError where the pipe ends before the frame does, or the frame is too large."""
    size = int.from_bytes(_exactly(pipe, 8), "little")
    if size > MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    return _exactly(pipe, size)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) != size:
        raise ValueError("the pipe ended")
    return data


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def main() -> None:
    """The child: open, then answer until the pipe ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get into the answers
    questions = sys.stdin.buffer
    how = json.loads(_receive(questions))
    graph, path = _receive(questions), how.pop("path")
    session: Any = None

    def opened() -> bytes:
        nonlocal session
        engine = import_module(f"runtimes.engines.{sys.argv[1]}")
        session = engine.open_here(Path(path) if path else graph, **how)
        return json.dumps({"lengths": session.lengths, "about": session.describe()}).encode()

    _send(answers, _answer(opened))
    while session is not None:
        try:
            frame = _receive(questions)
        except ValueError:  # the parent is gone
            return
        _send(answers, _answer(lambda frame=frame: _packed(session.run(_arrays(frame)))))


def _answer(question: Any) -> bytes:
    try:
        return b"+" + bytes(question())
    except Exception as error:  # every fault goes back as words
        words = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        return b"!" + (words.strip() or "unknown error").splitlines()[0].encode()

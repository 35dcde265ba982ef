"""Run a function in a fresh process: converters crash, print and leak, and must not take the build along."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from runtimes.errors import InputError

# How a traceback ends whose error was meant for the user.
_OURS = re.compile(r"^runtimes\.errors\.\w+: (.+)$", re.MULTILINE)


def in_child(function: Callable[..., Any], *, python: str = sys.executable, **arguments: Any) -> Any:
    """`function(**arguments)` in a child process; arguments and result go through JSON (paths as strings).

    `python` is the interpreter: that of another environment where the function's packages need one.

    Raises InputError with the child's own message where it raised one of `runtimes.errors`, else with its
    last line, or with the signal that killed it.
    """
    name = f"{function.__module__}:{function.__name__}"
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log"
        command = [
            python,
            "-m",
            "compress.child",
            name,
            json.dumps(arguments, default=str),
            str(answer),
        ]
        with log.open("wb") as stream:
            code = subprocess.run(command, stdout=stream, stderr=stream, check=False, env=_quiet()).returncode
        if code == 0 and answer.is_file():
            return json.loads(answer.read_bytes())
        told = _OURS.findall(log.read_text(errors="replace")) if code == 1 else []
        raise InputError(told[-1] if told else f"{function.__module__}.{function.__name__} {_why(code, log)}")


def _quiet() -> dict[str, str]:
    # What lies in the user's folder must not be imported (a data set called datasets.py, say).
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    own = {"PYTHONSAFEPATH": "1", "PYTHONPATH": paths}
    return {**os.environ, **own, "USE_TF": "0", "TF_CPP_MIN_LOG_LEVEL": "3", "ORT_DISABLE_TELEMETRY": "1"}


def _why(code: int, log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}; last line: {last}"
    return f"failed: {last}"


if __name__ == "__main__":
    # NNCF's telemetry notes a client id in the home folder and calls home; without it NNCF keeps quiet.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    target, given, to = sys.argv[1:]
    module, attribute = target.split(":")
    result = getattr(import_module(module), attribute)(**json.loads(given))
    Path(to).write_text(json.dumps(result))

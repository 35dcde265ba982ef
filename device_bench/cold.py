"""Cold start and peak memory of a model, each time in a fresh process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from device_bench.quality import plain, size
from runtimes import errors
from runtimes.errors import EngineError

COMMAND = (sys.executable, "-P", "-m", "device_bench.child")
MORE_TEXTS = 32


@dataclass(frozen=True)
class ColdStart:
    """Medians over `repeats` fresh processes; the file cache is warm after the first.

    `load_mb` is the peak until the model was loaded, `run_mb` that while it answered.
    """

    ms: float
    peak_rss_mb: float
    repeats: int
    load_mb: float | None = None
    run_mb: float | None = None


UNTOLD = ColdStart(0.0, 0.0, 0)  # under emulation, where no row tells it


def cold_start(
    name: str,
    request: dict[str, Any],
    repeats: int,
    *,
    command: Sequence[str] = COMMAND,
    timeout: float = 300.0,
) -> ColdStart:
    """Load to first answer in ms (imports included, see `device_bench.child`) and peak memory in MB.

    `request` is what the child reads: path, engine, variant, threads, texts. Raises the child's own
    EdgewiseError with `name` in front, EngineError where the child died or took longer than `timeout` s.
    """
    request = {**request, "texts": plain(request["texts"])}
    answers = [_run(name, request, command, timeout) for _ in range(repeats)]
    return ColdStart(
        ms=median(answer["cold_start_ms"] for answer in answers),
        peak_rss_mb=median(answer["peak_rss_mb"] for answer in answers),
        repeats=repeats,
        load_mb=_median(answers, "load_mb"),
        run_mb=_median(answers, "run_mb"),
    )


def _median(answers: Sequence[dict[str, Any]], key: str) -> float | None:
    return median(answer[key] for answer in answers) if all(key in answer for answer in answers) else None


def sample(inputs: Sequence[Any]) -> list[Any]:
    """What a child answers: the first inputs, and the longest of all, which sets the peak memory."""
    return [*inputs[:MORE_TEXTS], max(inputs, key=size)]


def _run(name: str, request: dict[str, Any], command: Sequence[str], timeout: float) -> dict[str, Any]:
    folder = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            list(command),
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "PYTHONPATH": paths, "ORT_DISABLE_TELEMETRY": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"{name}: no first answer within {timeout:g} s in a fresh process; take a smaller variant"
        ) from error
    return _answer(name, done)


def _answer(name: str, done: "subprocess.CompletedProcess[bytes]") -> dict[str, Any]:
    try:
        answer = json.loads(done.stdout)
        wanted = "error" if done.returncode else "cold_start_ms"
        if wanted not in answer:
            raise ValueError(wanted)
    except (ValueError, TypeError) as error:
        raise EngineError(f"{name}: the fresh process for the cold start {_death(done)}") from error
    if "error" in answer:
        kind = getattr(errors, str(answer["error"]), None)
        if kind is None:
            raise EngineError(f"{name}: failed in a fresh process: {answer['error']}: {answer['message']}")
        raise kind(f"{name}: {answer['message']}")
    return dict(answer)


def _death(done: "subprocess.CompletedProcess[bytes]") -> str:
    if done.returncode == -signal.SIGKILL:
        return "was killed (SIGKILL): often too little memory; free some or take a smaller variant"
    if done.returncode < 0:
        return f"died with {signal.Signals(-done.returncode).name}: the engine crashed; try another variant"
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    return f"ended with code {done.returncode} and no figures: {last[:300]}"

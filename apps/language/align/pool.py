"""Runs side by side: each in a process of its own, as many as there is room for, until time is up."""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.language.align.plan import Run
from runtimes.errors import EdgewiseError

_PRELOADED = "apps.language.align.steps"


@dataclass
class Pool:
    """What has become of the runs; names are "comparison/run"."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class _Running:
    process: Any
    started: float
    log: Path


Key = tuple[Any, Run]  # (Place, Run)


def name_of(key: Key) -> str:
    return f"{key[0].config.name}/{key[1].name}"


def run_all(
    keys: Sequence[Key], jobs: int, until_seconds: float | None, finished: set[str],
    target: Callable[..., None] | None = None, context: Any = None,
) -> Pool:  # fmt: skip
    """Do the runs, lowest rank first, each after those that it needs; `finished` were done before.

    Workers are forked from a server that has imported everything and touched no device, so that a run costs
    no imports. Nothing is started that could not end in time, going by the longest run of its kind so far;
    what still runs at the end of the time is stopped, and goes on at the next call.
    """
    starter: Starter | None = None
    pool, began = Pool(done=sorted(finished)), time.monotonic()
    waiting = sorted((key for key in keys if name_of(key) not in finished), key=lambda key: key[1].rank)
    running: dict[str, tuple[Key, _Running]] = {}
    try:
        while waiting or running:
            now = time.monotonic() - began
            _reap(running, pool)
            if until_seconds is not None and now > until_seconds:
                _stop(running, pool, "stopped: time was up")
                _drop(waiting, pool, "not started: time was up")
                break
            _drop_hopeless(waiting, pool, now, until_seconds)
            starter = starter or Starter(context or _server(), target or work, jobs)
            _start(waiting, running, pool, starter)
            if not running and waiting:
                _drop(waiting, pool, "not started: what it needs did not end well")
            time.sleep(0.05)
    finally:
        _stop(running, pool, "stopped")
    return pool


@dataclass(frozen=True)
class Starter:
    """How a process is made, what it does with (place, run, log, threads), and how many there may be."""

    context: Any
    target: Callable[..., None]
    jobs: int


def _server() -> Any:
    """Workers forked from a server; where a forked process cannot use the GPU, each by itself."""
    # Asking the driver itself whether there is a GPU would spoil all later forks.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # Answers grow by a token a step: without it, freed blocks of every size would pile up.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED])
    process = context.Process(target=touch)
    process.start()
    process.join()
    if process.exitcode == 0:
        return context
    print("the GPU is out of reach of forked processes: every run imports by itself", file=sys.stderr)
    return multiprocessing.get_context("spawn")


def touch() -> None:
    """In a child: use the GPU, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")


def _start(
    waiting: list[Key], running: dict[str, tuple[Key, _Running]], pool: Pool, starter: Starter
) -> None:
    for key in list(waiting):
        if len(running) >= starter.jobs:
            return
        place, run = key
        if not all(f"{place.config.name}/{need}" in pool.done for need in run.after):
            continue
        log = place.folder / "logs" / f"{run.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = max(1, _cores() // starter.jobs)
        process = starter.context.Process(target=starter.target, args=(place, run, log, threads))
        process.start()
        running[name_of(key)] = (key, _Running(process, time.monotonic(), log))
        waiting.remove(key)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(place: Any, run: Run, log: Path, threads: int) -> None:
    """In the child: all that is said goes into the log; the exit status is 0 where the result is written."""
    sys.stdout = sys.stderr = log.open("a", encoding="utf-8", buffering=1)
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    import torch

    from apps.language.align.steps import do

    torch.set_num_threads(threads)
    try:
        do(place, run)
    except EdgewiseError as error:
        print(f"failed: {error}", flush=True)
        sys.exit(2)
    except Exception as error:
        traceback.print_exc()
        print(f"failed: {type(error).__name__}: {error}", flush=True)
        sys.exit(1)


def _reap(running: dict[str, tuple[Key, _Running]], pool: Pool) -> None:
    for name, (_key, one) in list(running.items()):
        if one.process.exitcode is None:
            continue
        one.process.join()
        del running[name]
        pool.seconds[name] = round(time.monotonic() - one.started, 1)
        if one.process.exitcode == 0:
            pool.done.append(name)
        else:
            pool.failed[name] = _reason(one)
        _say(name, pool)


def _reason(one: _Running) -> str:
    lines = one.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    told = [line for line in lines if line.startswith("failed: ")]
    return told[-1].removeprefix("failed: ") if told else f"ended with {one.process.exitcode}; see {one.log}"


def _say(name: str, pool: Pool) -> None:
    state = f"failed: {pool.failed[name]}" if name in pool.failed else "done"
    print(f"{name}: {state} ({pool.seconds[name]} s)", file=sys.stderr, flush=True)


def _drop_hopeless(waiting: list[Key], pool: Pool, now: float, until: float | None) -> None:
    """Leave out what cannot end in time, and what waits for a run that failed."""
    for key in list(waiting):
        place, run = key
        needs = [f"{place.config.name}/{need}" for need in run.after]
        missing = next((need for need in needs if need in pool.failed or need in pool.dropped), None)
        if missing is not None:
            _drop([key], pool, f"not started: {missing} did not end well")
            waiting.remove(key)
        elif until is not None and now + _longest(key, pool) > until:
            _drop([key], pool, "not started: it could not have ended in time")
            waiting.remove(key)


def _longest(key: Key, pool: Pool) -> float:
    """Seconds of the longest run of the same comparison, kind and method so far; 0 where none has ended."""
    place, run = key
    like = f"{place.config.name}/{run.method or run.kind}"
    return max((s for name, s in pool.seconds.items() if name.startswith(like)), default=0.0)


def _drop(keys: list[Key], pool: Pool, reason: str) -> None:
    pool.dropped |= {name_of(key): reason for key in keys}
    keys.clear()


def _stop(running: dict[str, tuple[Key, _Running]], pool: Pool, reason: str) -> None:
    for name, (_key, one) in list(running.items()):
        one.process.terminate()
        one.process.join(10)
        if one.process.exitcode is None:
            one.process.kill()
            one.process.join()
        pool.dropped[name] = reason
        del running[name]

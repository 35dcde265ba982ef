"""Tokens a second of a bundle beside llama.cpp and PyTorch: `python -m apps.language.pace lm.bundle`.

All on the same prompt and number of tokens, greedily, each in a process of its own; in every round each takes
a turn, in an order drawn anew. Prints decode and prefill, the ratios with their intervals, and what share of
the memory's bandwidth decoding uses: each token reads all weights once, so bandwidth / weights is the limit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from apps.language.one_line import ended
from device_bench import machine, statistics
from runtimes.bundle import open_bundle
from runtimes.codec import Codec
from runtimes.errors import EngineError, InputError
from runtimes.generation import TASK
from runtimes.load import choose

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEXT = "The history of the city begins with a river, a hill and a market where farmers met. "
NAMES = {"bundle": "edgewise", "llama": "llama.cpp", "eager": "PyTorch eager fp32"}
# Times as fast at least, by threads and rival.
TARGETS = {(1, "llama"): 1.5, (2, "llama"): 1.2, (1, "eager"): 8.0}
PATIENCE = 600.0  # seconds that a rival may take to start, and for a turn
Samples = dict[tuple[int, str], list[dict[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m apps.language.pace`: 0, or 2 for what cannot work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--base", default=BASE, help="The fp32 original, by name or folder.")
    parser.add_argument(
        "--gguf", type=Path, help="What llama.cpp runs (default: the file that the base is of)."
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--prompt", type=int, default=128, help="Tokens of the prompt.")
    parser.add_argument("--new", type=int, default=64, help="Tokens that are decoded.")
    parser.add_argument("--json", type=Path, help="Where all samples go.")
    options = parser.parse_args(arguments)
    return ended(lambda: _tell(options))


def _tell(options: argparse.Namespace) -> None:
    found = measure(options)
    print(table(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that `table` tells, as plain data. Raises InputError for a bundle that writes nothing."""
    opened = open_bundle(options.bundle)
    if opened.task != TASK:
        raise InputError(f"{options.bundle}: task {opened.task}; name the bundle of a generator")
    about = opened.variants[choose(opened)]
    base, gguf = _originals(options.base, options.gguf)
    ids = Codec.from_bytes(opened.read("tokenizer.json")).encode(TEXT * options.prompt)[: options.prompt]
    places = {"bundle": options.bundle, "llama": gguf, "eager": base, "memory": about["size_bytes"]}
    samples = _rounds(places, ids, options)
    return {
        "device": machine.describe(), "variant": about["precision"], "weights_bytes": about["size_bytes"],
        "gguf_bytes": gguf.stat().st_size, "prompt": len(ids), "new": options.new, "rounds": options.rounds,
        "threads": [_told(samples, threads, about["size_bytes"]) for threads in options.threads],
        "samples": {f"{kind} {threads}": told for (threads, kind), told in samples.items()},
    }  # fmt: skip


def _originals(base: str, gguf: Path | None) -> tuple[Path, Path]:
    """The fp32 folder for PyTorch, and the file for llama.cpp."""
    from trainers.sources import find

    folder = Path(base) if Path(base).is_dir() else find(base, "model").path
    if gguf is None:
        beside = folder.with_name(folder.name.partition("-fp32-")[0])
        gguf = next(iter(sorted(beside.glob("*.gguf"))), None)
    if gguf is None or not gguf.is_file():
        raise InputError(f"{base}: no GGUF of it at hand; name one by --gguf")
    return folder, gguf


def _rounds(places: dict[str, Any], ids: list[int], options: argparse.Namespace) -> Samples:
    samples: Samples = {}
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        rivals = {
            (threads, kind): stack.enter_context(rival(kind, str(place), threads))
            for threads in options.threads
            for kind, place in places.items()
        }
        keys = list(rivals)
        for number in range(options.rounds + 1):  # the first warms up
            print(f"pace: round {number} of {options.rounds}", file=sys.stderr, flush=True)
            for place in rng.permutation(len(keys)):
                told = _turn(rivals[keys[place]], {"ids": ids, "new": options.new})
                if number:
                    samples.setdefault(keys[place], []).append(told)
    return samples


@contextmanager
def rival(kind: str, path: str, threads: int) -> Iterator["subprocess.Popen[str]"]:
    """A process of `apps.language.rivals` that is ready. EngineError where it does not get there."""
    command = [sys.executable, "-m", "apps.language.rivals", kind, path, str(threads)]
    own = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, env={**os.environ, **own}, stderr=said, **pipes) as process,  # type: ignore[call-overload]
    ):
        try:
            if not _line(process):
                said.seek(0)
                lines = said.read().strip().splitlines() or ["it said nothing"]
                raise EngineError(f"{NAMES.get(kind, kind)} does not start: {lines[-1][:300]}")
            yield process
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # of a request that it did not read
                process.stdin.close()


def _turn(process: "subprocess.Popen[str]", request: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = _line(process)
    except BrokenPipeError:
        line = ""
    if not line:
        raise EngineError(
            f"a rival ended in the middle of the run, or took over {PATIENCE:.0f} s; try it alone: "
            "python -m apps.language.rivals"
        )
    return dict(json.loads(line))


def _line(process: "subprocess.Popen[str]", seconds: float = PATIENCE) -> str:
    """What it says next; empty where it ended. It is killed where it takes longer."""
    assert process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        return process.stdout.readline()
    finally:
        timer.cancel()


def _told(samples: Samples, threads: int, weights: int) -> dict[str, Any]:
    """Medians of one number of threads, and ratios of the bundle to its rivals."""
    told: dict[str, Any] = {"threads": threads, "rivals": {}}
    seconds = {kind: _seconds(samples[threads, kind]) for kind in NAMES}
    for kind in NAMES:
        decode, prefill = (1 / float(np.median(column)) for column in seconds[kind].T)
        told["rivals"][kind] = {"decode_tokens_s": decode, "prefill_tokens_s": prefill}
        if kind != "bundle":
            ratio = statistics.ratio_of_medians(seconds[kind][:, 0], seconds["bundle"][:, 0])
            read = statistics.ratio_of_medians(seconds[kind][:, 1], seconds["bundle"][:, 1])
            told["rivals"][kind] |= {"times": list(ratio), "prefill_times": list(read)}
    bandwidth = float(np.median([one["bytes"] / one["seconds"] for one in samples[threads, "memory"]]))
    used = told["rivals"]["bundle"]["decode_tokens_s"] * weights
    return {**told, "bandwidth_gb_s": bandwidth / 1e9, "share": used / bandwidth}


def _seconds(told: Sequence[dict[str, Any]]) -> np.ndarray:
    """(rounds, 2): seconds for a decoded token, and for one of the prompt."""
    return np.array([[one["rest_s"] / one["rest"], one["first_s"] / one["prompt"]] for one in told])


def table(found: dict[str, Any]) -> str:
    """For the terminal and the docs."""
    lines = [
        f"{found['device']['name']}; {found['prompt']} tokens read, {found['new']} decoded, greedily; "
        f"medians of {found['rounds']} interleaved rounds; {found['variant']} of "
        f"{found['weights_bytes'] / 1e6:.1f} MB, llama.cpp's file {found['gguf_bytes'] / 1e6:.1f} MB\n",
        "| threads | | decode tokens/s | edgewise is | prefill tokens/s | edgewise is |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in found["threads"]:
        for kind, name in NAMES.items():
            rival_of = one["rivals"][kind]
            times, read = (_times(rival_of.get(key)) for key in ("times", "prefill_times"))
            lines.append(
                f"| {one['threads']} | {name} | {rival_of['decode_tokens_s']:.1f} | {times} "
                f"| {rival_of['prefill_tokens_s']:.0f} | {read} |"
            )
    lines += ["", *(_limit(one, found["weights_bytes"]) for one in found["threads"]), *_verdicts(found)]
    return "\n".join(lines)


def _times(ratio: Sequence[float] | None) -> str:
    return "" if ratio is None else f"{ratio[0]:.2f} times as fast ({ratio[1]:.2f} to {ratio[2]:.2f})"


def _limit(one: dict[str, Any], weights: int) -> str:
    most = one["bandwidth_gb_s"] * 1e9 / weights
    return (
        f"threads {one['threads']}: memory is read at {one['bandwidth_gb_s']:.1f} GB/s, {most:.0f} tokens/s "
        f"at most; decoding reaches {one['share']:.0%} of it"
    )


def _verdicts(found: dict[str, Any]) -> Iterator[str]:
    for one in found["threads"]:
        for kind in ("llama", "eager"):
            wanted = TARGETS.get((one["threads"], kind))
            if wanted is not None:
                got = one["rivals"][kind]["times"][0]
                verdict = f"target {'met' if got >= wanted else 'missed'}"
                how = f"{got:.2f} times {NAMES[kind]}, {wanted:g} wanted"
                yield f"{verdict}: {how}; threads {one['threads']}"


if __name__ == "__main__":
    sys.exit(main())

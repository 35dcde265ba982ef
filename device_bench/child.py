"""One fresh process that loads a model and answers once: `python -m device_bench.child`.

Reads one JSON request from standard input (texts do not appear in the process list) and writes one JSON
object to standard output. The clock starts before `import edgewise`, so the imports of numpy, tokenizers and
the engine are in `cold_start_ms`; the start of the interpreter itself is not. Peak memory is read after more
texts were answered, the longest among them.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def measure(request: dict[str, Any]) -> dict[str, float]:
    """cold_start_ms and its parts import_ms, load_ms, first_ms; peak_rss_mb and its parts load_mb, run_mb."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    start = time.perf_counter_ns()
    import edgewise

    imported = time.perf_counter_ns()
    model = edgewise.load(
        request["path"], engine=request["engine"], variant=request["variant"], threads=request["threads"]
    )
    loaded = time.perf_counter_ns()
    load_mb = peak_rss_mb()
    from device_bench.quality import from_plain

    texts = from_plain(request["texts"])
    forgotten = _forget_peak()
    resumed = time.perf_counter_ns()
    model.answers(texts[:1])
    answered = time.perf_counter_ns() - (resumed - loaded)
    for text in texts[1:]:
        model.answers([text])
    run_mb = peak_rss_mb() if forgotten else rss_mb()
    return {
        "cold_start_ms": (answered - start) / 1e6,
        "import_ms": (imported - start) / 1e6,
        "load_ms": (loaded - imported) / 1e6,
        "first_ms": (answered - loaded) / 1e6,
        "peak_rss_mb": max(load_mb, run_mb, peak_rss_mb()),
        "load_mb": load_mb,
        "run_mb": run_mb,
    }


def _forget_peak(file: Path = Path("/proc/self/clear_refs")) -> bool:
    """Let the kernel start VmHWM anew from what is held now; whether it did. Source: proc(5), clear_refs."""
    try:
        file.write_text("5")
    except OSError:
        return False
    return True


def rss_mb(status: Path = Path("/proc/self/status")) -> float:
    """The memory that this process holds now; its peak where the system does not tell."""
    return _told("VmRSS:", status) or peak_rss_mb(status)


def peak_rss_mb(status: Path = Path("/proc/self/status")) -> float:
    """The most memory this process has held, in MB of 2**20 bytes.

    VmHWM where there is one: on Linux ru_maxrss outlives exec, so that a child of a large parent would show
    the parent's memory.
    """
    told = _told("VmHWM:", status)
    if told:
        return told
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def _told(key: str, status: Path) -> float | None:
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    return None


def main() -> int:
    """Runs one request. Errors come back as JSON too: class, message, exit code 1."""
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get into the answer
    request = json.loads(sys.stdin.buffer.read())
    answer: dict[str, Any]
    try:
        answer = measure(request)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        answer = {"error": type(error).__name__, "message": lines[0][:500]}
    with answer_to:
        answer_to.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())

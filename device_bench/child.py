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
    """cold_start_ms and its parts import_ms, load_ms, first_ms, and peak_rss_mb."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    start = time.perf_counter_ns()
    import edgewise

    imported = time.perf_counter_ns()
    model = edgewise.load(
        request["path"], engine=request["engine"], variant=request["variant"], threads=request["threads"]
    )
    loaded = time.perf_counter_ns()
    model(request["texts"][0])
    answered = time.perf_counter_ns()
    for text in request["texts"][1:]:
        model(text)
    return {
        "cold_start_ms": (answered - start) / 1e6,
        "import_ms": (imported - start) / 1e6,
        "load_ms": (loaded - imported) / 1e6,
        "first_ms": (answered - loaded) / 1e6,
        "peak_rss_mb": peak_rss_mb(),
    }


def peak_rss_mb(status: Path = Path("/proc/self/status")) -> float:
    """The most memory this process has held, in MB of 2**20 bytes.

    VmHWM where there is one: on Linux ru_maxrss outlives exec, so that a child of a large parent would show
    the parent's memory.
    """
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


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

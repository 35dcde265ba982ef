"""Who writes, each in a process of its own that takes turns with the others.

    python -m apps.language.rivals KIND PATH THREADS

KIND is `bundle` (ours), `eager` (PyTorch fp32 with its KV cache, of a Hugging Face folder), `llama`
(llama.cpp, of a GGUF file) or `memory` (a probe of the memory's bandwidth; PATH is a number of bytes).
Requests come on standard input, one JSON object a line: {"ids", "new"}. Answers go to standard output:
{"first_s": until the first token, "rest_s": for the `rest` tokens behind it, "prompt": tokens read}.
All write greedily, over end tokens too, and tell text as they go.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Request = dict[str, Any]
Rival = Callable[[Request], dict[str, Any]]
CONTEXT = 1_024  # tokens that llama.cpp reserves room for
SWEEPS = 5


def bundle(path: Path, threads: int) -> Rival:
    from runtimes.load import load

    return _of_generator(load(path, threads=threads))


def eager(path: Path, threads: int) -> Rival:
    from runtimes.codec import Codec
    from runtimes.engines import torch_decoder
    from runtimes.generation import generation_of
    from runtimes.tasks.generate import Generator

    os.environ["USE_TF"] = "0"
    decoder = torch_decoder.open(path, threads, {})
    codec = Codec.from_bytes((path / "tokenizer.json").read_bytes())
    limits = {"max_tokens": CONTEXT, "max_chars": 1_000_000, "max_batch": 1}
    return _of_generator(Generator(decoder, codec, limits, generation_of(path), {}))


def _of_generator(model: Any) -> Rival:
    """The whole way that a user's stream takes: tokens, text, pieces."""
    from runtimes.generated import Options
    from runtimes.sampling import Sampling

    def write(request: Request) -> dict[str, Any]:
        options = Options(Sampling(), request["new"] + 1, to_the_end=True)
        start = time.perf_counter()
        stream = model.answer(request["ids"], options, model.begin())
        next(stream)
        first, known = time.perf_counter(), len(stream.result.tokens)
        for _ in stream:
            pass
        end = time.perf_counter()
        written = stream.result.tokens
        return {"first_s": first - start, "rest_s": end - first, "rest": len(written) - known,
                "prompt": len(request["ids"])}  # fmt: skip

    return write


def llama(path: Path, threads: int) -> Rival:
    """llama.cpp's own clock: `predicted_ms` starts when the prompt is read, and the first of `predicted_n`
    tokens comes of the prompt, so that one token less was decoded in that time."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.verbosity = CONTEXT, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    def write(request: Request) -> dict[str, Any]:
        asked = {"prompt": request["ids"], "n_predict": request["new"] + 1, "temperature": 0}
        told = server.handle_completions({**asked, "ignore_eos": True, "cache_prompt": False})
        times = (told if isinstance(told, dict) else json.loads(told))["timings"]
        return {"first_s": times["prompt_ms"] / 1e3, "rest_s": times["predicted_ms"] / 1e3,
                "rest": times["predicted_n"] - 1, "prompt": times["prompt_n"]}  # fmt: skip

    return write


def memory(path: Path, threads: int) -> Rival:
    """Reads as many bytes as the weights have, SWEEPS times: dot products of float32 with themselves, each
    thread on a part of its own, as STREAM reads (McCalpin 1995), with nothing written."""
    import numpy as np

    numbers = np.ones(int(str(path)) // 4, np.float32)
    parts = np.array_split(numbers, threads)

    def sweep(part: Any) -> None:
        for _ in range(SWEEPS):
            np.dot(part, part)

    def read(request: Request) -> dict[str, Any]:
        workers = [threading.Thread(target=sweep, args=(part,)) for part in parts[1:]]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        sweep(parts[0])
        for worker in workers:
            worker.join()
        return {"seconds": time.perf_counter() - start, "bytes": numbers.nbytes * SWEEPS}

    return read


KINDS: dict[str, Callable[[Path, int], Rival]] = {
    "bundle": bundle, "eager": eager, "llama": llama, "memory": memory,
}  # fmt: skip


def main() -> None:
    kind, path, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get into the answers
    write = KINDS[kind](path, threads)
    print(json.dumps({"ready": kind}), file=answer_to, flush=True)
    for line in sys.stdin:
        print(json.dumps(write(json.loads(line))), file=answer_to, flush=True)


if __name__ == "__main__":
    main()

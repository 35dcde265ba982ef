"""What runs on a device: one request in, one answer out.

    python -m device_bench.runner REQUEST.json ANSWER.json

`describe` and `unpack` need the standard library alone; the rest numpy, tokenizers and an engine. Standard
input is a lease: when it ends (the cable is out, the host is gone) the runner removes its folder and stops.
"""

import json
import os
import platform
import shutil
import signal
import sys
import threading
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from device_bench import machine
from runtimes.errors import EdgewiseError, EngineError, InputError

ENGINES = {
    "onnx": ("onnxruntime",),
    "litert": ("ai-edge-litert", "tflite-runtime", "tensorflow"),
    "executorch": ("executorch",),
}
NEEDED = ("numpy", "tokenizers")


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """What the device is, and which packages that run bundles it has. Nothing of them is imported."""
    return {
        "device": machine.describe(),
        "emulated": machine.emulated(),
        "python": platform.python_version(),
        "machine": _machine(),
        "libc": list(platform.libc_ver()),
        "packages": {name: found for name in NEEDED if (found := _version(name))},
        "engines": {
            engine: f"{name} {found}"
            for engine, names in ENGINES.items()
            for name in reversed(names)
            if (found := _version(name))
        },
    }


def _machine() -> str:
    """The processor as packages name it: a 32-bit system may run on a 64-bit kernel (Raspberry Pi OS)."""
    small = {"aarch64": "armv7l", "x86_64": "i686"} if sys.maxsize < 2**32 else {}
    return small.get(platform.machine(), platform.machine())


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def unpack(request: dict[str, Any]) -> dict[str, Any]:
    """An archive of packages (of our own making) into a folder of the work folder."""
    try:
        with zipfile.ZipFile(request["archive"]) as archive:
            archive.extractall(request["folder"])  # refuses to leave the folder
    except OSError:  # a full disk: the answer needs some of it, too
        shutil.rmtree(request["folder"], ignore_errors=True)
        raise
    finally:
        Path(request["archive"]).unlink()
    return {}


def bench(request: dict[str, Any]) -> dict[str, Any]:
    """`device_bench.bench.bench` on a pushed bundle: {"rows": [...]}."""
    from device_bench.bench import BenchConfig, BenchEntry
    from device_bench.bench import bench as measure
    from device_bench.quality import from_plain

    path = Path(request["bundle"])
    entries = {name: BenchEntry(path, variant=name) for name in request["variants"]}
    config = {**request["config"], "tokenization": tuple(request["config"]["tokenization"])}
    rows = measure(
        entries,
        from_plain(request["texts"]),
        request["labels"],
        BenchConfig(**config),
        profile=request.get("profile"),
    )
    return {"rows": rows}


def answers(request: dict[str, Any]) -> dict[str, Any]:
    """What each variant makes of the texts (or pairs): token ids and outputs a row, for the gate.

    And what a generator goes on with.
    """
    from device_bench.quality import from_plain
    from runtimes.load import load

    found, texts = {}, from_plain(request["texts"])
    for name in request["variants"]:
        print(f"answers: {name}", file=sys.stderr, flush=True)
        model = load(request["bundle"], variant=name, threads=request["threads"])
        ids = [row.tolist() for row in model.tokens(texts)]
        outputs = [row.tolist() for row in model.outputs(texts)]
        found[name] = {"ids": ids, "outputs": outputs, **model.describe()}
        if hasattr(model, "continuations"):
            found[name]["continuations"] = model.continuations(texts, request.get("tokens", 16))
    return {"variants": found}


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """What a collection answers to its golden questions there, and the memory that it took."""
    from dataclasses import asdict

    from device_bench.child import peak_rss_mb, rss_mb
    from runtimes.collection import golden_from
    from runtimes.load import load

    asker = load(request["bundle"], threads=request["threads"])
    opened = rss_mb()
    answered = [asker(question) for question in request["questions"]]  # int8 rounds by what is in a batch
    memory = {"opened_mb": opened, "asked_mb": rss_mb(), "peak_rss_mb": peak_rss_mb()}
    return {"golden": [asdict(golden_from(one)) for one in answered], **memory, "about": asker.describe()}


def compare(request: dict[str, Any]) -> dict[str, Any]:
    """`device_bench.compare.compare` on variants of several pushed bundles."""
    from device_bench.compare import compare as measure
    from device_bench.quality import from_plain

    entries = {name: (Path(path), variant) for name, (path, variant) in request["entries"].items()}
    return {"found": measure(entries, from_plain(request["texts"]), request["rounds"], request["seconds"])}


ACTIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "describe": describe,
    "unpack": unpack,
    "bench": bench,
    "answers": answers,
    "ask": ask,
    "compare": compare,
}


def answer_to(request: dict[str, Any]) -> dict[str, Any]:
    """The answer, or {"error": class, "message": one line}."""
    try:
        if request["do"] not in ACTIONS:
            raise InputError(f"runner: no action {request['do']!r}")
        return ACTIONS[request["do"]](request)
    except EdgewiseError as error:
        return {"error": type(error).__name__, "message": " ".join(str(error).split())}
    except MemoryError:
        return {"error": "EngineError", "message": "out of memory; take a smaller variant"}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return {"error": "DeviceError", "message": f"{where}{error.strerror or error}"}
    except Exception as error:
        return {"error": EngineError.__name__, "message": f"{type(error).__name__}: {_line(error)[:300]}"}


def _line(error: Exception) -> str:
    """The first line of somebody else's error; of numpy's page on imports the one that says why."""
    lines = (str(error).strip() or "no message").splitlines()
    return next((line for line in lines if line.startswith("Original error was")), lines[0])


def _hold(folder: Path, lease: Any) -> None:
    """Waits for the end of standard input. The work folder goes first: nobody will come for the answer."""
    while lease.read(1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    if os.getpgrp() == os.getpid():  # alone in its group (SSH): what it has started ends, too
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def main() -> int:
    """Answers one request; what libraries print goes to standard error."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    request_file, answer_file = (Path(name).resolve() for name in sys.argv[1:3])
    os.dup2(2, 1)
    request = json.loads(request_file.read_bytes())
    if request.get("lease"):
        args = (Path(request["lease"]), sys.stdin.buffer)
        threading.Thread(target=_hold, args=args, daemon=True).start()
    answer = answer_to(request)
    beside = answer_file.with_suffix(".part")
    try:
        beside.write_text(json.dumps(answer), encoding="utf-8")
        beside.replace(answer_file)
    except OSError as error:
        print(f"no answer could be written: {error.strerror}", file=sys.stderr, flush=True)
        return 2
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())  # not past a thread that waits for standard input

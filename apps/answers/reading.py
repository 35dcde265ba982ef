"""The child process that reads one untrusted file: `python -m apps.answers.reading KIND SECONDS < FILE`.

It takes its limits before it reads a byte, and prints {"text", "headings"} or {"error"} as JSON.
"""

import json
import sys
from importlib import import_module
from typing import Any

from runtimes.errors import InputError

MEMORY = 1 << 30  # bytes of address space
OUTPUT = 128 << 20  # bytes


def limit(seconds: int) -> None:
    """Memory, time and written bytes; nothing where the system has no such limits (Windows)."""
    try:
        import resource
    except ImportError:
        return
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, OUTPUT),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def answer(kind: str, data: bytes) -> dict[str, Any]:
    """{"text", "headings"} of a file, or {"error": one line}; whatever is in it, nothing is raised."""
    try:
        plain = import_module(f"apps.answers.formats.{kind}").read(data)
        return {"text": plain.text, "headings": [[h.start, h.level, h.title] for h in plain.headings]}
    except InputError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"needs over {MEMORY >> 20} MB of memory to read; split it"}
    except Exception as error:  # a parser of an untrusted file raises whatever it meets
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        return {"error": f"a damaged file ({reason}); save it again"}


def main(kind: str, seconds: int) -> None:
    limit(seconds)
    found = answer(kind, sys.stdin.buffer.read())
    sys.stdout.buffer.write(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

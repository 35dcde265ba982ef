"""What several verbs share: options, overrides, output."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from runtimes.errors import InputError

Runs = Annotated[Path, typer.Option(help="Where results lie; reused by the next run.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for machines.")]
Engine = Annotated[
    str | None, typer.Option(help="onnx, litert, executorch or torch (default: the bundle's choice).")
]
VariantName = Annotated[str | None, typer.Option(help="Which variant (default: the bundle's choice).")]
On = Annotated[
    list[str] | None,
    typer.Option("--on", help="local, browser, adb:SERIAL or USER@HOST[:PORT] (SSH); repeat for several."),
]
Browser = Annotated[bool, typer.Option("--browser", help="With adb:SERIAL: the phone's own browser.")]
Threads = Annotated[int, typer.Option(help="Threads of the engine.", min=1, max=1024)]


def overrides(words: Sequence[str]) -> dict[str, str]:
    """`--train.epochs 2 --train.seed=1` → {"train.epochs": "2", "train.seed": "1"}."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise InputError(f"{word!r} is not expected here; override recipe keys like --train.epochs 2")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"--{key} needs a value, like --{key} 2")
            value = rest.pop(0)
        found[key] = value
    return found


def emit(value: Any) -> None:
    """JSON on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=1, default=str)
    print()


def raise_first(errors: Sequence[Exception]) -> None:
    """What went wrong on some devices, after the others were told: the first decides the exit code."""
    for error in errors[1:]:
        print(f"edgewise: {error}", file=sys.stderr)
    if errors:
        raise errors[0]

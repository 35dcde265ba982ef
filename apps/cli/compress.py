from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Json, emit


def compress(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint to make smaller.")],
    data: Annotated[
        str, typer.Option(help="Its training data: a folder of `edgewise build`, a file, a hub id.")
    ],
    out: Annotated[Path, typer.Option(help="Where the smaller checkpoint goes.")],
    layers: Annotated[int | None, typer.Option(help="Keep this many layers, by distillation.", min=1)] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Keep at most this many tokens.", min=1)] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of the distillation.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the distillation.")] = 0,
    json: Json = False,
) -> None:
    """Make a checkpoint smaller: fewer layers, fewer tokens.

    The result opens with from_pretrained and goes to `edgewise export` like any other.
    """
    from apps.shrink import shrink

    result = shrink(checkpoint, data, out, layers=layers, vocabulary=vocabulary, epochs=epochs, seed=seed)
    if json:
        emit(result)
        return
    for key in ("before", "after"):
        about = result[key]
        print(f"{key:<7} {about['bytes'] / 1e6:6.1f} MB  accuracy {about['accuracy']}")
    print(out)

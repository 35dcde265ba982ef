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
    vocabulary: Annotated[int | None, typer.Option(help="Keep at most this many tokens.", min=1)] = None,
    keep: Annotated[
        float | None, typer.Option(help="Prune heads and neurons to this share of the encoder, such as 0.5.")
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(help="Keep this many layers: by distillation, or, with --keep, by pruning.", min=1),
    ] = None,
    hidden: Annotated[int | None, typer.Option(help="Width of a distilled student.", min=1)] = None,
    intermediate: Annotated[
        int | None, typer.Option(help="Feed-forward neurons a layer of a distilled student.", min=1)
    ] = None,
    importance: Annotated[str, typer.Option(help="What --keep goes by: taylor or magnitude.")] = "taylor",
    unlabelled: Annotated[
        str | None, typer.Option(help="More texts to distil on, labels not needed: a file, a hub id.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of distillation or recovery.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    json: Json = False,
) -> None:
    """Make a checkpoint smaller: fewer tokens, heads, neurons, layers, a narrower student.

    What is taken out is gone from the file. The result opens with from_pretrained and goes to
    `edgewise export` like any other.
    """
    from apps.shrink import ShrinkConfig, shrink

    config = ShrinkConfig(
        vocabulary, keep, layers, hidden, intermediate, importance, unlabelled, epochs, seed  # type: ignore[arg-type]
    )  # fmt: skip
    result = shrink(checkpoint, data, out, config)
    if json:
        emit(result)
        return
    for key in ("before", "after"):
        about = result[key]
        print(f"{key:<7} {about['bytes'] / 1e6:6.1f} MB  accuracy {about['accuracy']}")
    print(out)

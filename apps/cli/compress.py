from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Json, emit
from runtimes.errors import InputError


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
    max_drop: Annotated[
        float | None,
        typer.Option(help="Search: accuracy that may be lost, as a fraction, such as 0.01; OUT is a bundle."),
    ] = None,
    target_latency_ms: Annotated[float | None, typer.Option(help="Search: the most p50, in ms.")] = None,
    target_size_mb: Annotated[
        float | None, typer.Option(help="Search: the most MB of model and tokenizer.")
    ] = None,
    on: Annotated[str, typer.Option(help="Search: where it is measured; only local so far.")] = "local",
    trials: Annotated[int, typer.Option(help="Search: trials in all, earlier calls included.", min=1)] = 24,
    variant: Annotated[
        list[str] | None, typer.Option(help="Search: a variant it may take; repeat for more (default: all).")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Search: Optuna RDB URL, to share one study (default: SQLite beside OUT)."),
    ] = None,
) -> None:
    """Make a checkpoint smaller: fewer tokens, heads, neurons, layers, a narrower student.

    What is taken out is gone from the file. The result opens with from_pretrained and goes to
    `edgewise export` like any other. --max-drop searches instead: shapes and variants are tried under that
    budget, and OUT is the bundle of the pick (docs/search.md).
    """
    if max_drop is not None:
        from apps.cli.searching import run_search

        shape = {"vocabulary": vocabulary, "keep": keep, "layers": layers, "hidden": hidden}
        run_search(checkpoint, data, out, {**shape, "intermediate": intermediate}, json, max_drop=max_drop,
                   target_latency_ms=target_latency_ms, target_size_mb=target_size_mb, on=on, trials=trials,
                   variants=tuple(variant or ()), storage=storage, importance=importance,
                   unlabelled=unlabelled, epochs=epochs, seed=seed)  # fmt: skip
        return
    needs_search = {"target-latency-ms": target_latency_ms, "target-size-mb": target_size_mb,
                    "variant": variant, "storage": storage}  # fmt: skip
    given = [f"--{name}" for name, value in needs_search.items() if value is not None]
    if given:
        raise InputError(f"{given[0]} goes with a search; add --max-drop, such as --max-drop 0.01")
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

from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Json, Runs, emit, overrides
from runtimes.errors import InputError


def train(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as apps/news/recipe.toml.")],
    runs: Runs = Path("runs"),
    explore: Annotated[
        bool, typer.Option("--explore", help="Write a page about the data instead of training.")
    ] = False,
    start: Annotated[
        Path | None, typer.Option("--from", help="Go on from this checkpoint, with --data NEW.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="New rows (CSV, JSONL, Parquet or a hub id), with --from.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the new checkpoint goes, with --from.")] = None,
    json: Json = False,
) -> None:
    """Train a recipe, look at its data, or go on from a checkpoint.

    `--from CHECKPOINT --data NEW` keeps a model fresh: it is trained on, and figures on the old and the new
    test rows are printed side by side, so that forgetting and drift are seen.
    """
    from apps.recipe import read_recipe

    read = read_recipe(recipe, overrides(context.args))
    if (start is None) != (data is None):
        raise InputError("--from and --data go together: a checkpoint, and the rows to go on with")
    if explore:
        from apps.flow import explore_data

        print(explore_data(read, runs))
        return
    if start is not None and data is not None:
        from apps.flow import refresh_checkpoint

        emit(refresh_checkpoint(read, start, data, out or start.with_name(start.name + "-refreshed"), runs))
        return
    from apps.flow import build

    paths = build(read, runs, until="student" if read.distil is not None else "teacher")
    if json:
        emit({name: str(path) for name, path in paths.items()})
    else:
        for name in ("teacher", "student"):
            if name in paths:
                print(f"{name:<8} {paths[name]}")

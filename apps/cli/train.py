from pathlib import Path
from typing import Annotated, Any

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
    from apps.language.align import is_align

    if is_align(recipe):
        given = {"--explore": explore, "--from": start, "--data": data, "--out": out}
        named = [option for option, value in given.items() if value]
        if named:
            raise InputError(f"{', '.join(named)}: not with {recipe}, which compares methods; name a recipe")
        _compare(recipe, runs, overrides(context.args), json)
        return
    from apps.recipe import read_recipe

    read = read_recipe(recipe, overrides(context.args))
    if (start is None) != (data is None):
        raise InputError("--from and --data go together: a checkpoint, and the rows to go on with")
    if explore:
        from apps.flow import explore_data

        page = explore_data(read, runs)
        emit({"page": str(page)}) if json else print(page)
        return
    if start is not None and data is not None:
        from apps.flow import refresh_checkpoint

        fresh = out or start.with_name(start.name + "-refreshed")
        metrics = refresh_checkpoint(read, start, data, fresh, runs)
        emit(metrics) if json else print(_side_by_side(metrics["refresh"]), fresh, sep="\n")
        return
    from apps.flow import build

    made = {
        "teacher": True,
        "pruned": read.prune is not None,
        "student": (read.distil or read.student) is not None,
    }
    made["tuned"] = read.instructions is not None
    made |= {name: getattr(read, name) is not None for name in ("orpo", "dpo", "ppo")}
    made |= {"qat": read.qat is not None, "slim": read.slim is not None}
    paths = build(read, runs, until=[name for name, there in made.items() if there][-1])
    if json:
        emit({name: str(path) for name, path in paths.items()})
    else:
        for name in made:
            if name in paths:
                print(f"{name:<8} {paths[name]}")


def _compare(path: Path, runs: Path, changes: dict[str, str], json: bool) -> None:
    """The comparison of ways to tune a language model: a file with a table [align]."""
    from apps.language.align.config import read_align
    from apps.language.align.flow import align, require
    from apps.language.align.page import write_page

    config = read_align(path, changes)
    pool = align([config], runs)
    page = write_page(runs / config.name, runs / config.name / "align.html")
    told = {"done": pool.done, "failed": pool.failed, "dropped": pool.dropped, "page": str(page)}
    emit(told) if json else print(page)
    require(pool)


def _side_by_side(told: dict[str, Any]) -> str:
    """Old and new test rows, before and after; what was forgotten, and how far the new rows lie off."""
    lines = [f"{'accuracy':<10} {'before':>8} {'after':>8} {'n':>7}"]
    for test in ("old_test", "new_test"):
        before, after = told[test]["before"], told[test]["after"]
        lines.append(f"{test:<10} {before['accuracy']:>8.4f} {after['accuracy']:>8.4f} {after['n']:>7}")
    return "\n".join([*lines, f"forgetting {told['forgetting']:+.4f}", f"drift      {told['drift']:+.4f}"])

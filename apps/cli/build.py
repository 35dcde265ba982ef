from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Json, Runs, emit, overrides


def build(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as apps/news/recipe.toml.")],
    runs: Runs = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    until: Annotated[str | None, typer.Option(help="Stop after this step, such as teacher.")] = None,
    json: Json = False,
) -> None:
    """Run a whole recipe, from data to a measured bundle.

    Data, train, distil, compress, export, gate, bench, bundle, report.

    Results are reused when nothing changed; a killed build goes on where it stopped. Any key of the recipe
    can be overridden: --train.epochs 2.
    """
    from apps.flow import build as run_build
    from apps.flow import plan
    from apps.recipe import read_recipe
    from apps.summary import summary

    read = read_recipe(recipe, overrides(context.args))
    if dry_run:
        steps = plan(read, runs, until)
        if json:
            emit([{"step": step.name, "path": str(step.path), "done": step.done} for step in steps])
            return
        for step in steps:
            print(f"{'done ' if step.done else 'to do'}  {step.name:<28} {step.path}")
        return
    paths = run_build(read, runs, until)
    if json:
        emit({name: str(path) for name, path in paths.items()})
    elif until is None:
        print(summary(paths))
        print(f"\nbundle  {runs / read.name / (read.name + '.bundle')}")
        print(f"report  {runs / read.name / 'report.html'}")

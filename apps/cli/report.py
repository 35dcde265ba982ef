from pathlib import Path
from typing import Annotated

import typer


def report(
    rows: Annotated[list[Path], typer.Argument(help="Files of bench rows (`edgewise bench`, bench/*.json).")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Its title.")] = "edgewise bench",
    against: Annotated[
        list[Path] | None, typer.Option(help="Rows of an earlier run: what became worse is marked; repeat.")
    ] = None,
) -> None:
    """Make one self-contained page of bench rows: plots, tables, and what changed.

    Rows of several devices, engines and precisions stand on one Pareto front, with filters and the
    variant to take on each device.
    """
    from device_bench.history import compare, summary
    from device_bench.report import report as write_report
    from device_bench.rows import open_rows

    found, earlier = ([row for path in paths for row in open_rows(path)] for paths in (rows, against or []))
    print(write_report(found, out, title=title, earlier=earlier))
    if earlier:
        print(summary(compare(found, earlier)))

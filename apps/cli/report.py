from pathlib import Path
from typing import Annotated

import typer


def report(
    rows: Annotated[list[Path], typer.Argument(help="Files of bench rows (`edgewise bench`, bench/*.json).")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Its title.")] = "edgewise bench",
) -> None:
    """Make one self-contained page of bench rows: plots and a table."""
    from device_bench.report import report as write_report
    from device_bench.rows import open_rows

    print(write_report([row for path in rows for row in open_rows(path)], out, title=title))

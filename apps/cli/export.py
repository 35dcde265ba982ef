from pathlib import Path
from typing import Annotated, Any

import typer

from apps.cli.options import Json, emit


def export(
    source: Annotated[Path, typer.Argument(help="A checkpoint, or a bundle to cut down.")],
    out: Annotated[Path, typer.Option(help="The bundle to write (.zip only when cutting one down).")],
    data: Annotated[
        str | None,
        typer.Option(help="Test rows for the gate: a folder of `edgewise build`, a file, a hub id."),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="Variant to make or keep; repeat for more (default: all).")
    ] = None,
    max_drop: Annotated[float, typer.Option(help="Accuracy a variant may lose, as a fraction.")] = 0.01,
    json: Json = False,
) -> None:
    """Export a gated bundle, or cut one down to what a device needs."""
    from runtimes.bundle import MANIFEST

    if source.suffix == ".zip" or (source / MANIFEST).is_file():
        from export.pack import slim

        path = slim(source, variant or [], out)
        report: dict[str, Any] = {"bundle": str(path), "bytes": _size(path)}
    else:
        from apps.exporting import export_checkpoint

        report = export_checkpoint(source, data, out, variant, max_drop)
    if json:
        emit(report)
    else:
        print(f"{report['bundle']}  {report['bytes'] / 1e6:.1f} MB")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())

from pathlib import Path
from typing import Annotated, Any

import typer

from apps.cli.options import Json, emit
from runtimes.errors import InputError


def export(
    source: Annotated[Path, typer.Argument(help="A checkpoint, or a bundle to cut down.")],
    out: Annotated[Path, typer.Option(help="The bundle to write (.zip only when cutting one down).")],
    data: Annotated[
        str | None,
        typer.Option(help="Test rows for the gate: a folder of `edgewise build`, a file, a hub id."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Variant to make or keep; repeat for more (default: fp32, dynamic int8)."),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Accuracy a variant may lose, as a fraction. [default: 0.01]")
    ] = None,
    json: Json = False,
) -> None:
    """Export a gated bundle, or cut one down to what a device needs."""
    from runtimes.bundle import MANIFEST

    if source.is_file() or (source / MANIFEST).is_file():
        from export.pack import slim

        if data is not None or max_drop is not None:
            raise InputError("--data and --max-drop go with a checkpoint; a bundle is only cut down")

        path = slim(source, variant or [], out)
        report: dict[str, Any] = {"bundle": str(path), "bytes": _size(path)}
    else:
        from apps.exporting import export_checkpoint

        report = export_checkpoint(source, data, out, variant, 0.01 if max_drop is None else max_drop)
    if json:
        emit(report)
    else:
        print(f"{report['bundle']}  {report['bytes'] / 1e6:.1f} MB")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())

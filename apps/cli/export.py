from pathlib import Path
from typing import Annotated, Any

import typer

from apps.cli.options import Json, emit
from runtimes.errors import InputError


def export(
    out: Annotated[Path, typer.Option(help="The bundle to write (.zip only when cutting one down).")],
    source: Annotated[
        Path | None,
        typer.Argument(help="A checkpoint, a bundle to cut down, or a collection (.sqlite, with --reader)."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Instead: your own .onnx, .tflite or .keras file, or a SavedModel folder."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="With --from: what it does: text-classification.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="With --from: the tokenizer.json that it was trained with.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="With --from: 'a,b,c', a JSON list or a config.json, in the order of its outputs."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="With --from: tokens that it reads of a text (default: what it says itself).", min=4
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Test rows for the gate (of a text generator running text): a folder of `edgewise build`, a "
            "file, a hub id."
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="Variant to make (default: fp32 and int8; int4 of a generator) or keep; repeat for more."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Accuracy a variant may lose, as a fraction, or rise of a text generator's perplexity. "
            "[default: 0.01, of a text generator 0.05]"
        ),
    ] = None,
    reader: Annotated[
        Path | None, typer.Option(help="With a collection: the bundle that reads answers.")
    ] = None,
    embedder: Annotated[
        Path | None, typer.Option(help="With a collection: the bundle that its vectors were made with.")
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="With a collection: questions, one a line, whose answers the gate compares."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="With a collection: what apps.answers.end_to_end learned, JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """Export a gated bundle, also of your own model or of a collection, or cut one down.

    `--from model.onnx --task text-classification --tokenizer tokenizer.json --labels a,b --data rows.csv`
    takes the model as it is for the original, quantizes it, and holds every variant to its own answers.
    `notes.sqlite --reader R.bundle --embedder E.bundle` packs all that answers questions offline.
    """
    if (source is None) == (model is None):
        raise InputError("name one thing to export: a checkpoint, a bundle, or your own model with --from")
    brings = _given(task=task, tokenizer=tokenizer, labels=labels, max_tokens=max_tokens)
    collects = _given(reader=reader, embedder=embedder, questions=questions, calibration=calibration)
    if source is not None and source.suffix == ".sqlite" and not (reader and embedder):
        raise InputError(f"{source}: a collection is packed with --reader BUNDLE and --embedder BUNDLE")
    if collects:
        if source is None or reader is None or embedder is None:
            raise InputError(f"{collects[0]}: goes with a collection's .sqlite file, --reader and --embedder")
        if brings or data is not None or variant or max_drop is not None:
            raise InputError("a collection is packed as it is, with the default variants of its models")
        from apps.answers.pack import export_collection

        report = export_collection(source, reader, embedder, out, questions, calibration)
    elif model is not None:
        from apps.adopting import adopt_model

        most = 0.01 if max_drop is None else max_drop
        report = adopt_model(model, task, tokenizer, labels, data, out, variant, most, max_tokens)
    elif source is None or brings:
        raise InputError(f"{', '.join(brings)}: only with --from, for a model of your own")
    else:
        report = _made(source, data, out, variant, max_drop)
    _tell(report, json)


def _made(
    source: Path, data: str | None, out: Path, variant: list[str] | None, max_drop: float | None
) -> dict[str, Any]:
    """A bundle of a checkpoint, or of some variants of a bundle."""
    from runtimes.bundle import MANIFEST

    if source.is_file() or (source / MANIFEST).is_file():
        if data is not None or max_drop is not None:
            raise InputError("--data and --max-drop go with a checkpoint; a bundle is only cut down")
        from export.pack import slim

        path = slim(source, variant or [], out)
        return {"bundle": str(path), "bytes": _size(path)}
    from apps.exporting import export_checkpoint

    return export_checkpoint(source, data, out, variant, max_drop)


def _given(**options: Any) -> list[str]:
    """The options that were given, as the user writes them."""
    return [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]


def _tell(report: dict[str, Any], json: bool) -> None:
    if json:
        emit(report)
        return
    if "original" in report:
        about = report["original"]
        print(
            f"original  accuracy {about['accuracy']:.4f}  n {about['n']}  reads {about['max_tokens']} tokens"
        )
    print(f"{report['bundle']}  {report['bytes'] / 1e6:.1f} MB")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())

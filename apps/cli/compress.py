from pathlib import Path
from typing import Annotated, Any

import typer

from apps.cli.options import Json, emit


def compress(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint to make smaller, or to look into.")],
    data: Annotated[
        str, typer.Option(help="Its training data: a folder of `edgewise build`, a file, a hub id.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where the result goes; with --analyse a page (.html) or a folder, or nowhere."),
    ] = None,
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
    qat: Annotated[
        int | None, typer.Option(help="Train for weights of 2, 4 or 8 bits; export int4 (2 and 4) or int8.")
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(help="Mask this share of the encoder's weights. The file stays as large as it was."),
    ] = None,
    mask: Annotated[str, typer.Option(help="With --sparsity: global, layer, movement or 2:4.")] = "global",
    epochs: Annotated[int, typer.Option(help="Epochs of distillation or recovery.", min=1)] = 4,
    analyse: Annotated[
        bool,
        typer.Option("--analyse", help="Train nothing: tell what each part costs and what it is worth."),
    ] = False,
    rows: Annotated[int, typer.Option(help="With --analyse: most rows to measure on.", min=16)] = 512,
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
    on: Annotated[
        str, typer.Option(help="Search: where it is measured: local, USER@HOST or adb:SERIAL.")
    ] = "local",
    trials: Annotated[int, typer.Option(help="Search: trials in all, earlier calls included.", min=1)] = 24,
    variant: Annotated[
        list[str] | None, typer.Option(help="Search: a variant it may take; repeat for more (default: all).")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Search: Optuna RDB URL, to share one study (default: SQLite beside OUT)."),
    ] = None,
) -> None:
    """Make a checkpoint smaller: fewer tokens, heads, neurons, layers, a narrower student, fewer bits.

    What is taken out is gone from the file. The result opens with from_pretrained and goes to
    `edgewise export` like any other. --analyse and --sparsity stand alone; so does --max-drop, which
    searches: shapes and variants are tried under that budget, and OUT is the bundle of the pick.
    """
    shape = (vocabulary, keep, layers, hidden, intermediate, qat)
    smaller = any(one is not None for one in (*shape, unlabelled if max_drop is None else None))
    _one_of({"--analyse": analyse, "--sparsity": sparsity is not None, "--max-drop": max_drop is not None,
             "what makes it smaller": smaller})  # fmt: skip
    if analyse:
        _analyse(checkpoint, data, out, rows, seed, json)
        return
    out = _given(out)
    if sparsity is not None:
        _mask(checkpoint, data, out, sparsity, mask, epochs, seed, json)
        return
    targets = {"target_latency_ms": target_latency_ms, "target_size_mb": target_size_mb, "storage": storage}
    if max_drop is not None:
        from apps.cli.searching import run_search

        run_search(checkpoint, data, out, json, max_drop=max_drop, on=on, trials=trials,
                   variants=tuple(variant or ()), importance=importance, unlabelled=unlabelled,
                   epochs=epochs, seed=seed, **targets)  # fmt: skip
        return
    _need_search({**targets, "variant": variant})
    from apps.shrink import ShrinkConfig, shrink

    config = ShrinkConfig(
        vocabulary, keep, layers, hidden, intermediate, importance,  # type: ignore[arg-type]
        unlabelled, qat, epochs, seed,
    )  # fmt: skip
    result = shrink(checkpoint, data, out, config)
    if json:
        emit(result)
        return
    for key in ("before", "after"):
        about = result[key]
        metric = next(name for name in about if name not in ("bytes", "n"))
        print(f"{key:<7} {about['bytes'] / 1e6:6.1f} MB  {metric} {about[metric]}")
    print(out)


def _one_of(wanted: dict[str, bool]) -> None:
    from runtimes.errors import InputError

    given = [name for name, there in wanted.items() if there]
    if len(given) > 1:
        raise InputError(f"{given[0]} does not go with {given[1]}; run `edgewise compress` once for each")


def _need_search(options: dict[str, Any]) -> None:
    from runtimes.errors import InputError

    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{given[0]} goes with a search; add --max-drop, such as --max-drop 0.01")


def _given(out: Path | None) -> Path:
    from runtimes.errors import InputError

    if out is None:
        raise InputError("where does the checkpoint go? give --out")
    return out


def _analyse(path: Path, data: str, out: Path | None, rows: int, seed: int, json: bool) -> None:
    from apps.analysis import AnalyseConfig, table
    from apps.analysis import analyse as run

    result: dict[str, Any] = run(path, data, out, AnalyseConfig(rows=rows, seed=seed))
    if json:
        emit(result)
        return
    print(table(result))
    if out is not None:
        print(out)


def _mask(
    path: Path, data: str, out: Path, sparsity: float, kind: str, epochs: int, seed: int, json: bool
) -> None:
    from apps.masking import mask, words

    result = mask(path, data, out, sparsity, kind, epochs, seed)
    if json:
        emit(result)
        return
    print(words(result))
    print(out)

from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Browser, Json, On, Threads, emit, raise_first


def bench(
    bundle: Annotated[Path, typer.Argument(help="The bundle to measure: every variant of it.")],
    reference: Annotated[
        Path | None, typer.Option(help="A checkpoint to run beside it in PyTorch eager fp32.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Rows to measure on: a folder of `edgewise build`, a file (default: golden texts)."
        ),
    ] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only this variant; repeat for more.")] = None,
    on: On = None,
    browser: Browser = False,
    profile: Annotated[
        str | None,
        typer.Option(help="Run here under the limits of a weak machine: pi-zero, pi4 or phone-low."),
    ] = None,
    sustained: Annotated[
        float,
        typer.Option(
            help="Then run the named variant (default: the bundle's) for so many minutes without pause.",
            min=0,
            max=1440,
        ),
    ] = 0,
    threads: Threads = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds; rows are labelled so.")] = False,
    out: Annotated[Path, typer.Option(help="Where the rows go, one JSON object a line.")] = Path(
        "bench.jsonl"
    ),
    add: Annotated[
        bool, typer.Option("--add", help="Put the rows into the bundle too, as bench/<device>.json.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure a bundle on this machine, or on a device.

    Latency, cold start, memory, size, accuracy and parity of every variant.

    All variants run interleaved in one process, batch 1, on texts of natural length, with and without
    tokenization; cold start and peak memory in processes of their own.
    """
    from apps.measuring import keep, measure_bundle, require_places
    from apps.summary import notes, table
    from device_bench.bench import BenchConfig
    from device_bench.rows import save_rows

    require_places(bundle, out, add)
    config = BenchConfig(threads=threads, quick=quick, sustained=sustained)
    rows, failed = measure_bundle(bundle, reference, data, variant, config, on or ["local"], profile, browser)
    if not rows:
        raise_first(failed)
    save_rows(rows, out)
    if add:
        keep(bundle, rows)
    if json:
        emit(rows)
    else:
        print(table(rows))
        print(f"\n{notes(rows)}\n\n{out}")
    raise_first(failed)

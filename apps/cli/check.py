from pathlib import Path
from typing import Annotated, Any

import typer

from apps.cli.options import Browser, Json, On, emit, raise_first
from runtimes.errors import InputError


def check(
    bundle: Annotated[Path, typer.Argument(help="The bundle to check, a folder or .zip.")],
    on: On = None,
    browser: Browser = False,
    json: Json = False,
) -> None:
    """Prove that every variant still is its checkpoint, here or on a device.

    Exit code 3 if one is not. Digests, tokenization and golden answers are compared, within the
    budget that the bundle was packed with. A collection is asked its golden questions again.
    """
    from runtimes.bundle import open_bundle

    collection = bool(open_bundle(bundle, parts=True).parts)
    if not on and not browser and not collection:
        from export.gate import check as run_check

        parity = run_check(bundle)
        emit(parity) if json else _tell("", parity)
        return
    from apps.measuring import check_collection_on, check_on

    if collection and browser:
        raise InputError("--browser: a collection is checked where Python runs; leave it out")
    if collection:
        found = check_collection_on(bundle, on or [])
    else:
        found = check_on(bundle, on or ["local"], browser)
    failed = [result for result in found.values() if isinstance(result, Exception)]
    checked = {device: result for device, result in found.items() if result not in failed}
    if json:
        emit(checked)
    else:
        for device, parity in checked.items():
            _tell_collection(device, parity) if collection else _tell(f"{device}  ", parity)
    raise_first(failed)


def _tell_collection(device: str, parity: dict[str, Any]) -> None:
    golden = parity["golden"]
    memory = f"  peak memory {parity['peak_rss_mb']:.0f} MB" if "peak_rss_mb" in parity else ""
    print(
        f"{device}  same answer {golden['agreement']:.4f}  confidence within {golden['max_confidence']:.2g}  "
        f"n {golden['n']}{memory}{' (emulated)' if parity.get('emulated') else ''}"
    )


def _tell(device: str, parity: dict[str, Any]) -> None:
    for name, result in parity["variants"].items():
        golden = result["golden"]
        writes = "greedy" in golden
        greedy = f"  greedy text {golden['greedy']:.0%}" if writes else ""
        print(
            f"{device}{name:<26} same {'token' if writes else 'label'} {golden['agreement']:.4f}  "
            f"cosine {golden['cosine']:.5f}  max abs {golden['max_abs']:.2g}{greedy}  n {golden['n']}"
        )

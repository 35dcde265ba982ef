from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Browser, Json, On, emit


def check(
    bundle: Annotated[Path, typer.Argument(help="The bundle to check, a folder or .zip.")],
    on: On = None,
    browser: Browser = False,
    json: Json = False,
) -> None:
    """Prove that every variant still is its checkpoint, here or on a device.

    Exit code 3 if one is not. Digests, tokenization and golden answers are compared, within the
    budget that the bundle was packed with.
    """
    if on or browser:
        from apps.measuring import check_on

        checked = check_on(bundle, on or ["local"], browser)
    else:
        from export.gate import check as run_check

        checked = {"": run_check(bundle)}
    if json:
        emit(checked if on or browser else checked[""])
        return
    for device, parity in checked.items():
        for name, result in parity["variants"].items():
            golden = result["golden"]
            print(
                f"{device}{'  ' if device else ''}{name:<26} same label {golden['agreement']:.4f}  "
                f"cosine {golden['cosine']:.5f}  max abs {golden['max_abs']:.2g}  n {golden['n']}"
            )

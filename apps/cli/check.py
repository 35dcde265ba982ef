from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import Json, emit


def check(
    bundle: Annotated[Path, typer.Argument(help="The bundle to check, a folder or .zip.")],
    json: Json = False,
) -> None:
    """Prove that every variant still is its checkpoint.

    Exit code 3 if one is not. Digests, tokenization and golden answers are compared, within the
    budget that the bundle was packed with.
    """
    from export.gate import check as run_check

    parity = run_check(bundle)
    if json:
        emit(parity)
        return
    for name, result in parity["variants"].items():
        golden = result["golden"]
        print(
            f"{name:<26} same label {golden['agreement']:.4f}  cosine {golden['cosine']:.5f}  "
            f"max abs {golden['max_abs']:.2g}  n {golden['n']}"
        )

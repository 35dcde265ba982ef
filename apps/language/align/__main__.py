"""`python -m apps.language.align A.toml [B.toml] --jobs 8 --until-seconds 430`: comparisons side by side.

`edgewise train A.toml` does one, a run at a time. A setting is changed by its name: `--tokens 1000`,
`--dpo.beta 0.3`. Killed and called again, it goes on. See docs/language/align.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from apps.language.align.config import read_align
from apps.language.align.flow import align, require
from runtimes.errors import EdgewiseError, InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m apps.language.align`: 0 where all is done, 2 for what cannot work or failed, 4 where time
    was up first."""
    parser = argparse.ArgumentParser(prog="python -m apps.language.align", description=__doc__)
    parser.add_argument("config", type=Path, nargs="+", help="TOML files with a table [align]")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=1, help="how many runs side by side")
    parser.add_argument("--until-seconds", type=float, help="stop then, and say what was left out")
    told, rest = parser.parse_known_args(arguments)
    try:
        if any(not key.startswith("--") for key in rest[::2]) or len(rest) % 2:
            raise InputError(f"{' '.join(rest)}: not understood; a key is changed by --tokens 1000")
        changes = {key[2:]: value for key, value in zip(rest[::2], rest[1::2], strict=True)}
        configs = [read_align(path, changes) for path in told.config]
        pool = align(configs, told.runs, max(1, told.jobs), told.until_seconds)
        for name, why in {**pool.failed, **pool.dropped}.items():
            print(f"{name}: {why}", file=sys.stderr)
        print(f"{len(pool.done)} done, {len(pool.failed)} failed, {len(pool.dropped)} left out")
        require(pool)
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Put an adapter on its base: `python -m apps.language.adapter BASE ADAPTER -o OUT` writes the merged
checkpoint.

The adapter is the folder `adapter/` of a tuned checkpoint; it alone may be passed on, a few MB of it. On a
base that it was not trained on it is refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runtimes.errors import EdgewiseError


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m apps.language.adapter`: 0, or 2 for what does not fit."""
    parser = argparse.ArgumentParser(prog="python -m apps.language.adapter", description=__doc__)
    parser.add_argument("base", help="a hub id, a folder, a checkpoint")
    parser.add_argument("adapter", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    told = parser.parse_args(arguments)
    from trainers.tuned import apply_adapter

    try:
        print(apply_adapter(told.base, told.adapter, told.out).path)
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

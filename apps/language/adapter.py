"""Put an adapter on its base: `python -m apps.language.adapter BASE ADAPTER -o OUT` writes the merged
checkpoint.

The adapter is the folder `adapter/` of a tuned checkpoint; it alone may be passed on, a few MB of it. On a
base that it was not trained on it is refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from apps.language.one_line import ended


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m apps.language.adapter`: 0, or 2 for what does not fit."""
    parser = argparse.ArgumentParser(prog="python -m apps.language.adapter", description=__doc__)
    parser.add_argument("base", help="a hub id, a folder, a checkpoint")
    parser.add_argument("adapter", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    told = parser.parse_args(arguments)
    from trainers.tuned import apply_adapter

    return ended(lambda: print(apply_adapter(told.base, told.adapter, told.out).path))


if __name__ == "__main__":
    sys.exit(main())

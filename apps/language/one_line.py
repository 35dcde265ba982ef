"""How the commands of this folder end: with 0, or one line on standard error and the error's exit code."""

import sys
from collections.abc import Callable

from runtimes.errors import EdgewiseError


def ended(work: Callable[[], None]) -> int:
    """Do the work; 0, or the exit code of the EdgewiseError that it raised."""
    try:
        work()
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0

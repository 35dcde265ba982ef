"""The environment that ExecuTorch has to itself, for the tests that need it."""

import os

import pytest

from runtimes.engines import installed
from runtimes.engines.elsewhere import interpreter


def need_executorch() -> None:
    """Skips where there is no environment, but not on the machine that checks everything."""
    if installed("executorch") or interpreter("executorch") is not None:
        return
    if os.environ.get("EDGEWISE_ALL_TESTS"):
        pytest.fail("no environment with executorch; run `make executorch`")
    pytest.skip("no environment with executorch; `make executorch` makes one")


def need(there: bool, what: str) -> None:
    """Skips where something that the tests want is not installed, but not where everything is checked."""
    if there:
        return
    if os.environ.get("EDGEWISE_ALL_TESTS"):
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"needs {what}")

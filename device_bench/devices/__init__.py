"""Where a bundle is measured. Each kind of device is a module with `open(address) -> Device`.

A device does four things: it says what it is, takes files, answers requests, and gives files back. When it
is closed, nothing of ours is left on it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from runtimes.errors import InputError

Progress = Callable[[str], object]


class Device(Protocol):
    """What every back end gives. `name` is what the user called it."""

    name: str

    def describe(self) -> dict[str, Any]:
        """{"device": the block of a bench row, "emulated", "python", "engines": {engine: version}, …}."""

    def push(self, files: Mapping[str, Path | bytes]) -> None:
        """Files by their names in the work folder. A push that broke off is resumed by the next one."""

    def run(self, request: dict[str, Any], progress: Progress = ...) -> dict[str, Any]:
        """The answer of `device_bench.runner`, or of the page that stands in for it, to one request.

        Raises the runner's own EdgewiseError, or DeviceError where the device went away.
        """

    def pull(self, name: str) -> bytes:
        """One file of the work folder."""

    def path(self, name: str) -> str:
        """Where a pushed file lies, as a request names it."""

    def provide(self, engines: Sequence[str], progress: Progress = ...) -> list[str]:
        """Those of the engines that run there, after what they need was pushed."""

    def close(self) -> None:
        """Stop what runs there and remove the work folder."""


def kind_of(address: str) -> str:
    """The module for an address: `local`, `browser`, `adb:SERIAL`, else `[USER@]HOST[:PORT]` over SSH."""
    word = address.partition(":")[0]
    if not address or address.startswith("-") or not address.isprintable() or " " in address:
        raise InputError(f"device {address!r}: name one as local, browser, adb:SERIAL or USER@HOST[:PORT]")
    if word in ("local", "browser") and address != word:
        raise InputError(f"device {address!r}: {word} takes nothing behind it")
    return word if word in ("local", "browser", "adb") else "ssh"


@contextmanager
def reach(address: str, browser: bool = False, **how: Any) -> Iterator[Device]:
    """The device at an address, closed behind the block; with `browser`, the browser of a phone.

    Raises InputError, DeviceError.
    """
    kind = kind_of(address)
    if browser and kind != "adb":
        raise InputError(f"{address}: --browser is for phones (adb:SERIAL); here it is --on browser")
    module = import_module(f"device_bench.devices.{kind}")
    device: Device = module.open_browser(address) if browser else module.open(address, **how)
    try:
        yield device
    finally:
        device.close()

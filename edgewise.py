"""edgewise: `model = edgewise.load("news.bundle"); model("text")`.

The one public name for app code. It hands on `load`, `open_bundle`, `Bundle` and the errors, lazily.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtimes.bundle import Bundle, open_bundle
    from runtimes.errors import (
        BudgetError,
        BundleError,
        DeviceError,
        EdgewiseError,
        EngineError,
        GateError,
        InputError,
    )
    from runtimes.load import load

__version__ = "0.1.0"
__all__ = [
    "BudgetError",
    "Bundle",
    "BundleError",
    "DeviceError",
    "EdgewiseError",
    "EngineError",
    "GateError",
    "InputError",
    "load",
    "open_bundle",
]

_HOME = {"load": "runtimes.load", "Bundle": "runtimes.bundle", "open_bundle": "runtimes.bundle"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgewise' has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "runtimes.errors")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

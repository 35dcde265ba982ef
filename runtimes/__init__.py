"""The floor that goes to the device: bundle + input → answer, with numpy, tokenizers and one engine."""

from runtimes.bundle import Bundle, open_bundle
from runtimes.load import load

__all__ = ["Bundle", "load", "open_bundle"]

"""What names a model by its content."""

import hashlib
from pathlib import Path

from runtimes.bundle import open_bundle
from runtimes.load import CHECKPOINT


def digest_of(path: Path) -> str:
    """The digest of a bundle's, or a checkpoint's, own list of digests."""
    if (path / CHECKPOINT).is_file():
        return hashlib.sha256((path / CHECKPOINT).read_bytes()).hexdigest()
    return str(open_bundle(path).manifest["sha256"])

"""The comparison of SFT, PPO, DPO and ORPO: one base, one set of data, one token budget, several seeds."""

import tomllib
from pathlib import Path


def is_align(path: Path) -> bool:
    """Whether a TOML file is of this flow: it has a table [align]."""
    try:
        return "align" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False

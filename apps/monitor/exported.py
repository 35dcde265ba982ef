"""A trained detector as one of its exported variants, for measuring what the exports and int8 cost."""

from pathlib import Path
from typing import Any

import numpy as np

from compress.calibrate import Calibration
from export.variant import CALIBRATED, KNOWN
from export.variants import export_variant, open_variant
from runtimes import engines
from runtimes.tasks import detect
from trainers.checkpoint import open_checkpoint


def exported(checkpoint: Path, name: str, windows: np.ndarray, folder: Path) -> Any:
    """The Detector of variant `name` of a checkpoint, on one thread. Graphs are made in `folder` where they
    are not there yet, quantized ones with ranges from `windows` float32 (n, window) of the training part."""
    parent = KNOWN[name][2]
    for each in (parent, name) if parent else (name,):
        if (folder / each / "details.json").is_file():
            continue
        calibration = Calibration(list(windows), [0] * len(windows)) if each in CALIBRATED else None
        source = KNOWN[each][2]
        export_variant(each, checkpoint, folder / source if source else None, [], folder / each, calibration)
    variant, opened = open_variant(name, folder / name), open_checkpoint(checkpoint)
    module = engines.module(variant.engine)
    session = module.open(variant.path, variant=variant.entry(), threads=1, allow_fallback=False)
    about = {"bundle": checkpoint.name, "variant": name, "precision": variant.precision}
    return detect.open(session, None, opened.labels, opened.limits, about)

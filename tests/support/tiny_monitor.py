"""A tiny detector's series, recipe and bundle: a wave with noise on two channels."""

from pathlib import Path

import numpy as np

STEP = 60
START = 1_700_000_000
RECIPE = """name = "tiny"
task = "anomaly-detection"
seed = 0
[data]
name = {data!r}
[detector]
window = 64
patch = 8
width = 16
steps = 40
[student]
window = 64
patch = 8
width = 8
depth = 1
heads = 2
steps = 20
[export]
variants = ["onnx-fp32", "onnx-int8", "tflite-full_int8"]
[budget]
min_agreement = 0.8
max_drop = 0.05
[bench]
quick = true
rounds = 40
cold_starts = 1
"""


def values(count: int, seed: int = 0) -> np.ndarray:
    """(count, 2): a cycle of 48 points and one of 96, each with noise."""
    random, places = np.random.default_rng(seed), np.arange(count)
    load = 10 + 3 * np.sin(2 * np.pi * places / 48) + 0.2 * random.standard_normal(count)
    warmth = 5 + np.cos(2 * np.pi * places / 96) + 0.1 * random.standard_normal(count)
    return np.stack([load, warmth], axis=1)


def csv(points: np.ndarray, first: int = 0, header: bool = True) -> str:
    """Lines of time,load,warmth."""
    rows = [
        f"{START + STEP * (first + row)},{load:.4f},{warmth:.4f}\n"
        for row, (load, warmth) in enumerate(points)
    ]
    return ("time,load,warmth\n" if header else "") + "".join(rows)


def write_recipe(folder: Path, count: int = 2400) -> Path:
    """tiny.csv and tiny.toml in a folder; the recipe's path."""
    (folder / "tiny.csv").write_text(csv(values(count)))
    (folder / "tiny.toml").write_text(RECIPE.format(data=str(folder / "tiny.csv")))
    return folder / "tiny.toml"

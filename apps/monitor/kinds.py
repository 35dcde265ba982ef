"""The picture of what counts as an anomaly: `python -m apps.monitor.kinds -o docs/monitor/kinds.png`."""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from runtimes.files import write_atomic
from trainers.explore import clean_axes

_BLUE, _RED = "#2563a8", "#c0392b"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("kinds.png"))
    print(draw(parser.parse_args().out))


def made(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Values (400,) of a wave with an anomaly of that kind, and where it is (400,) bool."""
    places = np.arange(400)
    values = np.sin(places * 2 * np.pi / 50) + 0.05 * np.random.default_rng(0).normal(size=400)
    labels = np.zeros(400, bool)
    if kind == "point":
        labels[235] = True
        values[235] = 2.2
    elif kind == "contextual":
        labels[208:217] = True  # a low such as there are many, where a high belongs
        values[labels] -= 1.4
    else:
        labels[225:300] = True  # each value is usual and follows the last one; the cycle is missing
        values[labels] = values[225] + 0.05 * np.random.default_rng(1).normal(size=75)
    return values, labels


def draw(out: Path) -> Path:
    """Write a PNG with one wave for each kind, its anomaly in red."""
    import io

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    titles = {
        "point": "point: one value that is never seen",
        "contextual": "contextual: usual values at the wrong time",
        "collective": "collective: each value is usual, all together are not",
    }
    for axes, (kind, title) in zip(figure.subplots(3, 1, sharex=True), titles.items(), strict=True):
        values, labels = made(kind)
        axes.plot(values, color=_BLUE, lw=1.1)
        axes.plot(np.where(labels, values, np.nan), color=_RED, lw=1.8, marker="o", ms=3)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylim(-2.6, 2.6)
        axes.tick_params(labelsize=8)
        clean_axes(axes, "y")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, buffer.getvalue())
    return out


if __name__ == "__main__":
    main()

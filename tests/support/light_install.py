"""What a device gets: `edgewise[onnx]` alone in a new environment, its size, and how soon it answers.

    python tests/support/light_install.py BUNDLE CHECKPOINT

prints installed size, and load to first answer beside transformers' pipeline on the checkpoint: fresh
processes, taken in turn, timed from the first import to the first answer.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = "opec ministers agree to cut crude output as oil prices fall"
LIGHT = """
import time; start = time.perf_counter()
import edgewise
edgewise.load({path!r}, engine="onnx", threads=1)({text!r})
print(time.perf_counter() - start)
"""
PIPELINE = """
import os; os.environ["USE_TF"] = "0"
import time; start = time.perf_counter()
from transformers import pipeline
pipeline("text-classification", model={path!r})({text!r})
print(time.perf_counter() - start)
"""


def light_environment(folder: Path, extra: str = "onnx") -> Path:
    """A new environment with `edgewise[extra]` from this source tree; gives its python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), f"{ROOT}[{extra}]"], check=True)
    return python


def installed(python: Path) -> dict[str, str]:
    """Distribution → version."""
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {row["name"].lower(): row["version"] for row in json.loads(listed.stdout)}


def megabytes(python: Path) -> float:
    """Size of all that is installed beside pip and setuptools."""
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    files = (path for path in site.rglob("*") if path.is_file() and not path.is_symlink())
    return (
        sum(path.stat().st_size for path in files if not path.relative_to(site).parts[0].startswith("pip"))
        / 1e6
    )


def seconds(python: Path, code: str, path: Path) -> float:
    script = code.format(path=str(path.resolve()), text=TEXT)
    done = subprocess.run([str(python), "-c", script], check=True, capture_output=True, text=True, cwd="/")
    return float(done.stdout)


def main(bundle: Path, checkpoint: Path, repeats: int = 10) -> None:
    full = Path(sys.executable)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        light = light_environment(Path(folder))
        packages = installed(light)
        print("edgewise[onnx] installs:", ", ".join(sorted(set(packages) - {"pip", "setuptools"})))
        print(f"installed size: {megabytes(light):.0f} MB; edgewise[all,dev]: {megabytes(full):.0f} MB")
        times: dict[str, list[float]] = {"edgewise": [], "pipeline": []}
        for _ in range(repeats):
            times["edgewise"].append(seconds(light, LIGHT, bundle))
            times["pipeline"].append(seconds(full, PIPELINE, checkpoint))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name}: load to first answer {medians[name]:.3f} s (median of {len(values)},"
              f" {min(values):.3f} to {max(values):.3f})")  # fmt: skip
    print(f"ratio: {medians['pipeline'] / medians['edgewise']:.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

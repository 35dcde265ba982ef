"""`edgewise[onnx]` alone, in a new environment, from this source tree. Needs the package index."""

import subprocess

import pytest
from light_install import installed, light_environment

ALLOWED = {"edgewise", "numpy", "tokenizers", "onnxruntime", "pip", "setuptools"}


@pytest.mark.slow
def test_the_device_gets_no_torch_and_answers(tiny_bundle, tmp_path):
    python = light_environment(tmp_path / "light")
    packages = installed(python)
    heavy = {"torch", "transformers", "onnx", "tensorflow", "fastapi", "typer", "scikit-learn", "datasets"}
    assert packages.keys() >= ALLOWED - {"pip", "setuptools"}
    assert not packages.keys() & heavy
    (site,) = (tmp_path / "light" / "lib").glob("python*/site-packages")
    for shipped in (
        "trainers/index.toml",
        "device_bench/page.html",
        "apps/web/page/app.js",
        "apps/news/recipe.toml",
    ):
        assert (site / shipped).is_file(), f"{shipped} is not in the wheel"
    code = f"import edgewise; print(edgewise.load({str(tiny_bundle)!r}, threads=1)('wheat corn').label)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "grain\n"
    told = subprocess.run(
        [python.with_name("edgewise"), "doctor"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2 and "pip install 'edgewise[apps]'" in told.stderr

"""`edgewise[onnx]` alone, in a new environment, from this source tree. Needs the package index."""

import subprocess

import pytest
from light_install import installed, light_environment

from runtimes.load import load

ALLOWED = {"edgewise", "numpy", "tokenizers", "onnxruntime", "pip", "setuptools"}


@pytest.mark.slow
def test_the_device_gets_no_torch_and_answers(tiny_bundle, lm_bundles, tmp_path):
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
    wanted = load(lm_bundles["llama"], threads=1)("the cat", max_new_tokens=16).text
    code = (
        f"import edgewise; model = edgewise.load({str(lm_bundles['llama'])!r}, threads=1)\n"
        "print(ascii(''.join(model.stream('the cat', max_new_tokens=16))))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == ascii(wanted) + "\n"
    told = subprocess.run(
        [python.with_name("edgewise"), "doctor"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2 and "pip install 'edgewise[apps]'" in told.stderr

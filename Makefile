# Each target sets up its environment by itself and does nothing twice.
PYTHON ?= python3
BIN := .venv/bin
RECIPE ?= apps/news/recipe.toml
.PHONY: demo test bench lint format executorch clean

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# ExecuTorch's pins fit no common environment. Export, gate and bench of its variants use this one.
.venv-executorch/ready: pyproject.toml constraints-executorch.txt
	test -x .venv-executorch/bin/python || $(PYTHON) -m venv .venv-executorch
	.venv-executorch/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints-executorch.txt -e '.[executorch,bench]' transformers
	touch $@

demo: .venv/ready  ## Data, teacher, student, compression, ONNX + TFLite, gate, bench, report, one headline
	$(BIN)/edgewise build $(RECIPE)
	$(BIN)/edgewise run runs/news/news.bundle "opec ministers agree to cut crude output as oil prices fall" --explain

test: .venv/ready  ## All tests, slow and browser ones included
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready  ## pytest-benchmark: load, tokenize, infer, post-process; BENCH=--benchmark-compare
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-autosave $(BENCH)

executorch: .venv-executorch/ready  ## The environment of the executorch variants

clean:
	rm -rf .venv .venv-executorch build *.egg-info .mypy_cache .ruff_cache

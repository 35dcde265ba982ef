"""The command line itself: help, docs kept equal to it, doctor, nothing heavy imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from apps.cli.main import run
from apps.cli.options import overrides
from apps.cli.reference import cli_page, recipe_page
from apps.diagnosis import _VERBS
from runtimes.errors import InputError

DOCS = Path(__file__).parents[2] / "docs"
VERBS = ["build", "train", "compress", "export", "check", "run", "serve", "keys", "bench", "report", "doctor"]


@pytest.mark.parametrize(("name", "page"), [("cli.md", cli_page), ("recipe.md", recipe_page)])
def test_docs_equal_the_code(name, page):
    assert (DOCS / name).read_text() == page(), "run: python -m apps.cli.reference"


def test_the_verbs(capsys):
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb} " in out for verb in VERBS)
    assert list(_VERBS) == VERBS


def test_no_arguments_show_the_help(capsys):
    assert run([]) == 0
    assert "Usage: edgewise" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_imports_nothing_heavy(argv):
    heavy = ["torch", "transformers", "onnx", "onnxruntime", "tensorflow", "fastapi", "numpy", "rich"]
    code = (
        "import sys; from apps.cli.main import run; code = run(sys.argv[1:]); "
        f"assert code == 0; loaded = [m for m in {heavy} if m in sys.modules]; assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_doctor_knows_what_is_missing(capsys, monkeypatch):
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(about["ready"] for about in found["verbs"].values()), "the test environment has everything"
    import apps.diagnosis

    monkeypatch.setattr(apps.diagnosis, "_version", lambda name: None if name == "litert-torch" else "1")
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "edgewise export    needs litert-torch: pip install 'edgewise[export]'" in out
    assert "edgewise run       ready" in out


def test_overrides():
    assert overrides(["--train.epochs", "2", "--name=x"]) == {"train.epochs": "2", "name": "x"}
    for bad in (["x"], ["--a"], ["--a", "--b", "1"], ["-a", "1"]):
        with pytest.raises(InputError):
            overrides(bad)


def test_run_reads_lines_from_stdin(tiny_bundle):
    command = [sys.executable, "-m", "apps.cli", "run", str(tiny_bundle), "--top-k", "1", "--engine", "onnx"]
    texts = "wheat corn harvest\n\nopec oil barrels\n"
    done = subprocess.run(command, input=texts, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["grain", "crude"]
    for bad in (b"", b"caf\xe9\n"):
        done = subprocess.run(command, input=bad, capture_output=True, check=False)  # type: ignore[assignment]
        assert done.returncode == 2


def test_a_missing_command_line_is_one_line():
    code = "import sys; sys.modules['typer'] = None; from apps.cli.main import run; sys.exit(run(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "edgewise: the command line needs typer; pip install 'edgewise[apps]'\n"

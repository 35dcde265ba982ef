import os
import signal
import sys
from pathlib import Path

import pytest

from compress.child import in_child
from runtimes.errors import InputError


def double(value: int) -> int:
    print("converters talk")
    return value * 2


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def complain() -> None:
    raise ValueError("op Foo is not supported")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The child imports this file by its module name."""
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))  # noqa: PTH120


def test_the_answer_comes_back_and_the_talk_does_not(capfd):
    assert in_child(double, value=21) == 42
    assert capfd.readouterr() == ("", "")


def test_a_crash_is_one_line():
    with pytest.raises(InputError, match="was killed by SIGSEGV"):
        in_child(crash)


def test_an_error_is_its_last_line():
    with pytest.raises(InputError, match="complain failed: ValueError: op Foo is not supported"):
        in_child(complain)


def who() -> str | None:
    return os.environ.get("EDGEWISE_TEST_WHO")


def test_another_python_can_run_it(tmp_path):
    python = Path(tmp_path / "python")
    python.write_text(f'#!/bin/sh\nEDGEWISE_TEST_WHO=other exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert in_child(who, python=str(python)) == "other"
    assert in_child(who) is None

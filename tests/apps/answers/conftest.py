"""The service with real, tiny models (random weights: the reader is sure of everything)."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from answers_client import client_of
from fastapi.testclient import TestClient

from apps.answers.models import Models, open_models
from apps.answers.service import AnswersConfig, create_app
from apps.web.keys import Keys

LOOSE = AnswersConfig(per_minute=100_000)


@pytest.fixture(scope="session")
def models(answer_parts: dict[str, Path]) -> Models:
    return open_models(answer_parts["reader"], answer_parts["embedder"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def keys(folder: Path) -> dict[str, str]:
    """The texts of keys of all roles, made as the command makes them."""
    kept = Keys(folder)
    made = {
        "admin": kept.make("admin", "admin")[1],
        "write": kept.make("writer", "write", ["documents"])[1],
        "read": kept.make("reader", "read", ["documents"])[1],
        "other": kept.make("other", "admin", ["other"])[1],
    }
    kept.close()
    return made


@pytest.fixture
def start(folder: Path, models: Models) -> Iterator[Callable[..., TestClient]]:
    """A client of the service over `folder`, with a key's text where one is given."""
    with contextlib.ExitStack() as stack:

        def make(key: str | None = None, config: AnswersConfig = LOOSE, **more: Any) -> TestClient:
            app = create_app(folder, models, config, **more)
            return stack.enter_context(client_of(app, key))

        yield make


@pytest.fixture
def client(start: Callable[..., TestClient]) -> TestClient:
    """Where no key was ever made."""
    return start()

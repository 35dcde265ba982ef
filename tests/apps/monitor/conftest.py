"""The service with a real, tiny detector."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from monitor_client import Receiver, client_of
from tiny_detector import WARM_UP, trained

from apps.monitor.config import MonitorConfig
from apps.monitor.service import create_app
from apps.web.keys import Keys

LOOSE = MonitorConfig(per_minute=100_000, warm_up=WARM_UP, private_webhooks=True)


@pytest.fixture(scope="session")
def detector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("detector") / "checkpoint").path


@pytest.fixture(scope="session")
def detector(detector_folder: Path) -> Any:
    import edgewise

    return edgewise.load(detector_folder, threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def keys(folder: Path) -> dict[str, str]:
    """The texts of keys of all roles, made as the command makes them."""
    kept = Keys(folder)
    made = {role: kept.make(role, role)[1] for role in ("admin", "write", "read")}
    made["bound"] = kept.make("bound", "write", ["a"])[1]
    kept.close()
    return made


@pytest.fixture
def opened(folder: Path, detector: Any) -> Callable[..., TestClient]:
    """A client of the service over `folder`, for a `with`, with a key's text where one is given."""

    def make(
        key: str | None = None, config: MonitorConfig = LOOSE, identity: str = "tiny", **more: Any
    ) -> TestClient:
        return client_of(create_app(folder, detector, identity, config, **more), key)

    return make


@pytest.fixture
def start(opened: Callable[..., TestClient]) -> Iterator[Callable[..., TestClient]]:
    """The same, until the test's end."""
    with contextlib.ExitStack() as stack:
        yield lambda *what, **more: stack.enter_context(opened(*what, **more))


@pytest.fixture
def client(start: Callable[..., TestClient]) -> TestClient:
    """Where no key was ever made."""
    return start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()

"""A model that needs no bundle: it counts words, and can be held still."""

import dataclasses
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from apps.web.config import ServeConfig
from apps.web.listening import listen
from apps.web.server import create_app
from runtimes.tasks.classify import Answer, Explanation, Word

KEY = "correct-horse-battery"
WORDS = {
    "Business": {"shares", "profit", "bank", "market", "chip"},
    "Sports": {"striker", "goals", "final", "coach", "derby"},
    "World": {"ministers", "ceasefire", "border", "aid"},
    "Sci/Tech": {"probe", "orbiter", "comet", "moon", "instrument"},
}


class WordCounter:
    """Same methods as runtimes.tasks.classify.Classifier; the score of a label is its share of words."""

    def __init__(self) -> None:
        self.labels = list(WORDS)
        self.limits = {"max_tokens": 128, "max_chars": 2000, "max_batch": 8}
        self.go = threading.Event()  # cleared: every call waits
        self.go.set()
        self.threads: set[int] = set()
        self.calls = 0

    def scores(self, text: str) -> dict[str, float]:
        found = re.findall(r"\w+", text.lower())
        counts = {label: 0.2 + sum(word in known for word in found) for label, known in WORDS.items()}
        total = sum(counts.values())
        shares = {label: count / total for label, count in counts.items()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def __call__(self, texts: str | Sequence[str], top_k: int | None = None) -> Answer | list[Answer]:
        self.calls += 1
        self.threads.add(threading.get_ident())
        assert self.go.wait(30)
        if isinstance(texts, str):
            return self([texts], top_k)[0]
        answers = []
        for text in texts:
            scores = self.scores(text)
            label, score = next(iter(scores.items()))
            answers.append(Answer(label, score, dict(list(scores.items())[:top_k])))
        return answers

    def explain(self, text: str, label: str | None = None) -> Explanation:
        whole = self.scores(text)
        label = label or next(iter(whole))
        words = [
            Word(
                match.group(),
                match.start(),
                match.end(),
                whole[label] - self.scores(text[: match.start()] + text[match.end() :])[label],
            )
            for match in re.finditer(r"\w+", text)
        ]
        return Explanation(label, whole[label], words)

    def describe(self) -> dict[str, object]:
        return {
            "bundle": "news",
            "task": "text-classification",
            "variant": "onnx-int8",
            "engine": "onnx",
            "engine_version": "1.23.0",
            "threads": 1,
            "providers": ["CPUExecutionProvider"],
            "precision": "int8",
        }


@pytest.fixture
def model() -> WordCounter:
    return WordCounter()


@pytest.fixture
def config() -> ServeConfig:
    return ServeConfig(port=0, max_body_bytes=20_000, per_minute=1000, queue=3, api_key=None)


@pytest.fixture
def client_of() -> Callable[..., TestClient]:
    """A client of an app, from an address outside, that asks for a loopback name."""

    def make(app: FastAPI, address: str = "192.0.2.1") -> TestClient:
        return TestClient(app, base_url="http://127.0.0.1:8080", client=(address, 4711))

    return make


@pytest.fixture
def client(model: WordCounter, config: ServeConfig, client_of: Callable[..., TestClient]) -> TestClient:
    return client_of(create_app(model, config))


@pytest.fixture
def locked(model: WordCounter, config: ServeConfig, client_of: Callable[..., TestClient]) -> TestClient:
    """A service that asks for KEY."""
    return client_of(create_app(model, dataclasses.replace(config, api_key=KEY)))


@pytest.fixture
def key() -> str:
    return KEY


@pytest.fixture
def error_of() -> Callable[[httpx.Response], str]:
    """The line of an error reply, which must be JSON with nothing else in it, on one line."""

    def line(reply: httpx.Response) -> str:
        body = reply.json()
        assert list(body) == ["error"]
        assert "\n" not in body["error"]
        assert reply.headers["content-type"] == "application/json"
        return body["error"]

    return line


@pytest.fixture
def port(model: WordCounter, config: ServeConfig) -> Iterator[int]:
    """The service on a free loopback port, in a thread."""
    listener = listen(config.host, config.port)
    server = uvicorn.Server(uvicorn.Config(create_app(model, config), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"

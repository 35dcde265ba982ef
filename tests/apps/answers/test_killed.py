"""kill -9 in the middle of an upload: the store opens, and nothing is half there."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from answers_client import OIL, add
from fastapi.testclient import TestClient

SERVE = """
import sys, time
from pathlib import Path
from apps.answers import models
from apps.answers.service import AnswersConfig, serve
embed = models.Models.vectors
models.Models.vectors = lambda self, texts: (time.sleep(0.05), embed(self, texts))[1]  # long enough to be hit
found = models.open_models(Path({reader!r}), Path({embedder!r}))
serve(Path({folder!r}), found, AnswersConfig(port=0))
"""
LONG = "\n\n".join(f"{OIL} Bushel {number}." for number in range(400))


def test_a_killed_upload_leaves_nothing_half_indexed(
    folder: Path, answer_parts: dict[str, Path], start: Callable[..., TestClient]
) -> None:
    with start() as before:
        add(before, OIL, "kept.txt")
    program = SERVE.format(folder=str(folder), **{role: str(path) for role, path in answer_parts.items()})
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as process:
        try:
            assert process.stderr
            url = process.stderr.readline().split("open ")[1].strip().rstrip("/")
            with httpx.Client(base_url=url, trust_env=False) as client:
                job = client.post("/documents", params={"name": "long.txt"}, content=LONG).json()["jobs"][0]
                while job["embedded"] < 8:
                    time.sleep(0.02)
                    job = client.get(f"/jobs/{job['id']}").json()
                assert job["state"] == "indexing" and job["embedded"] < job["passages"]
        finally:
            process.send_signal(signal.SIGKILL)
    assert list((folder / "uploads").iterdir())  # it was really in the middle
    client = start()
    assert [one["name"] for one in client.get("/documents").json()["documents"]] == ["kept.txt"]
    assert client.get("/collections").json()["collections"][0]["passages"] == 1
    assert list((folder / "uploads").iterdir()) == []
    with sqlite3.connect(folder / "collections" / "documents" / "index.sqlite") as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counts = [file.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                  for table in ("documents", "texts", "passages", "vectors")]  # fmt: skip
        file.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    assert counts == [1, 1, 1, 1]
    assert add(client, LONG, "long.txt")["state"] == "done"

"""Load on the service: many clients ask while documents come and go.

    python -m apps.answers.load READER EMBEDDER [--seconds 60] [--clients 50]

Two servers of the same models get the same load, one after the other: one that answers what waits together,
and one that answers one question at a time. Every document states a fact that no other has, so an answer
that is read from a document whose delete had returned before the question was sent shows as stale.
"""

import argparse
import http.client
import json
import logging
import math
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from apps.answers.models import open_models
from apps.answers.service import AnswersConfig, serve
from apps.web.keys import Keys
from runtimes.errors import EdgewiseError, InputError

TOGETHER = AnswersConfig.batch
STAYING = 24  # documents that are there all the time
LIVING = 3  # of those that come and go, how many are there at once
RECENT = 20  # facts that come and go and are asked for
SYLLABLES = ["ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu"]
FILLER = (
    "The report of the year was read in the town hall. Rain fell on most days of the autumn, and the roads "
    "to the north were closed twice. A new bridge was opened in spring, and the market moved to the square. "
)


@dataclass(frozen=True)
class Fact:
    """A question that one document answers."""

    id: str
    question: str
    text: str


@dataclass
class Seen:
    """What all clients saw. `late`: answers from a deleted document that were asked for before its delete
    returned; they are allowed, and told."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    seconds: list[float] = field(default_factory=list)
    right: int = 0
    errors: list[str] = field(default_factory=list)
    refused: int = 0
    stale: int = 0
    late: int = 0
    added: int = 0
    deleted: dict[str, float] = field(default_factory=dict)  # id: when its delete returned


@dataclass(frozen=True)
class Row:
    """One server under load: questions a second, seconds to an answer, and all that went wrong.

    `cpu`: the process's seconds of processor time for each question, uploads with it; other load on the
    machine changes it little. NaN where the system does not tell.
    """

    server: str
    questions: int
    per_second: float
    cpu: float
    p50: float
    p95: float
    worst: float
    right: float
    errors: int
    refused: int
    stale: int
    late: int
    added: int
    deleted: int


def load(
    reader: Path,
    embedder: Path,
    seconds: float = 60,
    clients: int = 50,
    threads: int = 1,
    filler: str = FILLER,
) -> list[Row]:
    """Both servers under load. `filler` stands around each fact. Raises InputError where none starts."""
    rows = []
    for name, batch in (("together", TOGETHER), ("one at a time", 1)):
        with running(reader, embedder, threads, batch) as (pid, port, key):
            rows.append(pressed(name, pid, port, key, seconds, clients, filler))
    return rows


@contextmanager
def running(reader: Path, embedder: Path, threads: int, batch: int) -> Iterator[tuple[int, int, str]]:
    """The service in a process of its own, over a folder of its own: its id, port and an admin's key."""
    with tempfile.TemporaryDirectory(prefix="edgewise-") as folder, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        kept = Keys(Path(folder))
        key = kept.make("load", "admin", per_minute=1_000_000)[1]
        kept.close()
        taken.close()
        process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(Path(folder), reader, embedder, threads, batch, port), daemon=True
        )
        process.start()
        try:
            _wait_for(port, process)
            yield process.pid or 0, port, key
        finally:
            process.terminate()
            process.join(20)


def pressed(name: str, pid: int, port: int, key: str, seconds: float, clients: int, filler: str) -> Row:
    """Presses one server, the process `pid`, for a time and tells what came."""
    seen, staying = Seen(), [fact(f"staying-{number}", filler) for number in range(STAYING)]
    first = Client(port, key)
    for one in staying:
        first.add(one)
    recent: deque[Fact] = deque(maxlen=RECENT)
    until = time.monotonic() + seconds
    workers = [
        threading.Thread(target=_ask, args=(Client(port, key), seen, staying, recent, until, number))
        for number in range(clients)
    ]
    workers.append(threading.Thread(target=_churn, args=(Client(port, key), seen, recent, until, filler)))
    began, busy = time.monotonic(), cpu_seconds(pid)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return _row(name, seen, time.monotonic() - began, cpu_seconds(pid) - busy)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, of the kernel's own account (proc(5)); NaN where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client:
    """One keep-alive connection with a key."""

    def __init__(self, port: int, key: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.key = key

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        self.connection.request(method, path, body, headers)
        reply = self.connection.getresponse()
        return reply.status, json.loads(reply.read())

    def ask(self, question: str) -> tuple[int, dict[str, Any]]:
        return self.call("POST", "/ask", json.dumps({"question": question}).encode())

    def add(self, one: Fact) -> None:
        """Returns when it can be found. Raises InputError where it cannot be added."""
        path = f"/documents/{one.id}?name={quote(one.id)}.txt"
        status, reply = self.call("PUT", path, one.text.encode())
        job = reply["jobs"][0] if status == 202 else {"state": "failed", "error": reply}
        while job["state"] not in ("done", "failed"):
            job = self.call("GET", f"/jobs/{job['id']}?wait=10")[1]
        if job["state"] == "failed":
            raise InputError(f"a document was not added: {job['error']}")


def fact(id: str, filler: str = FILLER) -> Fact:
    """A document with a fact of its own, and its question."""
    random_of = random.Random(id)
    tower, keeper = ("".join(random_of.choices(SYLLABLES, k=4)).capitalize() for _ in range(2))
    text = (
        f"{filler}The keeper of the tower {tower} is {keeper}, who came in {random_of.randint(1800, 2020)}. "
    )
    return Fact(id, f"Who is the keeper of the tower {tower}?", text + filler)


def _ask(
    client: Client, seen: Seen, staying: list[Fact], recent: "deque[Fact]", until: float, seed: int
) -> None:
    choice = random.Random(seed)
    while time.monotonic() < until:
        facts = list(recent)
        one = choice.choice(facts) if facts and choice.random() < 0.3 else choice.choice(staying)
        sent = time.monotonic()
        try:
            status, reply = client.ask(one.question)
        except (OSError, http.client.HTTPException, ValueError) as error:
            with seen.lock:
                seen.errors.append(repr(error))
            return
        _note(seen, one, sent, status, reply)
        if status == 503:
            time.sleep(1)


def _note(seen: Seen, one: Fact, sent: float, status: int, reply: dict[str, Any]) -> None:
    now = time.monotonic()
    with seen.lock:
        if status == 503:
            seen.refused += 1
        elif status != 200:
            seen.errors.append(f"{status}: {reply}")
        else:
            seen.seconds.append(now - sent)
            sources = [source["document"] for answer in reply["answers"] for source in answer["sources"]]
            seen.right += bool(sources) and sources[0] == one.id
            gone = [seen.deleted[id] for id in sources if id in seen.deleted]
            seen.stale += any(at < sent for at in gone)
            seen.late += bool(gone) and all(at >= sent for at in gone)


def _churn(client: Client, seen: Seen, recent: "deque[Fact]", until: float, filler: str) -> None:
    """Adds documents and deletes the oldest of them, without a pause."""
    living: deque[Fact] = deque()
    number = 0
    while time.monotonic() < until:
        one = fact(f"passing-{number}", filler)
        number += 1
        try:
            client.add(one)
            living.append(one)
            recent.append(one)
            with seen.lock:
                seen.added += 1
            if len(living) > LIVING:
                old = living.popleft()
                status, reply = client.call("DELETE", f"/documents/{old.id}")
                if status != 200:
                    raise InputError(f"a document was not deleted: {reply}")
                with seen.lock:
                    seen.deleted[old.id] = time.monotonic()
        except (OSError, http.client.HTTPException, ValueError, InputError) as error:
            with seen.lock:
                seen.errors.append(repr(error))
            return


def _row(name: str, seen: Seen, seconds: float, cpu: float) -> Row:
    found = np.array(seen.seconds or [0.0])
    count = len(seen.seconds)
    for line in dict.fromkeys(seen.errors[:5]):
        print(f"load: {line}", file=sys.stderr)
    p50, p95 = (float(np.percentile(found, share)) for share in (50, 95))
    return Row(
        name, count, count / seconds, cpu / max(count, 1), p50, p95, float(found.max()),
        seen.right / max(count, 1), len(seen.errors), seen.refused, seen.stale, seen.late,
        seen.added, len(seen.deleted),
    )  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| server | questions/s | CPU s a question | p50 s | p95 s | slowest s | right document "
        "| errors | refused | stale | added | deleted |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.server} | {row.per_second:.1f} | {row.cpu:.3f} | {row.p50:.2f} | {row.p95:.2f} "
            f"| {row.worst:.2f} | {row.right:.0%} | {row.errors} | {row.refused} | {row.stale} "
            f"| {row.added} | {row.deleted} |"
        )
    return "\n".join(lines)


def _serve(folder: Path, reader: Path, embedder: Path, threads: int, batch: int, port: int) -> None:
    logging.getLogger("edgewise.web").addHandler(logging.NullHandler())  # a line a request says nothing here
    serve(folder, open_models(reader, embedder, threads), AnswersConfig(port=port, batch=batch))


def _wait_for(port: int, process: Any) -> None:
    until = time.monotonic() + 120
    while process.is_alive() and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise InputError("the service did not start; try it with `edgewise serve READER --documents FOLDER`")


def main() -> int:
    """Prints the table; exit code 1 where something went wrong."""
    parser = argparse.ArgumentParser(prog="apps.answers.load", description=__doc__.split("\n")[0])
    parser.add_argument("reader", type=Path)
    parser.add_argument("embedder", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="of the models")
    try:
        rows = load(**vars(parser.parse_args()))
    except EdgewiseError as error:
        print(f"load: {error}", file=sys.stderr)
        return error.exit_code
    print(table(rows))
    return int(any(row.errors or row.stale for row in rows))


if __name__ == "__main__":
    sys.exit(main())

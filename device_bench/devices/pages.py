"""A page on loopback that answers requests: files for it, and a mailbox between it and us."""

import json
import mimetypes
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from device_bench.devices import Progress
from runtimes.errors import DeviceError

MAX_POST_BYTES = 64 << 20
LONG_POLL_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # a tab in the background is heard of once a minute at worst, less a margin
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm",
         ".json": "application/json", ".html": "text/html; charset=utf-8", ".css": "text/css"}  # fmt: skip
HEADERS = {
    # Threads need a page that shares memory with nobody.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # ONNX Runtime's WebGPU build makes functions from strings.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval'; "
    "worker-src 'self' blob:; connect-src 'self'; style-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Page:
    """A server of `files` (name → path or bytes) at `url`, which holds a secret, and the page that asks it.

    The first page that says hello is the one; others are told so.
    """

    def __init__(self, name: str, files: dict[str, Path | bytes]) -> None:
        self.name = name
        self.files = files
        self._token = secrets.token_urlsafe(16)
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/{self._token}/"
        self._change = threading.Condition()
        self._page: str | None = None
        self._seen = 0.0
        self._lines: list[str] = []
        self._number = 0
        self._request: dict[str, Any] | None = None
        self._answer: dict[str, Any] | None = None
        self.over = False
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def ask(
        self,
        request: dict[str, Any],
        progress: Progress,
        gone: Callable[[], str | None] = lambda: None,
        patience: float = 600.0,
    ) -> dict[str, Any]:
        """The page's answer. Raises DeviceError where `gone()` says why it went away, where no page opens
        within `patience` seconds, or where it falls silent."""
        started = time.monotonic()
        with self._change:
            self._number += 1
            self._request, self._answer = {"number": self._number, **request}, None
            self._change.notify_all()
            while self._answer is None:
                self._change.wait(0.2)
                while self._lines:
                    progress(self._lines.pop(0))
                reason = gone() if self._answer is None else None
                reason = reason or self._silence(started, patience)
                if reason:
                    self._request = None
                    raise DeviceError(f"{self.name}: {reason}")
            return self._answer

    def _silence(self, started: float, patience: float) -> str | None:
        now = time.monotonic()
        if self._page is None and now - started > patience:
            return f"no page opened within {patience:g} s; open {self.url} there and try again"
        if self._page is not None and now - self._seen > SILENCE_SECONDS:
            return "the page no longer answers: its tab was closed, sleeps, or ran out of memory"
        return None

    def close(self) -> None:
        """No file and no request any more; the page is told so, on the connection that it keeps open."""
        with self._change:
            self.over = True
            self._change.notify_all()
        self._server.shutdown()
        self._server.server_close()

    # What the page does, one thread a call.

    def hello(self, page: str) -> bool:
        with self._change:
            self._page = self._page or page
            self._seen = time.monotonic()
            return self._page == page

    def next(self) -> dict[str, Any] | None:
        """The request that waits, or None after a while."""
        with self._change:
            self._change.wait_for(lambda: self._request is not None or self.over, LONG_POLL_SECONDS)
            request, self._request = self._request, None
            return request

    def beat(self, line: str | None) -> None:
        with self._change:
            if line:
                self._lines.append(line[:500])
            self._change.notify_all()

    def answer(self, told: dict[str, Any]) -> None:
        with self._change:
            if told.get("number") == self._number:
                self._answer = told
                self._change.notify_all()

    def allows(self, host: str | None) -> bool:
        """Whether a request names this server, so that no other site's name leads here."""
        return host in (f"127.0.0.1:{self.port}", f"localhost:{self.port}")

    def name_of(self, path: str) -> str | None:
        """The name below the secret part of a path, None for any other path."""
        parts = path.split("/", 2)
        if len(parts) != 3 or not secrets.compare_digest(parts[1].encode(), self._token.encode()):
            return None
        return parts[2] or "bench.html"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, page: Page) -> None:
        self.page = page
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a page that goes away in the middle is told by `ask`."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 120

    def do_GET(self) -> None:
        name, who = self._asked()
        if name is None:
            return
        if name == "next":
            told = self.page.next() or {} if self.page.hello(who) else {"taken": True}
            self._json({"over": True} if self.page.over else told)
        elif name in self.page.files:
            self._file(name, self.page.files[name])
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        name, who = self._asked()
        if name is None:
            return
        told = self._body()
        if told is None or name not in ("beat", "answer"):
            self.close_connection = True
            self.send_error(400)
            return
        if not self.page.hello(who):
            self._json({"taken": True})
        elif name == "beat":
            self.page.beat(str(told.get("line") or ""))
            self._json({})
        else:
            self.page.answer(told)
            self._json({})

    def _asked(self) -> tuple[str | None, str]:
        url = urlsplit(self.path)
        name = (
            self.page.name_of(url.path)
            if self.page.allows(self.headers.get("Host")) and not self.page.over
            else None
        )
        if name is None:
            self.close_connection = True
            self.send_error(404)
        return name, parse_qs(url.query).get("page", [""])[0]

    def _body(self) -> dict[str, Any] | None:
        length = self.headers.get("Content-Length") or ""
        if not length.isdigit() or int(length) > MAX_POST_BYTES:
            return None
        try:
            told = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return None
        return told if isinstance(told, dict) else None

    def _json(self, value: dict[str, Any]) -> None:
        self._start("application/json", data := json.dumps(value).encode())
        self.wfile.write(data)

    def _file(self, name: str, source: Path | bytes) -> None:
        kind = TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        data = source if isinstance(source, bytes) else source.read_bytes()
        self._start(kind, data)
        self.wfile.write(data)

    def _start(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()

    def end_headers(self) -> None:
        for key, value in HEADERS.items():
            self.send_header(key, value)
        super().end_headers()

    def version_string(self) -> str:
        return "edgewise"

    def log_message(self, *args: object) -> None:
        """Nothing: the address holds the secret."""

    @property
    def page(self) -> Page:
        return self.server.page

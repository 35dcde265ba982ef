"""The socket and the server under an application: one line where it is, one a request, a good end."""

import contextlib
import logging
import socket

from fastapi import FastAPI

from runtimes.errors import InputError


def run(app: FastAPI, listener: socket.socket, host: str, max_frame_bytes: int = 0) -> None:
    """Serves `app` on an open socket until interrupted, and says on stderr where it is.

    `max_frame_bytes`: of a WebSocket's frame; 0: there are no WebSockets.
    """
    import uvicorn

    log = logging.getLogger("edgewise.web")
    log_to_stderr(log)
    log.info("open http://%s:%d/", address(host), listener.getsockname()[1])
    # No access log of uvicorn's: it writes the query, which may hold a text. Forwarded addresses are not
    # believed: on loopback any local program could forge them and walk around the rate limit.
    settings = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        ws="websockets-sansio" if max_frame_bytes else "none",
        ws_max_size=max_frame_bytes or 1,
        timeout_graceful_shutdown=10,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has stopped in good order, and says it again
        uvicorn.Server(settings).run(sockets=[listener])


def log_to_stderr(log: logging.Logger) -> None:
    """One line a request, once, whatever the program around has set up."""
    log.setLevel(logging.INFO)
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)


def address(host: str) -> str:
    """The host as a URL writes it."""
    return f"[{host}]" if ":" in host else host


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError where the address is taken or not of this machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        place = f"{address(host)}:{port}"
        why = getattr(error, "strerror", None) or "no such address"
        line = f"cannot listen on {place} ({why}); choose another --port or --host"
        raise InputError(line) from error

"""A network cable that can be cut: a TCP forwarder on loopback that counts what goes through."""

import socket
import threading
from contextlib import suppress


class Cable:
    """Forwards to a port until it is cut, by hand or after `most` bytes towards the device."""

    def __init__(self, port: int, most: int | None = None) -> None:
        self.sent = 0
        self._to, self._most = port, most
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 14):
                if target.getpeername()[1] == self._to:
                    self.sent += len(data)
                    if self._most is not None and self.sent > self._most:
                        break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Both ends are closed, and nobody answers any more."""
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

"""Sends the alerts that are due, for as long as the service runs."""

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from apps.monitor import outbox
from apps.monitor.intake import Intake
from apps.monitor.outbox import Due
from apps.monitor.schema import reading
from apps.monitor.sending import send
from apps.web.guard import where_it_broke
from apps.web.replies import Refused

log = logging.getLogger("edgewise.web")
TOGETHER = 16  # alerts under way at a time
EACH = 4  # of them to one webhook, so that a slow one does not hold up the others
WRITE_AGAIN_S = 5.0  # where the end of an attempt could not be written
AT_MOST_S = 30.0  # the list is looked at as often as that, though nothing said so


class Alerts:
    """`told` may be called from any thread when something new is due. `seen` is told of each attempt."""

    def __init__(self, path: Path, intake: Intake, private: bool) -> None:
        self.path, self.intake, self.private = path, intake, private
        self.pool = ThreadPoolExecutor(max_workers=TOGETHER, thread_name_prefix="edgewise-alerts")
        self.running: dict[str, asyncio.Task[None]] = {}  # by delivery
        self.ended: set[str] = set()  # deliveries, since the list was last looked at
        self.to: Counter[str] = Counter()  # webhooks
        self.loop: asyncio.AbstractEventLoop | None = None
        self.new = asyncio.Event()
        self.seen: Callable[[str], None] = lambda outcome: None

    def told(self) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.new.set)

    async def run(self) -> None:
        """Until cancelled."""
        self.loop = asyncio.get_running_loop()
        while True:
            self.new.clear()
            self.ended.clear()
            try:
                found, following = await asyncio.to_thread(self._look)
            except sqlite3.Error as error:  # such as a full disk: alerts wait, and are not given up
                log.error("alerts cannot be looked for: %s", where_it_broke(error))
                found, following = [], time.time() + 5.0
            for one in found:
                self._start(one)
            wait = 1.0 if self.running else AT_MOST_S
            if following is not None and not found:
                wait = min(wait, following - time.time())
            try:
                await asyncio.wait_for(self.new.wait(), max(wait, 0.05))
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Waits for what is under way, so that it is not sent twice."""
        if self.running:
            await asyncio.wait(self.running.values(), timeout=5)
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> tuple[list[Due], float | None]:
        with closing(reading(self.path)) as file:
            return outbox.due(file, time.time(), 2 * EACH), outbox.next_due(file)

    def _start(self, one: Due) -> None:
        """Unless it is under way, or too much is. The list may be older than the end of an attempt."""
        if one.id in self.ended or one.id in self.running:
            return
        if self.to[one.webhook] < EACH and len(self.running) < TOGETHER:
            self.to[one.webhook] += 1
            self.running[one.id] = asyncio.create_task(self._send(one))

    async def _send(self, one: Due) -> None:
        try:
            loop, now = asyncio.get_running_loop(), str(int(time.time()))
            sent, said = await loop.run_in_executor(
                self.pool, send, one.url, one.secret, one.body.encode(), one.id, now, self.private
            )
            self.seen("sent" if sent else "failed")
            while not await self.intake.do(lambda: self._write(one, sent, said)):
                await asyncio.sleep(WRITE_AGAIN_S)  # and it is not sent again meanwhile
        except Refused:
            pass  # the service stops: it is due again after its start
        finally:
            self.to[one.webhook] -= 1
            del self.running[one.id]
            self.ended.add(one.id)
            self.new.set()

    def _write(self, one: Due, sent: bool, said: str) -> bool:
        """Whether it could be written."""
        try:
            with self.intake.scorer.transaction() as file:
                outbox.ended(file, one, sent, said, time.time())
        except sqlite3.Error as error:  # such as a full disk
            log.error("the end of an alert was not written: %s", where_it_broke(error))
            return False
        return True

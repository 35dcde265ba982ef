"""The way of points to the disk: a bounded queue, and one thread that writes what waits together."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from apps.monitor.points import Part
from apps.monitor.scoring import Scorer, Taken
from apps.web.guard import where_it_broke
from apps.web.replies import Refused

log = logging.getLogger("edgewise.web")
T = TypeVar("T")
LINGER_S = 0.02  # so that requests of the same moment share a transaction


class Intake:
    """Lives on one event loop; the scorer and its file belong to one thread of its own.

    `waiting` points may wait; a request over that is refused at once with 503 and the seconds after which
    there should be room. About `together` points are written in one transaction.
    """

    def __init__(self, scorer: Scorer, waiting: int, together: int) -> None:
        self.scorer, self.most, self.together = scorer, waiting, together
        self.queue: deque[tuple[Sequence[Part], int, asyncio.Future[Taken]]] = deque()
        self.waiting = 0
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgewise-points")
        self.runner: asyncio.Task[None] | None = None
        self.room = asyncio.Event()
        self.room.set()
        self.per_second = 2_000.0  # points, a moving average
        self.seen: Callable[[int, float], None] = lambda points, seconds: None  # told of each transaction
        self.open = True

    async def put(self, parts: Sequence[Part]) -> Taken:
        """What became of the points, once they are on the disk.

        Raises Refused: 503 where too many wait or the service stops, 422 where they do not fit their series.
        """
        if not self.open:
            raise Refused(503, "the service is stopping; try again in a moment", {"Retry-After": "5"})
        points = sum(len(part.times) for part in parts)
        if self.waiting and self.waiting + points > self.most:
            seconds = max(1, math.ceil(self.waiting / self.per_second))
            line = f"{self.waiting} points wait already; try again in {seconds} s"
            raise Refused(503, line, {"Retry-After": str(seconds)})
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self.queue.append((parts, points, future))
        self._count(points)
        self._run_soon()
        return await future

    async def put_patiently(self, parts: Sequence[Part]) -> Taken:
        """The same, but waits for room: for a connection that is read no faster than this."""
        while self.waiting >= self.most // 2:
            self.room.clear()
            await self.room.wait()
        return await self.put(parts)

    async def do(self, work: Callable[[], T]) -> T:
        """Work of the scorer's thread, between two transactions."""
        if not self.open:
            raise Refused(503, "the service is stopping; try again in a moment", {"Retry-After": "5"})
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    def wake(self) -> None:
        """Has something to learn looked at, though no point comes."""
        self._run_soon()

    async def close(self) -> None:
        """Takes no more, and writes what waits."""
        self.open = False
        if self.runner is not None:
            await asyncio.wait([self.runner])
        self.pool.shutdown(wait=True)

    def _run_soon(self) -> None:
        if self.runner is None or self.runner.done():
            self.runner = asyncio.create_task(self._run())

    def _count(self, points: int) -> None:
        self.waiting += points
        if self.waiting < self.most // 2:
            self.room.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.queue or (self.scorer.waiting() and self.open):
            if self.open:
                await asyncio.sleep(LINGER_S)
            batch = self._next()
            began = time.perf_counter()
            results = await loop.run_in_executor(self.pool, self._commit, [parts for parts, _, _ in batch])
            points = sum(count for _, count, _ in batch)
            if points:
                seconds = time.perf_counter() - began
                self.per_second = 0.8 * self.per_second + 0.2 * points / max(seconds, 1e-4)
                self.seen(points, seconds)
            self._count(-points)
            for (_, _, future), result in zip(batch, results, strict=True):
                _settle(future, result)

    def _next(self) -> list[tuple[Sequence[Part], int, "asyncio.Future[Taken]"]]:
        """What goes into the next transaction. A client that went away is no reason to drop its points."""
        batch: list[tuple[Sequence[Part], int, asyncio.Future[Taken]]] = []
        points = 0
        while self.queue and (not batch or points + self.queue[0][1] <= self.together):
            one = self.queue.popleft()
            points += one[1]
            batch.append(one)
        return batch

    def _commit(self, requests: list[Sequence[Part]]) -> Sequence[Taken | Exception]:
        """In the thread."""
        results: Sequence[Taken | Exception] = []
        try:
            results = self.scorer.commit(requests) if requests else []
        except Exception as error:
            if not isinstance(error, Refused):
                log.error("internal error: %s", where_it_broke(error))
            results = [error] * len(requests)
        try:
            self.scorer.learn_some()
        except Exception as error:
            log.error("internal error: %s", where_it_broke(error))
            self.scorer.ripe.clear()  # until the next point
        return results


def _settle(future: "asyncio.Future[Taken]", result: "Taken | Exception") -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)

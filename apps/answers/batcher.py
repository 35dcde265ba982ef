"""Questions of many requests answered together, off the event loop: what waits goes in one call."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from apps.web.replies import Refused
from runtimes.errors import InputError

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """`answer` runs in one thread with up to `most` of the questions that wait.

    `waiting` of them may wait; the next one is refused at once with 503 and the seconds after which there
    should be room, so that a crowd costs neither memory nor everybody's patience. Lives on one event loop.
    """

    def __init__(self, answer: Callable[[list[Q]], list[A]], most: int, waiting: int) -> None:
        self.answer, self.most, self.waiting = answer, most, waiting
        self.queue: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgewise-questions")
        self.running: asyncio.Future[list[A | Exception]] | None = None
        self.runner: asyncio.Task[None] | None = None
        self.idle = threading.Event()  # other work waits for it a moment, to leave the cores to questions
        self.idle.set()
        self.seconds_each = 0.05  # of one question, a moving average
        self.seen: Callable[[int], None] = lambda size: None  # told of each batch
        self.open = True

    async def ask(self, question: Q) -> A:
        """The answer. Raises Refused: 503 where the queue is full or the service stops, 422 from `answer`."""
        if not self.open:
            raise Refused(503, "the service is stopping; try again in a moment", {"Retry-After": "5"})
        if len(self.queue) >= self.waiting:
            seconds = max(1, math.ceil(len(self.queue) * self.seconds_each))
            line = f"{len(self.queue)} questions wait already; try again in {seconds} s"
            raise Refused(503, line, {"Retry-After": str(seconds)})
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self.queue.append((question, future))
        if self.runner is None or self.runner.done():
            self.runner = asyncio.create_task(self._run())
        return await future

    async def settled(self) -> None:
        """Returns when no answer is under way that began before this call."""
        if self.running is not None and not self.running.done():
            await asyncio.wait([self.running])

    def close(self) -> None:
        """Takes no more questions and drops what waits."""
        self.open = False
        self.pool.shutdown(wait=False, cancel_futures=True)
        while self.queue:
            self.queue.popleft()[1].cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self.idle.clear()
        try:
            while batch := self._next():
                began = time.perf_counter()
                self.running = loop.run_in_executor(self.pool, self._answers, [one for one, _ in batch])
                answers = await self.running
                each = (time.perf_counter() - began) / len(batch)
                self.seconds_each = 0.8 * self.seconds_each + 0.2 * each
                self.seen(len(batch))
                for (_, future), answer in zip(batch, answers, strict=True):
                    _settle(future, answer)
        finally:
            self.idle.set()

    def _next(self) -> list[tuple[Q, asyncio.Future[A]]]:
        """The next ones whose askers still wait."""
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        while self.queue and len(batch) < self.most:
            if not (one := self.queue.popleft())[1].done():
                batch.append(one)
        return batch

    def _answers(self, questions: list[Q]) -> list[A | Exception]:
        """In the thread. Where a batch fails, each is tried alone: no question is another one's error."""
        try:
            return list(self.answer(questions))
        except Exception as error:
            if len(questions) == 1:
                return [error]
            return [answer for one in questions for answer in self._answers([one])]


def _settle(future: "asyncio.Future[A]", answer: "A | Exception") -> None:
    if future.done():
        return
    if isinstance(answer, InputError) and type(answer) is InputError:
        future.set_exception(Refused(422, str(answer)))
    elif isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)

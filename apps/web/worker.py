"""Inference off the event loop: one thread before one engine session, and a bound on who waits."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from apps.web.replies import Refused

T = TypeVar("T")


class Worker:
    """Runs work in one thread, because an engine session answers one call at a time.

    `queue` requests may wait beside the one being answered; the next one is refused at once with 503,
    so that a crowd costs neither memory nor everybody's patience.
    """

    def __init__(self, queue: int) -> None:
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgewise-inference")
        self.places = threading.BoundedSemaphore(1 + queue)
        self.open = True

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work()`. Raises Refused (503) where the queue is full or the service stops."""
        if not self.open:
            raise Refused(503, "the service is stopping; try again in a moment", {"Retry-After": "5"})
        if not self.places.acquire(blocking=False):
            raise Refused(503, "the queue of the model is full; try again in a second", {"Retry-After": "1"})
        try:
            future = self.pool.submit(work)
        except RuntimeError:
            self.places.release()
            raise
        # The place is given back when the work is over, not when the client goes away.
        future.add_done_callback(lambda _: self.places.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Takes no more work and drops what waits."""
        self.open = False
        self.pool.shutdown(wait=False, cancel_futures=True)

"""Questions together: what waits goes in one call, a crowd is refused, and no question harms another."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from apps.answers.batcher import Batcher
from apps.web.replies import Refused
from runtimes.errors import EngineError, InputError


class Model:
    """Doubles numbers; can be held still. Notes its batches and threads."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        self.threads.add(threading.get_ident())
        assert self.go.wait(30)
        if -1 in numbers:
            raise InputError("minus one is no number; give another")
        if -2 in numbers:
            raise EngineError("broken")
        return [2 * number for number in numbers]


@pytest.fixture
def model() -> Model:
    return Model()


async def asked(batcher: Batcher[int, int], numbers: list[int]) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batcher.ask(number)) for number in numbers]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def go(use: Callable[[], Any]) -> Any:
    return asyncio.run(use())


def test_what_waits_goes_in_one_call_and_each_gets_its_own(model: Model) -> None:
    async def use() -> None:
        batcher = Batcher(model, most=4, waiting=100)
        tasks = await asked(batcher, list(range(10)))
        assert not batcher.idle.is_set()
        model.go.set()
        assert await asyncio.gather(*tasks) == [2 * number for number in range(10)]
        assert [len(batch) for batch in model.batches] == [4, 4, 2]
        assert len(model.threads) == 1 and threading.get_ident() not in model.threads
        await asyncio.sleep(0)
        assert batcher.idle.is_set()
        assert await batcher.ask(7) == 14  # and it goes on after a rest

    go(use)


def test_a_crowd_is_refused_with_the_time_to_wait(model: Model) -> None:
    async def use() -> None:
        batcher = Batcher(model, most=2, waiting=3)
        tasks = await asked(batcher, [0, 1])  # under way
        tasks += await asked(batcher, [2, 3, 4])  # waiting
        with pytest.raises(Refused) as refused:
            await batcher.ask(5)
        assert refused.value.status == 503 and int(refused.value.headers["Retry-After"]) >= 1
        model.go.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8]

    go(use)


def test_one_bad_question_is_nobody_elses_error(model: Model) -> None:
    model.go.set()

    async def use() -> None:
        batcher = Batcher(model, most=8, waiting=8)
        tasks = await asked(batcher, [1, -1, 2, -2, 3])
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [found[0], found[2], found[4]] == [2, 4, 6]
        assert isinstance(found[1], Refused) and found[1].status == 422
        assert isinstance(found[3], EngineError)

    go(use)


def test_who_went_away_is_not_answered(model: Model) -> None:
    async def use() -> None:
        batcher = Batcher(model, most=1, waiting=8)
        tasks = await asked(batcher, [1, 2, 3])
        tasks[1].cancel()
        model.go.set()
        assert await asyncio.gather(tasks[0], tasks[2]) == [2, 6]
        assert model.batches == [[1], [3]]

    go(use)


def test_settled_waits_for_what_is_under_way_and_no_longer(model: Model) -> None:
    async def use() -> None:
        batcher = Batcher(model, most=1, waiting=8)
        await batcher.settled()
        tasks = await asked(batcher, [1, 2])
        waiting = asyncio.create_task(batcher.settled())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        model.go.set()
        await waiting
        assert model.batches[0] == [1]
        await asyncio.gather(*tasks)

    go(use)


def test_closed(model: Model) -> None:
    async def use() -> None:
        batcher = Batcher(model, most=1, waiting=8)
        tasks = await asked(batcher, [1, 2])
        batcher.close()
        model.go.set()
        with pytest.raises(Refused, match="stopping"):
            await batcher.ask(3)
        assert tasks[1].cancelled() or await asyncio.wait({tasks[1]}, timeout=5)

    go(use)

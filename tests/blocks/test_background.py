"""A7: what runs beside a body is stopped with it, and does not fail in silence."""

from __future__ import annotations

import asyncio

import pytest

from atoll import background


async def fails_after(event: asyncio.Event, error: BaseException) -> None:
    await event.wait()
    raise error


async def test_they_run_beside_the_body_and_end_with_it() -> None:
    seen: list[str] = []

    async def run(name: str) -> None:
        seen.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(f"{name} ends")

    async with background(run("a"), run("b")):
        await asyncio.sleep(0)
        assert seen == ["a", "b"]
    assert seen == ["a", "b", "a ends", "b ends"]


async def test_an_error_stops_the_body_and_comes_out_alone() -> None:
    event = asyncio.Event()
    with pytest.raises(ValueError, match="mine"):
        async with background(fails_after(event, ValueError("mine"))):
            event.set()
            await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_an_error_that_the_body_swallowed_comes_out_at_the_end() -> None:
    event = asyncio.Event()
    with pytest.raises(ValueError):
        async with background(fails_after(event, ValueError())):
            event.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass


async def test_two_errors_come_out_as_a_group() -> None:
    event = asyncio.Event()
    with pytest.raises(ExceptionGroup) as caught:
        async with background(fails_after(event, ValueError()), fails_after(event, KeyError())):
            event.set()
            await asyncio.sleep(60)
    assert caught.group_contains(ValueError) and caught.group_contains(KeyError)


async def test_the_body_s_own_error_is_not_replaced() -> None:
    with pytest.raises(KeyError):
        async with background(asyncio.Event().wait()):
            raise KeyError


async def test_outer_cancellation_wins() -> None:
    event = asyncio.Event()

    async def work() -> None:
        async with background(fails_after(event, ValueError())):
            try:
                await asyncio.sleep(60)
            finally:
                task.cancel()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    event.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_that_ends_quietly_stops_nobody() -> None:
    async def short() -> int:
        return 1

    async with background(short()):
        await asyncio.sleep(0.01)

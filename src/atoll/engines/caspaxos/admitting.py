"""Admitting: an acceptor that has lost everything, or a new one in its place, is taken in again.

A member who lost their memory may not simply sit down: a question put to them before would be counted twice.
First the others close the old book and open a new one, so that old questions count no more; then they bring
every page up to date among themselves; only then is a card written for the newcomer.

Source: Rystsov, CASPaxos (2018), section 2.3: the rescan when acceptors change.
Departure: the others all take part in the rescan, so the newcomer may begin empty; a generation on each card
ends the proposals of before, where the paper waits until every proposer has its new settings.
"""

from __future__ import annotations

import asyncio

import msgspec

from atoll import clock
from atoll.algorithms.caspaxos import Quorums
from atoll.engines.caspaxos.acceptor import Acceptor
from atoll.engines.caspaxos.driver import Driver
from atoll.engines.caspaxos.records import FORMAT, NUMBERS, Card, State
from atoll.errors import ConfigurationError, Conflict, NotReady
from atoll.ports.register import Register


async def admit(driver: Driver, place: Register) -> int:
    """See `CasPaxosRegister.admit`."""
    newcomer = next((one for one in driver.acceptors.values() if one.place is place), None)
    if newcomer is None:
        raise ConfigurationError(
            f"found {place.url}, which is none of the places of {driver.url}. Open a register that names it "
            "in place of the lost one, then admit it."
        )
    if await newcomer.meet() is not None:
        raise ConfigurationError(
            f"found that {newcomer.url} has its card; expected an empty place. It takes part already."
        )
    others = [one for one in driver.acceptors.values() if one is not newcomer]
    cards = [await one.meet() for one in others]
    if None in cards:
        raise NotReady(
            f"found that {others[cards.index(None)].url} has no card either; expected all the others to be "
            "whole. What was acknowledged may be lost: restore one of them from a backup first."
        )
    there = [card for card in cards if card is not None]
    await _raise_generation(driver, others, 1 + max(card.generation for card in there))
    keys = await _keys(others)
    quorums = Quorums.all_of([one.name for one in others])
    for key in [NUMBERS, *sorted(keys)]:
        await driver.change(key, State.at, f"reading {key!r} again", quorums=quorums)
    await _seat(driver, newcomer, others)
    return len(keys)


async def _raise_generation(driver: Driver, others: list[Acceptor], generation: int) -> None:
    for one in others:
        card = await one.card()
        while card is not None and card.generation < generation:
            card = await one.put_card(msgspec.structs.replace(card, generation=generation))
        if card is None or card.generation != generation:
            raise Conflict(
                f"somebody else admits an acceptor of {driver.url} just now. Look, then ask again."
            )
        assert one.fellows is not None
        one.fellows.generation = generation


async def _keys(others: list[Acceptor]) -> set[str]:
    """Every key that one of them has a cell of."""

    async def of(one: Acceptor) -> set[str]:
        async for item in one.place.observe(one.cells):
            return {entry.key.removeprefix(one.cells) for entry in item.changed}
        return set()

    found = await asyncio.gather(*(of(one) for one in others))
    return set().union(*found) - {NUMBERS}


async def _seat(driver: Driver, newcomer: Acceptor, others: list[Acceptor]) -> None:
    """Its card: a free name of the set, the clock of the furthest."""
    cards = [one.itself(await one.card()) for one in others]
    names = sorted(set(cards[0].set_of) - {card.id for card in cards})
    card = Card(
        FORMAT,
        names[0] if names else clock.unique_id(),
        cards[0].set_of,
        cards[0].generation,
        max(card.clock for card in cards),
        newcomer.epoch,
    )
    if await newcomer.put_card(card) != card:
        raise Conflict(f"somebody else admitted {newcomer.url} just now. Nothing more is to be done.")

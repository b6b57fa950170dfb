"""Forming: how separate places become the acceptors of one register, and how a handle finds them again.

A club's first evening. Everybody must be there: each gets a card, and when all have one, each card gets the
names of all. Later a majority is enough. Who comes without a card was here before and has lost the memory of
it, so they sit apart until they are taken in again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from atoll import clock
from atoll.algorithms.paxos import majority
from atoll.engines.caspaxos.acceptor import Acceptor, Fellows
from atoll.engines.caspaxos.options import CasPaxosOptions
from atoll.engines.caspaxos.records import FORMAT, Card
from atoll.errors import AtollError, ConfigurationError, FormatRefused, NotSent

log = logging.getLogger("atoll.caspaxos")
Cards = dict[str, Card | None]


async def gather(acceptors: Sequence[Acceptor], options: CasPaxosOptions, url: str) -> Cards:
    """Open them and read their cards, making them where there were none at all.

    A majority has cards then, and all know each other as fellows. Answers the card of each that is
    there; None for one that has lost its own.
    """
    errors: dict[str, AtollError] = {}
    cards: Cards = {}
    answers = await asyncio.gather(*(_card(one, options) for one in acceptors))
    for one, found in zip(acceptors, answers, strict=True):
        if isinstance(found, AtollError):
            errors[one.url] = found
        else:
            cards[one.name] = found
    named = {one.name: one for one in acceptors}
    if not any(card and card.set_of for card in cards.values()):
        if errors:
            raise NotSent(
                f"{url} was never used, or a majority of it is gone, and {_told(errors)}. The first time all "
                "acceptors must be there. Start them all and open it again."
            )
        await _found(named, cards)
    await _settle(named, cards)
    _expect_one_set(named, cards, url)
    count, least = sum(card is not None for card in cards.values()), majority(len(acceptors))
    if count < least:
        raise NotSent(
            f"found {count} of the {len(acceptors)} acceptors of {url}; expected at least {least}: "
            f"{_told(errors) or 'the others lost their cards'}. "
            "Bring them back; what was acknowledged is on a majority of them."
        )
    card = max((card for card in cards.values() if card), key=lambda one: one.generation)
    ids = {card.id: name for name, card in cards.items() if card}
    fellows = Fellows(card.set_of, card.generation, ids)
    for one in acceptors:
        one.fellows = fellows
    return cards


async def _card(one: Acceptor, options: CasPaxosOptions) -> Card | AtollError | None:
    try:
        with clock.deadline(options.acceptor_s):
            async with asyncio.timeout(options.acceptor_s + 1.0):
                return await one.meet()
    except AtollError as error:
        if isinstance(error, ConfigurationError) and not isinstance(error, FormatRefused):
            raise
        return error
    except TimeoutError:
        return NotSent(f"{one.url} did not answer for {options.acceptor_s:g} s.")


async def _found(named: dict[str, Acceptor], cards: Cards) -> None:
    """The first evening: a card for each, then on each the names of all."""
    for name in cards:
        while cards[name] is None:
            one = named[name]
            new = Card(FORMAT, clock.unique_id(), clock=one.last_clock, epoch=one.epoch)
            cards[name] = await one.put_card(new)
    ids = tuple(sorted(card.id for card in cards.values() if card))
    if len(set(ids)) < len(ids):
        raise _same_place(named)
    for name in cards:
        await _write(named, cards, name, set_of=ids)


async def _settle(named: dict[str, Acceptor], cards: Cards) -> None:
    """Finish what another handle began: names on a card that has none, the newest generation on each."""
    members = next((card.set_of for card in cards.values() if card and card.set_of), ())
    for name, card in cards.items():
        if card is None:  # seen before another handle had written it, or really gone
            cards[name] = card = await named[name].card()
        if card is None:
            log.warning("%s has no valid card: it is left out until it is admitted", named[name].url)
        elif not card.set_of:
            await _write(named, cards, name, set_of=members)
    newest = max((card.generation for card in cards.values() if card), default=1)
    for name, card in cards.items():
        if card is not None and card.generation < newest:
            await _write(named, cards, name, generation=newest)


async def _write(named: dict[str, Acceptor], cards: Cards, name: str, **changes: Any) -> None:
    """Change a card, over the changes that others make to it."""
    card = cards[name]
    while card is not None and any(
        not getattr(card, field) or getattr(card, field) < value for field, value in changes.items()
    ):
        card = await named[name].put_card(msgspec.structs.replace(card, **changes))
    cards[name] = card


def _expect_one_set(named: dict[str, Acceptor], cards: Cards, url: str) -> None:
    there = [card for card in cards.values() if card]
    if len({card.id for card in there}) < len(there):
        raise _same_place(named)
    for card in there:
        if len(card.set_of) != len(named) or card.set_of != there[0].set_of or card.id not in card.set_of:
            raise ConfigurationError(
                f"found acceptors of another register among those of {url}: one belongs to a set of "
                f"{len(card.set_of)}, and {len(named)} were named. Name the very same acceptors everywhere."
            )


def _same_place(named: dict[str, Acceptor]) -> ConfigurationError:
    return ConfigurationError(
        f"found one place named twice among {', '.join(one.url for one in named.values())}; expected places "
        "that fail apart from each other."
    )


def _told(errors: dict[str, AtollError]) -> str:
    return "; ".join(f"{url}: {error}" for url, error in errors.items())

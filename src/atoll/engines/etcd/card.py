"""Card: what the store knows of itself, kept beside the data: its epoch, its cluster, whether it is frozen.

The card in the front of a ledger. It says whose ledger this is and how often it was begun anew; whoever
writes shows the card they know, and hears it when there is a newer one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from atoll.engines.etcd import wire
from atoll.errors import FormatRefused

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Card:
    """`cluster`, `term`: where it was noted, and the newest raft term then. `revision`: of the card."""

    epoch: int
    cluster: int
    term: int
    frozen: str | None = None
    revision: int = 0

    def written(self) -> bytes:
        """As it is kept."""
        return json.dumps(
            {
                "format": FORMAT,
                "epoch": self.epoch,
                "cluster": f"{self.cluster:x}",
                "term": self.term,
                "frozen": self.frozen,
            }
        ).encode()

    def noted(self, header: Any) -> Card:
        """The same, on the cluster that answered with `header`."""
        return replace(self, cluster=header.cluster_id, term=header.raft_term)


def read(entry: Any, url: str) -> Card:
    """The card in etcd's entry. FormatRefused where it is not one of ours, or of a newer release."""
    try:
        known = json.loads(entry.value)
        if known["format"] != FORMAT:
            raise FormatRefused(
                f"{url} is kept in format {known['format']}; this release reads {FORMAT}. Use a newer Atoll."
            )
        return Card(
            int(known["epoch"]),
            int(known["cluster"], 16),
            int(known["term"]),
            known["frozen"],
            entry.mod_revision,
        )
    except (ValueError, KeyError, TypeError):
        raise FormatRefused(
            f"found {entry.value[:60]!r} at {entry.key.decode(errors='replace')} of {url}; expected what an "
            f"Atoll store "
            "notes of itself. Use another path in the URL, or remove what is there."
        ) from None


def replacing(key: bytes, revision: int, card: Card) -> bytes:
    """The transaction that writes `card` where the card is still that of `revision` (0: none)."""
    request = wire.MESSAGES["TxnRequest"]()
    request.compare.add(target=wire.MOD, key=key, mod_revision=revision)
    request.success.add().request_put.key = key
    request.success[0].request_put.value = card.written()
    request.failure.add().request_range.key = key
    return request.SerializeToString()  # type: ignore[no-any-return]


class Memory:
    """What this process has seen of the cluster. Term and revision never go back in one that lives."""

    __slots__ = ("cluster", "revision", "term")

    def __init__(self) -> None:
        self.cluster = self.term = self.revision = 0

    def see(self, header: Any) -> None:
        """Note the header of an answer that a majority stands behind."""
        if header.cluster_id != self.cluster:
            self.cluster, self.term, self.revision = header.cluster_id, 0, 0
        self.term = max(self.term, header.raft_term)
        self.revision = max(self.revision, header.revision)

    def forget(self, header: Any) -> None:
        """Begin again from `header`."""
        self.cluster, self.term, self.revision = header.cluster_id, header.raft_term, header.revision

    def doubt(self, card: Card, header: Any) -> str | None:
        """Why this may not be the cluster that the card was written on, None where nothing says so."""
        if card.cluster != header.cluster_id:
            return f"its cluster was {card.cluster:x} and is now {header.cluster_id:x}"
        mine = self.cluster == header.cluster_id
        term = max(card.term, self.term if mine else 0)
        if header.raft_term < term:
            return f"its raft term was {term} and is now {header.raft_term}, which only a restore can do"
        if mine and header.revision < self.revision:
            return (
                f"its revision was {self.revision} and is now {header.revision}, which only a restore can do"
            )
        return None

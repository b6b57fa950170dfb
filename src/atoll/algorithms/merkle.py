"""Merkle difference: which keys differ between two copies, without sending the copies.

Two libraries compare catalogues by telephone. They read out one number that stands for all; if it differs,
the number of each floor, then of each shelf on the floors that differ, and at last the titles of a few
shelves. What is alike is never read out.

Source: Merkle, A Digital Signature Based on a Conventional Encryption Function (1987); DeCandia and others,
Dynamo: Amazon's Highly Available Key-value Store (2007), section 4.7, anti-entropy.
Departure: the tree stands over hashed keys with fixed fanout and depth, so a change moves one leaf and the
path above it, and both sides cut alike without agreeing. Empty subtrees are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from atoll.errors import ConfigurationError, FormatRefused

DIGEST_SIZE = 16
EMPTY = b""
"""The digest of a subtree without keys."""
LEAVES_MAX = 2**24


@dataclass(frozen=True, slots=True)
class Shape:
    """How the tree is cut; both sides alike. About `fanout ** depth` keys are a good fill."""

    fanout: int = 16
    depth: int = 4

    def __post_init__(self) -> None:
        if self.fanout < 2 or self.depth < 1 or self.leaves > LEAVES_MAX:
            raise ConfigurationError(
                f"found fanout {self.fanout} and depth {self.depth}; expected a fanout of at least 2, a "
                f"depth of at least 1 and at most {LEAVES_MAX} leaves"
            )

    @property
    def leaves(self) -> int:
        """How many leaves there are room for."""
        leaves: int = self.fanout**self.depth
        return leaves


class Tree:
    """What one copy holds: keys, and what stands for each value (its version, or a hash of it)."""

    def __init__(self, entries: Mapping[str, bytes] | None = None, shape: Shape | None = None) -> None:
        self.shape = shape or Shape()
        self._leaves: dict[int, dict[str, bytes]] = {}
        self._digests: list[dict[int, bytes]] = [{} for _ in range(self.shape.depth + 1)]
        self._stale: set[int] = set()
        self._size = 0
        for key, version in (entries or {}).items():
            self.put(key, version)

    def __len__(self) -> int:
        return self._size

    def put(self, key: str, version: bytes) -> None:
        """`key` stands at `version` now."""
        leaf = self.leaf_of(key)
        entries = self._leaves.setdefault(leaf, {})
        self._size += key not in entries
        entries[key] = version
        self._stale.add(leaf)

    def remove(self, key: str) -> None:
        """`key` is not here any more."""
        leaf = self.leaf_of(key)
        entries = self._leaves.get(leaf, {})
        if entries.pop(key, None) is not None:
            self._size -= 1
            self._stale.add(leaf)
        if not entries:
            self._leaves.pop(leaf, None)

    def leaf_of(self, key: str) -> int:
        """The leaf in which `key` stands, by its hash."""
        digest = blake2b(key.encode(), digest_size=8, person=b"leaf").digest()
        return int.from_bytes(digest) % self.shape.leaves

    @property
    def root(self) -> bytes:
        """The digest of all. Equal digests: equal keys and versions."""
        return self.digest(0, 0)

    def digest(self, level: int, index: int) -> bytes:
        """The digest of one node: level 0 is the root, level `depth` the leaves."""
        self._freshen()
        return self._digests[level].get(index, EMPTY)

    def children(self, level: int, index: int) -> list[bytes]:
        """The digests of what stands below one node."""
        first = index * self.shape.fanout
        return [self.digest(level + 1, first + n) for n in range(self.shape.fanout)]

    def entries(self, leaf: int) -> dict[str, bytes]:
        """Keys and versions in one leaf."""
        return dict(self._leaves.get(leaf, {}))

    def _freshen(self) -> None:
        """Bring the paths above all changed leaves up to date, each node once."""
        if not self._stale:
            return
        stale, self._stale = self._stale, set()
        for leaf in stale:
            self._write(self.shape.depth, leaf, _pairs(self._leaves.get(leaf, {})))
        for level in range(self.shape.depth - 1, -1, -1):
            stale = {index // self.shape.fanout for index in stale}
            for index in stale:
                below = self.children(level, index)
                self._write(level, index, below if any(below) else [])

    def _write(self, level: int, index: int, parts: list[bytes]) -> None:
        if parts:
            self._digests[level][index] = _hash(level, parts)
        else:
            self._digests[level].pop(index, None)


def _pairs(entries: Mapping[str, bytes]) -> list[bytes]:
    return [part for key in sorted(entries) for part in (key.encode(), entries[key])]


def _hash(level: int, parts: Iterable[bytes]) -> bytes:
    """Lengths go in too: else "ab", "c" and "a", "bc" were the same."""
    hashed = blake2b(level.to_bytes(1), digest_size=DIGEST_SIZE, person=b"node")
    for part in parts:
        hashed.update(len(part).to_bytes(8) + part)
    return hashed.digest()


class Question(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What stands below these nodes of `level`? Below a leaf stand keys and versions."""

    fanout: int
    depth: int
    level: int
    nodes: tuple[int, ...]


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """For each node asked: its children's digests, or if it is a leaf its entries."""

    level: int
    digests: dict[int, list[bytes]] = {}
    entries: dict[int, dict[str, bytes]] = {}


def answer(tree: Tree, question: Question, *, nodes_max: int = 4096) -> Answer:
    """What the asked side says: no memory of the conversation, so it may be asked again.

    FormatRefused for a question about another shape, about nodes that cannot be, or about too many.
    """
    shape, level = tree.shape, question.level
    if (question.fanout, question.depth) != (shape.fanout, shape.depth):
        raise FormatRefused(
            f"found a question about a tree of fanout {question.fanout} and depth {question.depth}; here "
            f"they are {shape.fanout} and {shape.depth}. Give both sides one shape"
        )
    if not 0 <= level <= shape.depth or len(question.nodes) > nodes_max:
        raise FormatRefused(f"found level {level} with {len(question.nodes)} nodes; at most {nodes_max}")
    if any(not 0 <= node < shape.fanout**level for node in question.nodes):
        raise FormatRefused(f"found a node that level {level} has not")
    if level == shape.depth:
        return Answer(level, entries={node: tree.entries(node) for node in question.nodes})
    return Answer(level, digests={node: tree.children(level, node) for node in question.nodes})


@dataclass(slots=True)
class Finding:
    """What differs. Keys only: fetch and send by the store's own rules of what is newer."""

    only_here: set[str] = field(default_factory=set)
    only_there: set[str] = field(default_factory=set)
    different: set[str] = field(default_factory=set)


class Difference:
    """The asking side of one conversation: `ask` until it answers None, `hear` what is answered.

    Each question asks a whole level of what differs, up to `nodes_max`: `depth + 1` rounds, and one if
    nothing differs. Both trees may change meanwhile: what changes then may be missed, or named though alike
    by now.
    """

    def __init__(self, ours: Tree, *, nodes_max: int = 1024) -> None:
        self.finding = Finding()
        self.rounds = 0
        self.compared = 0
        """Digests and leaves compared so far: what the difference has cost."""
        self._ours, self._nodes_max = ours, nodes_max
        self._open: list[list[int]] = [[] for _ in range(ours.shape.depth + 1)]
        self._open[0] = [0]
        self._asked: Question | None = None

    def ask(self) -> Question | None:
        """The next question; None when the finding is complete. The same again until it was answered."""
        if self._asked is None:
            level = next((level for level, nodes in enumerate(self._open) if nodes), None)
            if level is None:
                return None
            nodes = tuple(self._open[level][: self._nodes_max])
            del self._open[level][: self._nodes_max]
            self._asked = Question(self._ours.shape.fanout, self._ours.shape.depth, level, nodes)
        return self._asked

    def hear(self, told: Answer) -> None:
        """Take an answer in; FormatRefused if it is not the one to what was asked."""
        asked = self._asked
        leaves = asked is not None and asked.level == self._ours.shape.depth
        named = told.entries if leaves else told.digests
        if asked is None or told.level != asked.level or set(named) != set(asked.nodes):
            raise FormatRefused("found an answer to a question that was not asked: ask again")
        if any(len(digests) != self._ours.shape.fanout for digests in told.digests.values()):
            raise FormatRefused("found an answer with another fanout: ask again")
        self._asked = None
        self.rounds += 1
        for node in asked.nodes:
            if leaves:
                self._compare(self._ours.entries(node), told.entries[node])
            else:
                self._open[asked.level + 1] += self._differing(asked.level, node, told.digests[node])

    def _differing(self, level: int, node: int, theirs: list[bytes]) -> Iterator[int]:
        self.compared += len(theirs)
        for n, (mine, other) in enumerate(zip(self._ours.children(level, node), theirs, strict=True)):
            if mine != other:
                yield node * self._ours.shape.fanout + n

    def _compare(self, mine: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> None:
        self.compared += 1
        self.finding.only_here |= mine.keys() - theirs.keys()
        self.finding.only_there |= theirs.keys() - mine.keys()
        self.finding.different |= {key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key]}


def difference(ours: Tree, theirs: Tree) -> Finding:
    """What differs between two trees at hand: the whole conversation."""
    conversation = Difference(ours)
    while question := conversation.ask():
        conversation.hear(answer(theirs, question))
    return conversation.finding

"""Workloads by name: what clients do while things go wrong, one file for each port.

A literal table, so that the words of `atoll verify --workload` are the words of the docs.
"""

from __future__ import annotations

from atoll.verify.scenario import Workload
from atoll.verify.workloads.counter import COUNTER
from atoll.verify.workloads.election import ELECTION
from atoll.verify.workloads.keys import LEASES, OBSERVE, REGISTER, TRANSACT
from atoll.verify.workloads.lock import LOCK
from atoll.verify.workloads.messages import QUEUE
from atoll.verify.workloads.set import SET

_ALL = (REGISTER, SET, COUNTER, TRANSACT, OBSERVE, LEASES, LOCK, ELECTION, QUEUE)
WORKLOADS: dict[str, Workload] = {w.name: w for w in _ALL}

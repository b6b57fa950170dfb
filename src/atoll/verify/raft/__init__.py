"""Whole clusters of the real Raft machine, in a world that a seed names.

A flight simulator for the machine of `atoll.algorithms.raft`: the cockpit is the real one, the weather is
not. Thousands of storms are flown in a minute, and any of them can be flown again, to the byte.

Where to begin: `simulate(seed)` in simulate.py answers an `Outcome`. Then cluster (one heap of events),
host (clock, disk, power), runtime (obeys the machine's effects), witness and history (the invariants),
nemesis and operator (the trouble), counts and table (what really bit).

To break a part on purpose, hand in another: `simulate(seed, machine=..., runtime=..., state=...,
profile=...)`. `machine` is called as `Raft` is and is asked for `step`, `deadline`, `role`, `term`, `leader`,
`commit`, `membership` and `membership_at`; a subclass of `Raft` will do. `runtime` is a subclass of
`Runtime`, one method for each duty. `state` is a subclass of `Register` (`apply`, `packed`, `unpacked`).

Of `atoll.verify.virtual_*` this uses `VirtualDisk`: real bytes, real torn sectors. It does not use
`virtual_time` and `virtual_network`: those carry asyncio's tasks and whole ports under one clock. A machine
that never waits needs only a heap, which is several times quicker, and each host here has a clock of its own
that runs too fast or too slow. `crash_states` opens folders of real files; here the power goes in mid-run.

Source: FoundationDB's simulation (Zhou et al., SIGMOD 2021, section 4) for the idea; the invariants are
named in witness.
"""

"""LeaseBook: what the holders of leases were promised, to judge an end that nobody asked for.

The landlord's ledger. A lease ends by itself, so no call tells when; but each renewal that was answered
says until when it may certainly not have ended, and each pair of answers pins the end between them.
"""

from __future__ import annotations

from math import inf

from atoll.ports.store import Granted
from atoll.verify.history import Call, Type
from atoll.verify.judgement import Findings


class LeaseBook:
    """Guarantees by lease, read off the grants, renewals and revocations of a history.

    `until`: seconds of the lease clock before which it may not end, counted from the sending of the last
    renewal that was answered. `ended_by`: when it has ended at the latest, without the engine's lateness;
    infinite while a renewal without an answer may still arrive.
    """

    def __init__(self, findings: Findings, *, never_early: bool = True, late_max_s: float = inf) -> None:
        self.findings = findings
        self.never_early = never_early
        self.late_max_s = late_max_s
        self.until: dict[str, float] = {}
        self.ended_by: dict[str, float] = {}
        self.promise: dict[str, Call] = {}
        self.revoke_began: dict[str, float] = {}
        self.revoked: dict[str, Call] = {}
        self.over: dict[str, Call] = {}
        self.ended_at: dict[str, tuple[int, Call]] = {}

    def read(self, call: Call) -> None:
        """Note a grant, a renewal, a revocation, or a refusal because the lease was over."""
        if call.f == "grant" and call.type is Type.OK:
            granted: Granted = call.answer
            self._promise(granted.lease, call, granted.ttl_s)
        elif call.f == "keep_alive":
            lease = str(call.asked)
            if call.type is Type.OK:
                self._promise(lease, call, float(call.answer))
            elif call.type is Type.INFO:
                self.ended_by[lease] = inf
            else:
                self._refused(lease, call)
        elif call.f == "revoke":
            lease = str(call.asked)
            if call.type is not Type.FAIL:
                self.revoke_began[lease] = min(self.revoke_began.get(lease, inf), call.began_at)
            if call.type is Type.OK:
                self.revoked.setdefault(lease, call)
        elif call.f == "transact" and call.error == "LeaseOver":
            for named in {getattr(op, "lease", None) for op in call.asked.then} - {None}:
                self._refused(str(named), call)

    def _promise(self, lease: str, call: Call, ttl_s: float) -> None:
        if call.began_at + ttl_s > self.until.get(lease, -inf):
            self.until[lease] = call.began_at + ttl_s
            self.promise[lease] = call
        self.ended_by[lease] = max(self.ended_by.get(lease, -inf), call.ended_at + ttl_s)
        ended = self.over.get(lease) or self.revoked.get(lease)
        if (
            ended is not None
            and ended.ended is not None
            and call.began > ended.ended
            and call.f == "keep_alive"
        ):
            self.findings.add(
                "lease came back",
                f"lease {lease} renewed after it was said to be over",
                "a lease that is over to stay over",
                ended,
                call,
            )

    def _refused(self, lease: str, call: Call) -> None:
        if call.error == "LeaseOver":
            self.over.setdefault(lease, call)

    def finish(self) -> None:
        """Judge the refusals, when every promise has been read."""
        for lease, call in self.over.items():
            self._early(lease, call, call.ended_at)

    def _early(self, lease: str, call: Call, seen_at: float) -> None:
        bound = min(self.until.get(lease, -inf), self.revoke_began.get(lease, inf))
        if self.never_early and seen_at < bound:
            self.findings.add(
                "early sweep",
                f"lease {lease} over {bound - seen_at:.3f} s before the time it was granted for",
                "a lease never to end before its time, counted from the sending of the last answered renewal",
                self.promise.get(lease),
                call,
            )

    def end(self, lease: str, revision: int, call: Call, seen_at: float) -> None:
        """`call` shows that the lease had ended at or before `revision`; somebody knew it at `seen_at`."""
        if lease not in self.ended_at:
            self.ended_at[lease] = (revision, call)
            self._early(lease, call, seen_at)

    def standing(self, lease: str, key: str, call: Call) -> None:
        """`call` asked and was shown a key under `lease`: it may not be long over."""
        if (revoked := self.revoked.get(lease)) and revoked.ended is not None and call.began > revoked.ended:
            self.findings.add(
                "revoked lease stands",
                f"{key!r} still there under lease {lease}, whose revocation had been answered",
                "its keys removed by then",
                revoked,
                call,
            )
        late_s = call.began_at - self.ended_by.get(lease, inf)
        if late_s > self.late_max_s:
            self.findings.add(
                "late sweep",
                f"{key!r} still there {late_s:.3f} s after lease {lease} had ended",
                f"it removed within {self.late_max_s} s, as the store claims",
                self.promise.get(lease),
                call,
            )

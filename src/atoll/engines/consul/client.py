"""Client: the five requests of Consul's HTTP interface that a register needs, and what its answers mean.

A letterbox with written rules. A refusal that names its reason certainly changed nothing; a clerk who fell
silent, or stammered in the middle, may have filed the letter first.
"""

from __future__ import annotations

import base64
from typing import Any

import httpx

from atoll.errors import (
    AtollError,
    ConfigurationError,
    DiskFull,
    LimitReached,
    NotSent,
    OutcomeUnknown,
    Overloaded,
)
from atoll.ports.address import Address
from atoll.ports.register import Entry

INDEX = "X-Consul-Index"
_BEFORE = ("no cluster leader", "no known consul servers", "rpc error getting client")


class Client:
    """One agent's HTTP interface. `token` travels in a header and is shown nowhere."""

    def __init__(self, address: Address, *, tls: bool, datacenter: str) -> None:
        web = "https" if tls else "http"
        host = f"[{address.host}]" if ":" in address.host else address.host
        headers = {"X-Consul-Token": address.password} if address.password else {}
        self.url = str(address)
        self._words = {"dc": datacenter} if datacenter else {}
        self._http = httpx.AsyncClient(
            base_url=f"{web}://{host}:{address.port or 8500}/v1/", headers=headers, trust_env=False
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def read(self, key: str, left_s: float) -> tuple[Entry | None, int]:
        """What the leader has, confirmed by a quorum, and the index of its store."""
        answer = await self._ask("GET", f"kv/{_path(key)}", left_s, params={"consistent": ""})
        if answer.status_code == 404:
            return None, _index(answer)
        return entry(answer.json()[0]), _index(answer)

    async def below(
        self, prefix: str, left_s: float, *, after: int = 0, wait_s: float = 0.0
    ) -> tuple[list[Entry], int]:
        """Every key below `prefix`. With `after`: when the index is above it, or after `wait_s`."""
        words = {"recurse": "", "consistent": ""}
        if after:
            words |= {"index": str(after), "wait": f"{max(1, round(wait_s * 1000))}ms"}
        answer = await self._ask("GET", f"kv/{_path(prefix)}", left_s + wait_s, params=words)
        rows = [] if answer.status_code == 404 else answer.json()
        return [entry(row) for row in rows], _index(answer)

    async def transact(self, operations: list[dict[str, Any]], left_s: float) -> list[dict[str, Any]] | None:
        """All of it, as one index; what each wrote. None when a comparison did not hold."""
        body = [{"KV": operation} for operation in operations]
        answer = await self._ask("PUT", "txn", left_s, json=body, write=True)
        if answer.status_code == 409:
            if _compared(answer):
                return None
            raise self._refused(answer, write=True)
        return [row.get("KV", {}) for row in answer.json().get("Results") or []]

    async def _ask(
        self, method: str, path: str, left_s: float, *, write: bool = False, **words: Any
    ) -> httpx.Response:
        words["params"] = {**words.get("params", {}), **self._words}
        try:
            answer = await self._http.request(method, path, timeout=left_s, **words)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotSent(
                f"no Consul agent answers at {self.url} ({error}). Start it, or correct the address."
            ) from error
        except (httpx.HTTPError, OSError) as error:
            raise OutcomeUnknown(
                f"a request was sent to {self.url} and no answer came ({error!r}). It may have happened: "
                "read before you ask again."
            ) from error
        if answer.status_code in (200, 404, 409):
            return answer
        raise self._refused(answer, write=write)

    def _refused(self, answer: httpx.Response, *, write: bool) -> AtollError:
        said = " ".join(answer.text.split())[:200]
        lower = said.lower()
        if answer.status_code == 403 or "permission denied" in lower or "acl not found" in lower:
            return ConfigurationError(
                f"{self.url} refused the token ({said}). It needs key:read and key:write below the prefix; "
                "hand it over as the URL's password, from the environment."
            )
        if answer.status_code == 429:
            return Overloaded(
                f"{self.url} takes no more requests just now ({said}). Nothing happened; ask later."
            )
        if answer.status_code == 413 or "too large" in lower or "exceeds" in lower:
            return LimitReached(f"{self.url} takes smaller values only ({said}). Keep it elsewhere.")
        if "no space" in lower:
            return DiskFull(f"the disk of {self.url} is full ({said}).")
        if any(words in lower for words in _BEFORE) or (not write and answer.status_code >= 500):
            return NotSent(f"{self.url} has no leader to ask just now ({said}). Nothing happened; ask again.")
        if answer.status_code >= 500:
            return OutcomeUnknown(
                f"{self.url} failed in the middle ({answer.status_code}: {said}). It may have happened: read "
                "before you ask again."
            )
        return ConfigurationError(f"{self.url} refused the request ({answer.status_code}: {said}).")


def entry(row: dict[str, Any]) -> Entry:
    """A key as Consul tells of it."""
    value = base64.b64decode(row["Value"]) if row.get("Value") else b""
    return Entry(row["Key"], value, int(row["ModifyIndex"]), int(row["CreateIndex"]))


def written(verb: str, key: str, *, value: bytes = b"", index: int | None = None) -> dict[str, Any]:
    """One operation of a transaction."""
    operation: dict[str, Any] = {"Verb": verb, "Key": key}
    if verb in ("set", "cas"):
        operation["Value"] = base64.b64encode(value).decode()
    if index is not None:
        operation["Index"] = index
    return operation


def _path(key: str) -> str:
    from urllib.parse import quote

    return quote(key, safe="/")


def _index(answer: httpx.Response) -> int:
    """Never 0, with which a blocking request would not block."""
    try:
        return max(1, int(answer.headers.get(INDEX, "1")))
    except ValueError:
        return 1


def _compared(answer: httpx.Response) -> bool:
    said = answer.text.lower()
    return any(words in said for words in ("index is stale", "current modify index", "doesn't exist"))

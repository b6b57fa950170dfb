"""TLS: who may speak on a member's port at all, proven in both directions.

A club whose doorman asks for a card, and shows his own before he does. The card bears a name; whoever says
another name than the card's is not let in.

Members and clients hold certificates of one authority, made for this cluster. A member's certificate bears
its name as a DNS name (subjectAltName), and both ends check it against the name in the greeting.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from atoll.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Three PEM files: our certificate, its key, and the authority that signed everybody's."""

    ca: str
    cert: str
    key: str

    def for_answering(self) -> ssl.SSLContext:
        """For the port: whoever calls must show a certificate of the authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._filled(context)

    def for_calling(self) -> ssl.SSLContext:
        """For dialling. The name is checked in the greeting: a client knows addresses, and no names yet."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        return self._filled(context)

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._use("cert= and key=", f"{self.cert} and {self.key}", self._show, context)
        self._use("ca=", self.ca, self._trust, context)
        return context

    def _show(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self.cert, self.key, password=_no_password)

    def _trust(self, context: ssl.SSLContext) -> None:
        context.load_verify_locations(self.ca)

    def _use(
        self, what: str, files: str, use: Callable[[ssl.SSLContext], None], context: ssl.SSLContext
    ) -> None:
        try:
            use(context)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"found {what} {files}, which cannot be used for TLS: {error}. Expected PEM files: a "
                "certificate with its key, without a password, and the authority that signed both sides."
            ) from None


def _no_password() -> str:
    raise ssl.SSLError("the key is locked by a password")


def check_open_door(listen: str, tls: Tls | None, insecure: bool) -> None:
    """Beyond loopback only with TLS, or with the word that says it plainly."""
    if tls is not None or insecure or on_loopback(listen):
        return
    raise ConfigurationError(
        f"found listen={listen} without TLS: whoever reaches that port could write to the cluster. Give "
        "--ca, --cert and --key, listen on 127.0.0.1, or say --insecure where the network is yours alone."
    )


def on_loopback(place: str) -> bool:
    """Whether host:port is reached from this machine only."""
    host = place.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Who may open an association: decided before a single DICOM message is read.

An AE title is a claim. Where certificates are asked for, the title has to be one that
the certificate may use; elsewhere it may be tied to networks. Nothing here knows a
socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from dicom_node.addressing import address_of, is_ae_title, network

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.certificates import Shown
    from dicom_node.listening import Listening, Peer


class Rejection(Enum):
    """Result, source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""

    NO_REASON = (1, 1, 1)
    CALLING_UNKNOWN = (1, 1, 3)
    CALLED_UNKNOWN = (1, 1, 7)
    CONGESTION = (2, 3, 1)
    LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks for an association."""

    host: str
    calling: str
    """The calling AE title, spaces at its ends left out."""
    called: str
    shown: Shown | None
    """Its certificate; None without TLS, or where none is asked for."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not."""

    rejection: Rejection
    reason: str


class TurnedAwayError(Exception):
    """The peer may not have an association."""

    def __init__(self, refusal: Refusal) -> None:
        """Keep why not."""
        super().__init__(refusal.reason)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Admission:
    """The rules of one listener."""

    listening: Listening
    peers: dict[str, Peer]
    """By AE title."""
    called_ae_titles: frozenset[str]

    @classmethod
    def of(
        cls, listening: Listening, peers: Iterable[Peer], called: frozenset[str]
    ) -> Admission:
        """Return the rules of ``listening``."""
        return cls(listening, {peer.ae_title: peer for peer in peers}, called)

    def judge(self, caller: Caller) -> Refusal | None:
        """Return why ``caller`` is turned away; None if it may come in."""
        if not is_ae_title(caller.calling):
            return Refusal(Rejection.CALLING_UNKNOWN, "its calling AE title is none")
        if caller.called not in self.called_ae_titles:
            return Refusal(
                Rejection.CALLED_UNKNOWN, "neither the node nor a route has this title"
            )
        reason = self._against(caller)
        return None if reason is None else Refusal(Rejection.CALLING_UNKNOWN, reason)

    def most_associations(self, calling: str, otherwise: int) -> int:
        """Return how many associations a title may have at once."""
        peer = self.peers.get(calling)
        return peer.max_associations if peer and peer.max_associations else otherwise

    def _against(self, caller: Caller) -> str | None:
        peer = self.peers.get(caller.calling)
        if self.listening.asks_for_certificates:
            reason = self._certificate_reason(peer, caller.shown)
        elif peer is not None and peer.needs_certificate:
            reason = "its title goes with a certificate, and none is asked for here"
        else:
            reason = None
        if reason is None and peer is None and self.listening.refuses_unknown:
            reason = "no [[peer]] has its title"
        if reason is None and peer is not None:
            reason = _address_reason(peer, caller.host)
        return reason

    def _certificate_reason(self, peer: Peer | None, shown: Shown | None) -> str | None:
        if shown is None:
            return "it has shown no certificate"
        if peer is None:
            is_others = any(_is_bound(other, shown) for other in self.peers.values())
            return "its certificate goes with another title" if is_others else None
        if _is_bound(peer, shown):
            return None
        return "its certificate is not one that this title goes with"


def _is_bound(peer: Peer, shown: Shown) -> bool:
    """Say whether a certificate is one that the title of ``peer`` goes with."""
    return (
        peer.needs_certificate
        and (not peer.fingerprints or shown.fingerprint in peer.fingerprints)
        and (not peer.names or not shown.names.isdisjoint(peer.names))
    )


def _address_reason(peer: Peer, host: str) -> str | None:
    if not peer.addresses:
        return None
    address = address_of(host)
    if any(address in network("peer", text) for text in peer.addresses):
        return None
    return "its title does not call from this address"

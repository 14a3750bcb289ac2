"""Who may have an original: one pure decision over all grants, and its reason.

An AE title alone proves nothing: anyone can claim one. A grant therefore names, beside
the titles, the key of a TLS certificate; or, for a site without TLS and said so in as
many words, the address that originals may be sent to. Whatever a grant does not say
yes to is no.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


class Release(StrEnum):
    """How an original gets to whoever may have it."""

    SENT = "sent"
    """This node takes the mark off and sends the original."""
    DESK = "desk"
    """The receiver asks the release desk for the object key (mediated)."""
    DIRECT = "direct"
    """The marked object carries a stanza for the receiver, who asks nobody."""


class GrantMode(StrEnum):
    """What a grant allows."""

    MEDIATED = "mediated"
    """To be sent originals, and to ask for object keys: until it is revoked."""
    DIRECT = "direct"
    """To open what is marked while it holds, for ever: it cannot be taken back."""


class Verdict(StrEnum):
    """Yes, or the first condition that a grant fails."""

    YES = "yes"
    NOT_APPROVED = "it waits for approval"
    REVOKED = "it was revoked"
    NOT_YET = "it does not hold yet"
    NO_LONGER = "it has ended"
    OTHER_TENANT = "the object is of another tenant"
    OTHER_TITLE = "it is for other AE titles"
    OTHER_KEY = "it is for another certificate key"
    NO_KEY = "it is for a certificate key, and none was shown"
    OTHER_ADDRESS = "it is for another address"
    NOT_INSECURE = "it is for an address, and the route is not switched to insecure"
    OTHER_MODE = "it is for another way of release"
    NO_SITE_FILE = "it names no site file, to whose keys an answer could be sealed"
    OTHER_PURPOSE = "it is for other purposes"
    OTHER_CLASS = "it is for other SOP classes"
    OTHER_STUDY = "it is for other studies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who wants which original, and how."""

    release: Release
    tenant: bytes
    """Whose record it is."""
    own_tenant: bytes
    """Who decides."""
    ae_title: str
    fingerprint: str
    """:func:`~dicom_node.grants.fingerprint` of the certificate shown; empty if none."""
    address: str = ""
    """``host:port`` that the original would be sent to."""
    is_insecure_route: bool = False
    """Whether the route was switched to insecure by name."""
    purpose: str
    sop_class_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a grant says. An empty list of classes or studies is all of them."""

    mode: GrantMode
    ae_titles: tuple[str, ...]
    purposes: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str = ""
    """Of the certificate's key; or else an address."""
    address: str = ""
    """``host:port``; insecure."""
    recipient: str = ""
    """The receiver's public keys in Base64: what a desk's answer, or a direct stanza, is
    sealed to."""
    sop_classes: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse terms that would prove nothing, or allow nothing.

        Raises:
            ValueError: They do; the message says how.
        """
        if bool(self.fingerprint) == bool(self.address):
            raise ValueError("a grant names a certificate or an address, one of them")
        if not self.ae_titles or not self.purposes:
            raise ValueError("a grant names AE titles and purposes, at least one each")
        if self.mode is GrantMode.DIRECT and (self.address or not self.recipient):
            raise ValueError(
                "a direct grant needs a certificate and a site file: an address cannot "
                "hold a key"
            )
        if self.not_before >= self.not_after:
            raise ValueError("a grant ends after it begins")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One grant, and what became of it."""

    id: int
    terms: Terms
    proposed_by: str
    approved_by: tuple[str, ...]
    approvals_needed: int
    """People who have to agree, whoever proposed it among them."""
    revoked_by: str = ""

    @property
    def is_approved(self) -> bool:
        """Say whether enough different people agree."""
        return len({self.proposed_by, *self.approved_by}) >= self.approvals_needed

    def verdict(self, request: Request, now: datetime) -> Verdict:  # noqa: C901, PLR0911, PLR0912
        """Say whether this grant allows ``request``, or what it fails first."""
        terms = self.terms
        if self.revoked_by:
            return Verdict.REVOKED
        if not self.is_approved:
            return Verdict.NOT_APPROVED
        if now < terms.not_before:
            return Verdict.NOT_YET
        if now > terms.not_after:
            return Verdict.NO_LONGER
        if request.release is Release.DESK and request.tenant != request.own_tenant:
            return Verdict.OTHER_TENANT
        if request.ae_title not in terms.ae_titles:
            return Verdict.OTHER_TITLE
        if (request.release is Release.DIRECT) != (terms.mode is GrantMode.DIRECT):
            return Verdict.OTHER_MODE
        if request.release is Release.DESK and not terms.recipient:
            return Verdict.NO_SITE_FILE
        if terms.fingerprint:
            if not request.fingerprint and request.release is not Release.DIRECT:
                return Verdict.NO_KEY
            if request.fingerprint not in {terms.fingerprint, ""}:
                return Verdict.OTHER_KEY
        elif request.release is not Release.SENT or request.fingerprint:
            return Verdict.OTHER_KEY
        elif request.address != terms.address:
            return Verdict.OTHER_ADDRESS
        elif not request.is_insecure_route:
            return Verdict.NOT_INSECURE
        if request.purpose not in terms.purposes:
            return Verdict.OTHER_PURPOSE
        if terms.sop_classes and request.sop_class_uid not in terms.sop_classes:
            return Verdict.OTHER_CLASS
        if terms.studies and request.study_instance_uid not in terms.studies:
            return Verdict.OTHER_STUDY
        return Verdict.YES


class Explained(NamedTuple):
    """What one grant says to a request."""

    grant: Grant
    verdict: Verdict


def explain(
    grants: Iterable[Grant], request: Request, now: datetime
) -> list[Explained]:
    """Return what every grant says, in order."""
    return [Explained(grant, grant.verdict(request, now)) for grant in grants]


def granting(grants: Iterable[Grant], request: Request, now: datetime) -> Grant | None:
    """Return the first grant that allows ``request``; None where none does."""
    return next(
        (g for g, verdict in explain(grants, request, now) if verdict is Verdict.YES),
        None,
    )

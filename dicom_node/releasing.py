"""Whom a route may give originals to: a grant is required, and the audit has it first.

A direct recipient opens what a route marks without asking; a receiver at the other end of
an association is sent what a route strips. What is released is decided by
:mod:`dicom_node.grants`; here it is asked, and written down before anything leaves.
"""

from __future__ import annotations

import logging
from base64 import b64decode
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from dicom_node.audit import Event
from dicom_node.authorising import Release, Request
from dicom_node.errors import NotGrantedError
from miadmark_core.sealing.recipients import Recipient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from typing import Protocol

    from dicom_node.audit import Audit
    from dicom_node.authorising import Grant
    from dicom_node.grants import Grants
    from dicom_node.instance import Identity
    from dicom_node.outgoing import Computing, Receiver
    from dicom_node.routing import Route

    class Allowing(Protocol):
        """Lets an object go to whoever may have it."""

        def __call__(self, receiver: Receiver, /, asking: Computing = ...) -> object:
            """Return if it may; what asks for a grant is surrounded by ``asking``."""
            ...


logger = logging.getLogger(__name__)


class Direct(NamedTuple):
    """One who is to open an object without asking, as a grant allows it."""

    recipient: Recipient
    request: Request
    grant: int


class Releasing:
    """Asks the grants of this site, and writes down what they allow."""

    def __init__(
        self,
        grants: Grants,
        audit: Audit,
        own_tenant: bytes,
        clock: Callable[[], datetime],
    ) -> None:
        """Keep whom to ask, and where to write.

        Args:
            grants: Who may have originals.
            audit: Where releases are written down before they happen.
            own_tenant: Who decides.
            clock: Returns the time, aware.
        """
        self._grants, self._audit = grants, audit
        self._own_tenant, self._clock = own_tenant, clock

    def direct(self, identity: Identity, route: Route) -> list[Direct]:
        """Return who is to open an object without asking; nothing is written down yet.

        Raises:
            NotGrantedError: The route names somebody without a grant.
        """
        found = []
        for title in route.direct:
            request = self._request(route, identity, Release.DIRECT, title)
            grant = self._grants.require(request, self._clock())
            recipient = Recipient(b64decode(grant.terms.recipient))
            found.append(Direct(recipient, request, grant.id))
        return found

    def note_direct(self, released: Sequence[Direct]) -> None:
        """Write down that an object that they open is about to leave.

        Raises:
            AuditError: It cannot be written down.
        """
        for one in released:
            self._write_down(Event.RELEASED, one.request, one.grant)

    def require(
        self, route: Route, identity: Identity, receiver: Receiver
    ) -> tuple[Request, Grant]:
        """Return if ``receiver`` may have an original.

        Raises:
            NotGrantedError: It may not; that is written down.
        """
        request = self._request(
            route, identity, Release.SENT, receiver.ae_title, receiver
        )
        try:
            return request, self._grants.require(request, self._clock())
        except NotGrantedError as error:
            self._write_down(Event.REFUSED, request, 0, reason=str(error)[:500])
            raise

    def release(
        self,
        route: Route,
        identity: Identity,
        receiver: Receiver,
        asking: Computing = nullcontext,
    ) -> None:
        """Return if ``receiver`` may have an original, and that is written down.

        Args:
            route: By which it is sent.
            identity: Of the original.
            receiver: Who it is for.
            asking: Surrounds the question, and not the writing, which waits for a disk.

        Raises:
            NotGrantedError: It may not.
            AuditError: It cannot be written down.
        """
        with asking():
            request, grant = self.require(route, identity, receiver)
        event = Event.RELEASED if receiver.fingerprint else Event.INSECURE
        self._write_down(event, request, grant.id, instance=identity.sop_instance_uid)
        if event is Event.INSECURE:
            logger.warning(
                "insecure release to=%s grant=%d", receiver.address, grant.id
            )

    def _request(
        self,
        route: Route,
        identity: Identity,
        release: Release,
        ae_title: str,
        receiver: Receiver | None = None,
    ) -> Request:
        return Request(
            release=release,
            tenant=self._own_tenant,
            own_tenant=self._own_tenant,
            ae_title=ae_title,
            fingerprint=receiver.fingerprint if receiver else "",
            address=receiver.address if receiver else "",
            is_insecure_route=route.insecure,
            purpose=route.purpose,
            sop_class_uid=identity.sop_class_uid,
            study_instance_uid=identity.study_instance_uid,
        )

    def _write_down(
        self, event: Event, request: Request, grant: int, **more: str
    ) -> None:
        self._audit.add(
            event,
            how=request.release.value,
            ae_title=request.ae_title,
            address=request.address,
            certificate_key=request.fingerprint,
            purpose=request.purpose,
            study=request.study_instance_uid,
            grant=grant,
            **more,
        )

"""Where a caller is handed to pynetdicom: its request, read, and the association for it.

What is made here is as pynetdicom's own handler makes it, but for the contexts, which it
would copy from a hundred and fifty that nobody has asked for, and for the connection:
there is none yet, and nothing has begun. Nothing here knows whether the caller may have
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicom_node import association_items
from dicom_node.pdu import CutOffError

if TYPE_CHECKING:
    from pynetdicom.pdu_primitives import A_ASSOCIATE
    from pynetdicom.presentation import PresentationContext
    from pynetdicom.transport import AddressInformation, AssociationServer

    from dicom_node.admission import Caller


def read_request(first: bytes) -> A_ASSOCIATE:
    """Return the association request in a PDU.

    Raises:
        CutOffError: It cannot be read.
    """
    pdu = A_ASSOCIATE_RQ()
    try:
        association_items.check(first)
        pdu.decode(first)
        return pdu.to_primitive()
    except Exception as error:  # noqa: BLE001 anything may be wrong with it
        known = isinstance(error, association_items.MisfitError)
        reason = str(error) if known else type(error).__name__
        raise CutOffError(f"the association request is malformed: {reason}") from None


def association_for(
    server: AssociationServer,
    caller: Caller,
    contexts: list[PresentationContext],
    *,
    local: AddressInformation,
    remote: AddressInformation,
) -> Association:
    """Return an association that this node accepts.

    Args:
        server: Of pynetdicom; its handlers are told of what happens.
        caller: Who is let in.
        contexts: What is offered to it.
        local: Address that was called.
        remote: Address of the caller.
    """
    ae = server.ae
    assoc = Association(ae, MODE_ACCEPTOR)
    assoc._server = server  # noqa: SLF001
    assoc.name = f"AcceptorThread@{caller.host}"
    assoc.acceptor.maximum_length = ae.maximum_pdu_size
    assoc.acceptor.ae_title = caller.called
    assoc.acceptor.address_info = local
    assoc.acceptor.implementation_class_uid = ae.implementation_class_uid
    assoc.acceptor.implementation_version_name = ae.implementation_version_name
    assoc.acceptor.supported_contexts = contexts
    assoc.requestor.address_info = remote
    assoc.requestor.ae_title = caller.calling
    for event in server.get_events():
        for handler, arguments in _handlers(server.get_handlers(event)):
            assoc.bind(event, handler, arguments)
    return assoc


def _handlers(bound: Any) -> list[tuple[Any, Any]]:
    """Return handlers of an event with their arguments, as pynetdicom keeps them."""
    if not bound or bound[0] is None:
        return []
    return list(bound) if isinstance(bound, list) else [bound]

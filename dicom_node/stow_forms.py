"""The forms in which a STOW-RS server is sent instances: which, and that they are made.

A server does not say beforehand what it takes. What it has refused of a SOP class in a
transfer syntax is remembered, and not offered to it again. Nothing here knows a network.
"""

from __future__ import annotations

from os import SEEK_END
from typing import TYPE_CHECKING

from dicom_node.outgoing import abilities, head_of, offered, ready, untaken
from dicom_node.stow_item import Item

if TYPE_CHECKING:
    from dicom_node.decoding import Decode
    from dicom_node.destination import Destination
    from dicom_node.stow_item import Parcel


class Forms:
    """What may be sent to one server, as far as it has said."""

    def __init__(self, destination: Destination, decode: Decode) -> None:
        """Begin with nothing refused.

        Args:
            destination: The server.
            decode: Calls the codecs, for what came compressed.
        """
        self._destination, self._decode = destination, decode
        self._untaken: set[tuple[str, str]] = set()
        """SOP class and transfer syntax that the server has refused."""

    def made_ready(self, number: int, parcel: Parcel) -> Item:
        """Return a parcel, ready in the best form that may be taken.

        Args:
            number: Of the parcel among those that are sent together.
            parcel: What to send.

        Raises:
            SendRefusedError: There is no such form, or it cannot be put into any.
            SendInterruptedError: A file cannot be read or written now.
        """
        head = head_of(parcel.file)
        sop_class, syntax = head.sop_class_uid, head.transfer_syntax_uid
        able = abilities(parcel.file, syntax)
        forms = [
            form
            for form in offered(self._destination, syntax, able)
            if (sop_class, str(form)) not in self._untaken
        ]
        item = Item(number, parcel, sop_class, syntax, forms, parcel.file)
        return self._in_best_form(item)

    def another(self, item: Item) -> Item:
        """Make ready again what is not taken in the form that it was in.

        Raises:
            SendRefusedError: There is no other.
            SendInterruptedError: A file cannot be read or written now.
        """
        self._untaken.add((item.sop_class, item.form))
        item.clear()
        item.forms = [form for form in item.forms if str(form) != item.form]
        return self._in_best_form(item)

    def _in_best_form(self, item: Item) -> Item:
        if not item.forms:
            raise untaken(
                self._destination.named,
                item.sop_class,
                item.syntax,
                was_asked=bool(item.form),
            )
        file = item.parcel.file
        item.path = ready(
            file,
            item.syntax,
            item.forms,
            self._decode,
            self._destination.named,
            item.parcel.computing,
        )
        head = head_of(item.path)
        item.sop_instance, item.form = head.sop_instance_uid, head.transfer_syntax_uid
        if item.path != file:
            item.copy = item.path.open("rb")
        item.size = _size(item)
        return item


def _size(item: Item) -> int:
    with item.opened() as stream:
        return stream.seek(0, SEEK_END)

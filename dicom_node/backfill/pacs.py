"""A PACS that is asked with C-FIND and fetched from with C-GET (PS3.4 annex C).

C-GET brings objects on the association that asked for them: nobody has to open a port,
or to be known by an AE title to be sent to. Each object is asked for by its UIDs, in each
transfer syntax that is read here, so that it can come as it is kept; what comes is
written down as it came, and has to be what was asked for. Of a PACS that does not say of
what class its objects are, all classes are asked for, each in one syntax that the PACS
chooses. An object is held in memory while it comes.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from pydicom import Dataset, uid
from pynetdicom import (
    AE,
    StoragePresentationContexts,
    build_context,
    build_role,
    evt,
)

from dicom_node import closed_sockets
from dicom_node.backfill.source import Found
from dicom_node.backfill.uid_names import are_fewer, is_uid, name_of, uids_in
from dicom_node.calling_tls import tls_to
from dicom_node.errors import BackfillError, SendError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetdicom.association import Association
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event
    from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
    from pynetdicom.presentation import PresentationContext

    from dicom_node.destination import Destination

FIND: Final = uid.UID("1.2.840.10008.5.1.4.1.2.2.1")
GET: Final = uid.UID("1.2.840.10008.5.1.4.1.2.2.3")
"""Study Root models (PS3.4 C.6.2)."""

SYNTAXES: Final = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
)
"""What is asked for. What a PACS keeps in another it may convert, or not hand out."""

_MOST_CLASSES: Final = 127 // len(SYNTAXES)
"""Of an association: each class in each syntax, and the query (PS3.8 9.3.2.2)."""

_ANY: Final = [
    context.abstract_syntax
    for context in StoragePresentationContexts
    if context.abstract_syntax is not None
][:127]
"""Classes, the usual ones first, as many as fit."""

_NO_STUDY: Final = "1.2.826.0.1.3680043.8.498.0"
"""A UID that no study has: below pydicom's own root, which gives out none that short."""

_PENDING: Final = frozenset({0xFF00, 0xFF01})
_SUCCESS: Final = 0x0000
_REFUSED: Final = 0x0122
"""SOP class not supported: what is stored on the way here and was not asked for."""


class PacsSource:
    """All objects of a PACS, or those of some dates."""

    def __init__(self, pacs: Destination, calling: str, dates: str = "") -> None:
        """Prepare; nothing is asked yet.

        Args:
            pacs: Where it is, and what it wants to be shown.
            calling: AE title of whoever asks.
            dates: Of studies, as ``20190101-20191231``; empty for all.
        """
        self._pacs, self._calling, self._dates = pacs, calling, dates
        self._finding: Association | None = None
        self._getting: Association | None = None
        self._classes: list[str] = []
        """Which the association for getting was asked for, newest last."""
        self._wanted = ""
        self._came: list[bytes] = []
        self._count: int | None = None

    @property
    def address(self) -> str:
        """Return its AE title and address, and the dates."""
        return f"{self._pacs.ae_title}@{self._pacs.address} {self._dates}".strip()

    def count(self) -> int | None:
        """Return what the studies say that they have, once they were asked."""
        return self._count

    def listing(self) -> Iterator[Found]:
        """Yield the instances of each series of each study."""
        studies = {
            str(one.get("StudyInstanceUID", "")): one
            for one in self._found(
                "STUDY",
                StudyDate=self._dates,
                StudyInstanceUID="",
                NumberOfStudyRelatedInstances="",
            )
        }
        counts = [
            str(one.get("NumberOfStudyRelatedInstances") or "")
            for one in studies.values()
        ]
        if all(count.isdecimal() for count in counts):
            self._count = sum(map(int, counts))
        for study in sorted(studies):
            listed = 0
            for series in sorted(
                str(one.get("SeriesInstanceUID", ""))
                for one in self._found(
                    "SERIES", StudyInstanceUID=study, SeriesInstanceUID=""
                )
            ):
                instances = {
                    str(one.get("SOPInstanceUID", "")): str(
                        one.get("SOPClassUID") or ""
                    )
                    for one in self._found(
                        "IMAGE",
                        StudyInstanceUID=study,
                        SeriesInstanceUID=series,
                        SOPInstanceUID="",
                        SOPClassUID="",
                    )
                }
                for instance in sorted(instances):
                    name = name_of(study, series, instance)
                    yield Found(name, instances[instance], instance)
                listed += len(instances)
            said = studies[study].get("NumberOfStudyRelatedInstances")
            if are_fewer(listed, str(said or "")):
                yield Found(study)

    def fetch(self, found: Found, to: Path) -> None:
        """Get an object, and write it down as it came."""
        study, series, self._wanted = uids_in(found.name)
        association = self._for_class(found.sop_class_uid)
        query = _query(
            "IMAGE",
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            SOPInstanceUID=self._wanted,
        )
        status = -1
        self._came.clear()
        try:
            for answer, _ in association.send_c_get(query, GET):
                status = int(getattr(answer, "Status", -1))
        except (RuntimeError, ValueError) as error:
            self._leave()
            raise self._silent("it offers no C-GET, or has just gone") from error
        if status == -1:
            self._leave()
            raise self._silent("the association broke")
        if not self._came:
            raise BackfillError(
                f"the PACS did not send it: status 0x{status:04X}",
                hint="Is it in a transfer syntax, or of a class, that it does not hand "
                "out with C-GET?",
            )
        with to.open("xb") as stream:
            stream.write(self._came.pop())

    def require_there(self) -> None:
        """Return if the PACS looks for a study (of no patient: nothing is to match)."""
        self._leave()
        self._found("STUDY", StudyInstanceUID=_NO_STUDY)

    def close(self) -> None:
        """Release the associations."""
        self._leave()

    def _leave(self) -> None:
        for association in (self._finding, self._getting):
            if association is not None:
                with suppress(Exception):  # it may have gone
                    association.release()
        self._finding = self._getting = None

    def _found(self, level: str, **wanted: str) -> list[Dataset]:
        if self._finding is None or not self._finding.is_established:
            self._finding = self._associated(
                [build_context(FIND, list(SYNTAXES[:2]))], [], []
            )
        status, matches = -1, list[Dataset]()
        try:
            for answer, found in self._finding.send_c_find(
                _query(level, **wanted), FIND
            ):
                status = int(getattr(answer, "Status", -1))
                if status in _PENDING and found is not None:
                    matches.append(found)
        except (RuntimeError, ValueError) as error:
            self._leave()
            raise self._silent("it offers no C-FIND, or has just gone") from error
        if status != _SUCCESS:
            self._leave()
            how = "nothing" if status == -1 else f"0x{status:04X}"
            raise self._silent(f"C-FIND at level {level} ends with {how}")
        return matches

    def _for_class(self, sop_class: str) -> Association:
        """Return an association on which objects of a class may come; empty: of any.

        Raises:
            BackfillError: There can be no such class.
            SourceError: The PACS takes no association.
        """
        if sop_class and not is_uid(sop_class):
            raise BackfillError(
                "the PACS lists it under a class that is no UID",
                hint="Its SOP Class UID has to be put right there.",
            )
        association = self._getting
        if association is not None and association.is_established:
            if sop_class in self._classes:
                return association
            self._leave()
        if sop_class:
            others = [one for one in self._classes if one not in {sop_class, ""}]
            self._classes = [*others[-(_MOST_CLASSES - 1) :], sop_class]
            stored = [build_context(one, s) for one in self._classes for s in SYNTAXES]
        else:
            self._classes = [""]
            stored = [build_context(one, list(SYNTAXES)) for one in _ANY]
        contexts = [build_context(GET, list(SYNTAXES[:2])), *stored]
        classes = dict.fromkeys(str(context.abstract_syntax) for context in stored)
        roles = [build_role(one, scp_role=True) for one in classes]
        self._getting = self._associated(
            contexts, roles, [(evt.EVT_C_STORE, self._take)]
        )
        return self._getting

    def _associated(
        self,
        contexts: list[PresentationContext],
        roles: list[SCP_SCU_RoleSelectionNegotiation],
        handlers: list[evt.EventHandlerType],
    ) -> Association:
        pacs = self._pacs
        try:
            # pynetdicom does not say why it cannot connect.
            socket.create_connection((pacs.host, pacs.port), pacs.timeout_s).close()
        except OSError as error:
            raise self._silent(error.strerror or type(error).__name__) from error
        closed_sockets.install()
        entity = AE(ae_title=self._calling)
        entity.acse_timeout = entity.connection_timeout = pacs.timeout_s
        entity.network_timeout = entity.dimse_timeout = pacs.answer_timeout_s
        try:
            tls = tls_to(pacs.named, pacs)
        except SendError as error:
            raise SourceError(str(error), hint=error.hint) from error
        association = entity.associate(
            pacs.host,
            pacs.port,
            contexts=contexts,
            ae_title=pacs.ae_title,
            ext_neg=[*roles],
            evt_handlers=handlers,
            tls_args=tls,
        )
        if not association.is_established:
            raise self._silent("it takes no association")
        return association

    def _take(self, event: Event) -> int:
        """Keep what comes, if it is what was asked for."""
        request = cast("C_STORE", event.request)
        if str(request.AffectedSOPInstanceUID) != self._wanted:
            return _REFUSED
        self._came = [event.encoded_dataset()]
        return _SUCCESS

    def _silent(self, why: str) -> SourceError:
        return SourceError(
            f"{self._pacs.ae_title} ({self._pacs.address}): {why}",
            hint="Does the PACS know this AE title and address, and let it query and "
            "retrieve?",
        )


def _query(level: str, **wanted: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in wanted.items():
        setattr(query, keyword, value)
    return query

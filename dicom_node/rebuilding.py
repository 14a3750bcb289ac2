"""A lost ledger made again from marked objects: their signed headers say all it knew.

Records whose epoch still counts are only indexed again. Those whose epoch has ended open
by the recovery key alone; their object keys are sealed under the present epoch. What was
shredded stays so, as far as the audit is there to remember it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node import private_block
from dicom_node.decoding import decode_frames
from dicom_node.elements import Limits
from dicom_node.errors import NodeError
from dicom_node.filters.strip import marked_digest
from dicom_node.instance import OpenInstance
from dicom_node.ledger import Rewrapped
from dicom_node.rewrapping import LedgerOpener
from miadmark_core.errors import MiadMarkError, NoStanzaError
from miadmark_core.sealing.seal import believe_key, believed, object_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from dicom_node.decoding import Decode
    from dicom_node.keys.keyring import Keyring
    from dicom_node.ledger import Ledger
    from miadmark_core.sealing.recipients import Identity
    from miadmark_core.sealing.record import Header


def rebuild(
    paths: Iterable[Path],
    keyring: Keyring,
    ledger: Ledger,
    recovery: Sequence[Identity],
    shredded: Collection[bytes],
    now: datetime,
    decode: Decode = decode_frames,
) -> Iterator[tuple[Path, str]]:
    """Put the records of marked files into the ledger; yield what became of each file.

    Args:
        paths: The files.
        keyring: Of this site: other sites' records are passed.
        ledger: Where they go.
        recovery: The recovery key, if its shares are there.
        shredded: Records that must not come back.
        now: Aware.
        decode: Calls the codecs.

    Yields:
        The file, and ``added``, ``closed`` (added, and nothing here opens it),
        ``shredded``, ``passed`` (no record of ours) or ``failed``.
    """
    for path in paths:
        try:
            yield path, _rebuilt(path, keyring, ledger, recovery, shredded, now, decode)
        except (NodeError, MiadMarkError, OSError):
            yield path, "failed"


def _rebuilt(
    path: Path,
    keyring: Keyring,
    ledger: Ledger,
    recovery: Sequence[Identity],
    shredded: Collection[bytes],
    now: datetime,
    decode: Decode,
) -> str:
    marked = OpenInstance.read(path, Limits())
    record = private_block.find(marked.elements)
    if record is None:
        return "passed"
    trusted = keyring.trusted()
    header = believed(record, trusted)
    if header.tenant != keyring.ring.tenant:
        return "passed"
    if header.record_id in shredded:
        return "shredded"
    study = marked.identity().study_instance_uid
    digest = marked_digest(marked, header, decode)
    if _opens(header, keyring, ledger):
        ledger.add(digest, record, now, study)
        return "added"
    try:
        key = object_key(header, recovery)
        believe_key(header, key)
    except NoStanzaError:
        ledger.add(digest, record, now, study, is_closed=True)
        return "closed"
    ledger.add(digest, record, now, study)
    epoch = keyring.epochs.newest()
    stanza = epoch.wrap(header.suite, key, header.stanza_info)
    ledger.rewrap([Rewrapped(header.record_id, epoch.version, stanza.body)])
    return "added"


def _opens(header: Header, keyring: Keyring, ledger: Ledger) -> bool:
    try:
        object_key(header, [LedgerOpener(keyring, ledger), keyring.epochs])
    except NoStanzaError:
        return False
    return True

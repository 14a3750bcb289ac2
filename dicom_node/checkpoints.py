"""Signed checkpoints of the audit: how far it goes, said where nobody can take it back.

A chain shows what was changed in it, not what was cut off its end, nor that whoever holds
the site's derivation key has written another. So every so often the site signs how far it
goes: which chain (by its first entry), how many entries, the digest of the last. That
goes into the chain, and, if wanted, into a folder on another system and to a syslog
server. Whoever verifies holds the chain against all of them.

What is signed is ``miadmark/v1/audit checkpoint``, and the four lines ``chain``,
``number``, ``digest`` and ``at``; the signature is the site's, Ed25519.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from dicom_node.audit import Event
from dicom_node.chain import START, Head
from dicom_node.durable import write_durably
from dicom_node.errors import AuditError
from miadmark_core.sealing.suites import CLASSICAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from dicom_node.chain import Entry
    from miadmark_core.sealing.signing import Signer, Verifier

_PURPOSE: Final = "audit checkpoint"
_FIELDS: Final = frozenset({"chain", "number", "digest", "at", "signer", "signature"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One of them."""

    chain: str
    """Digest of the first entry of all."""
    number: int
    """Of the last entry that it is about."""
    digest: str
    """Of that entry."""
    at: str
    """When it was signed."""
    signer: str
    """Which of the site's keys, in hexadecimal."""
    signature: str
    """Base64."""

    @classmethod
    def made(cls, chain: str, head: Head, at: str, signer: Signer) -> Checkpoint:
        """Return a checkpoint that says how far a chain goes."""
        message = _message(chain, head, at)
        return cls(
            chain=chain,
            number=head.number,
            digest=head.digest,
            at=at,
            signer=signer.verifier.id.hex(),
            signature=base64.b64encode(
                signer.sign(CLASSICAL, _PURPOSE, message)
            ).decode("ascii"),
        )

    @classmethod
    def of(cls, values: dict[str, Any], where: str) -> Checkpoint:
        """Return the checkpoint that was written down.

        Args:
            values: What was.
            where: For the error.

        Raises:
            AuditError: It is none.
        """
        try:
            found = {name: values[name] for name in _FIELDS}
        except (KeyError, TypeError):
            raise AuditError(f"{where} is no checkpoint") from None
        if type(found["number"]) is not int or not all(
            isinstance(v, str) for name, v in found.items() if name != "number"
        ):
            raise AuditError(f"{where} is no checkpoint")
        return cls(**found)

    @property
    def head(self) -> Head:
        """Return the entry that it is about."""
        return Head(self.number, self.digest)

    def require_signed(self, verifiers: Iterable[Verifier], where: str) -> None:
        """Return if one of the site's keys has signed it.

        Raises:
            AuditError: None has.
        """
        verifier = next((v for v in verifiers if v.id.hex() == self.signer), None)
        if verifier is None:
            raise AuditError(
                f"{where} is signed with a key that is none of this site's",
                hint="Is it of another site, or of keys that were lost?",
            )
        try:
            signature = base64.b64decode(self.signature, validate=True)
        except binascii.Error:
            signature = b""
        message = _message(self.chain, self.head, self.at)
        if not verifier.has_signed(CLASSICAL, _PURPOSE, signature, message):
            raise AuditError(f"{where} was changed: its signature does not fit")


def _message(chain: str, head: Head, at: str) -> bytes:
    return "\n".join((chain, str(head.number), head.digest, at)).encode("utf-8")


def keep(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint into a folder, which is better on another system.

    Raises:
        OSError: It cannot be written.
    """
    content = json.dumps(asdict(checkpoint), indent=1) + "\n"
    write_durably(folder / name_of(checkpoint), content.encode("ascii"), 0o644)


def name_of(checkpoint: Checkpoint) -> str:
    """Return what a checkpoint's file in the folder is called."""
    return f"checkpoint-{checkpoint.number:012d}-{checkpoint.digest[:16]}.json"


def kept(folder: Path) -> list[tuple[str, Checkpoint]]:
    """Return the checkpoints in a folder, oldest first, each with its file's name.

    Raises:
        AuditError: The folder cannot be read, or a file in it is no checkpoint.
    """
    found = []
    try:
        for file in sorted(folder.glob("checkpoint-*.json")):
            where = f"the checkpoint {file.name}"
            try:
                values = json.loads(file.read_bytes())
            except (ValueError, RecursionError):
                raise AuditError(f"{where} cannot be read") from None
            found.append((where, Checkpoint.of(values, where)))
    except OSError as error:
        raise AuditError(f"{folder} cannot be read: {error.strerror}") from error
    if not found:
        raise AuditError(
            f"{folder} holds no checkpoint",
            hint="It is the folder that [audit] checkpoints names. If it was emptied, "
            "that the end of the audit was cut off can not be seen any more.",
        )
    return found


def confirmed(
    entries: Iterable[Entry],
    verifiers: Sequence[Verifier],
    elsewhere: Sequence[tuple[str, Checkpoint]] = (),
) -> Iterator[Entry]:
    """Yield the entries of a whole chain, if its checkpoints agree with it.

    Args:
        entries: All of them, oldest first, each checked.
        verifiers: What the site's signatures are checked against.
        elsewhere: Checkpoints that are kept at other places, with their names.

    Raises:
        AuditError: An entry is not the one that a checkpoint is about, or is not there
            any more, or a checkpoint is none of this site's, or of another chain.
    """
    for where, checkpoint in elsewhere:
        checkpoint.require_signed(verifiers, where)
    promised: dict[int, list[tuple[str, Checkpoint]]] = {}
    for named in elsewhere:
        promised.setdefault(named[1].number, []).append(named)
    chain, last = "", START
    for entry in entries:
        number = entry.head.number
        chain = chain or entry.head.digest
        _require_chain(elsewhere if number == 1 else (), chain)
        for where, checkpoint in promised.pop(number, ()):
            if checkpoint.digest != entry.head.digest:
                raise AuditError(
                    f"entry {number} is another than the one that {where} is about",
                    hint="Somebody with this site's keys has written the audit anew.",
                )
        if entry.values.get("event") == Event.CHECKPOINT:
            _require_own(entry, last, chain, verifiers)
        last = entry.head
        yield entry
    if promised:
        first = min(promised)
        where = promised[first][0][0]
        raise AuditError(
            f"entry {last.number + 1} is gone, and what follows: {where} is about entry "
            f"{first}",
            hint="The end of the audit was cut off.",
        )


def _require_chain(elsewhere: Iterable[tuple[str, Checkpoint]], chain: str) -> None:
    for where, checkpoint in elsewhere:
        if checkpoint.chain != chain:
            raise AuditError(
                f"{where} is about another audit than the one whose entry 1 this is"
            )


def _require_own(
    entry: Entry, before: Head, chain: str, verifiers: Sequence[Verifier]
) -> None:
    """Return if a checkpoint that stands in the chain is about what stands before it."""
    where = f"the checkpoint in entry {entry.head.number}"
    found = written_in(entry.values, where)
    found.require_signed(verifiers, where)
    if found.chain != chain or found.head != before:
        raise AuditError(f"{where} is not about the entries before it")


_WRITTEN: Final = {"number": "upto", "digest": "upto_digest", "at": "signed_at"}
"""How fields are called in the chain, where entries have their own of these names."""


def facts_of(checkpoint: Checkpoint) -> dict[str, str | int]:
    """Return how a checkpoint stands in the chain."""
    facts = asdict(checkpoint)
    return {_WRITTEN.get(name, name): value for name, value in facts.items()}


def written_in(values: dict[str, Any], where: str) -> Checkpoint:
    """Return the checkpoint that an entry of the chain is; unchecked.

    Args:
        values: Of the entry.
        where: For the error.

    Raises:
        AuditError: It is none.
    """
    renamed = {name: values.get(written) for name, written in _WRITTEN.items()}
    return Checkpoint.of(values | renamed, where)

"""The keys: whether they are there, open, are the right ones, are private, and how old.

Each is opened, and forgotten again.
"""

from __future__ import annotations

import os
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.keys.epochs import MAX_EPOCH_DAYS
from dicom_node.keys.ring import KeyKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding
    from dicom_node.keys.keyring import Keyring
    from dicom_node.keys.ring import Ring

_OLD: Final = timedelta(days=3 * 365)
"""Of keys that nothing replaces by itself."""
_GRACE: Final = timedelta(days=7)
_SEALED: Final = ("ledger.sqlite", "audit.jsonl", "grants.sqlite")
"""What is of no use without the keys that it was made with."""


def keys(case: Case) -> Iterator[Finding]:
    """Yield what is to be said of them."""
    if not case.has_state:
        return
    if case.root_kind == "pkcs11" and find_spec("pkcs11") is None:
        return  # it is missed among the packages
    keyring = case.opened_keys()
    if keyring is None:
        yield from _none(case)
        return
    yield from _private(case.files / "keys", keyring)
    _open_all(keyring)
    found = keyring.site("").fingerprint
    wanted = "" if case.config is None else case.config.node.fingerprint
    if wanted and wanted.lower() != found:
        yield wrong(
            f"their fingerprint is {found}, and the configuration wants {wanted}",
            "After keys rotate signing it is another: see miadmark keys list. Otherwise "
            "tell whoever looks after security.",
        )
    else:
        yield ok(f"they open; fingerprint {found}")
    yield from judged_ages(keyring.ring, case.now)
    if case.marks and keyring.recovery() is None:
        yield note(
            "there is no recovery key: whoever loses the keys loses every original",
            "miadmark recovery split --out kit/; and back up keys/ and ledger.sqlite.",
        )


def judged_ages(ring: Ring, now: datetime) -> Iterator[Finding]:
    """Yield which keys are older than they should be, or from the future.

    Args:
        ring: Which there are.
        now: Aware.
    """
    for kind in KeyKind:
        kept = ring.of(kind)
        if not kept:
            continue
        newest = kept[0]
        age = now - newest.created
        since = f"{newest.created:%Y-%m-%d}"
        if age < -timedelta(days=1):
            yield wrong(
                f"the {kind} key was made on {since}, which is yet to come",
                "The clock is wrong now, or was then.",
            )
        elif kind is KeyKind.EPOCH and age > timedelta(days=MAX_EPOCH_DAYS) + _GRACE:
            yield note(
                f"the epoch key is of {since}: the next record begins another epoch",
                "miadmark keys rotate epoch",
            )
        elif kind in {KeyKind.IDENTITY, KeyKind.SIGNING} and age > _OLD:
            yield note(f"the {kind} key is of {since}", f"miadmark keys rotate {kind}")


def _none(case: Case) -> Iterator[Finding]:
    left = [one for one in _SEALED if (case.folder / one).exists()]
    if left:
        yield wrong(
            f"there are no keys, and {' and '.join(left)} {_need(left)} some",
            "Put keys/ back from its backup: others would not open what they sealed.",
        )
    else:
        yield note("there are no keys yet", "miadmark init, or: miadmark keys init")


def _need(left: list[str]) -> str:
    return "needs" if len(left) == 1 else "need"


def _open_all(keyring: Keyring) -> None:
    """Open every key and every site's file.

    Raises:
        KeyFolderError: The first that does not open, or was put there by a stranger.
        KeyServiceError: Whoever keeps the root does not answer.
    """
    keyring.derive(b"doctor")
    keyring.identities()
    keyring.verifiers()
    keyring.spool.all()
    for entry in keyring.ring.of(KeyKind.EPOCH):
        keyring.epochs.of(entry.version, is_ended=True)
    for part in ("recipients", "trusted"):
        keyring.sites(part)


def _private(folder: Path, keyring: Keyring) -> Iterator[Finding]:
    files = [one for one in folder.iterdir() if one.is_file()]
    secret = [one for one in files if one.suffix == ".key"]
    secret += [one for one in files if one.name in {"passphrase", "root.json"}]
    for name in ("file", "pin_file", "token_file"):
        if named := keyring.ring.root.get(name):
            secret.append(Path(named))
    owner = folder.stat().st_uid
    for file in sorted(secret):
        found = file.stat()
        if found.st_mode & 0o077:
            yield wrong(
                f"{file} may be read by others (mode {found.st_mode & 0o777:o})",
                f"chmod 600 {file}; then: miadmark keys rotate root",
            )
        if file.parent == folder and found.st_uid not in {owner, os.geteuid()}:
            yield wrong(
                f"{file} belongs to user {found.st_uid}, and its folder to {owner}",
                "Take it from your backup, and tell whoever looks after security.",
            )

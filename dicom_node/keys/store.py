"""A key folder on disk: the ring, and each key sealed under the root.

Keys that the root has opened are kept in memory for ten minutes at most, so a root that
is closed closes the node. What the keys are for is not known here.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from dicom_node.durable import sync_folder, write_durably
from dicom_node.errors import KeyFolderError
from dicom_node.keys.ring import FILE, SHARED, KeyEntry, KeyKind, Ring, require_mac
from dicom_node.keys.roots import open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from dicom_node.keys.provider import Root
    from dicom_node.keys.roots import MakeRoot

CACHE_S: Final = 600.0
SIZES: Final = {
    KeyKind.IDENTITY: 32,
    KeyKind.SIGNING: 64,
    KeyKind.DERIVATION: 32,
    KeyKind.EPOCH: 32,
    KeyKind.SPOOL: 32,
    KeyKind.NODE: 32,
}
"""Bytes of each kind of key."""


class _Opened(NamedTuple):
    secret: bytes
    since: float


class KeyStore:
    """A key folder."""

    def __init__(
        self,
        folder: Path,
        root: Root | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read which keys there are.

        Args:
            folder: Where they lie.
            root: Opens them; else the one that the ring names.
            monotonic: A clock, in seconds.

        Raises:
            KeyFolderError: They cannot be read, or were changed.
            KeyServiceError: The root cannot be reached.
        """
        self.folder, self._monotonic = folder, monotonic
        self._opened: dict[tuple[KeyKind, int], _Opened] = {}
        self.ring, values, self._read_at = _parsed(folder)
        self.root = root or open_root(folder, self.ring.root)
        self._require_mac(values)

    def secret(self, kind: KeyKind, version: int) -> bytes:
        """Return a key.

        Raises:
            KeyFolderError: It cannot be read, or was changed.
            KeyServiceError: The root cannot be reached.
        """
        opened = self._opened.get((kind, version))
        if opened is not None and self._monotonic() - opened.since < CACHE_S:
            return opened.secret
        entry = self.ring.entry(kind, version)
        path = _path(self.folder, entry)
        try:
            wrapped = path.read_bytes()
        except OSError as error:
            raise KeyFolderError(f"{path} cannot be read: {error.strerror}") from error
        if self.root.version_of(wrapped) > self.root.version:
            # Another process has rotated the root.
            self.root = open_root(self.folder, self.ring.root)
        secret = self.root.unwrap(wrapped, _context(self.ring.tenant, entry))
        if len(secret) != SIZES[kind]:
            raise KeyFolderError(f"{path} holds no key of its kind")
        self._opened[kind, version] = _Opened(secret, self._monotonic())
        return secret

    def newest(self, kind: KeyKind) -> bytes:
        """Return the key of that kind that is in use."""
        return self.secret(kind, self.ring.newest(kind).version)

    def add(self, entry: KeyEntry, secret: bytes) -> None:
        """Write a key, sealed under the root; durable when this returns.

        Raises:
            KeyFolderError: The root at hand is not the one that the ring names: what it
                sealed would be lost with it.
        """
        if self.root.version < self.ring.root_version:
            raise KeyFolderError("the root at hand is older than the ring's")
        _write_key(self.folder, self.root, self.ring.tenant, entry, secret)

    def rotate(self, kind: KeyKind, now: datetime, sequence: int) -> int:
        """Make a fresh key of that kind, of use from record ``sequence`` on.

        Within :meth:`changing`; older keys stay.

        Returns:
            Its version.
        """
        ring = self.ring.with_next(kind, now, sequence)
        entry = ring.newest(kind)
        self.add(entry, os.urandom(SIZES[kind]))
        self.write(ring)
        return entry.version

    def write(self, ring: Ring) -> None:
        """Let ``ring`` hold from now on; within :meth:`changing`."""
        key = self.secret(KeyKind.DERIVATION, 1)
        write_durably(self.folder / FILE, ring.to_bytes(key))
        self.ring, self._read_at = ring, _stamp(self.folder / FILE)

    def destroy(self, entry: KeyEntry) -> None:
        """Write over a key's file and delete it; on flash no more can be promised."""
        path = _path(self.folder, entry)
        self._opened.pop((entry.kind, entry.version), None)
        if not path.exists():
            return
        size = path.stat().st_size
        with path.open("r+b") as stream:
            stream.write(os.urandom(size))
            stream.flush()
            os.fsync(stream.fileno())
        path.unlink()
        sync_folder(self.folder)

    def refresh(self) -> None:
        """Read the ring again if another process has changed it.

        Raises:
            KeyFolderError: It cannot be read, or was changed by somebody else.
        """
        if _stamp(self.folder / FILE) != self._read_at:
            # Nothing of it is taken on before it is believed, not even where the root is.
            ring, values, stamp = _parsed(self.folder)
            self._require_mac(values)
            if ring.root_version > self.root.version:
                self.root = open_root(self.folder, self.ring.root)
            self.ring, self._read_at = ring, stamp

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep other processes from changing the ring, as it is read now."""
        try:
            lock = os.open(self.folder / "ring.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise KeyFolderError(
                f"{self.folder} cannot be written: {error.strerror}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.refresh()
            yield
        finally:
            os.close(lock)

    def _require_mac(self, values: Mapping[str, object]) -> None:
        key = self.secret(KeyKind.DERIVATION, 1)
        require_mac(values, key, str(self.folder / FILE))


def make(
    folder: Path, root: MakeRoot, now: datetime, random: Callable[[int], bytes]
) -> None:
    """Make a fresh set of keys in ``folder``, whole or not at all.

    Raises:
        KeyFolderError: There are keys already, or the folder is not writable.
    """
    if exists(folder):
        raise KeyFolderError(
            f"{folder} holds keys already",
            hint="Objects sealed with them could not be restored with others. Choose "
            "another folder.",
        )
    kinds = [*SHARED, KeyKind.SPOOL]
    entries = tuple(KeyEntry(kind=kind, version=1, created=now) for kind in kinds)
    secrets = {entry.kind: random(SIZES[entry.kind]) for entry in entries}
    try:
        # Half a set of keys opens nothing, so it is made aside and moved.
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        aside.mkdir(mode=0o700, parents=True)
        for part in ("recipients", "trusted"):
            (aside / part).mkdir()
        settings, made = root(aside)
        ring = Ring(tenant=random(16), root=settings, keys=entries)
        for entry in entries:
            _write_key(aside, made, ring.tenant, entry, secrets[entry.kind])
        write_durably(aside / FILE, ring.to_bytes(secrets[KeyKind.DERIVATION]))
        aside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise KeyFolderError(f"{folder} cannot be written: {error.strerror}") from error


def put_together(
    folder: Path, root: Root, ring: Ring, secrets: Mapping[tuple[KeyKind, int], bytes]
) -> None:
    """Write a ring and its keys into a folder where the root lies already.

    Args:
        folder: Nobody opens keys there yet.
        root: Seals them.
        ring: Which keys there are.
        secrets: Of each that is not destroyed, by kind and version.

    Raises:
        OSError: It cannot be written.
    """
    for part in ("recipients", "trusted"):
        (folder / part).mkdir(exist_ok=True)
    for entry in ring.keys:
        if not entry.is_destroyed:
            secret = secrets[entry.kind, entry.version]
            _write_key(folder, root, ring.tenant, entry, secret)
    key = secrets[KeyKind.DERIVATION, 1]
    write_durably(folder / FILE, ring.to_bytes(key))


def exists(folder: Path) -> bool:
    """Say whether ``folder`` holds keys, of whatever version."""
    return (folder / FILE).exists() or (folder / "identity.pem").exists()


_Stamp = tuple[int, int, int]
"""What changes when a file is replaced, even twice within a tick of its clock."""


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError as error:
        raise KeyFolderError(
            f"{file} cannot be read: {error.strerror}",
            hint="miadmark keys init makes the keys of a site.",
        ) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _parsed(folder: Path) -> tuple[Ring, Mapping[str, object], _Stamp]:
    if (folder / "identity.pem").exists():
        raise KeyFolderError(
            f"{folder} holds keys of version 0.1",
            hint="Restore what they sealed with that version; then let this one make "
            "its own, in another folder.",
        )
    file = folder / FILE
    stamp = _stamp(file)
    return *Ring.from_bytes(file.read_bytes(), str(file)), stamp


def _write_key(
    folder: Path, root: Root, tenant: bytes, entry: KeyEntry, secret: bytes
) -> None:
    write_durably(_path(folder, entry), root.wrap(secret, _context(tenant, entry)))


def _path(folder: Path, entry: KeyEntry) -> Path:
    return folder / f"{entry.kind}-{entry.version}.key"


def _context(tenant: bytes, entry: KeyEntry) -> bytes:
    kind = entry.kind.encode("ascii")
    return b"miadmark/v1/%b/%d/%b" % (kind, entry.version, tenant)

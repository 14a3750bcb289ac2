"""What a file of the spool is sealed into: only a key opens it, and no change is unseen.

Layout, version 1::

    "MIADSPL1" (8) | version of the spool key (4) | which key that is (8)
    | chunks of 64 KiB, each sealed by AES-256-GCM (+ 16)

    key of the file = HKDF-Expand-SHA-256(spool key, label "file" | its name)
    nonce = chunk number (11 bytes) | 01 for the last, else 00
    associated data = what stands before the chunks

That is STREAM (Hoang, Reyhanitabar, Rogaway, Vizar 2015): a file that was cut short, has
chunks in another order, or has another's name does not open. Its name is what stands
before the first dot: 16 random bytes in hexadecimal, which are used for one file only, so
that no key ever seals twice with one nonce. What comes after the dot may change.

A file is written once, from its start, and read from wherever one likes. What the data
are is not known here, nor where keys come from.
"""

from __future__ import annotations

import io
import os
import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from dicom_node.errors import SpoiledFileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dicom_node.mapped import Buffer
    from dicom_node.spool_keys import SpoolKey, SpoolKeys

CHUNK: Final = 64 * 1024
_TAG: Final = 16
_MAGIC: Final = b"MIADSPL1"
_HEADER: Final = struct.Struct(">8sL8s")
_LENT: Final[deque[memoryview]] = deque(maxlen=64)
"""Buffers that nobody uses now; several threads may take and give."""
_LABEL: Final = b"miadmark/v1/spool/file "


class Sealing:
    """What is being written to one file."""

    def __init__(
        self, name: str, key: SpoolKey, write: Callable[[memoryview], object]
    ) -> None:
        """Begin; nothing is written yet.

        Args:
            name: Of the file; up to its first dot it was never used before.
            key: Seals it.
            write: Takes all that it is given, or raises.
        """
        self._write = write
        self._header = _HEADER.pack(_MAGIC, key.version, key.id)
        self._cipher = _cipher(name, key)
        self._buffers = _lent(), _lent()
        self._plain, self._sealed = self._buffers[0][:CHUNK], self._buffers[1]
        self._filled = self._number = 0

    def write(self, data: Buffer) -> None:
        """Seal ``data``; what makes no whole chunk waits for more."""
        rest = memoryview(data)
        while rest:
            if self._filled == CHUNK:
                self._seal(self._plain, is_last=False)
                self._filled = 0
            if not self._filled and len(rest) > CHUNK:
                self._seal(rest[:CHUNK], is_last=False)
                rest = rest[CHUNK:]
                continue
            count = min(CHUNK - self._filled, len(rest))
            self._plain[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]

    def finish(self) -> None:
        """Seal what waits: nothing can come after it."""
        self._seal(self._plain[: self._filled], is_last=True)
        _LENT.extend(self._buffers)

    def _seal(self, plain: memoryview, *, is_last: bool) -> None:
        nonce, start = _nonce(self._number, is_last=is_last), 0
        if not self._number:
            start = _HEADER.size
            self._sealed[:start] = self._header
        end = start + len(plain) + _TAG
        self._cipher.encrypt_into(nonce, plain, self._header, self._sealed[start:end])
        self._write(self._sealed[:end])
        self._number += 1


class Opened(io.RawIOBase):
    """A sealed file that is read; a chunk is held in the clear at a time."""

    def __init__(self, path: Path, keys: SpoolKeys) -> None:
        """Open it.

        Args:
            path: Its name counts, up to the first dot.
            keys: Of the node.

        Raises:
            SpoiledFileError: It is no sealed file, or is cut short.
            KeyFolderError: Its key is not there.
            OSError: It cannot be read.
        """
        super().__init__()
        self._named = path.name
        self._position, self._held = 0, -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._header = os.pread(self._descriptor, _HEADER.size, 0)
            key = keys.of(*key_of(self._header, self._named))
            size = os.fstat(self._descriptor).st_size
            self._chunks, self._size = sizes(size)
            self._require_size()
            self._cipher = _cipher(self._named, key)
        except BaseException:
            os.close(self._descriptor)
            self._descriptor = -1
            raise
        self._sealed, self._plain = _lent(), _lent()

    def _require_size(self) -> None:
        if self._size < 0:
            raise self._spoiled()

    def readable(self) -> bool:
        """Return that it can be."""
        return True

    def seekable(self) -> bool:
        """Return that it can be."""
        return True

    def tell(self) -> int:
        """Return where reading goes on."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go on reading elsewhere."""
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = max(starts[whence] + offset, 0)
        return self._position

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer`` as far as the file reaches.

        Raises:
            SpoiledFileError: It is not as it was written.
            OSError: It cannot be read.
        """
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        wanted = min(len(view), max(self._size - self._position, 0))
        done = 0
        while done < wanted:
            number, start = divmod(self._position, CHUNK)
            if not start and wanted - done >= CHUNK:
                count = CHUNK
                self._open(number, view[done : done + CHUNK])
            else:
                piece = self._piece(wanted - done)
                count = len(piece)
                view[done : done + count] = piece
            done += count
            self._position += count
        return done

    def read(self, size: int | None = -1) -> bytes:
        """Return as much as there is, or ``size`` bytes of it; see :meth:`readinto`."""
        left = max(self._size - self._position, 0)
        left = left if size is None or size < 0 else min(size, left)
        content = io.BytesIO()
        while left:
            piece = self._piece(left)
            left -= content.write(piece)
            self._position += len(piece)
        return content.getvalue()

    def readall(self) -> bytes:
        """Return the rest."""
        return self.read()

    def require_whole(self) -> None:
        """Return if it is as it was written, to its last byte.

        Raises:
            SpoiledFileError: It is not.
            OSError: It cannot be read.
        """
        for number in range(self._chunks):
            self._open(number, self._plain[: self._length(number)])
        self._held = -1

    def close(self) -> None:
        """Close it."""
        descriptor, self._descriptor = getattr(self, "_descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)
            _LENT.extend((self._sealed, self._plain))
        super().close()

    def _piece(self, most: int) -> memoryview:
        """Return what comes next, as far as its chunk reaches."""
        number, start = divmod(self._position, CHUNK)
        length = self._length(number)
        if number != self._held:
            self._held = -1
            self._open(number, self._plain[:length])
            self._held = number
        return self._plain[start : min(length, start + most)]

    def _length(self, number: int) -> int:
        return min(CHUNK, self._size - number * CHUNK)

    def _open(self, number: int, plain: memoryview) -> None:
        """Decrypt a chunk."""
        sealed = self._sealed[: len(plain) + _TAG]
        at = _HEADER.size + number * (CHUNK + _TAG)
        nonce = _nonce(number, is_last=number == self._chunks - 1)
        try:
            if os.preadv(self._descriptor, [sealed], at) != len(sealed):
                raise self._spoiled()
            self._cipher.decrypt_into(nonce, sealed, self._header, plain)
        except InvalidTag:
            raise self._spoiled() from None

    def _spoiled(self) -> SpoiledFileError:
        return spoiled(self._named)


def key_of(header: bytes, name: str) -> tuple[int, bytes]:
    """Return version and id of the key that a file begins by naming.

    Raises:
        SpoiledFileError: It names none.
    """
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise spoiled(name)
    _, version, key_id = _HEADER.unpack_from(header)
    return version, key_id


def head_of(path: Path) -> bytes:
    """Return how a file begins, for :func:`key_of`.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(_HEADER.size)


def spoiled(name: str) -> SpoiledFileError:
    """Return what to say of a file that does not open."""
    return SpoiledFileError(
        f"the file {name} in the spool is not as it was written",
        hint="Look at the disk, and at who can write to it. Ask the sender for the "
        "object again: that takes its place.",
    )


def sizes(size: int) -> tuple[int, int]:
    """Return how many chunks a file of that size has, and how much was written to it."""
    body = size - _HEADER.size
    chunks = max(-(-body // (CHUNK + _TAG)), 1)
    return chunks, body - chunks * _TAG


def _lent() -> memoryview:
    """Return a buffer for a chunk: fresh memory costs more than opening what it holds."""
    try:
        return _LENT.pop()
    except IndexError:
        return memoryview(bytearray(_HEADER.size + CHUNK + _TAG))


def _cipher(name: str, key: SpoolKey) -> AESGCM:
    info = _LABEL + name.partition(".")[0].encode("ascii", "replace")
    return AESGCM(HKDFExpand(SHA256(), length=32, info=info).derive(key.secret))


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11) + bytes([is_last])

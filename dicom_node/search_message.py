"""What goes to a machine that searches, and what comes back: bytes, sealed.

A request holds what a search is shown of frames, and its seeds: no name, no UID, nothing
of the object beside its modality and body part. An answer holds the marks, which is what
takes them off again. Both are sealed under a key that node and searching machines have,
so that whatever carries them, keeps them in memory that others share or writes them to a
disk has neither. An answer opens only as the one to its request.

Nothing in them is ever executed: numbers are read as numbers. Nothing here knows what
carries the bytes.

Source:
    NIST SP 800-38D (AES-GCM), 96-bit nonces drawn at random: far below 2^32 messages of
    one key if it is changed every few years.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicom_node.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from miadmark_core.search.finder import FoundMark, Wanted

KEY_SIZE: Final = 32
_NONCE_SIZE: Final = 12
_REQUEST: Final = b"miadmark search request 1\0"
_ANSWER: Final = b"miadmark search answer 1\0"


class Request(NamedTuple):
    """What is to be searched, and by what."""

    search: str
    """:attr:`~miadmark_core.search.finder.Finder.digest` of the node's."""
    frames: tuple[Wanted, ...]
    """None to ask only what the search is."""


class Answer(NamedTuple):
    """What was found, and by what."""

    search: str
    """:attr:`~miadmark_core.search.finder.Finder.digest` of who searched."""
    sameness: str
    """:attr:`~miadmark_core.search.finder.Finder.sameness` of who searched."""
    marks: tuple[FoundMark, ...]
    """None where the search is not the one that was asked for."""


class SearchSeal:
    """Seals requests and answers."""

    def __init__(self, key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        """Keep the key, of :data:`KEY_SIZE` bytes, and what draws nonces."""
        self._cipher, self._random = AESGCM(key), random

    def request(self, request: Request) -> bytes:
        """Return a request, sealed."""
        frames = [_named(frame) for frame in request.frames]
        return self._sealed(_packed({"search": request.search}, frames), _REQUEST)

    def read_request(self, sealed: bytes) -> Request:
        """Return what :meth:`request` has sealed.

        Raises:
            ClusterError: It was sealed with another key, or changed.
        """
        from miadmark_core.search.finder import Wanted
        from miadmark_core.search.views import Window

        head, tables = _unpacked(self._opened(sealed, _REQUEST))
        frames = []
        for table in tables:
            windows = tuple(Window(*window) for window in table.pop("windows"))
            frames.append(Wanted(**table, windows=windows))
        return Request(str(head["search"]), tuple(frames))

    def answer(self, answer: Answer, sealed_request: bytes) -> bytes:
        """Return an answer to a request, sealed."""
        marks = [
            {"steps": m.steps, "misled": m.misled, "is_logo": m.is_logo}
            for m in answer.marks
        ]
        head = {"search": answer.search, "sameness": answer.sameness}
        return self._sealed(_packed(head, marks), _ANSWER + sealed_request)

    def read_answer(self, sealed: bytes, sealed_request: bytes) -> Answer:
        """Return what :meth:`answer` has sealed.

        Raises:
            ClusterError: It was sealed with another key, was changed, or answers
                something else.
        """
        from miadmark_core.search.finder import FoundMark

        opened = self._opened(sealed, _ANSWER + sealed_request)
        head, marks = _unpacked(opened)
        try:
            found = tuple(FoundMark(**mark) for mark in marks)
            return Answer(str(head["search"]), str(head["sameness"]), found)
        except (TypeError, KeyError) as error:
            raise ClusterError("what the cluster answers is no answer") from error

    def _sealed(self, content: bytes, bound: bytes) -> bytes:
        nonce = self._random(_NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, content, bound)

    def _opened(self, sealed: bytes, bound: bytes) -> bytes:
        try:
            return self._cipher.decrypt(
                sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], bound
            )
        except (InvalidTag, ValueError) as error:
            raise ClusterError(
                "what the cluster carries was sealed with another key, or changed",
                hint="The file key of [cluster] has to be the same on the node and on "
                "every machine of the cluster.",
            ) from error


def make_search_key(path: Path) -> None:
    """Make a key, for its owner alone, unless there is one; whole, or not at all."""
    if path.exists():
        return
    content = f"{os.urandom(KEY_SIZE).hex()}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}")
    made.unlink(missing_ok=True)
    opened = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(opened, "w", encoding="ascii") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster
            os.link(made, path)
    finally:
        made.unlink()


def read_search_key(path: Path) -> bytes:
    """Return the key in a file: 64 hexadecimal digits.

    Raises:
        ConfigError: There is none, or others than its owner may read it.
    """
    try:
        mode = path.stat().st_mode
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} holds no key of a cluster: {type(error).__name__}",
            hint="Copy it from the node's machine, or make it there: "
            "(umask 077; openssl rand -hex 32 > cluster.key)",
        ) from error
    if len(key) != KEY_SIZE:
        raise ConfigError(
            f"{path} holds a key of {len(key)} bytes", hint=f"It takes {KEY_SIZE}."
        )
    if mode & 0o077:
        raise ConfigError(
            f"{path} may be read by others than its owner", hint=f"chmod 600 {path}"
        )
    return key


def _named(frame: Wanted) -> dict[str, Any]:
    return {field.name: getattr(frame, field.name) for field in fields(frame)}


def _packed(head: Mapping[str, str], tables: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a head and tables of plain values and arrays as bytes."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    plain = []
    for number, table in enumerate(tables):
        rest = {}
        for name, value in table.items():
            if isinstance(value, np.ndarray):
                arrays[f"{number} {name}"] = value
            else:
                rest[name] = value
        plain.append(rest)
    told = json.dumps({"head": head, "tables": plain}).encode()
    buffer = io.BytesIO()
    np.savez(buffer, told=np.frombuffer(told, np.uint8), **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpacked(content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what :func:`_packed` has packed.

    Raises:
        ClusterError: It is something else.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            told = json.loads(arrays["told"].tobytes())
            tables: list[dict[str, Any]] = told["tables"]
            for key in arrays.files:
                if key != "told":
                    number, name = key.split(" ")
                    tables[int(number)][name] = arrays[key]
            return told["head"], tables
    except (ValueError, KeyError, TypeError, OSError, IndexError) as error:
        raise ClusterError("what the cluster carries cannot be read") from error

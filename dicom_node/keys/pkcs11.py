"""A root key in a PKCS #11 token: an HSM, a smart card, or SoftHSM for trying it out.

The key is AES-256, made in the token, sensitive and not extractable; it wraps and unwraps
there, with AES-GCM (PKCS #11 v3.1, 6.13.3). Versions are keys of one label each,
``miadmark-root-1`` and on. What wraps a key in a message: its version (4 bytes), a nonce
(12), the sealed key.

One session, one thread at a time. A session that the token has closed is opened once
more.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import (
    PinIncorrect,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    UserAlreadyLoggedIn,
)

from dicom_node.errors import KeyFolderError, KeyServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pkcs11 import Session

_NONCE_SIZE: Final = 12
_TAG_BITS: Final = 128
_VERSION_SIZE: Final = 4


class Pkcs11Root:
    """The root key of one site, in a token; see :mod:`dicom_node.keys.provider`."""

    def __init__(
        self, *, module: str, token: str, label: str, pin: Callable[[], bytes]
    ) -> None:
        """Open the token and find the key.

        Args:
            module: Path of the token's library.
            token: Its label.
            label: What the labels of the key's versions begin with.
            pin: Returns the user's PIN; called for each session.

        Raises:
            KeyFolderError: The PIN is wrong, or there is no such key.
            KeyServiceError: The token cannot be reached.
        """
        self._module, self._token, self._label = module, token, label
        self._pin, self._lock = pin, Lock()
        self._session: Session | None = None
        self._version = max(self._versions(), default=0)
        if self._version == 0:
            raise KeyFolderError(
                f"the token {token!r} holds no key {label}-1",
                hint="Is it the token that this site's keys were made with?",
            )

    @classmethod
    def make(
        cls, *, module: str, token: str, label: str, pin: Callable[[], bytes]
    ) -> Pkcs11Root:
        """Make the first version in the token and return the root.

        Raises:
            KeyFolderError: The PIN is wrong, or there is a key of that label.
            KeyServiceError: The token cannot be reached.
        """
        with _opened(module, token, pin) as session:
            if list(session.get_objects({Attribute.LABEL: f"{label}-1"})):
                raise KeyFolderError(
                    f"the token {token!r} holds a key {label}-1 already",
                    hint="It is another site's, or an earlier one's. Choose another "
                    "token.",
                )
            _generate(session, f"{label}-1")
        return cls(module=module, token=token, label=label, pin=pin)

    @property
    def version(self) -> int:
        """Return the newest version."""
        return self._version

    def settings(self) -> Mapping[str, str]:
        """Return where the token is; not its PIN."""
        return {"module": self._module, "token": self._token, "label": self._label}

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        """Return ``secret`` sealed under the newest version."""
        nonce = os.urandom(_NONCE_SIZE)
        with self._key(self._version) as key:
            sealed = key.encrypt(
                secret,
                mechanism=Mechanism.AES_GCM,
                mechanism_param=pkcs11.GCMParams(nonce, context, _TAG_BITS),
            )
        return self._version.to_bytes(_VERSION_SIZE) + nonce + bytes(sealed)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the secret; the inverse of :meth:`wrap`."""
        nonce, sealed = _parts(wrapped)
        with self._key(self.version_of(wrapped)) as key:
            try:
                opened = key.decrypt(
                    sealed,
                    mechanism=Mechanism.AES_GCM,
                    mechanism_param=pkcs11.GCMParams(nonce, context, _TAG_BITS),
                )
            except PKCS11Error:
                # What a tag that does not fit is called, tokens disagree on; one that
                # still answers other questions has refused the data, not failed.
                if not _is_alive(key.session):
                    raise
                raise KeyFolderError(
                    "a sealed key does not open: it was changed, or is another's"
                ) from None
        return bytes(opened)

    def version_of(self, wrapped: bytes) -> int:
        """Return which version sealed it."""
        return int.from_bytes(wrapped[:_VERSION_SIZE])

    def rotate(self) -> int:
        """Make the next version in the token and return its number."""
        newest = max(self._versions())
        with self._open() as session:
            _generate(session, f"{self._label}-{newest + 1}")
        self._version = newest + 1
        return self._version

    def forget(self, version: int) -> None:
        """Destroy a version that is not the newest."""
        if version == self._version or version not in self._versions():
            raise KeyFolderError(f"version {version} of the root key cannot go")
        with self._key(version) as key:
            key.destroy()

    def _versions(self) -> list[int]:
        start = f"{self._label}-"
        wanted = {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
        }
        with self._open() as session:
            found: list[Any] = list(session.get_objects(wanted))
            labels = [str(key.label) for key in found]
        numbers = [name[len(start) :] for name in labels if name.startswith(start)]
        return [int(number) for number in numbers if number.isdecimal()]

    @contextmanager
    def _key(self, version: int) -> Iterator[Any]:
        with self._open() as session:
            found = list(
                session.get_objects(
                    {
                        Attribute.CLASS: ObjectClass.SECRET_KEY,
                        Attribute.LABEL: f"{self._label}-{version}",
                    }
                )
            )
            if len(found) != 1:
                raise KeyFolderError(
                    f"a key is sealed under version {version} of the root key, which "
                    "is not there any more"
                )
            yield found[0]

    @contextmanager
    def _open(self) -> Iterator[Session]:
        """Lend the session to one thread."""
        with self._lock:
            if self._session is None or not _is_alive(self._session):
                self._session = _session(self._module, self._token, self._pin)
            with _translated(self._token):
                yield self._session


@contextmanager
def _opened(module: str, token: str, pin: Callable[[], bytes]) -> Iterator[Session]:
    with _translated(token), _session(module, token, pin) as session:
        yield session


def _session(module: str, token: str, pin: Callable[[], bytes]) -> Session:
    secret = pin()
    try:
        found = pkcs11.lib(module).get_token(token_label=token)
        try:
            return found.open(rw=True, user_pin=secret.decode("utf-8"))
        except UserAlreadyLoggedIn:  # that holds for the whole process
            return found.open(rw=True)
    except (PinIncorrect, PinLenRange, PinLocked) as error:
        raise KeyFolderError(
            f"the PIN of the token {token!r} is wrong, or locked",
            hint="A few wrong ones lock a token. The PIN file holds it on one line.",
        ) from error
    except (PKCS11Error, RuntimeError, OSError) as error:
        raise KeyServiceError(
            f"the token {token!r} cannot be reached: {type(error).__name__}",
            hint=f"pkcs11-tool --module {module} --list-slots shows what is there.",
        ) from error


def _is_alive(session: Session) -> bool:
    """Say whether the token still knows the session."""
    try:
        list(session.get_objects({Attribute.LABEL: ""}))
    except PKCS11Error:
        return False
    return True


def _generate(session: Session, label: str) -> None:
    session.generate_key(
        KeyType.AES,
        256,
        label=label,
        store=True,
        template={
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.ENCRYPT: True,
            Attribute.DECRYPT: True,
        },
    )


@contextmanager
def _translated(token: str) -> Iterator[None]:
    try:
        yield
    except PKCS11Error as error:
        raise KeyServiceError(
            f"the token {token!r} refuses for now: {type(error).__name__}"
        ) from error


def _parts(wrapped: bytes) -> tuple[bytes, bytes]:
    start = _VERSION_SIZE + _NONCE_SIZE
    if len(wrapped) <= start:
        raise KeyFolderError("a sealed key is cut short")
    return wrapped[_VERSION_SIZE:start], wrapped[start:]

"""A root key in a PKCS #11 token: an HSM, a smart card, or SoftHSM for trying it out.

The key is AES-256, made in the token, sensitive and not extractable; it wraps and unwraps
there, with AES-GCM (PKCS #11 v3.1, 6.13.3). The nonce is drawn here: a token that insists
on drawing it cannot be used. Versions are keys of one label each, ``miadmark-root-1`` and
on. What wraps a key in a message: its version (4 bytes), a nonce (12), the sealed key.

One session for each token and process, lent to one thread at a time. A session that the
token has closed is opened once more. Processes that share a token are started, not
forked.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import exceptions as ck
from pkcs11.exceptions import PKCS11Error

from dicom_node.errors import KeyFolderError, KeyServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pkcs11 import Session

    Pin = Callable[[], bytes | str]

LABEL: Final = "miadmark-root"
_NONCE_SIZE: Final = 12
_TAG_BITS: Final = 128
_VERSION_SIZE: Final = 4
_PIN_ERRORS: Final = (ck.PinIncorrect, ck.PinInvalid, ck.PinLenRange, ck.PinLocked)

# python-pkcs11 initialises a library with C_Initialize(NULL), which promises that threads
# do not meet in it (PKCS #11 v3.1, 5.4.1), whatever their sessions are.
_LOCK: Final = RLock()
_SESSIONS: Final[dict[tuple[str, str], Session]] = {}
"""By module and token: a login holds for the whole process."""


class Pkcs11Root:
    """The root key of one site, in a token; see :mod:`dicom_node.keys.provider`."""

    def __init__(
        self, *, module: str, token: str, pin: Pin, label: str = LABEL
    ) -> None:
        """Open the token and find the key.

        Args:
            module: Path of the token's library.
            token: Its label.
            pin: Returns the user's PIN; called once, now.
            label: What the labels of the key's versions begin with.

        Raises:
            KeyFolderError: The PIN is wrong, or there is no such key.
            KeyServiceError: The token cannot be reached.
        """
        self._module, self._token, self._label = module, token, label
        self._pin, self._is_refused = _text(pin()), False
        with self._lent() as session:
            self._version = max(self._versions(session))

    @classmethod
    def make(
        cls, *, module: str, token: str, pin: Pin, label: str = LABEL
    ) -> Pkcs11Root:
        """Make the first version in the token and return the root.

        Raises:
            KeyFolderError: The PIN is wrong, or there is a key of that label.
            KeyServiceError: The token cannot be reached.
        """
        secret = _text(pin())
        with _lent(module, token, secret) as session:
            if _labelled(session, label):
                raise KeyFolderError(
                    f"the token {token!r} holds a key {label} already",
                    hint="It is another site's, or an earlier one's. Choose another "
                    "token.",
                )
            _generate(session, label, 1)
        return cls(module=module, token=token, pin=lambda: secret, label=label)

    @property
    def version(self) -> int:
        """Return the newest version, as far as this process has seen."""
        return self._version

    def settings(self) -> Mapping[str, str]:
        """Return where the token is; not its PIN."""
        return {"module": self._module, "token": self._token, "label": self._label}

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        """Return ``secret`` sealed under the newest version."""
        nonce = os.urandom(_NONCE_SIZE)
        with self._lent() as session:
            # Another process may have made one, and be about to destroy the one before.
            versions = self._versions(session)
            self._version = max(versions)
            sealed = _encrypt(versions[self._version], secret, nonce, context)
        return self._version.to_bytes(_VERSION_SIZE) + nonce + sealed

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the secret; the inverse of :meth:`wrap`."""
        version, start = self.version_of(wrapped), _VERSION_SIZE + _NONCE_SIZE
        nonce, sealed = wrapped[_VERSION_SIZE:start], wrapped[start:]
        if not sealed:
            raise KeyFolderError("a sealed key is cut short")
        with self._lent() as session:
            key = self._key(session, version)
            try:
                return _decrypt(key, sealed, nonce, context)
            except PKCS11Error:
                # How a tag that does not fit is called, tokens disagree on. One that
                # still opens what it seals has refused the data, and not failed.
                other = os.urandom(_NONCE_SIZE)
                _decrypt(key, _encrypt(key, bytes(32), other, b""), other, b"")
                raise KeyFolderError(
                    "a sealed key does not open: it was changed, or is another's"
                ) from None

    def version_of(self, wrapped: bytes) -> int:
        """Return which version sealed it."""
        return int.from_bytes(wrapped[:_VERSION_SIZE])

    def rotate(self) -> int:
        """Make the next version in the token and return its number."""
        with self._lent() as session:
            version = max(self._versions(session)) + 1
            _generate(session, self._label, version)
        self._version = version
        return version

    def forget(self, version: int) -> None:
        """Destroy a version that is not the newest."""
        with self._lent() as session:
            versions = self._versions(session)
            if version == max(versions) or version not in versions:
                raise KeyFolderError(f"version {version} of the root key cannot go")
            versions[version].destroy()

    def _versions(self, session: Session) -> dict[int, Any]:
        """Return the keys of every version there is; at least one."""
        found = _labelled(session, self._label)
        if not found:
            raise KeyFolderError(
                f"the token {self._token!r} holds no key {self._label}",
                hint="Is it the token that this site's keys were made with?",
            )
        return found

    def _key(self, session: Session, version: int) -> Any:
        label = f"{self._label}-{version}"
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}
        found = list(session.get_objects(wanted))
        if not found:
            raise KeyFolderError(
                f"a key is sealed under version {version} of the root key, which is "
                "not there any more"
            )
        return found[0]

    @contextmanager
    def _lent(self) -> Iterator[Session]:
        if self._is_refused:
            raise _WrongPinError(self._token)
        try:
            with _lent(self._module, self._token, self._pin) as session:
                yield session
        except _WrongPinError:
            self._is_refused = True  # a few more wrong tries would lock the token
            raise


class _WrongPinError(KeyFolderError):
    """A token does not take the PIN."""

    def __init__(self, token: str) -> None:
        super().__init__(
            f"the PIN of the token {token!r} is wrong, or locked",
            hint="A few wrong ones lock a token. The PIN file holds it on one line.",
        )


@contextmanager
def _lent(module: str, token: str, pin: str) -> Iterator[Session]:
    """Lend the session with a token to one thread."""
    with _LOCK:
        session = _SESSIONS.get((module, token))
        if session is None or not _is_alive(session):
            session = _SESSIONS[module, token] = _opened(module, token, pin)
        try:
            yield session
        except PKCS11Error as error:
            raise KeyServiceError(
                f"the token {token!r} refuses for now: {type(error).__name__}",
                hint="Its own log says why; what is owed waits until it answers.",
            ) from error


def _opened(module: str, token: str, pin: str) -> Session:
    try:
        library = pkcs11.lib(module)
        try:
            return _login(library.get_token(token_label=token), pin)
        except _PIN_ERRORS:
            raise
        except PKCS11Error:
            # Many libraries see a token that came back only once they begin anew.
            for known in [known for known in _SESSIONS if known[0] == module]:
                del _SESSIONS[known]
            library.reinitialize()
            return _login(library.get_token(token_label=token), pin)
    except _PIN_ERRORS as error:
        raise _WrongPinError(token) from error
    except (PKCS11Error, OSError) as error:
        raise KeyServiceError(
            f"the token {token!r} cannot be reached: {type(error).__name__}",
            hint=f"pkcs11-tool --module {module} --list-slots shows what is there.",
        ) from error


def _login(found: pkcs11.Token, pin: str) -> Session:
    try:
        return found.open(rw=True, user_pin=pin)
    except ck.UserAlreadyLoggedIn:  # by an earlier session of this process
        return found.open(rw=True)


def _is_alive(session: Session) -> bool:
    """Say whether the token still knows the session.

    Not by a search: one that fails leaves an error behind that nobody can catch.
    """
    try:
        session.generate_random(64)
    except (ck.FunctionNotSupported, ck.RandomNoRNG):
        return True
    except PKCS11Error:
        return False
    return True


def _labelled(session: Session, label: str) -> dict[int, Any]:
    """Return the keys whose labels are ``label`` and a number, by number."""
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES}
    form = re.compile(re.escape(label) + r"-([1-9][0-9]{0,8})")
    found = [(form.fullmatch(_label(o)), o) for o in list(session.get_objects(wanted))]
    return {int(match[1]): key for match, key in found if match is not None}


def _label(key: Any) -> str:
    try:
        return str(key.label)
    except UnicodeDecodeError:  # another application's
        return ""


def _generate(session: Session, label: str, version: int) -> None:
    session.generate_key(
        KeyType.AES,
        256,
        id=version.to_bytes(_VERSION_SIZE),
        label=f"{label}-{version}",
        store=True,
        capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
        template={
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
        },
    )


def _encrypt(key: Any, secret: bytes, nonce: bytes, context: bytes) -> bytes:
    gcm = pkcs11.GCMParams(nonce, context, _TAG_BITS)
    sealed = key.encrypt(secret, mechanism=Mechanism.AES_GCM, mechanism_param=gcm)
    return bytes(sealed)


def _decrypt(key: Any, sealed: bytes, nonce: bytes, context: bytes) -> bytes:
    gcm = pkcs11.GCMParams(nonce, context, _TAG_BITS)
    secret = key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=gcm)
    return bytes(secret)


def _text(pin: bytes | str) -> str:
    try:
        text = pin if isinstance(pin, str) else pin.decode("utf-8")
    except UnicodeDecodeError:
        raise KeyFolderError("the PIN is no text in UTF-8") from None
    return text.rstrip("\r\n")

"""A root key in the transit engine of Vault or OpenBao, over HTTPS.

The engine keeps an ``aes256-gcm96`` key and its versions, and never gives it out:
wrapping and unwrapping are requests, with what a key is for as associated data. The
access token comes from a file that an agent may renew, so it is read again when the
service refuses the one at hand. It needs ``read`` on the key, ``update`` on encrypt and
decrypt; no ``create``, with which encrypting makes a fresh key where one was deleted.

Source:
    developer.hashicorp.com/vault/api-docs/secret/transit, which OpenBao keeps to.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProtocolError
from urllib3.util import parse_url

from dicom_node.errors import KeyFolderError, KeyServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    _Asked = Mapping[str, Any] | None
    _Answer = tuple[int, Mapping[str, Any]]

CONNECT_S: Final = 5.0
READ_S: Final = 10.0
WAITS_S: Final = (0.2, 0.5, 1.0)
"""Before each further try, where the service cannot be reached or answers 5xx."""
TRIES: Final = 1 + len(WAITS_S)
_KIND: Final = "aes256-gcm96"
_FORM: Final = re.compile(rb"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})")


class TransitRoot:
    """The root key of one site, in a transit engine; see the protocol ``Root``."""

    def __init__(
        self,
        *,
        address: str,
        key: str,
        access: Callable[[], str],
        mount: str = "transit",
        ca: str = "",
        namespace: str = "",
        is_new: bool = False,
    ) -> None:
        """Ask the service for the key.

        Args:
            address: ``https://host:port``.
            key: Its name.
            access: Returns the access token.
            mount: Where the engine is mounted.
            ca: Certificates that the service's is signed by, PEM; else the system's.
            namespace: Of the service, where it has any.
            is_new: Make the key, if the service has none of that name.

        Raises:
            KeyFolderError: The address is not HTTPS, or there is no such key.
            KeyServiceError: The service cannot be reached, or refuses.
        """
        address, self._key, self._mount = _checked(address), key, mount
        self._settings = {"address": address, "key": key, "mount": mount}
        self._settings |= {"ca": ca, "namespace": namespace}
        self._named, self._access = f"the transit service {address}", access
        self._token = _token(access)
        self._headers = {"X-Vault-Request": "true"}
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace
        try:
            tls = ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise KeyServiceError(f"{ca} cannot be read: {error}") from error
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._pool = urllib3.connection_from_url(
            address,
            ssl_context=tls,
            cert_reqs="CERT_REQUIRED",
            timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
        )
        try:
            self._version = self._newest()
        except _NoKeyError:
            if not is_new:
                raise
            self._ask("keys", {"type": _KIND})
            self._version = self._newest()

    @property
    def version(self) -> int:
        """Return the newest version, as far as this process has seen."""
        return self._version

    def settings(self) -> Mapping[str, str]:
        """Return where the key is; not the token."""
        return {name: value for name, value in self._settings.items() if value}

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        """Return ``secret`` sealed under the newest version."""
        answer = self._ask("encrypt", {"plaintext": secret, "associated_data": context})
        wrapped = str(answer.get("ciphertext", "")).encode("utf-8")
        if _FORM.fullmatch(wrapped) is None:
            raise KeyServiceError(f"{self._named} answers with no sealed key")
        self._version = max(self._version, self.version_of(wrapped))
        return wrapped

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the secret; the inverse of :meth:`wrap`."""
        # The service takes more than it gives: v0 and v01 for v1, line ends in base64,
        # and bits after its end (Go's encoding/base64). One secret has one form here.
        form = _FORM.fullmatch(wrapped)
        if form is None or _bytes(form[2]) is None:
            raise KeyFolderError("a sealed key is not one of a transit service")
        asked = {"ciphertext": wrapped.decode(), "associated_data": context}
        try:
            answer = self._ask("decrypt", asked)
        except _RefusedError as error:
            raise KeyFolderError(
                "a sealed key does not open: it was changed, is another's, or its "
                f"version is gone; {error}"
            ) from None
        if secret := _bytes(str(answer.get("plaintext", "")).encode("utf-8")):
            return secret
        raise KeyServiceError(f"{self._named} answers with no secret")

    def version_of(self, wrapped: bytes) -> int:
        """Return which version sealed it; 0 where that cannot be read."""
        form = _FORM.fullmatch(wrapped)
        return int(form[1]) if form else 0

    def rotate(self) -> int:
        """Make the next version in the service and return its number."""
        before = self._newest()
        try:
            self._ask("keys", {}, "/rotate", tries=1)
        except KeyServiceError:
            # It may be done and only the answer be lost; asked again, it would be twice.
            if self._newest() == before:
                raise
        self._version = self._newest()
        return self._version

    def forget(self, version: int) -> None:
        """Destroy the oldest version, if it is not the newest.

        Raises:
            KeyFolderError: It is another one: the service destroys from the oldest on.
        """
        told = self._told()
        oldest = max(_number(told, "min_available_version"), 1)
        if version != oldest or version == _number(told, "latest_version"):
            raise KeyFolderError(
                f"version {version} of the root key cannot go",
                hint=f"Version {oldest} goes first, and the newest not at all.",
            )
        # Trimming needs both of these rules (path_trim.go); no rule is ever lowered.
        names = ("min_decryption_version", "min_encryption_version")
        rules = {name: max(_number(told, name), version + 1) for name in names}
        self._ask("keys", rules, "/config")
        self._ask("keys", {"min_available_version": version + 1}, "/trim")

    def _newest(self) -> int:
        return _number(self._told(), "latest_version")

    def _told(self) -> Mapping[str, Any]:
        told = self._ask("keys")
        if _number(told, "latest_version") < 1:
            raise KeyServiceError(f"{self._named} tells of no version of the key")
        if told.get("type") != _KIND:
            raise KeyFolderError(f"{self._key!r} of {self._named} is no {_KIND} key")
        return told

    def _ask(
        self, verb: str, values: _Asked = None, what: str = "", tries: int = TRIES
    ) -> Mapping[str, Any]:
        """Return what the service answers about the key, once told ``values``."""
        mount, key = quote(self._mount.strip("/")), quote(self._key, safe="")
        path = f"/v1/{mount}/{verb}/{key}{what}"
        status, answer = self._patiently(path, values, tries)
        if status == 403 and (token := _token(self._access)) != self._token:
            self._token = token
            status, answer = self._patiently(path, values, tries)
        match status:
            case 200 | 204:
                data = answer.get("data")
                return data if isinstance(data, dict) else {}
            case 400:
                raise _RefusedError(f"{self._named} refuses: {self._errors(answer)}")
            case 404:
                raise _NoKeyError(f"{self._named} has no key {self._key!r}")
        raise KeyServiceError(
            f"{self._named} refuses for now: {status} {self._errors(answer)}",
            hint="503: it is sealed. 403: its token has expired, or has no right to read "
            "the key, encrypt and decrypt; to rotate, to update all below the key.",
        )

    def _patiently(self, path: str, values: _Asked, tries: int) -> _Answer:
        for wait_s in WAITS_S[: tries - 1]:
            with suppress(_LaterError):
                status, answer = self._once(path, values)
                if status < 500:
                    return status, answer
            time.sleep(wait_s)
        return self._once(path, values)

    def _once(self, path: str, values: _Asked) -> _Answer:
        try:
            response = self._pool.request(
                "GET" if values is None else "POST",
                path,
                body=None
                if values is None
                else json.dumps(values, default=_text).encode(),
                headers=self._headers | {"X-Vault-Token": self._token},
                retries=False,
                redirect=False,
            )
        except HTTPError as error:
            is_passing = isinstance(error, ConnectTimeoutError | ProtocolError)
            raise (_LaterError if is_passing else KeyServiceError)(
                f"{self._named} cannot be reached: {type(error).__name__}",
                hint="An SSLError: is its certificate signed by one in ca?",
            ) from error
        return response.status, _parsed(response.data)

    def _errors(self, answer: Mapping[str, Any]) -> str:
        """Return what the service says went wrong, as far as it can be printed."""
        told = str(answer.get("errors", "")).replace(self._token, "(the token)")
        return "".join(c for c in told if c.isprintable())[:200]


class _LaterError(KeyServiceError):
    """It could not be reached: worth another try at once."""


class _NoKeyError(KeyFolderError):
    """The service knows no key of that name."""


class _RefusedError(KeyFolderError):
    """The service says that the request itself is wrong."""


def _checked(address: str) -> str:
    """Return the address without a path."""
    with suppress(HTTPError):
        url = parse_url(address)
        rest = (url.path or "/").removeprefix("/"), url.auth, url.query, url.fragment
        if url.scheme == "https" and url.host and not any(rest):
            return f"https://{url.netloc}"
    raise KeyFolderError(
        f"the transit service {address.rpartition('@')[2]!r} is no https://host:port",
        hint="Keys are not sent in the clear.",
    )


def _token(access: Callable[[], str]) -> str:
    token = access().strip()
    if not token or not token.isascii() or not token.isprintable():
        raise KeyFolderError("the access token is no line of printable ASCII")
    return token


def _parsed(answer: bytes) -> Mapping[str, Any]:
    with suppress(ValueError):
        values = json.loads(answer)
        return values if isinstance(values, dict) else {}
    return {}


def _number(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name, 0)
    return value if isinstance(value, int) else 0


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _bytes(text: bytes) -> bytes | None:
    """Return what base64 stands for; None if there is another form of it."""
    with suppress(ValueError):
        value = base64.b64decode(text, validate=True)
        return value if base64.b64encode(value) == text else None
    return None

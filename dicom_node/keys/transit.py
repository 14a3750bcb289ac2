"""A root key in the transit engine of Vault or OpenBao, over HTTPS.

The engine keeps an ``aes256-gcm96`` key and its versions, and never gives it out:
wrapping and unwrapping are requests, with what a key is for as associated data. The token
comes from a file that an agent may renew, so it is read again when the service refuses
the one at hand.

Source:
    developer.hashicorp.com/vault/api-docs/secret/transit, which OpenBao keeps to.
"""

from __future__ import annotations

import base64
import json
import ssl
from typing import TYPE_CHECKING, Any, Final

import urllib3
from urllib3.exceptions import HTTPError

from dicom_node.errors import KeyFolderError, KeyServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONNECT_S: Final = 5.0
READ_S: Final = 10.0
TRIES: Final = 3
"""For trouble that passes: the connection, and statuses of 500 and more."""
_KIND: Final = "aes256-gcm96"
_PREFIX: Final = b"vault:v"
_MAX_ANSWER: Final = 64 * 1024


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
        if not address.startswith("https://"):
            raise KeyFolderError(
                f"the transit service {address!r} is not https",
                hint="Keys are not sent in the clear.",
            )
        self._address, self._key, self._mount = address, key, mount
        self._ca, self._namespace, self._access = ca, namespace, access
        self._token = access()
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
            self._ask("POST", f"keys/{key}", {"type": _KIND})
            self._version = self._newest()

    @property
    def version(self) -> int:
        """Return the newest version."""
        return self._version

    def settings(self) -> Mapping[str, str]:
        """Return where the key is; not the token."""
        told = {"address": self._address, "key": self._key, "mount": self._mount}
        more = {"ca": self._ca, "namespace": self._namespace}
        return told | {name: value for name, value in more.items() if value}

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        """Return ``secret`` sealed under the newest version."""
        answer = self._ask(
            "POST",
            f"encrypt/{self._key}",
            {"plaintext": _text(secret), "associated_data": _text(context)},
        )
        return str(answer["ciphertext"]).encode("ascii")

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the secret; the inverse of :meth:`wrap`."""
        if self.version_of(wrapped) == 0 or not wrapped.isascii():
            raise KeyFolderError("a sealed key is not one of a transit service")
        answer = self._ask(
            "POST",
            f"decrypt/{self._key}",
            {"ciphertext": wrapped.decode(), "associated_data": _text(context)},
        )
        return base64.b64decode(str(answer["plaintext"]))

    def version_of(self, wrapped: bytes) -> int:
        """Return which version sealed it; 0 where that cannot be read."""
        number, separator, _ = wrapped.removeprefix(_PREFIX).partition(b":")
        is_ours = wrapped.startswith(_PREFIX) and separator and number.isdigit()
        return int(number) if is_ours else 0

    def rotate(self) -> int:
        """Make the next version in the service and return its number."""
        self._ask("POST", f"keys/{self._key}/rotate", {})
        self._version = self._newest()
        return self._version

    def forget(self, version: int) -> None:
        """Destroy a version that is not the newest, and every one before it."""
        if not 0 < version < self._version:
            raise KeyFolderError(f"version {version} of the root key cannot go")
        least = version + 1
        path = f"keys/{self._key}"
        rules = {"min_decryption_version": least, "min_encryption_version": least}
        self._ask("POST", f"{path}/config", rules)
        self._ask("POST", f"{path}/trim", {"min_available_version": least})

    def _newest(self) -> int:
        return int(self._ask("GET", f"keys/{self._key}")["latest_version"])

    def _ask(
        self, method: str, path: str, values: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Return the ``data`` of the service's answer."""
        status, answer = self._told(method, path, values)
        if status == 403 and (token := self._access()) != self._token:
            self._token = token
            status, answer = self._told(method, path, values)
        if status in {200, 204}:
            data = answer.get("data")
            return data if isinstance(data, dict) else {}
        errors = " ".join(map(str, answer.get("errors") or ()))
        named = f"the transit service {self._address}"
        if status == 404:
            raise _NoKeyError(f"{named} has no key {self._key!r}")
        if status == 400:
            raise KeyFolderError(
                f"{named} does not open a sealed key: it was changed, is another's, or "
                "of a version that is gone",
                hint=_harmless(errors),
            )
        if status == 403:
            raise KeyServiceError(
                f"{named} refuses the access token",
                hint="It has expired, or its policy does not allow this key: read and "
                "update on the key, update on encrypt and decrypt.",
            )
        raise KeyServiceError(f"{named} answers {status}: {_harmless(errors)}")

    def _told(
        self, method: str, path: str, values: Mapping[str, Any] | None
    ) -> tuple[int, Mapping[str, Any]]:
        headers = {"X-Vault-Token": self._token, "X-Vault-Request": "true"}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        failure = ""
        for _ in range(TRIES):
            try:
                response = self._pool.request(
                    method,
                    f"/v1/{self._mount}/{path}",
                    body=None if values is None else json.dumps(values).encode(),
                    headers=headers,
                    retries=False,
                    redirect=False,
                )
            except HTTPError as error:
                failure = type(error).__name__
                continue
            if response.status >= 500:
                failure = f"status {response.status}"
                continue
            return response.status, _parsed(response.data)
        raise KeyServiceError(
            f"the transit service {self._address} cannot be reached: {failure}",
            hint="Is it sealed? vault status; what is owed waits until it answers.",
        )


class _NoKeyError(KeyFolderError):
    """The service knows no key of that name."""


def _parsed(answer: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(answer[:_MAX_ANSWER] or b"{}")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _harmless(errors: str) -> str:
    """Return what a service says of an error, as far as it can be printed."""
    return "".join(c for c in errors if c.isprintable())[:200]

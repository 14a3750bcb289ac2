"""Asks another site's release desk for object keys: HTTPS, certificates both ways.

What comes back is believed no more than a stanza is: it has to open with an identity of
this site, for this record and this request, and then the record has to commit to it.
"""

from __future__ import annotations

import os
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProtocolError

from dicom_node.asking import NONCE_SIZE, PATH, Asked, answer_info, sealed_in
from dicom_node.errors import KeyServiceError, NotGrantedError
from miadmark_core.errors import DamagedSealError, Layer
from miadmark_core.sealing.record import field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dicom_node.config import RemoteDesk
    from miadmark_core.sealing.recipients import Identity
    from miadmark_core.sealing.record import Header

CONNECT_S: Final = 5.0
READ_S: Final = 10.0
WAITS_S: Final = (0.2, 1.0)
"""Before the second and the third try, where a desk cannot be reached or is busy."""
_MAX_ANSWER: Final = 8192


class _LaterError(KeyServiceError):
    """It could not be reached, or said that it is busy: worth another try at once."""


class DeskClient:
    """Knows one desk, and keeps a connection to it; one thread."""

    def __init__(
        self,
        remote: RemoteDesk,
        ae_title: str,
        identities: Sequence[Identity],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; nothing is opened before the first question.

        Args:
            remote: The desk, and whose records it releases: the fingerprint of a site's
                signing key, or its tenant, which outlives that key.
            ae_title: This node's own.
            identities: One of them opens the answers.
            sleep: Waits that many seconds.
        """
        self._remote, self._ae_title = remote, ae_title
        self._identities, self._sleep = identities, sleep

    def opener(self, study_instance_uid: str) -> DeskOpener:
        """Return what opens the objects of one study."""
        return DeskOpener(self, study_instance_uid)

    def object_key(self, header: Header, study_instance_uid: str) -> bytes | None:
        """Return the object key that the desk releases; None if it is not its record.

        Raises:
            NotGrantedError: The desk says no.
            KeyServiceError: It cannot be reached, or does not answer for now.
            DamagedSealError: Its answer is not for this site.
        """
        gateway = self._remote.gateway.lower()
        if gateway not in {header.signer_id.hex(), header.tenant.hex()}:
            return None
        asked = Asked(
            header=header.signed + field(0x0D, header.signature),
            context=header.context,
            ae_title=self._ae_title,
            purpose=self._remote.purpose,
            study_instance_uid=study_instance_uid,
            nonce=os.urandom(NONCE_SIZE),
        )
        sealed = self._sealed(asked.to_bytes())
        info = answer_info(header, asked.nonce)
        for identity in self._identities:
            with suppress(DamagedSealError):
                return identity.unwrap(header.suite, sealed, info)
        raise DamagedSealError(
            f"the answer of {self._named} is sealed to none of this site's keys",
            hint="The grant there has another site file. Send yours (miadmark keys "
            "export-recipient) and ask for a new grant.",
            layer=Layer.STANZA,
        )

    def _sealed(self, request: bytes) -> bytes:
        for wait_s in WAITS_S:
            try:
                return self._once(request)
            except _LaterError:
                self._sleep(wait_s)
        return self._once(request)

    def _once(self, request: bytes) -> bytes:
        try:
            status, answered = self._post(request)
        except (ConnectTimeoutError, ProtocolError) as error:
            raise _LaterError(
                f"{self._named} cannot be reached: {type(error).__name__}"
            ) from error
        except HTTPError as error:
            raise KeyServiceError(
                f"{self._named} does not answer: {type(error).__name__}",
                hint="Does each side know the authority of the other's certificate? "
                "openssl s_client -connect host:port says more.",
            ) from error
        match status:
            case 200:
                return self._read(answered)
            case 403:
                raise NotGrantedError(
                    f"{self._named} refuses",
                    hint="Why, the audit there says: ask whoever gives grants there.",
                )
            case 503:
                raise _LaterError(f"{self._named} cannot answer for now")
        raise KeyServiceError(f"{self._named} answers {status}: is it a desk?")

    def _post(self, request: bytes) -> tuple[int, bytes]:
        response = self._pool.request(
            "POST",
            PATH,
            body=request,
            headers={"Content-Type": "application/json"},
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        answered = response.read(_MAX_ANSWER)
        if response.read(1):
            response.close()  # no answer is as long; the rest is not waited for
        return response.status, answered

    def _read(self, answered: bytes) -> bytes:
        try:
            return sealed_in(answered)
        except ValueError as error:
            raise KeyServiceError(
                f"{self._named} answers something that is no answer: is it a desk?"
            ) from error

    @property
    def _named(self) -> str:
        return f"the desk {self._remote.address}"

    @cached_property
    def _pool(self) -> urllib3.HTTPConnectionPool:
        return urllib3.connection_from_url(
            self._remote.address,
            ssl_context=self._tls(),
            cert_reqs="CERT_REQUIRED",
            timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
        )

    def _tls(self) -> ssl.SSLContext:
        remote = self._remote
        try:
            context = ssl.create_default_context(cafile=remote.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            # Without a password of ours, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(remote.certificate, remote.key, lambda: b"")
        except OSError as error:
            raise KeyServiceError(
                f"{self._named} cannot be asked: {error}",
                hint="ca, certificate and key are files in PEM; the key is not "
                "encrypted.",
            ) from error
        return context


@dataclass(frozen=True, slots=True)
class DeskOpener:
    """Opens records of one study by asking."""

    client: DeskClient
    study_instance_uid: str

    def object_key(self, header: Header) -> bytes | None:
        """Return the object key that the desk releases; None if it is not its record.

        Raises:
            NotGrantedError: The desk says no.
            KeyServiceError: It cannot be reached, or does not answer for now.
            DamagedSealError: Its answer is not for this site.
        """
        return self.client.object_key(header, self.study_instance_uid)

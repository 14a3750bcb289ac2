"""A small server that speaks the transit API of Vault and OpenBao, by its rules.

What it takes and refuses, and in which words, is what OpenBao does (2026-08: the transit
engine's ``path_*.go``, and ``keysutil/policy.go``), also where that is generous: v0 and
v01 stand for v1, and base64 may hold line ends, and bits after its end.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicom_node.demo.loopback import make_certificate
from dicom_node.keys import transit

ACCESS = "an-access-token"
Answer = tuple[int, dict[str, Any]]


@dataclass
class Key:
    """One key of the engine, and which of its versions still count."""

    versions: dict[int, bytes] = field(default_factory=lambda: {1: os.urandom(32)})
    type: str = "aes256-gcm96"
    least: int = 1
    """``min_decryption_version``"""
    least_encryption: int = 0
    least_available: int = 0

    @property
    def latest(self) -> int:
        return max(self.versions)

    def told(self) -> Answer:
        told = {
            "type": self.type,
            "latest_version": self.latest,
            "min_available_version": self.least_available,
            "min_decryption_version": self.least,
            "min_encryption_version": self.least_encryption,
        }
        return 200, {"data": told}


class TransitServer:
    """Listens on loopback, over TLS, while it is entered."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.keys: dict[str, Key] = {}
        self.tokens = {ACCESS}
        self.may_create = False
        """Whether tokens have ``create`` on encrypt: it makes keys that are missing."""
        self.is_sealed = False
        self.delay_s = 0.0
        self.drops = 0
        """Requests that are still to be dropped without an answer."""
        self.lost = ""
        """How the path ends that is done once more without its answer arriving."""
        self.seen: list[str] = []
        self.headers = Message()
        """Of the last request."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer is one packet, and waits for no acknowledgement

            def do_GET(self) -> None:
                server.handle(self, {})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                server.handle(self, json.loads(self.rfile.read(length) or b"{}"))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                if not isinstance(sys.exc_info()[1], OSError):  # who hung up may
                    super().handle_error(request, client_address)

        self._http = Server(("127.0.0.1", 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        self._http.socket = tls.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self._http.server_address[1]}"

    def handle(
        self, request: BaseHTTPRequestHandler, values: Mapping[str, Any]
    ) -> None:
        self.seen.append(f"{request.command} {request.path}")
        self.headers = request.headers
        if self.drops:
            self.drops -= 1
            hang_up(request)
            return
        time.sleep(self.delay_s)
        if self.is_sealed:
            status, answer = 503, {"errors": ["Vault is sealed"]}
        elif request.headers.get("X-Vault-Token") not in self.tokens:
            status, answer = 403, {"errors": ["permission denied"]}
        else:
            status, answer = self.answer(request.command, request.path, values)
        if self.lost and request.path.endswith(self.lost):
            self.lost = ""
            hang_up(request)
            return
        body = b"" if status == 204 else json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def answer(self, method: str, path: str, values: Mapping[str, Any]) -> Answer:
        form = re.fullmatch(r"/v1/transit/(\w+)/([\w.-]+)(/\w+)?", path)
        if form is None:
            return 404, {"errors": ["no handler for route"]}
        verb, name, what = form.groups(default="")
        asked = f"{method} {verb}{what}"
        if asked == "POST keys" and values.get("type") != "aes256-gcm96":
            return refused(f"unknown key type {values.get('type')}")
        if asked == "POST keys" or (asked == "POST encrypt" and self.may_create):
            self.keys.setdefault(name, Key())
        if name in self.keys:
            return answered(self.keys[name], asked, values)
        errors = {"GET keys": 404, "POST encrypt": 403}
        return errors.get(asked, 400), {"errors": [f"key not found ({asked})"]}


def answered(key: Key, asked: str, values: Mapping[str, Any]) -> Answer:
    match asked:
        case "POST keys/rotate":
            key.versions[key.latest + 1] = os.urandom(32)
        case "POST keys/config":
            return configured(key, values)
        case "POST keys/trim":
            return trimmed(key, int(values["min_available_version"]))
        case "POST encrypt":
            return 200, {"data": {"ciphertext": encrypted(key, values)}}
        case "POST decrypt":
            return decrypted(key, values)
    return key.told()


@contextmanager
def serving(folder: Path) -> Iterator[TransitServer]:
    """A server whose certificate lies in ``folder``; nobody waits to ask again."""
    make_certificate(folder, "transit")
    files = [folder / f"transit-{part}.pem" for part in ("cert", "key")]
    hurried = patch.object(transit, "WAITS_S", (0.0,) * len(transit.WAITS_S))
    with TransitServer(*files) as server, hurried:
        yield server


def asking(
    server: TransitServer, access: Callable[[], str] = lambda: ACCESS, **more: str
) -> transit.TransitRoot:
    """What asks the server for the key ``k``."""
    settings = {"address": server.address, "ca": str(server.certificate), "key": "k"}
    return transit.TransitRoot(**settings | more, access=access, is_new=True)


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)


def refused(error: str) -> Answer:
    return 400, {"errors": [error]}


def configured(key: Key, values: Mapping[str, Any]) -> Answer:
    least = max(int(values.get("min_decryption_version", key.least)), 1)
    least_encryption = int(values.get("min_encryption_version", key.least_encryption))
    if max(least, least_encryption) > key.latest:
        return refused(f"cannot set min version, latest key version is {key.latest}")
    if 0 < least_encryption < least:
        return refused("cannot set min encryption/decryption values")
    if key.least_available > min(least, least_encryption):
        return refused("min version should not be less than min available version")
    key.least, key.least_encryption = least, least_encryption
    return key.told()


def trimmed(key: Key, least: int) -> Answer:
    start = "minimum available version cannot be"
    if least < key.least_available:
        return refused(f"{start} decremented")
    if key.least_encryption == 0:
        return refused(f"{start} set when minimum encryption version is not set")
    if least > key.least_encryption:
        return refused(f"{start} greater than minmum encryption version")
    if least > key.least:
        return refused(f"{start} greater than minimum decryption version")
    key.least_available = least
    key.versions = {n: one for n, one in key.versions.items() if n >= least}
    return key.told()


def encrypted(key: Key, values: Mapping[str, Any]) -> str:
    nonce = os.urandom(12)
    plaintext = base64.b64decode(values["plaintext"], validate=True)
    context = base64.b64decode(values.get("associated_data", ""), validate=True)
    sealed = nonce + AESGCM(key.versions[key.latest]).encrypt(nonce, plaintext, context)
    return f"vault:v{key.latest}:{base64.b64encode(sealed).decode()}"


def decrypted(  # noqa: PLR0911 one for each thing that can be wrong
    key: Key, values: Mapping[str, Any]
) -> Answer:
    text = str(values["ciphertext"])
    if not text.startswith("vault:v"):
        return refused("invalid ciphertext: no prefix")
    number, colon, rest = text.removeprefix("vault:v").partition(":")
    if not colon:
        return refused("invalid ciphertext: wrong number of fields")
    if re.fullmatch(r"[+-]?[0-9]+", number) is None:
        return refused("invalid ciphertext: version number could not be decoded")
    version = int(number) or 1  # keys once started at zero
    if version > key.latest:
        return refused("invalid ciphertext: version is too new")
    if version < key.least:
        return refused(
            "ciphertext or signature version is disallowed by policy (too old)"
        )
    try:
        sealed = base64.b64decode(re.sub("[\r\n]", "", rest), validate=True)
    except ValueError:
        return refused("invalid ciphertext: could not decode base64")
    if len(sealed) < 12:
        return refused("invalid ciphertext length")
    context = base64.b64decode(values.get("associated_data", ""), validate=True)
    cipher = AESGCM(key.versions[version])
    try:
        opened = cipher.decrypt(sealed[:12], sealed[12:], context)
    except InvalidTag:
        return refused("cipher: message authentication failed")
    return 200, {"data": {"plaintext": base64.b64encode(opened).decode()}}

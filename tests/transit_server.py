"""A small server that speaks the transit API of Vault and OpenBao, by its rules."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Answer = tuple[int, dict[str, Any]]


@dataclass
class Key:
    """One key of the engine, and which of its versions still count."""

    versions: dict[int, bytes] = field(default_factory=lambda: {1: os.urandom(32)})
    least: int = 1

    @property
    def latest(self) -> int:
        return max(self.versions)


class TransitServer:
    """Listens on loopback, over TLS, while it is entered."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.keys: dict[str, Key] = {}
        self.tokens = {"a token"}
        self.is_sealed = False
        self.delay_s = 0.0
        self.drops = 0
        """Requests that are still to be dropped without an answer."""
        self.seen: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.handle(self, {})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                server.handle(self, json.loads(self.rfile.read(length) or b"{}"))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        self._http.socket = tls.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

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
        if self.drops:
            self.drops -= 1
            request.connection.close()
            return
        time.sleep(self.delay_s)
        token = request.headers.get("X-Vault-Token")
        if self.is_sealed:
            status, answer = 503, {"errors": ["Vault is sealed"]}
        elif token not in self.tokens:
            status, answer = 403, {"errors": ["permission denied"]}
        else:
            status, answer = self.answer(request.command, request.path, values)
        body = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def answer(  # noqa: PLR0911 one for each request of the API
        self, method: str, path: str, values: Mapping[str, Any]
    ) -> Answer:
        parts = path.removeprefix("/v1/transit/").split("/")
        verb, name = parts[0], parts[1]
        what = parts[2] if len(parts) > 2 else ""
        if (method, verb, what) == ("POST", "keys", ""):
            if values.get("type") != "aes256-gcm96":
                return 400, {"errors": ["unknown type"]}
            self.keys.setdefault(name, Key())
            return 204, {}
        key = self.keys.get(name)
        if key is None:
            return 404, {"errors": []}
        match verb, what:
            case "keys", "":
                told = {
                    "latest_version": key.latest,
                    "min_decryption_version": key.least,
                }
                return 200, {"data": told}
            case "keys", "rotate":
                key.versions[key.latest + 1] = os.urandom(32)
                return 204, {}
            case "keys", "config":
                key.least = int(values["min_decryption_version"])
                return 204, {}
            case "keys", "trim":
                return trimmed(key, int(values["min_available_version"]))
            case "encrypt", "":
                return 200, {"data": {"ciphertext": encrypted(key, values)}}
            case "decrypt", "":
                return decrypted(key, values)
        return 404, {"errors": []}


def trimmed(key: Key, least: int) -> Answer:
    if least > key.least:
        return 400, {"errors": ["min available version above min decryption version"]}
    for version in [v for v in key.versions if v < least]:
        del key.versions[version]
    return 204, {}


def encrypted(key: Key, values: Mapping[str, Any]) -> str:
    nonce = os.urandom(12)
    plaintext = base64.b64decode(values["plaintext"])
    context = base64.b64decode(values.get("associated_data", ""))
    sealed = nonce + AESGCM(key.versions[key.latest]).encrypt(nonce, plaintext, context)
    return f"vault:v{key.latest}:{base64.b64encode(sealed).decode()}"


def decrypted(key: Key, values: Mapping[str, Any]) -> Answer:
    form = re.fullmatch(r"vault:v(\d+):([A-Za-z0-9+/]+=*)", str(values["ciphertext"]))
    if form is None or len(form[2]) % 4:
        return 400, {"errors": ["invalid ciphertext: no prefix"]}
    number, sealed = int(form[1]), base64.b64decode(form[2], validate=True)
    if number < key.least or number not in key.versions:
        return 400, {"errors": ["ciphertext or signature version is disallowed"]}
    context = base64.b64decode(values.get("associated_data", ""))
    try:
        opened = AESGCM(key.versions[number]).decrypt(sealed[:12], sealed[12:], context)
    except (InvalidTag, ValueError):
        return 400, {"errors": ["cipher: message authentication failed"]}
    return 200, {"data": {"plaintext": base64.b64encode(opened).decode()}}

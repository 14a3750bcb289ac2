"""A small OpenID provider: it speaks the code flow with PKCE, and can be made to lie."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey

CLIENT: Final = "miadmark"


@dataclass
class Provider:
    """What it says, for tests to bend."""

    issuer: str
    claims: dict[str, Any] = field(default_factory=dict)
    """Over what is right."""
    key: ECKey = field(default_factory=lambda: _key("one"))
    signs_with: ECKey | None = None
    """Another key, that it does not publish."""
    asked: dict[str, dict[str, str]] = field(default_factory=dict)
    """What each code was given for."""

    def authorise(self, query: dict[str, str]) -> str:
        """Say where to go back to: whoever comes is let in."""
        code = secrets.token_urlsafe(16)
        self.asked[code] = query
        back = {"code": code, "state": query["state"]}
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def token(self, form: dict[str, str]) -> dict[str, Any] | None:
        """Give a token for a code; once, and to whoever knows the verifier."""
        query = self.asked.pop(form["code"], None)
        if query is None or form["redirect_uri"] != query["redirect_uri"]:
            return None
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if challenge != query["code_challenge"]:
            return None
        now = int(datetime.now(UTC).timestamp())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": "4711",
            "preferred_username": "anna",
            "roles": ["officer", "of another page"],
            "iat": now,
            "exp": now + 300,
            "nonce": query["nonce"],
        } | self.claims
        key = self.signs_with or self.key
        head = {"alg": "ES256", "kid": self.key.kid}
        given = {k: v for k, v in claims.items() if v is not None}
        return {"id_token": jwt.encode(head, given, key), "token_type": "Bearer"}


def _key(name: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": name, "alg": "ES256", "use": "sig"})


def another_key() -> ECKey:
    """Return a key of the same name that the provider does not publish."""
    return _key("one")


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        provider: Provider = self.server.provider  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        if parts.path == "/.well-known/openid-configuration":
            self._json(
                {
                    "issuer": provider.issuer,
                    "authorization_endpoint": f"{provider.issuer}/authorize",
                    "token_endpoint": f"{provider.issuer}/token",
                    "jwks_uri": f"{provider.issuer}/keys",
                }
            )
        elif parts.path == "/keys":
            self._json({"keys": [provider.key.as_dict(private=False)]})
        elif parts.path == "/authorize":
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            self.send_response(302)
            self.send_header("Location", provider.authorise(query))
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_POST(self) -> None:
        provider: Provider = self.server.provider  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        answer = provider.token({k: v[0] for k, v in parse_qs(body).items()})
        self._json(answer or {"error": "invalid_grant"}, 200 if answer else 400)

    def log_message(self, *_: object) -> None:
        pass

    def _json(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def provider() -> Iterator[Provider]:
    """Run one on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    made = Provider(f"http://127.0.0.1:{server.server_address[1]}")
    server.provider = made  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

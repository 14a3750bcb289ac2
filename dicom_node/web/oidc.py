"""Logging in with an OpenID provider: the code flow, with PKCE.

The provider says who somebody is in an ID token, whose signature, issuer, audience, time
and nonce are checked; what he may do, a claim of it says in the names of roles. Nothing
else that the provider gives is used or kept. What has to be remembered between leaving
and coming back lies in a signed cookie.

Source:
    OpenID Connect Core 1.0, 3.1 (code flow) and 3.1.3.7 (ID token); RFC 7636 (PKCE).
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode

import urllib3
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from dicom_node.errors import ConfigError, NodeError
from dicom_node.web.rights import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from dicom_node.watching import Web

CALLBACK: Final = "/login/oidc/back"
_ALGORITHMS: Final = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
"""None that takes a shared secret, and never ``none``."""
_MOST_BYTES: Final = 1 << 18
_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=10.0)
_LEEWAY_S: Final = 60
_LONGEST_SUBJECT: Final = 255
_LONGEST_CALLED: Final = 64


class Departure(NamedTuple):
    """What has to be remembered of somebody who is sent to the provider."""

    state: str
    nonce: str
    verifier: str


class Known(NamedTuple):
    """Who the provider says that somebody is."""

    name: str
    roles: tuple[Role, ...]


class Provider:
    """One provider, and what it has to say."""

    def __init__(self, settings: Web, clock: Callable[[], datetime]) -> None:
        """Keep what it needs; it is asked when the first person comes.

        Args:
            settings: With the provider's issuer.
            clock: Returns the time, aware.
        """
        self._settings, self._clock = settings, clock
        ca = settings.oidc_ca
        self._http = urllib3.PoolManager(
            ca_certs=None if ca is None else str(ca), timeout=_TIMEOUT, retries=False
        )
        self._found: dict[str, Any] = {}

    def departure(self) -> tuple[Departure, str]:
        """Return what to remember of somebody, and where to send him.

        Raises:
            NodeError: The provider does not answer.
        """
        leaving = Departure(*(secrets.token_urlsafe(32) for _ in range(3)))
        digest = hashlib.sha256(leaving.verifier.encode("ascii")).digest()
        asked = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._settings.origin + CALLBACK,
            "scope": "openid profile",
            "state": leaving.state,
            "nonce": leaving.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        return leaving, f"{self._said('authorization_endpoint')}?{urlencode(asked)}"

    def arrived(self, leaving: Departure, given: Mapping[str, str]) -> Known:
        """Return who has come back.

        Args:
            leaving: What was remembered of him.
            given: What he brings in the query.

        Raises:
            NodeError: He is not let in, or the provider does not answer.
        """
        if not secrets.compare_digest(
            given.get("state", "").encode(), leaving.state.encode()
        ):
            raise NodeError("this is not the answer to what was asked")
        if not given.get("code"):
            raise NodeError("the provider has let nobody in")
        asked = {
            "grant_type": "authorization_code",
            "code": given["code"],
            "redirect_uri": self._settings.origin + CALLBACK,
            "client_id": self._settings.oidc_client_id,
            "code_verifier": leaving.verifier,
        }
        if self._settings.oidc_secret_file is not None:
            asked["client_secret"] = _secret(self._settings.oidc_secret_file)
        answer = self._asked("POST", self._said("token_endpoint"), fields=asked)
        claims = self._proven(str(answer.get("id_token", "")), leaving.nonce)
        return Known(_name(claims), self._roles(claims))

    def _proven(self, token: str, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token, once all of it has been checked."""
        said = self._asked("GET", self._said("jwks_uri"))
        now = int(self._clock().timestamp())
        rules = jwt.JWTClaimsRegistry(
            now=now,
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": self._settings.oidc_issuer},
            aud={"essential": True, "value": self._settings.oidc_client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            keys = KeySet.import_key_set(said)  # type: ignore[arg-type]
            claims = jwt.decode(token, keys, algorithms=_ALGORITHMS).claims
            rules.validate(claims)
        except (JoseError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise NodeError(
                f"the provider's token does not hold: {type(error).__name__}",
                hint="Issuer, client id, and the clocks of both machines?",
            ) from error
        wanted = self._settings.oidc_client_id
        parties = claims.get("aud")
        if (
            isinstance(parties, list)
            and len(parties) > 1
            and claims.get("azp") != wanted
        ):
            raise NodeError("the provider's token is for several, and not by this page")
        return dict(claims)

    def _roles(self, claims: Mapping[str, Any]) -> tuple[Role, ...]:
        said = claims.get(self._settings.oidc_roles_claim, [])
        listed = said if isinstance(said, list) else [said]
        roles = tuple(role for role in Role if role.value in listed)
        if not roles:
            raise NodeError(
                "the provider knows you, and gives you no role here",
                hint=f"Claim {self._settings.oidc_roles_claim!r}: {', '.join(Role)}.",
            )
        return roles

    def _said(self, name: str) -> str:
        """Return what the provider says of itself (OpenID Connect Discovery 1.0)."""
        issuer = self._settings.oidc_issuer
        if not self._found:
            where = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            self._found = self._asked("GET", where)
        if self._found.get("issuer") != issuer:
            self._found = {}
            raise NodeError("the provider calls itself by another issuer")
        where = str(self._found.get(name, ""))
        if issuer.startswith("https://") and not where.startswith("https://"):
            raise NodeError(f"the provider's {name} is not https")
        return where

    def _asked(
        self, method: str, where: str, fields: dict[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            answer = self._http.request(
                method,
                where,
                body=None if fields is None else urlencode(fields),
                headers={"Content-Type": "application/x-www-form-urlencoded"}
                if fields
                else None,
                redirect=False,
                preload_content=False,
            )
            content = answer.read(_MOST_BYTES, decode_content=True)
            answer.release_conn()
            found = json.loads(content)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise NodeError(
                "the provider does not answer as one does",
                hint="Is it up, and is its certificate one that oidc_ca signs?",
            ) from error
        if answer.status != 200 or not isinstance(found, dict):
            raise NodeError(f"the provider answers {answer.status}")
        return found


def provider_of(settings: Web, clock: Callable[[], datetime]) -> Provider | None:
    """Return the provider of a configuration; None if it names none.

    Raises:
        ConfigError: The file with its secret cannot be read.
    """
    if not settings.oidc_issuer:
        return None
    file = settings.oidc_secret_file
    if file is not None and not file.is_file():
        raise ConfigError(f"web: oidc_secret_file {file} is not there")
    return Provider(settings, clock)


def _secret(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise NodeError(
            "what the provider knows this page by cannot be read",
            hint="oidc_secret_file is a file of text that the node may read.",
        ) from error


def _name(claims: Mapping[str, Any]) -> str:
    """Return by which name the audit knows somebody; two people never share one.

    What the provider calls him is cut, and holds no parenthesis; his subject is whole.

    Raises:
        NodeError: The subject is none (OpenID Connect Core 1.0, 2).
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= _LONGEST_SUBJECT:
        raise NodeError("the provider gives you no subject that can be told apart")
    called = str(claims.get("preferred_username") or "")
    return f"{called.replace('(', '').replace(')', '')[:_LONGEST_CALLED]}({subject})"

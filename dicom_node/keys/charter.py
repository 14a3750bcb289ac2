"""A charter: what all nodes of a site have in common, signed and numbered.

One node, the *lead*, issues it; the others take it. It holds the site's keys, rules,
sites and grants. Whoever reads it sees what is public; the keys in it open for the nodes
that it names, each with a key that never leaves that node::

    {"body": Base64, "signatures": {signer id: Base64}}

The body is JSON. It is signed with every signing key that the site has, so that a node
which has missed a rotation believes it by the key that it knows. The keys are sealed by
AES-256-GCM under a key drawn for this charter, which is sealed to each node (HPKE, the
hybrid suite); tenant, number and the node's name are bound to it.

Bytes in, bytes out: which number is the next, and who may take one, is not known here.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicom_node.errors import KeyFolderError
from dicom_node.keys.ring import KeyEntry, KeyKind
from miadmark_core.errors import DamagedSealError
from miadmark_core.sealing.recipients import Recipient
from miadmark_core.sealing.signing import Verifier
from miadmark_core.sealing.suites import HYBRID, OBJECT_KEY_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from miadmark_core.sealing.recipients import Identity
    from miadmark_core.sealing.signing import Signer

MAX_BYTES: Final = 64 << 20
"""Of a charter; one with ten thousand entries of grants is half of it."""
_VERSION: Final = 1
_NONCE_SIZE: Final = 12
_PURPOSE: Final = "charter"

Secrets = dict[tuple[KeyKind, int], bytes]
"""Keys by kind and version."""


class GrantEntry(NamedTuple):
    """An entry of the grants, as it was signed."""

    number: int
    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter:
    """What the nodes of a site have in common; of its keys, what is public."""

    tenant: bytes
    number: int
    """From 1 on: a node takes none that is not above the one it has."""
    issued: datetime
    suite: int
    least_suite: int
    least_epoch: int
    policy: int
    recovery: str
    """The public half of the recovery key in Base64; empty if there is none."""
    keys: tuple[KeyEntry, ...]
    sites: Mapping[str, str]
    """Site files by their folder and name."""
    grants: tuple[GrantEntry, ...]
    nodes: Mapping[str, Recipient]
    """Who is a node of this site."""
    search: str = ""
    """What the lead's search was, as far as its marks depend on it; empty if it has not
    said: see :mod:`dicom_node.sameness`."""

    @property
    def substance(self) -> str:
        """Return what tells another charter from the same one issued again."""
        values = _values(self)
        for name in ("number", "issued"):
            del values[name]
        return hashlib.sha256(_canonical(values)).hexdigest()


class Signed(NamedTuple):
    """A charter as it is in a file; believed by nobody yet."""

    charter: Charter
    verifiers: Mapping[int, Verifier]
    """Of the site's signing keys, by version, as the charter says."""
    body: bytes
    signatures: Mapping[str, bytes]
    wrapped: Mapping[str, bytes]
    sealed: bytes

    @property
    def digest(self) -> str:
        """Return what tells it from another of the same number."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def newest(self) -> Verifier:
        """Return what checks the signatures of the key that is in use."""
        return self.verifiers[max(self.verifiers)]


def issued(
    charter: Charter,
    secrets: Secrets,
    signers: Mapping[int, Signer],
    random: Callable[[int], bytes],
) -> bytes:
    """Return the file of a charter, its keys sealed to the nodes that it names.

    Args:
        charter: What to issue.
        secrets: The keys of :attr:`Charter.keys` that are not destroyed.
        signers: By version; all that the site has.
        random: Returns that many bytes nobody can predict.
    """
    key, nonce = random(OBJECT_KEY_SIZE), random(_NONCE_SIZE)
    plain = {f"{kind}-{version}": s.hex() for (kind, version), s in secrets.items()}
    bound = _bound(charter, "")
    values = _values(charter) | {
        "version": _VERSION,
        "verifiers": {str(v): _text(s.verifier.encoded) for v, s in signers.items()},
        "wrapped": {
            name: _text(recipient.wrap(HYBRID, key, _bound(charter, name)).body)
            for name, recipient in charter.nodes.items()
        },
        "sealed": _text(nonce + AESGCM(key).encrypt(nonce, _canonical(plain), bound)),
    }
    body = _canonical(values)
    signatures = {
        signer.verifier.id.hex(): _text(signer.sign(HYBRID, _PURPOSE, body))
        for signer in signers.values()
    }
    return _canonical({"body": _text(body), "signatures": signatures})


def read(content: bytes, source: str) -> Signed:
    """Return what a file says; nothing of it is believed yet.

    Raises:
        KeyFolderError: It is no charter.
    """
    if len(content) > MAX_BYTES:
        raise KeyFolderError(f"{source} is too long for a charter")
    try:
        outer = json.loads(content)
        body = _bytes(outer["body"])
        values: dict[str, Any] = json.loads(body)
        if values["version"] != _VERSION:
            raise KeyFolderError(
                f"{source} is a charter of version {values['version']}",
                hint="A newer version of this software issued it: upgrade this node.",
            )
        return Signed(
            charter=_charter(values),
            verifiers={
                int(version): Verifier(_bytes(text))
                for version, text in values["verifiers"].items()
            },
            body=body,
            signatures={
                str(name): _bytes(text) for name, text in outer["signatures"].items()
            },
            wrapped={
                str(name): _bytes(text) for name, text in values["wrapped"].items()
            },
            sealed=_bytes(values["sealed"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise KeyFolderError(
            f"{source} is no charter", hint="miadmark nodes issue writes one."
        ) from error


def require_signed(signed: Signed, verifier: Verifier, source: str) -> None:
    """Return if the owner of ``verifier`` signed a charter.

    Raises:
        KeyFolderError: He did not.
    """
    signature = signed.signatures.get(verifier.id.hex(), b"")
    if not verifier.has_signed(HYBRID, _PURPOSE, signature, signed.body):
        raise KeyFolderError(
            f"{source} is not signed by {verifier.id.hex()}, this site's key",
            hint="It was changed, or is another site's. Tell whoever looks after "
            "security.",
        )


def opened(signed: Signed, name: str, identity: Identity, source: str) -> Secrets:
    """Return the keys in a charter that was found to be signed.

    Args:
        signed: The charter.
        name: Of this node.
        identity: This node's own.
        source: Where it came from.

    Raises:
        KeyFolderError: It is not for this node, or does not open.
    """
    charter = signed.charter
    try:
        wrapped = signed.wrapped[name]
        key = identity.unwrap(HYBRID, wrapped, _bound(charter, name))
        nonce, sealed = signed.sealed[:_NONCE_SIZE], signed.sealed[_NONCE_SIZE:]
        plain = AESGCM(key).decrypt(nonce, sealed, _bound(charter, ""))
    except (KeyError, DamagedSealError, InvalidTag):
        raise KeyFolderError(
            f"{source} holds no keys for the node {name!r}",
            hint="It was not admitted, or was dismissed: miadmark nodes list, at the "
            "lead.",
        ) from None
    values: dict[str, str] = json.loads(plain)
    return {
        (entry.kind, entry.version): bytes.fromhex(
            values[f"{entry.kind}-{entry.version}"]
        )
        for entry in charter.keys
        if not entry.is_destroyed
    }


def _bound(charter: Charter, name: str) -> bytes:
    """Return what the keys in a charter are bound to."""
    number = charter.number.to_bytes(8)
    return HYBRID.label(_PURPOSE) + charter.tenant + number + name.encode("utf-8")


def _values(charter: Charter) -> dict[str, Any]:
    """Return a charter in words of JSON; the inverse of :func:`_charter`."""
    keys = [asdict(k) | {"created": k.created.isoformat()} for k in charter.keys]
    return {
        "tenant": charter.tenant.hex(),
        "number": charter.number,
        "issued": charter.issued.astimezone(UTC).isoformat(),
        "suite": charter.suite,
        "least_suite": charter.least_suite,
        "least_epoch": charter.least_epoch,
        "policy": charter.policy,
        "recovery": charter.recovery,
        "keys": keys,
        "sites": dict(charter.sites),
        "grants": [
            [e.number, _text(e.body), _text(e.signature)] for e in charter.grants
        ],
        "nodes": {name: _text(r.encoded) for name, r in charter.nodes.items()},
        "search": charter.search,
    }


def _charter(values: Mapping[str, Any]) -> Charter:
    whole = {"number", "suite", "least_suite", "least_epoch", "policy"}
    keys = tuple(
        KeyEntry(
            **k
            | {
                "kind": KeyKind(k["kind"]),
                "created": datetime.fromisoformat(k["created"]),
            }
        )
        for k in values["keys"]
    )
    return Charter(
        tenant=bytes.fromhex(values["tenant"]),
        issued=datetime.fromisoformat(values["issued"]),
        recovery=str(values["recovery"]),
        keys=keys,
        sites={str(name): str(text) for name, text in values["sites"].items()},
        grants=_grants(values["grants"]),
        nodes={
            str(name): Recipient(_bytes(text)) for name, text in values["nodes"].items()
        },
        search=str(values["search"]),
        **{name: int(values[name]) for name in whole},
    )


def _grants(rows: Sequence[Sequence[Any]]) -> tuple[GrantEntry, ...]:
    return tuple(
        GrantEntry(int(number), _bytes(body), _bytes(signature))
        for number, body, signature in rows
    )


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode("utf-8")


def _text(content: bytes) -> str:
    return b64encode(content).decode("ascii")


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)

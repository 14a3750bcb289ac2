"""Which nodes a site has, and which of them this one is: the lead, or one that follows.

The lead alone changes what the nodes have in common, and issues it as a charter; the
others take that and change none of it. What a node knows of this stands in its ring,
among what is public and authenticated::

    node/name          how this node is called
    nodes/NAME         the public key of each node, in Base64
    charter/issued     number of the charter that was issued last; of the lead
    charter/substance  what was in it
    charter/taken      number of the charter that was taken last; of those that follow
    charter/digest     which one that was

A folder that knows nothing of all this is the lead of a site with one node.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from dicom_node.durable import write_durably
from dicom_node.errors import KeyFolderError
from dicom_node.keys.charter import (
    Charter,
    GrantEntry,
    issued,
    opened,
    read,
    require_signed,
)
from dicom_node.keys.ring import SHARED, KeyKind
from miadmark_core.sealing.recipients import Identity, Recipient
from miadmark_core.sealing.signing import Signer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dicom_node.keys.charter import Secrets, Signed
    from dicom_node.keys.ring import Ring
    from dicom_node.keys.store import KeyStore

NAME: Final = "node/name"
LEAD: Final = "lead"
"""How a node is called that nobody has named."""
_NODES: Final = "nodes/"
_ISSUED: Final = "charter/issued"
_SUBSTANCE: Final = "charter/substance"
TAKEN: Final = "charter/taken"
DIGEST: Final = "charter/digest"
SEARCH: Final = "charter/search"
_SITES: Final = ("recipients/", "trusted/")


class Membership:
    """What this node is to the others of its site."""

    def __init__(self, store: KeyStore) -> None:
        """Keep the key folder."""
        self._store = store

    @property
    def name(self) -> str:
        """Return how this node is called."""
        return self._public.get(NAME, LEAD)

    @property
    def taken(self) -> int:
        """Return the number of the charter that was taken last; 0 of a lead."""
        return int(self._public.get(TAKEN, "0"))

    @property
    def number(self) -> int:
        """Return the number of the charter that this node goes by; 0 for none yet."""
        return self.taken or int(self._public.get(_ISSUED, "0"))

    @property
    def search(self) -> str:
        """Return what the lead's search was; empty if it has not said."""
        return self._public.get(SEARCH, "")

    def require_lead(self) -> None:
        """Return if this node may change what the nodes have in common.

        Raises:
            KeyFolderError: It follows another.
        """
        self._store.refresh()
        if self.taken:
            raise KeyFolderError(
                "this node takes keys, rules and grants from its site's charter",
                hint="Change them at the lead, then: miadmark nodes issue. If the lead "
                "is gone for good: miadmark nodes lead, on one node only.",
            )

    def identity(self, now: datetime) -> Identity:
        """Return what opens what is sealed to this node, made at the first call."""
        kept = self._store.ring.of(KeyKind.NODE)
        if not kept:
            with self._store.changing():
                if not self._store.ring.of(KeyKind.NODE):
                    self._store.rotate(KeyKind.NODE, now, 1)
        return Identity(self._store.newest(KeyKind.NODE))

    def all(self) -> dict[str, Recipient]:
        """Return the nodes that were admitted, by name; of a lead, without itself."""
        self._store.refresh()
        return {
            name.removeprefix(_NODES): Recipient(b64decode(text))
            for name, text in sorted(self._public.items())
            if name.startswith(_NODES)
        }

    def others(self) -> dict[str, Recipient]:
        """Return the nodes that are not this one."""
        return {name: one for name, one in self.all().items() if name != self.name}

    def admit(self, name: str, recipient: Recipient) -> None:
        """Seal the site's keys to another node from the next charter on.

        Raises:
            KeyFolderError: This node follows, or another has the name.
        """
        self.require_lead()
        known = self.all().get(name)
        if name == self.name or (known is not None and known != recipient):
            raise KeyFolderError(
                f"another node is called {name!r}",
                hint="Have it ask under another name, or dismiss the other first.",
            )
        self._change({f"{_NODES}{name}": _text(recipient)})

    def dismiss(self, name: str) -> None:
        """Seal nothing to a node any more; what it has, it keeps.

        Raises:
            KeyFolderError: This node follows, or there is none of that name.
        """
        self.require_lead()
        if name not in self.others():
            raise KeyFolderError(f"there is no other node {name!r}")
        self._change({f"{_NODES}{name}": None})

    def become_lead(self) -> None:
        """Issue charters from now on, with numbers above the one that was taken.

        Raises:
            KeyFolderError: It is the lead.
        """
        taken = self.taken
        if taken <= 0:
            raise KeyFolderError("this node is the lead, or has taken no charter yet")
        self._change({TAKEN: None, DIGEST: None, _ISSUED: str(taken)})

    def is_changed(self, grants: Sequence[GrantEntry], search: str) -> bool:
        """Say whether a charter would say something new."""
        self._store.refresh()
        charter = self._charter(0, grants, self._store.ring.keys[0].created, search)
        return charter.substance != self._public.get(_SUBSTANCE)

    def issue(
        self, grants: Sequence[GrantEntry], now: datetime, search: str = ""
    ) -> bytes:
        """Return the next charter.

        Args:
            grants: All entries.
            now: Aware.
            search: See :attr:`Charter.search`.

        Raises:
            KeyFolderError: This node follows another.
        """
        self.require_lead()
        if self.name not in self.all():
            own = self.identity(now).recipient
            self._change({f"{_NODES}{self.name}": _text(own)})
        with self._store.changing():
            ring = self._store.ring
            number = int(self._public.get(_ISSUED, "0")) + 1
            charter = self._charter(number, grants, now, search)
            kept = [e for kind in SHARED for e in ring.of(kind)]
            secrets = {
                (e.kind, e.version): self._store.secret(e.kind, e.version) for e in kept
            }
            signers = {
                entry.version: Signer(secrets[entry.kind, entry.version])
                for entry in ring.of(KeyKind.SIGNING)
            }
            content = issued(charter, secrets, signers, os.urandom)
            # Before anybody has it: no number is used for two.
            said = {_ISSUED: str(number), _SUBSTANCE: charter.substance}
            self._write(said | {SEARCH: search or None})
        return content

    def verified(self, content: bytes, source: str) -> Signed | None:
        """Return a charter that this node is to take; None if it has it already.

        Raises:
            KeyFolderError: It is not this site's, not for this node, or an older one.
        """
        self._store.refresh()
        signed = read(content, source)
        newest = self._store.newest(KeyKind.SIGNING)
        require_signed(signed, Signer(newest).verifier, source)
        charter, taken = signed.charter, self.taken
        if charter.tenant != self._store.ring.tenant:
            raise KeyFolderError(f"{source} is a charter of another site")
        if not taken:
            raise KeyFolderError(
                "this node is the lead of its site, and takes no charter",
                hint="Two leads would tell the nodes different things.",
            )
        if charter.number < taken:
            raise KeyFolderError(
                f"{source} is charter {charter.number}, and {taken} was taken already",
                hint="An older one may grant what was revoked since. If the lead was "
                "put back from a backup, issue until its number is above.",
            )
        if charter.number > taken:
            return signed
        if signed.digest != self._public.get(DIGEST):
            raise KeyFolderError(
                f"{source} is another charter {taken} than the one that was taken",
                hint="Two folders have issued charters of one site. Tell whoever looks "
                "after security.",
            )
        return None

    def take_keys(self, signed: Signed, now: datetime, source: str) -> None:
        """Take over keys and rules; epochs that were ended are ended later.

        Raises:
            KeyFolderError: It holds no keys for this node, or others than this node has
                under the same numbers.
        """
        secrets = opened(signed, self.name, self.identity(now), source)
        charter = signed.charter
        with self._store.changing():
            ring = self._store.ring
            mine = {(e.kind, e.version): e for e in ring.keys}
            self._require_descends(charter, secrets, source)
            own = [e for e in ring.keys if e.kind not in SHARED]
            shared = [
                # One that is here is destroyed once nothing needs it any more.
                replace(e, is_destroyed=False)
                if e.is_destroyed and not _is_gone(mine.get((e.kind, e.version)))
                else e
                for e in charter.keys
            ]
            for entry in shared:
                key = (entry.kind, entry.version)
                if key not in mine and not entry.is_destroyed:
                    self._store.add(entry, secrets[key])
            changed = replace(
                ring,
                keys=(*shared, *own),
                suite=charter.suite,
                least_suite=charter.least_suite,
                policy=charter.policy,
            )
            self._store.write(changed)

    def _require_descends(
        self, charter: Charter, secrets: Secrets, source: str
    ) -> None:
        """Return if a charter has every key that is here, and none in its place."""
        theirs = {(e.kind, e.version) for e in charter.keys}
        for kind in SHARED:
            for entry in self._store.ring.of(kind):
                key = (entry.kind, entry.version)
                own = self._store.secret(*key)
                if key not in theirs or secrets.get(key, own) != own:
                    raise KeyFolderError(
                        f"{source} has another {kind} key {entry.version} than this "
                        "node, or none",
                        hint="The lead was put back from a backup that is older than "
                        "its key. Let a node lead that has it: miadmark nodes lead.",
                    )

    def finish(self, signed: Signed) -> None:
        """Take over the rest, and remember that all of a charter was taken."""
        charter, folder = signed.charter, self._store.folder
        with self._store.changing():
            public: dict[str, str | None] = {
                name: None
                for name in self._public
                if name.startswith((*_SITES, _NODES))
            }
            for name, text in charter.sites.items():
                content = text.encode("utf-8")
                write_durably(folder / _site_file(name), content)
                public[name] = sha256(content).hexdigest()
            for name in [n for n, kept in public.items() if kept is None]:
                if name.startswith(_SITES):
                    (folder / _site_file(name)).unlink(missing_ok=True)
            public |= {
                f"{_NODES}{name}": _text(one) for name, one in charter.nodes.items()
            }
            public |= {"recovery": charter.recovery or None}
            public |= {SEARCH: charter.search or None}
            self._write(public | {TAKEN: str(charter.number), DIGEST: signed.digest})

    def _charter(
        self, number: int, grants: Sequence[GrantEntry], now: datetime, search: str
    ) -> Charter:
        ring = self._store.ring
        return Charter(
            tenant=ring.tenant,
            number=number,
            issued=now,
            suite=ring.suite,
            least_suite=ring.least_suite,
            least_epoch=ring.least_epoch,
            policy=ring.policy,
            recovery=ring.public.get("recovery", ""),
            keys=tuple(e for e in ring.keys if e.kind in SHARED),
            sites=self._site_files(ring),
            grants=tuple(GrantEntry(*one) for one in grants),
            nodes=self.all(),
            search=search,
        )

    def _site_files(self, ring: Ring) -> dict[str, str]:
        """Return the site files that are not as somebody else has left them."""
        found = {}
        for name, known in ring.public.items():
            if name.startswith(_SITES):
                content = (self._store.folder / _site_file(name)).read_bytes()
                if sha256(content).hexdigest() != known:
                    raise KeyFolderError(
                        f"{name} was changed by somebody who cannot open the keys",
                        hint="Take it out, and tell whoever looks after security.",
                    )
                found[name] = content.decode("utf-8")
        return found

    @property
    def _public(self) -> Mapping[str, str]:
        return self._store.ring.public

    def _change(self, values: Mapping[str, str | None]) -> None:
        with self._store.changing():
            self._write(values)

    def _write(self, values: Mapping[str, str | None]) -> None:
        """Put what is known in place of what was; None for what is known no more."""
        public = {**self._public, **values}
        kept = {name: text for name, text in public.items() if text is not None}
        self._store.write(replace(self._store.ring, public=kept))


def _text(recipient: Recipient) -> str:
    return b64encode(recipient.encoded).decode("ascii")


def _is_gone(entry: object) -> bool:
    """Say whether a key is not here: it never was, or was destroyed."""
    return entry is None or bool(getattr(entry, "is_destroyed", False))


def _site_file(name: str) -> str:
    """Return the file of a site below the key folder.

    Raises:
        KeyFolderError: It would lie elsewhere.
    """
    part, _, file = name.partition("/")
    if f"{part}/" not in _SITES or "/" in file or not file.endswith(".site"):
        raise KeyFolderError(f"a charter names a file {name!r} that is no site file")
    return f"{part}/{file}"

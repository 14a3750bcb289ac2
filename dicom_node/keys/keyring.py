"""The keys of one site: what it seals with, what it opens with, and whom it trusts.

A folder::

    ring.json          which keys there are, and which rules hold; nothing secret
    KIND-VERSION.key   each of them, sealed under the root
    root.json          the root key, where a passphrase keeps it
    passphrase         drawn on first use, where nobody chose another root
    recipients/*.site  sites that every record is sealed to (direct)
    trusted/*.site     sites whose records are opened

Rotation adds keys and never touches an object.
"""

from __future__ import annotations

import base64
import hmac
import os
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from dicom_node.durable import write_durably
from dicom_node.errors import KeyFolderError
from dicom_node.keys.epochs import EpochRing
from dicom_node.keys.membership import Membership
from dicom_node.keys.ring import KeyKind
from dicom_node.keys.roots import generated_passphrase
from dicom_node.keys.site import Site, read_site
from dicom_node.keys.spool import SpoolRing
from dicom_node.keys.store import KeyStore, exists, make
from miadmark_core.sealing.recipients import Identity, Recipient
from miadmark_core.sealing.signing import Signer, Trust, TrustedSigners, Verifier
from miadmark_core.sealing.stanza import StanzaType
from miadmark_core.sealing.suites import suite_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from dicom_node.keys.provider import Root
    from dicom_node.keys.ring import Ring
    from dicom_node.keys.roots import MakeRoot
    from miadmark_core.sealing.suites import Suite


class Keyring:
    """The keys of one site, in a folder."""

    def __init__(self, folder: Path, root: Root | None = None) -> None:
        """Read which keys there are.

        Args:
            folder: Where they lie.
            root: Opens them; else the one that the ring names.

        Raises:
            KeyFolderError: They cannot be read, or were changed.
            KeyServiceError: The root cannot be reached.
        """
        self.folder, self._store = folder, KeyStore(folder, root)
        self.spool = SpoolRing(self._store)
        """What is on its way is sealed with."""
        self.nodes = Membership(self._store)
        """Which nodes this site has, and what this one may change."""
        self.epochs = EpochRing(self._store, self.nodes)
        """Records are sealed to, and opened by."""
        self._verifiers: dict[int, Verifier] = {}

    @classmethod
    def make(
        cls,
        folder: Path,
        now: datetime,
        root: MakeRoot = generated_passphrase,
        random: Callable[[int], bytes] = os.urandom,
    ) -> Keyring:
        """Make fresh keys in ``folder`` and return them.

        Args:
            folder: Must hold none yet.
            now: Aware.
            root: Makes the root that they are sealed under.
            random: Returns that many bytes nobody can predict.

        Raises:
            KeyFolderError: There are keys already, or the folder is not writable.
        """
        make(folder, root, now, random)
        return cls(folder)

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Say whether ``folder`` holds keys."""
        return exists(folder)

    @property
    def ring(self) -> Ring:
        """Return which keys there are, and which rules hold."""
        return self._store.ring

    @property
    def root(self) -> Root:
        """Return what the keys are sealed under."""
        return self._store.root

    @property
    def suite(self) -> Suite:
        """Return what new records are sealed with."""
        return suite_of(self.ring.suite)

    def site(self, name: str) -> Site:
        """Return what this site tells others."""
        return Site(
            name=name,
            tenant=self.ring.tenant,
            recipient=self.identities()[0].recipient,
            verifier=self.signer().verifier,
        )

    def signer(self) -> Signer:
        """Return what this site signs with."""
        return Signer(self._store.newest(KeyKind.SIGNING))

    def identities(self) -> list[Identity]:
        """Return what this site opens the records of others with, newest first."""
        entries = self.ring.of(KeyKind.IDENTITY)
        return [Identity(self._store.secret(e.kind, e.version)) for e in entries]

    def recovery(self) -> Recipient | None:
        """Return the recovery key's public half, once there has been a ceremony."""
        text = self.ring.public.get("recovery")
        if text is None:
            return None
        return Recipient(base64.b64decode(text), StanzaType.RECOVERY)

    def recipients(self) -> list[Recipient]:
        """Return those in ``recipients/``, to whom every record is sealed."""
        return [site.recipient for site in self.sites("recipients")]

    def trusted(self) -> TrustedSigners:
        """Return this site's own keys and those of the sites in ``trusted/``."""
        verifiers = self.verifiers()
        own = [
            Trust(verifiers[entry.version], self.ring.tenant, entry.last_sequence)
            for entry in self.ring.of(KeyKind.SIGNING)
        ]
        trusts = [*(site.trust for site in self.sites("trusted")), *own]
        return TrustedSigners({trust.verifier.id: trust for trust in trusts})

    def verifiers(self) -> dict[int, Verifier]:
        """Return what checks this site's own signatures, by version of the key."""
        versions = [entry.version for entry in self.ring.of(KeyKind.SIGNING)]
        for version in versions:
            if version not in self._verifiers:  # public, so it may be kept
                seed = self._store.secret(KeyKind.SIGNING, version)
                self._verifiers[version] = Signer(seed).verifier
        return {version: self._verifiers[version] for version in versions}

    def grant_entries(self) -> int:
        """Return how many entries the grants have at least."""
        self._store.refresh()
        return self.ring.grant_entries

    def grant_head(self) -> str:
        """Return the digest of the last of them that is remembered."""
        return self.ring.grant_head

    def keep_grant_entries(self, count: int, head: str) -> None:
        """Remember how many entries the grants have, and the digest of the last."""
        with self._store.changing():
            if count > self.ring.grant_entries:
                ring = replace(self.ring, grant_entries=count, grant_head=head)
                self._store.write(ring)

    def refresh(self) -> None:
        """See what another process has changed."""
        self._store.refresh()

    def derive(self, message: bytes) -> bytes:
        """Return 32 bytes that only this site can derive from ``message``."""
        key = self._store.newest(KeyKind.DERIVATION)
        return hmac.digest(key, b"miadmark/v1/derive " + message, "sha256")

    def sites(self, part: str) -> list[Site]:
        """Return the sites in one of ``recipients`` and ``trusted``."""
        self._store.refresh()  # the list may be longer by now
        files = sorted((self.folder / part).glob("*.site"))
        for file in files:
            known = self.ring.public.get(f"{part}/{file.name}")
            if known != sha256(file.read_bytes()).hexdigest():
                raise KeyFolderError(
                    f"{file} was put there, or changed, by somebody who cannot open the "
                    "keys",
                    hint="miadmark keys trust and add-recipient add site files. Take it "
                    "out, and tell whoever looks after security.",
                )
        return [read_site(file) for file in files]

    def add_site(self, site: Site, *, as_recipient: bool, as_trusted: bool) -> None:
        """Seal to ``site`` from now on, or open what it seals, or both.

        Raises:
            KeyFolderError: It claims to be this site.
        """
        own = {verifier.id for verifier in self.verifiers().values()}
        if site.tenant == self.ring.tenant and site.verifier.id not in own:
            raise KeyFolderError(
                f"{site.name} says that it is this site, with keys that are none of ours",
                hint="Do not add it, and tell whoever looks after security.",
            )
        self.nodes.require_lead()
        name, text = f"{site.fingerprint}.site", site.to_text().encode("utf-8")
        parts = {"recipients": as_recipient, "trusted": as_trusted}
        with self._store.changing():
            public = dict(self.ring.public)
            for part, is_wanted in parts.items():
                if is_wanted:
                    write_durably(self.folder / part / name, text)
                    public[f"{part}/{name}"] = sha256(text).hexdigest()
            self._store.write(replace(self.ring, public=public))

    def rotate(self, kind: KeyKind, now: datetime, sequence: int) -> int:
        """Use a fresh key of that kind from record ``sequence`` on; return its version.

        Older keys stay: an object that is out for years opens as before.

        Raises:
            KeyFolderError: Of that kind there is only ever one.
        """
        if kind is KeyKind.DERIVATION:
            raise KeyFolderError(
                "the derivation key cannot be another",
                hint="The same original would become two different objects.",
            )
        self.nodes.require_lead()
        with self._store.changing():
            return self._store.rotate(kind, now, sequence)

    def end_signing(self, last: int) -> None:
        """Believe signing keys that are in use no more up to record ``last``.

        Those of an earlier rotation that was cut off are among them. Where a site has
        other nodes they number their records themselves, so that nobody knows the last.
        """
        with self._store.changing():
            if self.nodes.others():
                return
            ring = self.ring
            for entry in ring.of(KeyKind.SIGNING)[1:]:
                if entry.last_sequence is None:
                    ring = ring.with_last(entry.kind, entry.version, last)
            self._store.write(ring)

    def rotate_root(self) -> int:
        """Seal every key under a new version of the root; return it.

        The old version is destroyed last, so a crash on the way loses nothing.
        """
        with self._store.changing():
            entries = [e for e in self.ring.keys if not e.is_destroyed]
            secrets = [(e, self._store.secret(e.kind, e.version)) for e in entries]
            self.root.rotate()
            for entry, secret in secrets:
                self._store.add(entry, secret)
            self._store.write(replace(self.ring, root_version=self.root.version))
        for version in range(1, self.root.version):
            with suppress(KeyFolderError):  # it is gone already
                self.root.forget(version)
        return self.root.version

    def set_rules(
        self,
        *,
        suite: int | None = None,
        least_suite: int | None = None,
        recovery: Recipient | None = None,
    ) -> None:
        """Change the rules for new records, and count that as another policy."""
        self.nodes.require_lead()
        with self._store.changing():
            ring = self.ring
            suite = ring.suite if suite is None else suite_of(suite).number
            least = ring.least_suite if least_suite is None else least_suite
            if suite_of(least).number > suite:
                raise KeyFolderError(
                    "new records would be below what is opened at least"
                )
            public = dict(ring.public)
            if recovery is not None:
                public["recovery"] = base64.b64encode(recovery.encoded).decode()
            changed = replace(ring, suite=suite, least_suite=least, public=public)
            self._store.write(replace(changed, policy=ring.policy + 1))

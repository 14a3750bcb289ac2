"""Make the frozen records of format version 1: ``python -m tests.vectors.freeze``.

Run once for each version of the format, when that version is first released, and never
again: what ``records-v1.json`` holds is what is in archives, so it must stay as it is
while code changes. Hence it is not written where it already stands. A version 2 gets a
file of its own beside this one.

Keys and payloads in it are drawn for it and used for nothing else.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from miadmark_core.sealing.epoch_key import EpochKey
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.seal import seal
from miadmark_core.sealing.signing import Signer
from miadmark_core.sealing.stanza import StanzaType
from miadmark_core.sealing.suites import SUITES, Suite

PATH: Final = Path(__file__).with_name("records-v1.json")

EPOCHS: Final = {
    f"epoch {version}": EpochKey(version, os.urandom(32))
    for version in (1, 2, (1 << 32) - 1)
}
IDENTITIES: Final = {
    name: Identity(os.urandom(32), StanzaType.RECOVERY)
    for name in ("recovery", "second recovery")
} | {f"recipient {number}": Identity(os.urandom(32)) for number in range(1, 31)}
SIGNERS: Final = {
    name: (Signer(os.urandom(64)), os.urandom(16))
    for name in ("gateway", "second gateway")
}
LAST_SEQUENCE: Final = 1000
"""Of the second gateway, whose key has been given up since."""

USUAL: Final = ("epoch 1", "recovery", "recipient 1")
OBJECT: Final = b"1.2.826.0.1.3680043.8.498.1 512x512x1 16/12/0 unsigned"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One record, and what it is there to show."""

    name: str
    holders: tuple[str, ...] = USUAL
    piece: bytes = b"the grid of a mark, and its amplitude"
    times: int = 1
    """How often the piece stands in the payload."""
    context: bytes = OBJECT
    signer: str = "gateway"
    sequence: int = 1
    policy: int = 1
    method: str = "mark/1"
    created: int = 1_767_268_800

    def sealed(self, suite: Suite) -> dict[str, Any]:
        signer, tenant = SIGNERS[self.signer]
        record = seal(
            self.piece * self.times,
            self.context,
            suite=suite,
            to=[
                EPOCHS[name] if name in EPOCHS else IDENTITIES[name].recipient
                for name in self.holders
            ],
            signer=signer,
            tenant=tenant,
            sequence=self.sequence,
            policy=self.policy,
            method=self.method,
            now=datetime.fromtimestamp(self.created, UTC),
            random=os.urandom,
        )
        return {
            "name": self.name,
            "suite": suite.number,
            "holders": self.holders,
            "context": text(self.context),
            "piece": text(self.piece),
            "times": self.times,
            "header": text(record.header),
            "payload": text(record.payload),
        }


def text(value: bytes) -> str:
    return b64encode(value).decode()


def plans() -> Iterator[Plan]:
    """Yield what a suite's fifty records are to be."""
    epoch, recovery, recipient = USUAL
    yield Plan(name="an epoch's stanza", holders=(epoch,))
    yield Plan(name="a recovery stanza", holders=(recovery,))
    yield Plan(name="a recipient's stanza", holders=(recipient,))
    yield Plan(name="epoch and recovery", holders=(epoch, recovery))
    yield Plan(name="epoch and recipient", holders=(epoch, recipient))
    yield Plan(name="recovery and recipient", holders=(recovery, recipient))
    yield Plan(name="all three kinds of stanza")
    yield Plan(name="the same again, by other chance")
    recipients = tuple(IDENTITIES)[2:]
    for count in (2, 3, 6):
        yield Plan(name=f"{count} recipients", holders=recipients[:count])
    yield Plan(name="32 stanzas", holders=(epoch, recovery, *recipients))
    yield Plan(name="a second recovery key", holders=(epoch, "second recovery"))
    for name in EPOCHS:
        yield Plan(name=name, holders=(name, recovery))
    for size in (0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 100, 199):
        yield Plan(name=f"a payload of {size}", piece=os.urandom(size))
    yield Plan(name="a payload of two chunks", piece=b"\xa5", times=(1 << 16) + 1)
    for name, context in (
        ("an empty context", b""),
        ("a context of a byte", b"\0"),
        ("a context beyond ASCII", "Röntgen 2°, 放射線".encode()),
        ("a context of every byte", bytes(range(256))),
        ("the longest context", bytes(range(256)) * 16),
    ):
        yield Plan(name=name, context=context)
    for method in ("m", "m" * 64, "cover/1", "~ a method, with (signs)!"):
        yield Plan(name=f"method {method}", method=method)
    for sequence in (0, 2, 1 << 32, (1 << 64) - 1):
        yield Plan(name=f"sequence {sequence}", sequence=sequence)
    for policy in (0, (1 << 32) - 1):
        yield Plan(name=f"policy {policy}", policy=policy)
    for created in (0, 1 << 31, 1 << 32, 253_402_300_799):
        yield Plan(name=f"made at {created}", created=created)
    second = Plan(name="a second gateway", signer="second gateway")
    yield second
    yield replace(second, name="its last record", sequence=LAST_SEQUENCE)


def frozen() -> dict[str, Any]:
    return {
        "signers": {
            name: {
                "verifier": text(signer.verifier.encoded),
                "tenant": text(tenant),
                "last_sequence": LAST_SEQUENCE if name == "second gateway" else None,
            }
            for name, (signer, tenant) in SIGNERS.items()
        },
        "epochs": {
            name: {"version": key.version, "secret": text(key.secret)}
            for name, key in EPOCHS.items()
        },
        "identities": {
            name: {"seed": text(identity.seed), "kind": identity.kind.name}
            for name, identity in IDENTITIES.items()
        },
        "records": [
            plan.sealed(suite) for suite in SUITES.values() for plan in plans()
        ],
    }


def main() -> None:
    with PATH.open("x", encoding="ascii") as file:  # "x": never over another
        json.dump(frozen(), file, indent=0, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()

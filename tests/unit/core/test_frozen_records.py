"""What was sealed when the format was released opens today, for all whom it was for."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections import Counter
from typing import Any

import pytest

from miadmark_core.errors import NoStanzaError
from miadmark_core.sealing.epoch_key import EpochKey
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.record import SealedRecord, parse
from miadmark_core.sealing.seal import unseal
from miadmark_core.sealing.signing import Trust, TrustedSigners, Verifier
from miadmark_core.sealing.stanza import Opener, StanzaType
from tests.vectors import freeze

WRITTEN = freeze.PATH.read_bytes()
FROZEN: dict[str, Any] = json.loads(WRITTEN)

DIGEST = "6fe6bcb6ba204ed3f764fef78b9cfeb859a776aaed4b6e6addf4bd6f06c2fdc3"
"""Of the file, SHA-256."""

OPENERS: dict[str, Opener] = {
    name: EpochKey(key["version"], b64decode(key["secret"]))
    for name, key in FROZEN["epochs"].items()
} | {
    name: Identity(b64decode(key["seed"]), StanzaType[key["kind"]])
    for name, key in FROZEN["identities"].items()
}
TRUSTS = [
    Trust(
        Verifier(b64decode(signer["verifier"])),
        b64decode(signer["tenant"]),
        signer["last_sequence"],
    )
    for signer in FROZEN["signers"].values()
]
TRUSTED = TrustedSigners({trust.verifier.id: trust for trust in TRUSTS})

each = pytest.mark.parametrize(
    "frozen",
    FROZEN["records"],
    ids=[f"{record['suite']:02x}: {record['name']}" for record in FROZEN["records"]],
)


def opened(frozen: dict[str, Any], holder: str) -> bytes:
    return unseal(
        SealedRecord(b64decode(frozen["header"]), b64decode(frozen["payload"])),
        b64decode(frozen["context"]),
        openers=[OPENERS[holder]],
        trusted=TRUSTED,
        least_suite=frozen["suite"],
    )


@each
def test_a_frozen_record_opens_for_each_of_its_holders(frozen: dict[str, Any]) -> None:
    payload = b64decode(frozen["piece"]) * frozen["times"]
    for holder in frozen["holders"]:
        assert opened(frozen, holder) == payload


@each
def test_a_frozen_record_opens_for_nobody_else(frozen: dict[str, Any]) -> None:
    for holder in OPENERS.keys() - set(frozen["holders"]):
        with pytest.raises(NoStanzaError):
            opened(frozen, holder)


def test_fifty_records_of_each_suite_are_frozen() -> None:
    counted = Counter(record["suite"] for record in FROZEN["records"])
    assert counted == {1: 50, 2: 50}
    assert counted == Counter(
        parse(b64decode(record["header"])).suite.number for record in FROZEN["records"]
    )


def test_they_are_still_the_ones_that_were_frozen() -> None:
    assert hashlib.sha256(WRITTEN).hexdigest() == DIGEST


def test_they_are_never_written_again() -> None:
    with pytest.raises(FileExistsError):
        freeze.main()
    assert freeze.PATH.read_bytes() == WRITTEN

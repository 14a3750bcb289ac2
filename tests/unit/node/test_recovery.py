"""Three of five people open everything; two of them nothing."""

from __future__ import annotations

import os
from itertools import combinations

import pytest
from shamir_mnemonic import generate_mnemonics

from dicom_node.errors import KeyFolderError
from dicom_node.keys.recovery import join, split
from miadmark_core.sealing.seal import seal, unseal
from miadmark_core.sealing.signing import Signer, Trust, TrustedSigners
from miadmark_core.sealing.suites import SUITES
from tests.conftest import NOW


def test_any_three_of_five_join_and_no_fewer() -> None:
    identity, shares = split()
    for enough in (e for size in (3, 4, 5) for e in combinations(shares, size)):
        assert join(enough).seed == identity.seed
    for count in (0, 1, 2):
        for too_few in combinations(shares, count):
            with pytest.raises(KeyFolderError, match="do not join"):
                join(too_few)


def test_shares_of_two_ceremonies_do_not_mix() -> None:
    (_, ours), (_, theirs) = split(), split()
    with pytest.raises(KeyFolderError):
        join([*ours[:2], theirs[2]])
    with pytest.raises(KeyFolderError):
        join([*ours[:3], theirs[3]])


def test_a_misspelt_word_is_noticed_and_how_it_is_written_is_not() -> None:
    identity, (first, second, third, *_) = split()
    loudly = "  ".join(first.upper().split())
    assert join([loudly, f"{second}\n", third]).seed == identity.seed
    words = first.split()
    for wrong in ("academic" if words[5] != "academic" else "acid", "nonsense"):
        misspelt = " ".join([*words[:5], wrong, *words[6:]])
        with pytest.raises(KeyFolderError) as caught:
            join([misspelt, second, third])
        assert words[7] not in str(caught.value)


def test_shares_of_another_length_are_no_shares_of_ours() -> None:
    (shorter,) = generate_mnemonics(1, [(3, 5)], bytes(16))
    with pytest.raises(KeyFolderError, match="do not join"):
        join(shorter[:3])


@pytest.mark.parametrize(("threshold", "shares"), [(1, 5), (6, 5), (3, 17)])
def test_a_circle_of_people_has_to_make_sense(threshold: int, shares: int) -> None:
    with pytest.raises(KeyFolderError):
        split(threshold=threshold, shares=shares)


@pytest.mark.parametrize("suite", SUITES.values(), ids=["classical", "hybrid"])
def test_a_record_and_three_shares_are_enough(suite: object) -> None:
    identity, shares = split()
    signer, tenant = Signer(os.urandom(64)), bytes(16)
    record = seal(
        b"secret",
        b"",
        suite=suite,  # type: ignore[arg-type]
        to=[identity.recipient],
        signer=signer,
        tenant=tenant,
        sequence=1,
        policy=1,
        method="test",
        now=NOW,
        random=os.urandom,
    )
    trusted = TrustedSigners({signer.verifier.id: Trust(signer.verifier, tenant)})
    opened = unseal(record, b"", openers=[join(shares[2:])], trusted=trusted)
    assert opened == b"secret"

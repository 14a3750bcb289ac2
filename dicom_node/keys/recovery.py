"""The recovery key: kept by people, split so that three of five of them are needed.

Every record is sealed to it as well, once there has been a ceremony, so that an object
and the shares are enough to restore it: no ledger, no node, no root. Splitting and
joining is SLIP-0039 (Shamir's secret sharing with a digest of the secret and a checksum
in every share), by the reference implementation; a share is 33 words that can be printed
and read out. Two shares say nothing about the key.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from shamir_mnemonic import MnemonicError, combine_mnemonics, generate_mnemonics

from dicom_node.errors import KeyFolderError
from miadmark_core.sealing.recipients import SEED_SIZE, Identity
from miadmark_core.sealing.stanza import StanzaType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHARES: Final = 5
THRESHOLD: Final = 3


def split(
    *,
    threshold: int = THRESHOLD,
    shares: int = SHARES,
    random: Callable[[int], bytes] = os.urandom,
) -> tuple[Identity, list[str]]:
    """Return a fresh recovery key, and its shares; it is kept nowhere else.

    Every choice of ``threshold`` shares next to one another has been joined again and
    compared before this returns.

    Raises:
        KeyFolderError: So many shares, or so few that are needed, there cannot be.
    """
    if not 2 <= threshold <= shares <= 16:
        raise KeyFolderError(
            f"{threshold} of {shares} shares",
            hint="At least two have to be needed, and 16 there can be.",
        )
    seed = random(SEED_SIZE)
    (made,) = generate_mnemonics(1, [(threshold, shares)], seed)
    ring = made + made
    for start in range(shares):
        if join(ring[start : start + threshold]).seed != seed:
            raise KeyFolderError("the shares do not join again; nothing was written")
    return Identity(seed, StanzaType.RECOVERY), made


def join(shares: Sequence[str]) -> Identity:
    """Return the recovery key; the inverse of :func:`split`.

    Raises:
        KeyFolderError: A share is misspelt, they are too few, or of different keys.
    """
    spelt = [" ".join(share.split()).lower() for share in shares]
    try:
        return Identity(_combined(spelt), StanzaType.RECOVERY)
    except (MnemonicError, ValueError, IndexError) as error:
        # The library's sentences name words of a share at most by their number.
        raise KeyFolderError(
            f"the {len(shares)} shares do not join: {type(error).__name__}",
            hint="Are they as many as are needed, of one ceremony, and free of "
            "misspelt words? Each share by itself has a checksum.",
        ) from None


def _combined(shares: Sequence[str]) -> bytes:
    """Return the secret, of which more shares than are needed may be there.

    The library wants exactly as many as are needed; every further one has to lead to the
    same secret, so that none is misspelt or of another ceremony unnoticed.
    """
    for needed in range(2, len(shares)):
        with suppress(MnemonicError):
            seed = bytes(combine_mnemonics(shares[:needed]))
            break
    else:
        return bytes(combine_mnemonics(shares))
    for share in shares[needed:]:
        if combine_mnemonics([*shares[: needed - 1], share]) != seed:
            raise ValueError("a share of another secret")
    return seed

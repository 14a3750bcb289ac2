"""How long sealing and stripping take, beside what a named peer needs for the same.

Ratios travel between machines, milliseconds do not; both are told, for one core.
"""

from __future__ import annotations

import io
import os
import statistics
import time
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256, Hash
from pydicom import dcmread

from dicom_node.audit import Event
from dicom_node.elements import Limits
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import BatchMarker, marker
from dicom_node.marking import Marking, Profile
from dicom_node.state import State, opening_with
from miadmark_core.sealing.recipients import Identity
from miadmark_core.sealing.seal import seal, unseal
from miadmark_core.sealing.suites import SUITES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from miadmark_core.sealing.suites import Suite

_ROUNDS: Final = 100
_SIDE: Final = 512
_PAYLOAD: Final = 48 * 1024


class Timing(NamedTuple):
    """How long something takes."""

    what: str
    median_ms: float
    peer: str
    """What it is compared with, in the same run."""
    ratio: float
    """To the peer's median."""


def bench_seal(folder: Path) -> Iterator[Timing]:
    """Time sealing 48 KB to one recipient and opening it again.

    Args:
        folder: For keys that nobody needs afterwards.
    """
    keyring = State(folder).keys()
    signer, trusted = keyring.signer(), keyring.trusted()
    identity = Identity.of_seed(os.urandom(32))
    payload, now = os.urandom(_PAYLOAD), datetime.now(UTC)

    def there_and_back(suite: Suite) -> None:
        record = seal(
            payload,
            b"",
            suite=suite,
            to=[identity.recipient],
            signer=signer,
            tenant=keyring.ring.tenant,
            sequence=1,
            policy=1,
            method="grid 1.1",
            now=now,
            random=os.urandom,
        )
        unseal(record, b"", openers=[identity], trusted=trusted)

    peer = _median_ms(lambda: _sha256(bytes(1 << 20)))
    for suite in SUITES.values():
        took = _median_ms(lambda suite=suite: there_and_back(suite))  # type: ignore[misc]
        what = f"seal and open 48 KB, suite {suite.number:02x}"
        yield Timing(what, took, "SHA-256 of 1 MiB", took / peer)


def bench_strip(folder: Path) -> Iterator[Timing]:
    """Time stripping one 512 x 512 x 16 instance, every check and the audit included.

    Args:
        folder: For keys and ledger that nobody needs afterwards.
    """
    state = State(folder)
    keyring = state.keys()
    with state.ledger() as ledger:
        mark = marker(
            BatchMarker(
                None,
                Sealer(keyring, ledger.number),
                state.clock,
                Marking(profile=Profile.FAST),
            )
        )
        marked = mark(OpenInstance.of(_ct(), Limits()), ())
        ledger.add(marked.marked_digest, marked.record, state.clock())
        encoded, audit = marked.file.to_bytes(), state.audit(keyring)

        def stripped() -> None:
            instance = OpenInstance.of(encoded, Limits())
            restored = strip(instance, opening_with(keyring, ledger))
            restored.file.to_bytes()

        def released() -> None:
            stripped()
            audit.add(Event.RELEASED, how="bench")

        peer = _median_ms(lambda: _reread(encoded))
        name = "pydicom reading and writing it"
        for what, run in (
            ("strip 512 x 512 x 16, checks included", stripped),
            ("the same, its audit entry durable", released),
        ):
            took = _median_ms(run)
            yield Timing(what, took, name, took / peer)


def _ct() -> bytes:
    """Return the demonstration's CT, each pixel repeated up to 512 x 512."""
    image = resources.files("dicom_node.demo") / "images" / "ct.dcm"
    dataset = dcmread(io.BytesIO(image.read_bytes()))
    times = _SIDE // dataset.Rows
    pixels = dataset.pixel_array.repeat(times, axis=0).repeat(times, axis=1)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _reread(encoded: bytes) -> None:
    buffer = io.BytesIO()
    dcmread(io.BytesIO(encoded)).save_as(buffer)


def _sha256(block: bytes) -> None:
    digest = Hash(SHA256())
    digest.update(block)
    digest.finalize()


def _median_ms(run: Callable[[], object]) -> float:
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000

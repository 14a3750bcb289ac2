"""Receivers that take one transfer syntax each: what they get restores to the original.

DCMTK's storescp, told to prefer one syntax, and pynetdicom receivers that accept exactly
one. What was marked is stripped again from the file that arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pynetdicom import AE, evt
from pynetdicom.events import Event

from dicom_node.compression import put_into
from dicom_node.demo.loopback import LOOPBACK
from dicom_node.destination import Destination
from dicom_node.elements import PIXEL_DATA, Limits
from dicom_node.errors import SendRefusedError, UnaskedError
from dicom_node.filters.mark import MarkedInstance
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.scu import Sending
from dicom_node.syntaxes import DEFAULT, Syntax
from tests.conftest import opened
from tests.receivers import storescp

MarkOne = Callable[[OpenInstance], MarkedInstance]

IMPLICIT, EXPLICIT = uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian
JPEG_LS, J2K, RLE = uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless


@contextmanager
def a_receiver(
    syntaxes: Sequence[str], sop_classes: Sequence[str]
) -> Iterator[tuple[int, list[bytes]]]:
    """A receiver that accepts these syntaxes only; its port, and what it has got."""
    received: list[bytes] = []

    def keep(event: Event) -> int:
        buffer = BytesIO()
        buffer.write(event.encoded_dataset())
        received.append(buffer.getvalue())
        return 0x0000

    ae = AE("RECEIVER")
    for sop_class in sop_classes:
        ae.add_supported_context(sop_class, [*syntaxes])
    server = ae.start_server(
        (LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    assert server is not None
    assert server.socket is not None
    try:
        yield int(server.socket.getsockname()[1]), received
    finally:
        server.shutdown()


def to(port: int, *syntaxes: Syntax) -> Destination:
    return Destination(
        name="receiver",
        ae_title="RECEIVER",
        host=LOOPBACK,
        port=port,
        transfer_syntaxes=syntaxes or DEFAULT,
    )


def sop_class_of(file: Path) -> str:
    return str(dcmread(file, stop_before_pixels=True).SOPClassUID)


@pytest.fixture(scope="module")
def original(images: Path) -> OpenInstance:
    return opened(images / "ct.dcm")


@pytest.fixture(scope="module")
def marked(
    original: OpenInstance, mark_one: MarkOne, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    file = tmp_path_factory.mktemp("marked") / "marked.dcm"
    file.write_bytes(mark_one(original).file.to_bytes())
    return file


def restores(received: bytes, original: OpenInstance, keys: Sealer) -> None:
    back = strip(OpenInstance.of(received, Limits()), keys.opening())
    explicit = put_into(back_of(back.file.to_bytes()), EXPLICIT)
    assert explicit.file.dataset == put_into(original, EXPLICIT).file.dataset


def back_of(encoded: bytes) -> OpenInstance:
    return OpenInstance.of(encoded, Limits())


@pytest.mark.parametrize(
    "syntax", [JPEG_LS, J2K, RLE, EXPLICIT], ids=lambda u: u.keyword
)
def test_a_receiver_of_one_syntax_gets_what_restores(
    syntax: uid.UID, marked: Path, original: OpenInstance, keys: Sealer
) -> None:
    with (
        a_receiver([syntax], [sop_class_of(marked)]) as (port, received),
        Sending(to(port), "NODE") as sending,
    ):
        sending.send(marked)
        sending.send(marked)
    first, second = received
    assert first == second
    restores(first, original, keys)
    assert dcmread(BytesIO(first)).file_meta.TransferSyntaxUID == syntax
    assert [*marked.parent.iterdir()] == [marked]


def test_private_elements_survive_a_receiver_of_implicit_vr(
    marked: Path, original: OpenInstance, keys: Sealer
) -> None:
    with (
        a_receiver([IMPLICIT], [sop_class_of(marked)]) as (port, received),
        Sending(to(port), "NODE") as sending,
    ):
        sending.send(marked)
    back = strip(back_of(received[0]), keys.opening())
    expected = put_into(original, IMPLICIT)
    assert back.file.dataset == expected.file.dataset


def test_the_destination_orders_what_the_receiver_takes(marked: Path) -> None:
    taken = [EXPLICIT, IMPLICIT, RLE, JPEG_LS]
    for order, expected in (
        ((), EXPLICIT),
        ((Syntax.JPEG_2000, Syntax.JPEG_LS, Syntax.AS_IS), JPEG_LS),
        ((Syntax.HTJ2K, Syntax.RLE), RLE),
        ((Syntax.IMPLICIT, Syntax.EXPLICIT), IMPLICIT),
    ):
        with (
            a_receiver(taken, [sop_class_of(marked)]) as (port, received),
            Sending(to(port, *order), "NODE") as sending,
        ):
            sending.send(marked)
        syntax = dcmread(BytesIO(received[0])).file_meta.TransferSyntaxUID
        assert syntax == expected


def test_two_routes_at_once_do_not_share_their_copies(marked: Path) -> None:
    """The first is about to send its copy when the second makes one, and sends it."""
    sop_class = sop_class_of(marked)
    with (
        a_receiver([IMPLICIT], [sop_class]) as (port, received),
        Sending(to(port), "NODE") as first,
        Sending(to(port), "NODE") as second,
    ):
        first.send(marked, lambda _: second.send(marked))
    assert len(received) == 2
    assert received[0].endswith(received[1][-1000:])
    assert not [f for f in marked.parent.iterdir() if f != marked]


def test_a_receiver_of_lossy_jpeg_only_is_refused_with_a_sentence(marked: Path) -> None:
    lossy = [uid.JPEGBaseline8Bit, uid.JPEG2000, uid.JPEGLSNearLossless]
    with (
        a_receiver(lossy, [sop_class_of(marked)]) as (port, received),
        Sending(to(port), "NODE") as sending,
        pytest.raises(SendRefusedError, match="nor in a lossless syntax"),
    ):
        sending.send(marked)
    assert not received


def test_nothing_is_proposed_that_the_object_cannot_be_put_into(shared: Path) -> None:
    report = shared / "dicom/highdicom/data/test_files/sr_document.dcm"
    with a_receiver([JPEG_LS], [sop_class_of(report)]) as (port, received):
        for order, error in (((), SendRefusedError), ((Syntax.JPEG_LS,), UnaskedError)):
            with (
                Sending(to(port, *order), "NODE") as sending,
                pytest.raises(error, match="nor in a lossless syntax") as raised,
            ):
                sending.send(report)
            assert raised.type is error
    assert not received


LOSSY = "dicom/pylibjpeg-data/ljdata/ds/JPEGLS/CT1_JLSN.dcm"


@pytest.mark.parametrize("syntax", [RLE, J2K, IMPLICIT], ids=lambda u: u.keyword)
def test_what_came_lossy_is_sent_on_as_it_decodes(
    syntax: uid.UID, shared: Path, tmp_path: Path
) -> None:
    lossy = tmp_path / "lossy.dcm"
    dataset = dcmread(shared / LOSSY)
    dataset.LossyImageCompression = "01"
    dataset.save_as(lossy)
    with (
        a_receiver([syntax], [sop_class_of(lossy)]) as (port, received),
        Sending(to(port), "NODE") as sending,
    ):
        sending.send(lossy)
    got, expected = dcmread(BytesIO(received[0])), dcmread(lossy)
    np.testing.assert_array_equal(got.pixel_array, expected.pixel_array)
    assert got.LossyImageCompression == "01"
    for element in expected:
        if element.tag != PIXEL_DATA and not element.tag.is_private:
            assert got[element.tag].value == element.value


def test_what_came_lossy_leaves_as_it_came_where_it_is_taken(shared: Path) -> None:
    lossy = shared / LOSSY
    taken = [uid.JPEGLSNearLossless, EXPLICIT]
    with (
        a_receiver(taken, [sop_class_of(lossy)]) as (port, received),
        Sending(to(port), "NODE") as sending,
    ):
        sending.send(lossy)
    assert back_of(received[0]).file.dataset == opened(lossy).file.dataset


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize(
    ("option", "order", "syntax"),
    [
        ("+xe", (), EXPLICIT),
        ("+xi", (), IMPLICIT),
        ("+xt", (Syntax.JPEG_LS,), JPEG_LS),
        ("+xv", (Syntax.JPEG_2000,), J2K),
        ("+xr", (Syntax.RLE,), RLE),
        ("+xs", (Syntax.JPEG_LS, Syntax.RLE, Syntax.EXPLICIT), EXPLICIT),
        ("+xy", (Syntax.IMPLICIT,), IMPLICIT),
    ],
    ids=str,
)
def test_dcmtk_gets_what_restores(
    option: str,
    order: tuple[Syntax, ...],
    syntax: uid.UID,
    marked: Path,
    original: OpenInstance,
    keys: Sealer,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "received"
    with storescp(folder, option) as port:
        with Sending(to(port, *order), "NODE") as sending:
            sending.send(marked)
        (file,) = folder.iterdir()
        assert dcmread(file).file_meta.TransferSyntaxUID == syntax
        sent = strip(opened(file), keys.opening())
    expected = dcmread(BytesIO(original.file.to_bytes()))
    got = dcmread(BytesIO(sent.file.to_bytes()))
    np.testing.assert_array_equal(got.pixel_array, expected.pixel_array)
    assert {e.tag: e.value for e in got if e.tag != 0xFFFCFFFC} == {
        e.tag: e.value for e in expected if e.tag != 0xFFFCFFFC
    }

"""Receive, mark, send, strip, verify: the whole way of one object, on loopback."""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.demo.loopback import LOOPBACK, MARKING, STRIPPING, Loopback
from dicom_node.destination import Destination
from dicom_node.elements import PIXEL_DATA, Limits
from dicom_node.errors import NodeError
from dicom_node.instance import OpenInstance
from dicom_node.scu import Sending

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.mapped import Buffer


def selftest(doing: Callable[[str], None]) -> None:
    """Return once an object has gone the whole way and come back identical.

    Args:
        doing: Told what is done next.

    Raises:
        NodeError: It has not; the message says where it was lost.
    """
    source = resources.files("dicom_node.demo").joinpath("images", "ct.dcm")
    with (
        resources.as_file(source) as original,
        tempfile.TemporaryDirectory() as folder,
        Loopback(Path(folder), profile="fast") as loopback,
    ):
        doing("marking")
        send(loopback, [original], MARKING)
        loopback.await_sent(1)
        doing("stripping")
        send(loopback, loopback.received("research"), STRIPPING)
        loopback.await_sent(2)
        (marked,) = loopback.received("research")
        (restored,) = loopback.received("archive")
        if pixels(marked) == pixels(original):
            raise NodeError("the object arrived unmarked")
        if dataset(restored) != dataset(original):
            raise NodeError("the restored object is not the original")
        doing("compared")


def send(loopback: Loopback, paths: list[Path], called_ae_title: str) -> None:
    """Send files to the node, as a PACS would, over one association a kind."""
    node = Destination(
        name="the node",
        ae_title=called_ae_title,
        host=LOOPBACK,
        port=loopback.ports["node"],
    )
    with Sending(node, "PACS") as sending:
        for path in paths:
            sending.send(path)


def dataset(path: Path) -> Buffer:
    """Return the encoded data set in a file."""
    return OpenInstance.of(path.read_bytes(), Limits()).file.dataset


def pixels(path: Path) -> bytes:
    """Return the Pixel Data in a file."""
    return bytes(
        OpenInstance.of(path.read_bytes(), Limits()).elements.value_of(PIXEL_DATA)
    )

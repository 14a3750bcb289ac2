"""What people call the places that objects come from and go to.

::

    /archive/2019                      a folder
    s3://bucket/prefix                 a bucket: whatever fsspec speaks
    dicom://PACS@pacs.example:11112    a PACS, by its AE title and address
    https://pacs.example/dicom-web     a DICOMweb server
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from dicom_node.backfill.bucket import Bucket
from dicom_node.backfill.source import FolderSource
from dicom_node.backfill.target import FolderTarget
from dicom_node.destination import Destination, Kind
from dicom_node.errors import BackfillError

if TYPE_CHECKING:
    from dicom_node.backfill.source import Source
    from dicom_node.backfill.target import Target

_SOURCE = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a PACS or a web server is asked with."""

    calling: str = "MIADMARK"
    """AE title of whoever asks a PACS."""
    dates: str = ""
    """Of studies, as ``20190101-20191231``; empty for all."""
    ca: Path | None = None
    """Certificates that its own must be signed by, PEM. Without it a web server's must be
    one that the system trusts, and a PACS is called without TLS."""
    certificate: Path | None = None
    """What is shown to it, PEM."""
    key: Path | None = None
    token_file: Path | None = None
    """Holds a bearer token for a web server."""


def source_at(place: str, access: Access) -> Source:
    """Return the source at a place.

    Raises:
        NodeError: There is none, or it is not asked like that.
    """
    scheme = urlsplit(place).scheme if "://" in place else ""
    if scheme == "dicom":
        from dicom_node.backfill.pacs import PacsSource

        return PacsSource(_pacs(urlsplit(place), access), access.calling, access.dates)
    if scheme in {"http", "https"}:
        from dicom_node.backfill.dicomweb import DicomwebSource

        return DicomwebSource(_server(place, access), access.dates)
    if access.dates:
        raise BackfillError("--dates are for a PACS or a DICOMweb server")
    return Bucket(place) if scheme else FolderSource(Path(place))


def target_at(place: str) -> Target:
    """Return the target at a place: a folder, or a bucket.

    Raises:
        NodeError: It is neither.
    """
    if urlsplit(place).scheme in {"dicom", "http", "https"}:
        raise BackfillError(
            f"{place} is no folder and no bucket",
            hint="A node sends what it marks to a PACS, and asks again until it has it: "
            "see --node.",
        )
    return Bucket(place) if "://" in place else FolderTarget(Path(place))


def require_apart(source: str, target: str) -> None:
    """Return if neither of two places lies in the other.

    Args:
        source: Address of the one.
        target: Of the other.

    Raises:
        BackfillError: One does: originals and outputs would lie side by side.
    """
    one, other = (f"{address.rstrip('/')}/" for address in (source, target))
    if one.startswith(other) or other.startswith(one):
        raise BackfillError(
            f"{source} and {target} lie in one another",
            hint="Outputs would be read again, or overwrite originals. Choose another "
            "--out.",
        )


def _pacs(parts: SplitResult, access: Access) -> Destination:
    try:
        port = parts.port
    except ValueError:
        port = None
    if port is None or not parts.username or not parts.hostname or parts.password:
        raise BackfillError(
            f"{parts.geturl()!r} names no PACS",
            hint="As dicom://PACS@pacs.example:11112: AE title, host, port.",
        )
    return Destination(
        name=_SOURCE,
        ae_title=parts.username,
        host=parts.hostname,
        port=port,
        tls_ca=access.ca,
        certificate=access.certificate,
        key=access.key,
    )


def _server(url: str, access: Access) -> Destination:
    return Destination(
        name=_SOURCE,
        kind=Kind.STOW,
        url=url,
        ca=access.ca,
        certificate=access.certificate,
        key=access.key,
        token_file=access.token_file,
    )

"""What a sealed record is bound to, so that it opens for one object only.

The context names the object as it was sent: class, UID, geometry and the digest of the
marked pixels. It leaves out what archives rightly change: patient and study attributes,
windows, transfer syntax, and how values are packed (Bits Allocated, High Bit, Planar
Configuration), since the digest is over values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_node.pixel_layout import PixelLayout


def context(
    sop_class_uid: str,
    sop_instance_uid: str,
    layout: PixelLayout,
    marked_digest: bytes,
) -> bytes:
    """Return what :func:`miadmark_core.sealing.record.seal` binds a record to.

    Args:
        sop_class_uid: Of the object.
        sop_instance_uid: Of the object as marked.
        layout: Of the pixels.
        marked_digest: :meth:`miadmark_core.image.HostImage.digest` as marked.
    """
    lines = [
        "miadmark object 1",
        f"sop class {sop_class_uid}",
        f"sop instance {sop_instance_uid}",
        f"frames {layout.frames}",
        f"rows {layout.rows}",
        f"columns {layout.columns}",
        f"samples {layout.samples}",
        f"photometric {layout.photometric_interpretation}",
        f"bits stored {layout.bits_stored}",
        f"signed {int(layout.is_signed)}",
        f"pixels {marked_digest.hex()}",
    ]
    return "\n".join(lines).encode("utf-8")


def referring(sop_class_uid: str, sop_instance_uid: str, digest: bytes) -> bytes:
    """Return what the record of an object with changed references is bound to.

    Args:
        sop_class_uid: Of the object.
        sop_instance_uid: Of the object as it was sent.
        digest: :func:`dicom_node.references.digest` as it was sent.
    """
    lines = [
        "miadmark referring 1",
        f"sop class {sop_class_uid}",
        f"sop instance {sop_instance_uid}",
        f"references {digest.hex()}",
    ]
    return "\n".join(lines).encode("utf-8")

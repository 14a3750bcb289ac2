"""Whether what was written gives back what came, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.decompression import decompressed
from dicom_node.elements import Limits
from dicom_node.errors import BackfillError, NotAnImageError, NotMarkedError
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.mapped import are_equal, read

if TYPE_CHECKING:
    from pathlib import Path

    from dicom_node.decoding import Decode
    from dicom_node.opening import Opening


def require_restorable(
    output: Path, original: Path, *, opening: Opening, decode: Decode
) -> None:
    """Return if restoring ``output`` gives ``original``.

    That is its data set, byte for byte; of a compressed one, what that decodes to. What
    carries no mark has to be the same file.

    Args:
        output: As it was read back.
        original: As it came.
        opening: What opens records.
        decode: Calls the codecs.

    Raises:
        BackfillError: It does not.
        NodeError: The output cannot be read, or its record not be opened.
        MiadMarkError: The mark does not come off.
    """
    made = OpenInstance.read(output, Limits())
    try:
        restored = strip(made, opening, decode).file
    except (NotMarkedError, NotAnImageError):
        if not are_equal(read(output), read(original)):
            raise _other() from None
        return
    came = decompressed(OpenInstance.read(original, Limits()), decode).file
    is_same = (
        restored.transfer_syntax == came.transfer_syntax
        and restored.meta.MediaStorageSOPInstanceUID
        == came.meta.MediaStorageSOPInstanceUID
        and are_equal(restored.dataset, came.dataset)
    )
    if not is_same:
        raise _other()


def _other() -> BackfillError:
    return BackfillError(
        "what was read back does not restore to what came",
        hint="It was taken away again. If this comes again, the disk or this program is "
        "at fault: tell somebody.",
    )

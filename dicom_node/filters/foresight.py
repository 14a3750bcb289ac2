"""Which files of a batch will get new names that no rule gives: reports, mostly.

A report is renamed only where it refers to what is renamed, another report perhaps.
Whoever has all the files at hand, as the command line does, need not take them in the
right order: their references say beforehand who will be renamed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydicom.filereader import read_file_meta_info

from dicom_node import private_block
from dicom_node.elements import Limits
from dicom_node.errors import NodeError
from dicom_node.instance import OpenInstance
from dicom_node.references import Reader
from dicom_node.sop_classes import RENAMED

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dicom_node.elements import Elements
    from dicom_node.naming import Naming


def foreseen(paths: Iterable[Path], naming: Naming) -> dict[str, str]:
    """Return the new names of those among some files that will be renamed.

    Args:
        paths: Of any files; those that cannot be read are left out, and so are those
            that are renamed by rule.
        naming: How the site names what it sends.

    Returns:
        From SOP Instance UIDs to new ones.
    """
    open_ones = {path: opened for path in paths if (opened := _opened(path))}
    names: dict[str, str] = {}
    knowing = replace(naming, remembered=lambda u: names.get(u) or naming.remembered(u))
    is_changed = True
    while is_changed:
        is_changed = False
        for path, instance in list(open_ones.items()):
            identity = instance.identity()
            if _refers(instance.elements, knowing, identity.study_instance_uid):
                own = identity.sop_instance_uid
                names[own] = naming.derived(own)
                del open_ones[path]
                is_changed = True
    return names


def _refers(elements: Elements, naming: Naming, study: str) -> bool:
    try:
        return bool(naming.renaming(elements, study).instances)
    except NodeError:
        return False


def _opened(path: Path) -> OpenInstance | None:
    """Return what is in a file, if only what it refers to decides about its name."""
    try:
        meta = read_file_meta_info(path)
        if str(meta.get("MediaStorageSOPClassUID")) in RENAMED:
            return None
        instance = OpenInstance.of(path.read_bytes(), Limits())
        instance.identity()
        names_some = any(True for _ in Reader(instance.elements).found())
        is_done = private_block.find(instance.elements) is not None
    except Exception:  # noqa: BLE001 what is wrong with it is found when its turn comes
        return None
    return instance if names_some and not is_done else None

"""Whence the pictures of each set are, which images they stand for, and the licence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCard:
    """What the manifest says of a set of images."""

    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    data: str
    licence: str
    is_colour: bool = False


CARDS: Final[Mapping[str, SetCard]] = {
    "brain_mri": SetCard(
        modalities=("MR",),
        body_parts=("", "BRAIN", "HEAD", "SKULL"),
        data="Brain Tumor MRI (Nickparvar), one image per near-duplicate cluster",
        licence="CC0 according to its publisher, not verified",
    ),
    "chest_xray": SetCard(
        modalities=("CR", "DX", "RG"),
        body_parts=("", "CHEST", "THORAX", "LUNG"),
        data="Chest X-Ray Images (Kermany et al.), one image per near-duplicate cluster",
        licence="CC BY 4.0",
    ),
    "fundus": SetCard(
        modalities=("OP",),
        body_parts=("", "EYE", "RETINA"),
        data="IDRiD (Porwal et al.), one image per near-duplicate cluster",
        licence="CC BY 4.0",
        is_colour=True,
    ),
    "skin_dermoscopy": SetCard(
        modalities=("XC",),
        body_parts=("", "SKIN"),
        data="HAM10000 (Tschandl et al.), one image per lesion",
        licence="CC BY-NC 4.0: not for commercial use",
        is_colour=True,
    ),
}

UNKNOWN: Final = SetCard(
    modalities=(), body_parts=("",), data="trained at this site", licence="site"
)

"""Which routes an instance takes. Pure: what it matches on is an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dicom_node.config import Route
    from dicom_node.instance import Identity


def choose(
    routes: Iterable[Route], identity: Identity, *, calling: str, called: str
) -> list[Route]:
    """Return every route that matches, in the order of the configuration.

    Args:
        routes: All of them.
        identity: Of the instance.
        calling: AE title of whoever sent it: a claim, good for routing and no more.
        called: AE title that it was sent to.
    """
    return [
        route
        for route in routes
        if _matches(route.calling_ae_titles, calling)
        and _matches(route.called_ae_titles, called)
        and _matches(route.modalities, identity.modality)
        and _matches(route.sop_classes, identity.sop_class_uid)
    ]


def _matches(wanted: tuple[str, ...], value: str) -> bool:
    return not wanted or value in wanted

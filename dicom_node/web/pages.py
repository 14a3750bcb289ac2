"""All views of the page, and what browsers need beside them."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

from starlette.responses import Response as Bytes

from dicom_node.errors import NodeError
from dicom_node.web import door, jobs, overview, peers, roads, trust
from dicom_node.web.guarded import Guarded, application
from dicom_node.web.pictures import Pictures
from dicom_node.web.sample import Samples

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.responses import Response

    from dicom_node.web.site import Call, Site

_STATIC: Final = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}


def static(call: Call) -> Response:
    """Return one of a few files, by name."""
    name = str(call.request.path_params["name"])
    if name not in _STATIC:
        raise NodeError("nothing is here")
    content = resources.files("dicom_node.web").joinpath("static", name).read_bytes()
    headers = {"Cache-Control": "max-age=300"}
    return Bytes(content, media_type=_STATIC[name], headers=headers)


def page_of(site: Site) -> Starlette:
    """Return the page of a node, all views on it."""
    return application(
        site,
        (
            Guarded("GET", "/static/{name}", static, None),
            *door.VIEWS,
            *overview.VIEWS,
            *Pictures(Samples(site.clock)).views(),
            *jobs.VIEWS,
            *roads.VIEWS,
            *peers.VIEWS,
            *trust.VIEWS,
        ),
    )

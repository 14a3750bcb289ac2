"""A measured relay as a picture: an SVG with a bar for each thing that was measured."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dicom_node.demo.bench_relay import Compared

_WIDTH: Final = 720
_LEFT: Final = 200
_ROW: Final = 56
_TOP: Final = 56
_ROOM: Final = 130
"""Right of the longest bar, for its figures."""

_HEAD: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
 width="{width}" height="{height}" font-family="sans-serif" font-size="13">
<rect width="{width}" height="{height}" fill="#fff"/>
<text x="12" y="24" font-size="16">Objects a second, in and out, each on the disk before
it is acknowledged</text>
<text x="12" y="42" fill="#2a6f97">this node</text>
<text x="90" y="42" fill="#777">Orthanc, unmarked</text>"""


def picture(compared: Sequence[Compared], settings: Sequence[str]) -> str:
    """Return an SVG: objects a second, ours above Orthanc's, and the ratio.

    Args:
        compared: What was measured; at least one.
        settings: With what, a line each.
    """
    most = max(max(one.ours, one.theirs) for one in compared)
    scale = (_WIDTH - _LEFT - _ROOM) / most
    notes = _TOP + _ROW * len(compared) + 24
    height = notes + 16 * len(settings) + 8
    parts = [_HEAD.format(width=_WIDTH, height=height)]
    for row, one in enumerate(compared):
        y = _TOP + _ROW * row
        parts.append(f'<text x="12" y="{y + 26}">{escape(one.what)}</text>')
        for offset, rate, colour, more in (
            (4, one.ours, "#2a6f97", f", {one.ratio:.2f} times"),
            (26, one.theirs, "#bbb", ""),
        ):
            length = rate * scale
            parts.append(
                f'<rect x="{_LEFT}" y="{y + offset}" width="{length:.1f}" height="18" '
                f'fill="{colour}"/><text x="{_LEFT + length + 6:.1f}" '
                f'y="{y + offset + 14}">{rate:.1f}{more}</text>'
            )
    for number, line in enumerate(settings):
        parts.append(
            f'<text x="12" y="{notes + 16 * number}" font-size="10" fill="#555">'
            f"{escape(line)}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])

"""The demonstration's page: one HTML file, pictures inside, no script."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dicom_node.demo.story import Shown, Story

AMPLIFIED: Final = 8
"""The difference is shown this many times as strong, around middle grey."""

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>MIAD-MARK demonstration</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }}
section {{ margin: 2.5rem 0; }}
.pictures {{ display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); }}
figure {{ margin: 0; }}
img {{ width: 100%; image-rendering: pixelated; background: #000; }}
figcaption {{ font-size: .9rem; }}
table {{ border-collapse: collapse; margin: .5rem 0 1rem; }}
td, th {{ padding: .2rem .8rem .2rem 0; text-align: left; }}
.changed {{ font-weight: 700; }}
</style>
<h1>What leaves, what an AI says of it, and who gets it back</h1>
<p>Every object below went through a node on this machine: marked, to a research archive
without rights; and back through the node to an authorised archive, where it arrived as
the original. Marked images are not for primary diagnosis.</p>
{sections}
</html>
"""


def write_page(path: Path, stories: Sequence[Story]) -> None:
    """Write the page to ``path``."""
    sections = "\n".join(_section(story) for story in stories)
    path.write_text(_PAGE.format(sections=sections), "utf-8")


def _section(story: Story) -> str:
    title = f"<h2>{html.escape(story.name)} ({html.escape(story.modality)})</h2>"
    identical = "identical bit for bit" if story.is_identical else "NOT identical"
    if story.original is None or story.marked is None or story.restored is None:
        return (
            f"<section>{title}<p>No picture in it, so no mark: it was sent on, and names "
            f"the marked images; restored: {identical}.</p></section>"
        )
    difference = np.clip(0.5 + AMPLIFIED * (story.marked - story.original), 0, 1)
    pictures = [
        ("original", story.original),
        (f"marked, {story.psnr_db:.1f} dB, SSIM {story.ssim:.3f}", story.marked),
        (f"difference x{AMPLIFIED}", difference),
        (f"restored: {identical}", story.restored),
    ]
    figures = "".join(
        f'<figure><img alt="{caption}" src="{_source(shown)}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for caption, shown in pictures
    )
    pictures_of_it = f'<div class="pictures">{figures}</div>'
    return f"<section>{title}{_table(story)}{pictures_of_it}</section>"


def _table(story: Story) -> str:
    if not story.answers:
        return "<p>No classifier for this modality is shipped.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{html.escape(before)}"
        f'<td class="{"changed" if before != after else ""}">{html.escape(after)}'
        for name, (before, after) in story.answers.items()
    )
    return f"<table><tr><th>classifier<th>original<th>marked{rows}</table>"


def _source(shown: Shown) -> str:
    pixels = np.rint(shown * 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((512, 512))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

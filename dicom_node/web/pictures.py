"""Before and after: an object as it came, as it leaves, and what lies between.

What carries no mark is shown to who may see originals, and so is the difference, which
gives the original away. Of samples of nobody everybody sees everything. Each page that
shows a patient's picture is in the audit before it is sent, with who asked for it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode

from starlette.responses import Response as Bytes

from dicom_node import private_block
from dicom_node.audit import Event
from dicom_node.codec_process import CodecProcess
from dicom_node.elements import Limits
from dicom_node.errors import ConfigError, NodeError, NotGrantedError
from dicom_node.instance import OpenInstance
from dicom_node.judging import answers
from dicom_node.web.guarded import Guarded
from dicom_node.web.jobs import sought
from dicom_node.web.rights import Right
from dicom_node.web.sample import NAMES, Samples
from dicom_node.web.shown import AMPLIFIED, Viewed, Window, difference, png, viewed
from dicom_node.web.turns import Turns

if TYPE_CHECKING:
    from starlette.responses import Response

    from dicom_node.queue.history import Seen
    from dicom_node.sealed_file import Stored
    from dicom_node.web.shown import Shown
    from dicom_node.web.site import Call

_WHICH: Final = ("original", "marked", "difference")
LARGEST: Final = 1 << 28
"""Bytes of an object that is looked at here."""
_WAITING: Final = 12
"""Pictures that are asked for while one is made; a page asks for three at once."""


class Pair(NamedTuple):
    """An object as it came and as it leaves; None for what is not to be had or seen."""

    original: OpenInstance | None
    marked: OpenInstance | None
    why: str = ""
    """Why something is missing."""


class Pictures:
    """The views; with samples that are marked once."""

    def __init__(self, samples: Samples) -> None:
        """Keep the samples."""
        self._samples = samples
        self._turns = Turns(_WAITING)

    def of_job(self, call: Call) -> Response:
        """Show the pictures of a job."""
        seen = sought(call)
        with self._turns.one():
            pair = _pair(call, seen)
            _note(call, seen, "pictures", pair)
            return _page(call, pair, f"Job {seen.id}", f"/jobs/{seen.id}")

    def job_png(self, call: Call) -> Response:
        """Return one picture of a job."""
        seen = sought(call)
        which = _which(call)
        with self._turns.one():
            pair = _pair(call, seen)
            _note(call, seen, f"picture: {which}", pair)
            return _png(call, pair, which)

    def of_sample(self, call: Call) -> Response:
        """Show the pictures of a sample."""
        name = str(call.request.path_params["name"])
        title = f"Sample {name}"
        try:
            pair = Pair(self._samples.original(name), self._samples.marked(name))
        except ConfigError as error:
            pair = Pair(self._samples.original(name), None, str(error))
        with self._turns.one():
            return _page(call, pair, title, f"/samples/{name}")

    def sample_png(self, call: Call) -> Response:
        """Return one picture of a sample."""
        name, which = str(call.request.path_params["name"]), _which(call)
        original = self._samples.original(name)
        marked = None if which == "original" else self._samples.marked(name)
        with self._turns.one():
            return _png(call, Pair(original, marked), which)

    def samples(self, call: Call) -> Response:
        """Show which samples there are."""
        return call.page("samples.html", names=NAMES)

    def views(self) -> tuple[Guarded, ...]:
        """Return them."""
        return (
            Guarded("GET", "/jobs/{number}/pictures", self.of_job, Right.LOOK),
            Guarded("GET", "/jobs/{number}/{which}.png", self.job_png, Right.LOOK),
            Guarded("GET", "/samples", self.samples, Right.LOOK),
            Guarded("GET", "/samples/{name}", self.of_sample, Right.LOOK),
            Guarded("GET", "/samples/{name}/{which}.png", self.sample_png, Right.LOOK),
        )


def _which(call: Call) -> str:
    which = str(call.request.path_params["which"])
    if which not in _WHICH:
        raise NodeError("there is no such picture")
    return which


def _pair(call: Call, seen: Seen) -> Pair:
    """Return what is there of a job, and may be seen.

    Which is which is told by the objects: what carries no record of a mark is taken for
    an original, whatever a route says.
    """
    found: dict[bool, OpenInstance] = {}
    spool = call.site.state.spool(call.site.keyring.spool)
    for name in (seen.file, seen.filtered):
        if name is None:
            continue
        file = spool.file(name)
        if _size(file) > LARGEST:
            raise NodeError("the object is too large to be looked at here")
        if not spool.holds(name):
            continue
        instance = OpenInstance.read(file, Limits())
        found[private_block.find(instance.elements) is not None] = instance
    why = ""
    if not found:
        why = "Its files are gone: they are deleted once nobody is owed them."
    elif True not in found:
        why = "There is no marked object: it has not been made, or is not to be."
    if not call.may(Right.ORIGINALS) and found.pop(False, None) is not None:
        why = "You do not have the right to see originals."
    return Pair(found.get(False), found.get(True), why)


def _size(file: Stored) -> int:
    """Return how large a file of the spool is, before it is read; 0 if it is gone."""
    try:
        return file.stat().st_size if isinstance(file, Path) else file.size
    except FileNotFoundError:
        return 0


def _note(call: Call, seen: Seen, what: str, pair: Pair) -> None:
    """Write down who is about to see what of a patient."""
    call.write_down(
        Event.VIEWED,
        what,
        job=seen.id,
        study=seen.study_instance_uid,
        instance=seen.sop_instance_uid,
        original="yes" if pair.original is not None else "no",
    )


def _page(call: Call, pair: Pair, title: str, path: str) -> Response:
    values: dict[str, Any] = {
        "title": title,
        "base": path,
        "why": pair.why,
        "frames": 0,
        "amplified": AMPLIFIED,
        "shown": [],
        "figures": None,
        "answers": [],
        "is_asked": False,
        "unasked": "",
    }
    present = pair.original or pair.marked
    if present is None:
        return call.page("pictures.html", **values)
    with CodecProcess() as decode:
        opened = {
            name: viewed(one, decode)
            for name, one in (("original", pair.original), ("marked", pair.marked))
            if one is not None
        }
    first = next(iter(opened.values()))
    frame, window = _controls(call, first)
    query = urlencode(
        {"frame": frame + 1, "c": f"{window.center:g}", "w": f"{window.width:g}"}
    )
    # Compared through the window that the object opens with, which limits a mark.
    own = [one.shown(frame, first.window(frame)) for one in opened.values()]
    values |= {
        "frames": first.frames,
        "frame": frame + 1,
        "window": window,
        "query": query,
        "names": list(opened),
        "shown": [*opened, *(["difference"] if len(own) == 2 else [])],
    }
    if len(own) == 2:
        values["figures"] = _figures(*own)
    if call.asked("ask") == "yes":
        _ask(values, present, own)
    return call.page("pictures.html", **values)


def _ask(values: dict[str, Any], present: OpenInstance, shown: list[Shown]) -> None:
    """Ask classifiers, of what a viewer opens with."""
    values["is_asked"] = True
    try:
        values["answers"] = answers(present.identity(), shown)
    except ConfigError as error:
        values["unasked"] = str(error)


def _png(call: Call, pair: Pair, which: str) -> Response:
    wanted = {
        "original": (pair.original,),
        "marked": (pair.marked,),
        "difference": (pair.original, pair.marked),
    }[which]
    if None in wanted:
        raise NotGrantedError(pair.why or "there is no such picture")
    with CodecProcess() as decode:
        opened = [viewed(one, decode) for one in wanted if one is not None]
    frame, window = _controls(call, opened[0])
    both = [one.shown(frame, window) for one in opened]
    picture = difference(*both) if which == "difference" else both[0]
    return Bytes(png(picture), media_type="image/png")


def _controls(call: Call, one: Viewed) -> tuple[int, Window]:
    """Return which frame is asked for, and through which window."""
    frame = min(max(int(call.number("frame", 1)), 1), one.frames) - 1
    own = one.window(frame)
    width = call.number("w", own.width)
    return frame, Window(
        call.number("c", own.center), width if width > 0 else own.width
    )


def _figures(original: Shown, marked: Shown) -> tuple[str, str]:
    """Return PSNR and SSIM, in words; empty where nothing here can tell."""
    try:
        from miadmark_core.metrics import psnr_db, ssim
    except ModuleNotFoundError:
        return "", ""
    ratio = psnr_db(original, marked)
    said = "no difference" if math.isinf(ratio) else f"{ratio:.1f} dB"
    return said, f"{ssim(original, marked):.4f}"

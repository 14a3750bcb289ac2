"""Decode in a process of its own, so that what a codec does to itself stays there.

A codec that crashes, hangs or wants all memory is an error of one object: the next is
decoded as if nothing had happened. What is lent to each request grows with what it
decodes to, never with what its bytes claim.

Frames go over in anonymous files in memory, and what comes back is copied out of them:
the other process is not trusted, neither with what it says nor with what it holds. Linux
only, as the node is. How the other side gives up its rights is said in
:mod:`dicom_node.codec_child`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from pydicom import uid

from dicom_node.decoding import CodedImage, DecodedFrames
from dicom_node.errors import (
    CodecCrashError,
    CodecProcessError,
    MalformedObjectError,
    UnsupportedPixelDataError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

MOST_REQUESTS: Final = 10_000
"""After which the process is replaced. Its copies do the work, so nothing wears out in
it; this is for what nobody has thought of."""

_START_S: Final = 60.0
_MIB: Final = 1 << 20

_ERRORS: Final = {
    error.__name__: error
    for error in (CodecCrashError, MalformedObjectError, UnsupportedPixelDataError)
}
_ENDS: Final = {
    signal.SIGPROF: "took too long",
    signal.SIGXCPU: "took too long",
    signal.SIGALRM: "took too long",
    signal.SIGSEGV: "crashed",
    signal.SIGBUS: "crashed",
    signal.SIGABRT: "crashed",
    signal.SIGFPE: "crashed",
    signal.SIGILL: "crashed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one request may use, as its decoded size allows."""

    least_cpu_s: float = 1.0
    cpu_s_per_mib: float = 1.0
    """Of decoded pixels: the slowest codec does 5 MiB in a second on a slow machine."""
    least_wall_s: float = 20.0
    """On top of four times the computing time: others may want the machine too."""
    grace_s: float = 5.0
    """After which the whole process is ended, where its copy does not end itself."""
    least_memory: int = 128 * _MIB
    memory_per_byte: int = 24
    """Of one decoded frame: JPEG 2000 takes 14 for each byte of an 8-bit picture."""
    most_memory: int = 4096 * _MIB
    """A frame of more than 150 MiB may not be decoded with that."""

    def of(self, image: CodedImage, frames: int) -> dict[str, Any]:
        """Return it for some frames, as the other side reads it."""
        size = image.frame_size * frames
        cpu_s = self.least_cpu_s + self.cpu_s_per_mib * size / _MIB
        return {
            "cpu_s": cpu_s,
            "wall_s": self.least_wall_s + 4 * cpu_s,
            "memory": min(
                self.least_memory + self.memory_per_byte * image.frame_size + 3 * size,
                self.most_memory,
            ),
            "output": size,
        }


class CodecProcess:
    """Decodes as :func:`dicom_node.decoding.decode_frames` does, elsewhere.

    The process is started by the first request. Close it, or use it in a ``with``; it
    also ends with the thread that started it.
    """

    def __init__(
        self, allowance: Allowance | None = None, *, most_requests: int = MOST_REQUESTS
    ) -> None:
        """Keep what a request may use, and how many of them one process serves."""
        self._allowance = allowance or Allowance()
        self._most_requests = most_requests
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._served = 0
        self.peak_memory = 0
        """Bytes that the hungriest request has taken, the libraries included."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __call__(self, image: CodedImage, frames: Sequence[bytes]) -> DecodedFrames:
        """Return frames decoded.

        Raises:
            CodecCrashError: The codec crashed, took too long or wanted too much memory.
            MalformedObjectError: A frame does not decode, or not to the image it is of.
            UnsupportedPixelDataError: The codec is not installed.
            CodecProcessError: The process cannot be started; the object is not at fault.
        """
        allowed = self._allowance.of(image, len(frames))
        request = {"image": asdict(image), "frames": len(frames), **allowed}
        with self._lock, ExitStack() as stack:
            coded, words = (_file(stack, name) for name in ("coded", "words"))
            sizes = np.array([len(frame) for frame in frames], "<u8").tobytes()
            for part in (sizes, *frames):
                _write(coded, part)
            try:
                answer = self._asked(request, [coded, words], allowed["wall_s"])
            except BaseException:
                self._stop()  # whatever it was, an answer may still be under way
                raise
            photometric = _photometric(image, answer)
            return DecodedFrames(_words(words, image, len(frames)), photometric)

    def close(self) -> None:
        """End the process; another call starts another one."""
        with self._lock:
            self._stop()

    def _asked(
        self, request: dict[str, Any], files: list[int], wall_s: float
    ) -> dict[str, Any]:
        """Return what the process says of a request."""
        message = json.dumps(request).encode()
        control = self._running()
        try:
            socket.send_fds(control, [message], files)
        except OSError:
            self._stop()  # it died while nobody asked anything of it: try with another
            control = self._running()
            socket.send_fds(control, [message], files)
        control.settimeout(wall_s + self._allowance.grace_s)
        try:
            said = control.recv(65536)
        except TimeoutError:
            raise _crash("took too long") from None
        if not said:
            raise _crash("took its process with it")
        self._served += 1
        told: dict[str, Any] = json.loads(said)
        self.peak_memory = max(self.peak_memory, told["memory"])
        if told["signal"]:
            number = told["signal"]
            logger.warning("codec ended signal=%d", number)
            raise _crash(_ENDS.get(number, f"was ended by signal {number}"))
        try:
            answer = json.loads(told["answer"])
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise _crash("ended without an answer")
        return answer

    def _running(self) -> socket.socket:
        """Return the way to a process that runs; another one if it has served enough."""
        if self._served >= self._most_requests:
            self._stop()
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._start()
        assert self._control is not None
        return self._control

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-m", "dicom_node.codec_child"]
        package = Path(__file__).parent.parent
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 ours, with two numbers
                [*command, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Nothing of ours, such as a token's PIN. One thread: it is going to fork.
                env={"PYTHONPATH": str(package), "OPENBLAS_NUM_THREADS": "1"},
                cwd="/",
                process_group=0,  # so that its copies can be ended with it
            )
        self._control, self._served = ours, 0
        ours.settimeout(_START_S)
        try:
            is_ready = bool(ours.recv(65536))
        except OSError:
            is_ready = False
        if not is_ready:
            self._stop()
            raise CodecProcessError(
                "the process that decodes compressed images does not start",
                hint="Memory or processes may have run out. To see what it says: "
                "python -m dicom_node.codec_child",
            )

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            if self._process.poll() is None:
                # Its copies too, should one hang before it is bound to end with it.
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def _crash(how: str) -> CodecCrashError:
    return CodecCrashError(
        f"the codec of the pixel data {how}",
        hint="It was stopped, and only this object is held. Ask its sender for the "
        "object uncompressed, and keep this one from other viewers.",
    )


def _photometric(image: CodedImage, answer: dict[str, Any]) -> str:
    """Return what the codec says that the words are, if it says anything sensible.

    Raises:
        FilterError: It could not decode.
    """
    if "failed" in answer:
        name = str(answer["failed"])
        if name == "MemoryError":
            raise _crash("wanted more memory than its image takes")
        kind = _ERRORS.get(name, MalformedObjectError)
        with suppress(TypeError, ValueError):
            sentence, hint = (_plain(part) for part in answer.get("says") or ())
            raise kind(sentence, hint=hint)
        raise _crash("failed unexpectedly")
    told = str(answer.get("photometric_interpretation"))
    if told not in {image.photometric_interpretation, "RGB"}:
        raise MalformedObjectError(
            f"{uid.UID(image.transfer_syntax).name} decodes to another kind of picture"
        )
    return told


def _plain(text: object) -> str:
    """Return what can stand in a log, whoever wrote it."""
    return "".join(letter for letter in str(text)[:500] if letter.isprintable())


def _file(stack: ExitStack, name: str) -> int:
    """Return an anonymous file in memory, closed with the stack."""
    file = os.memfd_create(name)
    stack.callback(os.close, file)
    return file


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def _words(file: int, image: CodedImage, frames: int) -> np.ndarray[Any, Any]:
    """Return the words in a file, copied: its other holder might still change it."""
    words = np.empty(image.shape(frames), image.word)
    view = words.data.cast("B")
    position = 0
    while position < len(view):
        count = os.preadv(file, [view[position:]], position)
        if count == 0:
            raise _crash("left its output unfinished")
        position += count
    return words

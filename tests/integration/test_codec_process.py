"""A codec may do what it likes to its process: the next object is decoded all the same.

Nothing is simulated: the process that decodes is real, and is stopped, killed, starved
and flooded while it does.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from pydicom import dcmread, uid

from dicom_node.codec_process import Allowance, CodecProcess, _photometric
from dicom_node.decoding import CodedImage, decode_frames
from dicom_node.decompression import coded_pixels, decompressed
from dicom_node.elements import Limits
from dicom_node.errors import CodecCrashError, MalformedObjectError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.part10 import Part10
from tests.conftest import NOW
from tests.integration.test_conformance import by_hand

T = TypeVar("T")
Coded = tuple[CodedImage, bytes]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="left out: processes are Linux's here"
)

AT_MOST_S = 20.0
LONG = 200
"""Frames that take a second, more or less."""
MIB = 1 << 20


def compressed(path: Path, syntax: uid.UID) -> OpenInstance:
    dataset = dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False)
    file = Part10.from_bytes(path.read_bytes())
    encoding = file.encoding._replace(is_implicit_vr=False)
    changed = file.changed(
        encoding.encode(dataset), str(dataset.SOPInstanceUID), syntax
    )
    return OpenInstance.of(changed.to_bytes(), Limits())


@pytest.fixture(scope="module")
def j2k(images: Path) -> OpenInstance:
    return compressed(images / "ct.dcm", uid.JPEG2000Lossless)


@pytest.fixture(scope="module")
def coded(j2k: OpenInstance) -> Coded:
    pixels = coded_pixels(j2k)
    return pixels.image, pixels.frames[0]


@pytest.fixture
def codecs() -> Iterator[CodecProcess]:
    with CodecProcess() as process:
        yield process


def children(pid: int) -> list[int]:
    listed: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            listed += map(int, (task / "children").read_text().split())
    return listed


def soon(what: Callable[[], T]) -> T:
    """Return what comes true in a moment."""
    until = time.monotonic() + AT_MOST_S
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.005)
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def its_copy(process: CodecProcess) -> int:
    """Return the process that decodes just now."""
    return soon(
        lambda: children(process._process.pid) if process._process is not None else []
    )[0]


def in_the_middle(
    process: CodecProcess, coded: Coded, then: Callable[[int], None]
) -> None:
    """Let it decode for a second or more, and meanwhile do something to its copy."""
    image, frame = coded
    with ThreadPoolExecutor(1) as pool:
        # Started here: it ends with the thread that started it.
        process(image, [frame])
        decoding = pool.submit(process, image, [frame] * LONG)
        then(its_copy(process))
        decoding.result(AT_MOST_S)


@pytest.mark.parametrize(
    "syntax",
    [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless],
    ids=lambda syntax: syntax.keyword,
)
@pytest.mark.parametrize("name", ["ct.dcm", "chest-xray-normal.dcm"])
def test_it_decodes_what_is_decoded_here(
    images: Path, codecs: CodecProcess, syntax: uid.UID, name: str
) -> None:
    instance = compressed(images / name, syntax)
    here = decompressed(instance)
    assert decompressed(instance, codecs).file.dataset == here.file.dataset
    original = dcmread(images / name).pixel_array
    pixels = coded_pixels(instance)
    words, _ = pixels.decoded([0], codecs)
    np.testing.assert_array_equal(words.reshape(original.shape), original)


def test_frames_can_be_asked_for_one_by_one_and_in_any_order(
    shared: Path, codecs: CodecProcess
) -> None:
    path = shared / "dicom/pydicom-data/data_store/data/emri_small_jpeg_2k_lossless.dcm"
    pixels = coded_pixels(OpenInstance.of(path.read_bytes(), Limits()))
    whole = pixels.decoded(range(10), codecs).words
    for numbers in ([3], [7, 2], [9]):
        words = pixels.decoded(numbers, codecs).words
        np.testing.assert_array_equal(words, whole[numbers])


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_is_an_error_of_one_object(
    codecs: CodecProcess, coded: Coded, number: signal.Signals
) -> None:
    with pytest.raises(CodecCrashError) as caught:
        in_the_middle(codecs, coded, lambda copy: os.kill(copy, number))
    assert "only this object is held" in caught.value.hint
    image, frame = coded
    expected = decode_frames(image, [frame]).words
    np.testing.assert_array_equal(codecs(image, [frame]).words, expected)


def test_a_real_file_that_crashes_a_codec_is_an_error_of_one_object(
    images: Path, codecs: CodecProcess
) -> None:
    """RLE with more rows in it than its object has: pylibjpeg-rle 2.2 panics, which no
    ``except Exception`` catches. It ended the worker of a node."""
    pixels = coded_pixels(compressed(images / "ct.dcm", uid.RLELossless))
    fewer = replace(pixels.image, rows=7)
    for decode in (codecs, decode_frames):
        with pytest.raises(CodecCrashError, match="in a panic"):
            decode(fewer, pixels.frames)
        assert decode(pixels.image, pixels.frames).words.any()


def test_a_death_of_the_whole_process_is_one_too(
    codecs: CodecProcess, coded: Coded
) -> None:
    def kill(_: int) -> None:
        assert codecs._process is not None
        codecs._process.kill()

    with pytest.raises(CodecCrashError, match="took its process with it"):
        in_the_middle(codecs, coded, kill)
    assert codecs(coded[0], [coded[1]]).words.any()


def test_a_service_that_is_stopped_gets_its_answer_first(
    codecs: CodecProcess, coded: Coded
) -> None:
    """A service manager tells all processes at once, and people press Ctrl-C."""

    def stop(copy: int) -> None:
        assert codecs._process is not None
        for pid in (codecs._process.pid, copy):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)

    in_the_middle(codecs, coded, stop)


HOSTILE = [
    {"failed": "MalformedObjectError", "says": ["a\nb\x1b[31m" + "x" * 4000, "c"]},
    {"failed": ["MalformedObjectError"]},
    {"failed": "SystemExit", "says": 7},
    {"failed": "CodecCrashError", "says": {"a": 1, "b": 2}},
    {"photometric_interpretation": ["RGB"]},
    {"photometric_interpretation": "../../etc/x"},
    {},
]


@pytest.mark.parametrize("answer", HOSTILE)
def test_a_codec_that_was_taken_over_can_say_what_it_likes(
    coded: Coded, answer: dict[str, object]
) -> None:
    with pytest.raises(MalformedObjectError) as caught:
        _photometric(coded[0], answer)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 500


def test_a_process_that_dies_between_two_objects_costs_neither(
    codecs: CodecProcess, coded: Coded
) -> None:
    image, frame = coded
    codecs(image, [frame])
    process = codecs._process
    assert process is not None
    process.kill()
    process.wait()
    assert codecs(image, [frame]).words.any()


def test_what_computes_too_long_is_ended(coded: Coded) -> None:
    image, frame = coded
    hurried = Allowance(least_cpu_s=0.05, cpu_s_per_mib=0)
    with CodecProcess(hurried) as codecs:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        with pytest.raises(CodecCrashError, match="took too long"):
            codecs(image, [frame] * 300)
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2
        assert codecs(image, [frame]).words.any()


def test_what_hangs_without_computing_is_ended(coded: Coded) -> None:
    allowed = Allowance(least_wall_s=0.5, grace_s=0.5, cpu_s_per_mib=0.05)
    stopped: list[int] = []

    def stop(copy: int) -> None:
        os.kill(copy, signal.SIGSTOP)
        stopped.append(copy)

    with CodecProcess(allowed) as codecs:
        with pytest.raises(CodecCrashError, match="took too long"):
            in_the_middle(codecs, coded, stop)
        soon(lambda: not is_running(stopped[0]))
        assert codecs(coded[0], [coded[1]]).words.any()


def test_a_bomb_gets_no_more_memory_than_its_image_takes(
    codecs: CodecProcess, coded: Coded
) -> None:
    """A real codestream that says it is 30,000 by 30,000: 3.6 GB for the codec."""
    image, frame = coded
    assert frame.startswith(b"\xff\x4f\xff\x51")
    side = struct.pack(">II", 30_000, 30_000)
    bomb = frame[:8] + side + frame[16:24] + side + frame[32:]
    highest = 0

    def watched() -> None:
        nonlocal highest
        copy = its_copy(codecs)
        with suppress(OSError, IndexError):
            while True:
                status = Path(f"/proc/{copy}/status").read_text()
                peak = status.split("VmHWM:")[1].split()[0]
                highest = max(highest, int(peak) * 1024)

    codecs(image, [frame])
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watched)
        with pytest.raises(MalformedObjectError):
            codecs(image, [frame] * 20 + [bomb])
        watching.result(AT_MOST_S)
    assert 0 < highest < 512 * MIB
    assert codecs(image, [frame]).words.any()


def test_without_memory_there_is_an_error_and_then_another_object(
    coded: Coded,
) -> None:
    image, frame = coded
    with CodecProcess(Allowance(least_memory=1 << 16, memory_per_byte=0)) as codecs:
        with pytest.raises(MalformedObjectError):
            codecs(image, [frame])
        with pytest.raises(MalformedObjectError):
            codecs(image, [frame])


def test_what_does_not_decode_is_no_crash(codecs: CodecProcess, coded: Coded) -> None:
    image, frame = coded
    codecs(image, [frame])
    process = codecs._process
    with pytest.raises(MalformedObjectError) as caught:
        codecs(image, [frame[: len(frame) // 50]])
    assert not isinstance(caught.value, CodecCrashError)
    assert "cannot be decoded" in str(caught.value)
    assert codecs._process is process
    assert codecs(image, [frame]).words.any()


def test_it_may_do_little(codecs: CodecProcess, coded: Coded) -> None:
    seen: dict[str, str] = {}

    def look(copy: int) -> None:
        def limited() -> bool:
            limits = Path(f"/proc/{copy}/limits").read_text()
            seen["limits"] = limits
            return "Max core file size        0                    0" in limits

        soon(limited)
        for name in ("status", "environ", "net/dev"):
            seen[name] = Path(f"/proc/{copy}/{name}").read_text()

    os.environ["A_SECRET"] = "1234"  # noqa: S105 so that it can be missed
    try:
        in_the_middle(codecs, coded, look)
    finally:
        del os.environ["A_SECRET"]
    assert "NoNewPrivs:\t1" in seen["status"]
    assert "CapEff:\t0000000000000000" in seen["status"]
    assert "A_SECRET" not in seen["environ"]
    limits = {
        line[:26].strip(): line[26:].split() for line in seen["limits"].splitlines()
    }
    size = LONG * coded[0].frame_size
    assert limits["Max file size"][:2] == [str(size), str(size)]
    assert int(limits["Max address space"][1]) < 512 * MIB + 4 * size
    assert int(limits["Max cpu time"][1]) <= 3 + size / MIB
    allowed = subprocess.run(["unshare", "--net", "true"], check=False)
    if allowed.returncode == 0:  # a container may forbid it
        interfaces = [line.split(":")[0] for line in seen["net/dev"].splitlines()[2:]]
        assert [name.strip() for name in interfaces] in ([], ["lo"])


def test_it_is_replaced_in_time_and_leaves_nothing(coded: Coded) -> None:
    image, frame = coded
    before = open_files(), children(os.getpid())
    pids = []
    with CodecProcess(most_requests=2) as codecs:
        for _ in range(5):
            codecs(image, [frame])
            assert codecs._process is not None
            pids.append(codecs._process.pid)
            with pytest.raises(MalformedObjectError):
                codecs(image, [b"\xff\x4f\xff\x51" + bytes(100)])
    assert len(set(pids)) == 5
    assert (open_files(), children(os.getpid())) == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


ASKS_AND_WAITS = """
import sys
from pathlib import Path
from dicom_node.codec_process import CodecProcess
from dicom_node.decompression import coded_pixels
from dicom_node.elements import Limits
from dicom_node.instance import OpenInstance
pixels = coded_pixels(OpenInstance.of(Path(sys.argv[1]).read_bytes(), Limits()))
process = CodecProcess()
process(pixels.image, pixels.frames)
print(process._process.pid, flush=True)
process(pixels.image, pixels.frames * 300)
"""


def test_it_ends_with_who_asked(j2k: OpenInstance, tmp_path: Path) -> None:
    path = tmp_path / "j2k.dcm"
    path.write_bytes(j2k.file.to_bytes())
    with subprocess.Popen(
        [sys.executable, "-c", ASKS_AND_WAITS, path], stdout=subprocess.PIPE
    ) as asker:
        assert asker.stdout is not None
        pid = int(asker.stdout.readline())
        copy = soon(lambda: children(pid))[0]
        asker.kill()
        asker.wait()
        for gone in (pid, copy):
            soon(lambda gone=gone: not is_running(gone))  # type: ignore[misc]


def is_running(pid: int) -> bool:
    """Whoever inherits orphans here may not bury them, so a zombie counts as gone."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_one_object_that_crashes_a_codec_does_not_stop_the_others(
    j2k: OpenInstance, images: Path, keys: Sealer
) -> None:
    other = OpenInstance.of((images / "chest-xray-normal.dcm").read_bytes(), Limits())
    hurried = Allowance(least_cpu_s=1e-4, cpu_s_per_mib=0, least_wall_s=1e-4)
    with CodecProcess(hurried) as codecs:
        first, second = mark(
            [j2k, other],
            find=by_hand,
            keys=keys,
            now=NOW,
            holds_weak=False,
            decode=codecs,
        )
        assert isinstance(first, CodecCrashError)
        assert isinstance(second, MarkedInstance)
        # Not "without a mark", which a node would pass on as it is.
        with pytest.raises(CodecCrashError):
            strip(j2k, keys.opening(), codecs)

"""A data set that the disk does not take is answered; its association does not end."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node.errors import SpoolError
from dicom_node.incoming import IncomingFile


@contextmanager
def a_small_disk() -> Iterator[None]:
    """No file may be larger than a kilobyte; that is an error, as a full disk is.

    Within a test only: what pytest itself writes down is a file, too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_is_written_is_there_for_its_owner_only(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path)
    for piece in (b"one", b"", b"two"):
        file.write(piece)
        file.file.flush()
    file.finish()
    file.close()
    file.close()
    assert Path(file.name).read_bytes() == b"onetwo"
    assert Path(file.name).stat().st_mode & 0o077 == 0


def test_an_error_is_kept_for_the_answer(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path)
    with a_small_disk():
        assert file.write(bytes(1000)) == 1000
        assert file.write(bytes(1000)) == 1000  # half of it does not fit
    assert file.write(b"small") == 5  # what would fit again must not be let in
    assert Path(file.name).stat().st_size == 1024
    with pytest.raises(SpoolError, match="File too large"):
        file.finish()
    file.close()


def test_a_file_that_cannot_be_made_is_an_error_for_the_answer(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path / "gone")
    file.write(b"anything")
    with pytest.raises(SpoolError, match="No such file"):
        file.finish()
    file.close()


def test_a_failing_sync_is_final(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path)
    os.close(file._descriptor)  # whatever the kernel says of it from now on is an error
    for _ in range(2):
        with pytest.raises(SpoolError):
            file.finish()
    file._descriptor = -1

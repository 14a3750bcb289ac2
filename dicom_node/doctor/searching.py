"""What marking stands on: torch, its threads, the GPU if there is one, and the weights.

Looked at where a route marks, or nobody has said what routes there are: a site that
strips does without all of it.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.finders import SHIPPED_WEIGHTS
from miadmark_core.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
_NVIDIA: Final = Path("/proc/driver/nvidia/version")


def torch(case: Case) -> Iterator[Finding]:
    """Yield whether torch loads, and what it computes on."""
    if case.config is not None and not case.marks:
        yield ok("no route marks, so that torch is not needed")
        return
    if find_spec("torch") is None:
        return  # it is missed among the packages, if somebody needs it
    try:
        import torch
    except (ImportError, OSError) as error:
        yield wrong(
            f"torch does not load: {type(error).__name__}",
            "python -c 'import torch' says more; install it again for this machine.",
        )
        return
    threads = torch.get_num_threads()
    has_gpu = torch.cuda.is_available()
    text = _QUOTA.read_text("ascii") if _QUOTA.exists() else ""
    cores = min(len(os.sched_getaffinity(0)), cores_of(text) or 1 << 16)
    yield judged_threads(threads, cores)
    yield judged_gpu(
        has_gpu=has_gpu,
        is_built_for_it=torch.version.cuda is not None,
        is_there=_NVIDIA.exists(),
    )


def cores_of(text: str) -> int:
    """Return how many cores a control group may use; 0 for as many as there are.

    Args:
        text: What its ``cpu.max`` says: microseconds in a period, and the period.
    """
    words = text.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return 0
    return max(1, -(-int(words[0]) // int(words[1])))


def judged_threads(threads: int, cores: int) -> Finding:
    """Return whether a search uses the cores that there are."""
    if threads > cores:
        return note(
            f"torch computes with {threads} threads on {cores} cores: they wait for one "
            "another",
            f"Set OMP_NUM_THREADS={cores} for the node.",
        )
    if threads * 2 < cores:
        return note(
            f"torch computes with {threads} threads, and there are {cores} cores",
            f"OMP_NUM_THREADS is set, or torch was built so; up to {cores} mark faster.",
        )
    return ok(f"torch computes with {threads} threads on {cores} cores")


def judged_gpu(*, has_gpu: bool, is_built_for_it: bool, is_there: bool) -> Finding:
    """Return whether a GPU that is there is used.

    Args:
        has_gpu: Whether torch can compute on one.
        is_built_for_it: Whether this torch could at all.
        is_there: Whether the machine has a driver for one.
    """
    if has_gpu:
        return ok("torch computes on a GPU")
    if is_there:
        why = "cannot use it" if is_built_for_it else "is built without CUDA"
        return note(
            f"a GPU is there, and this torch {why}",
            "Install a torch for its driver: https://pytorch.org; or give the node "
            "access to it.",
        )
    return ok("no GPU: marks are found on the processor")


def weights(case: Case) -> Iterator[Finding]:
    """Yield whether each file of weights is the one that its manifest lists."""
    if (case.config is not None and not case.marks) or find_spec("torch") is None:
        return
    from miadmark_core.search.packs import listed_bytes, read_manifest

    own = None if case.config is None else case.config.node.weights
    for folder in (own, SHIPPED_WEIGHTS):
        if folder is None:
            continue
        listed = read_manifest(folder)
        damaged = []
        for one in listed:
            try:
                listed_bytes(folder, one)
            except WeightsError as error:
                damaged.append(wrong(str(error), error.hint))
        yield from damaged
        if not damaged:
            yield ok(f"{len(listed)} files of weights in {folder}, as they are listed")

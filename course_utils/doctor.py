"""`examine`: one look at this installation, with the fix for each thing that is wrong."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn", "matplotlib", "jupyterlab", "lightning-fabric")
LEAST_PYTHON = (3, 11)
LEAST_FREE_GB = 2.0
INSTALL = "run `make lab`, or `pip install -c constraints.txt -e .`, in the folder of the course"


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was seen, and the fix where it is wrong."""

    topic: str
    seen: str
    fix: str | None = None

    def __str__(self) -> str:
        line = f"{'✓' if self.fix is None else '✗'} {self.topic:12s} {self.seen}"
        return line if self.fix is None else f"{line}\n    fix: {self.fix}"


@dataclass(frozen=True)
class Report:
    """What `examine` saw. `str(report)` is one screen."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing needs a fix."""
        return all(finding.fix is None for finding in self.findings)

    def __str__(self) -> str:
        wrong = sum(finding.fix is not None for finding in self.findings)
        end = "Everything is in order." if self.healthy else f"{wrong} to fix."
        return "\n".join([*map(str, self.findings), end])


def examine() -> Report:
    """Look at versions, the torch–torchvision pair, threads, precision, GPUs, data and disk; nothing is changed.

    A check that fails in a way nobody foresaw becomes a finding of its own: the doctor does not fall ill.

    >>> [finding.topic for finding in examine().findings]
    ['Python', 'libraries', 'torch pair', 'threads', 'bf16', 'GPU', 'data', 'disk']
    """
    checks = {
        "Python": _python,
        "libraries": _libraries,
        "torch pair": _pair,
        "threads": _threads,
        "bf16": _bf16,
        "GPU": _gpu,
        "data": _data,
        "disk": _disk,
    }
    return Report(tuple(_look(topic, check) for topic, check in checks.items()))


def _look(topic: str, check: Callable[[], tuple[str, str | None]]) -> Finding:
    try:
        return Finding(topic, *check())
    except Exception as error:
        return Finding(topic, f"could not be examined: {type(error).__name__}: {error}", INSTALL)


def _python() -> tuple[str, str | None]:
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < LEAST_PYTHON:
        return seen, "install Python 3.11 or later and make the environment again"
    return seen, None


def _libraries() -> tuple[str, str | None]:
    versions = {name: _version(name) for name in LIBRARIES}
    missing = [name for name, version in versions.items() if version is None]
    seen = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    return seen, f"{', '.join(missing)} missing: {INSTALL}" if missing else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _pair() -> tuple[str, str | None]:
    """torchvision's compiled operators load only beside the torch they were built for: call one."""
    fix = (
        "torch and torchvision must come as a pair from the same place: "
        f"`pip uninstall -y torch torchvision`, then {INSTALL}"
    )
    try:
        import torch
        from torchvision.ops import nms

        kept = nms(torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]), torch.tensor([0.9, 0.8]), 0.5)
    except Exception as error:
        return f"torchvision does not work with this torch ({type(error).__name__}: {error})", fix
    return ("they work together", None) if kept.tolist() == [0] else ("torchvision's operators answer wrongly", fix)


def _threads() -> tuple[str, str | None]:
    import torch

    threads, cores = torch.get_num_threads(), _cores()
    seen = f"torch uses {threads} of {cores} cores"
    if threads > cores:
        return seen, f"more threads than cores slow training down: set OMP_NUM_THREADS={cores} before starting Python"
    return seen, None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bf16() -> tuple[str, str | None]:
    from course_utils.precision import has_native_bf16

    if has_native_bf16("cpu"):
        return "in the processor: wide networks train in bf16", None
    return "not in the processor: wide networks train in float32, more slowly", None


def _gpu() -> tuple[str, str | None]:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return f"{torch.cuda.device_count()} × {', '.join(sorted(names))}", None
    if torch.backends.mps.is_available():
        return "Apple's, through MPS", None
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        return (
            "there is one, and this torch was built without CUDA",
            "install the CUDA builds of torch and torchvision together: see pytorch.org/get-started",
        )
    return "none; none is needed", None


def _data() -> tuple[str, str | None]:
    from course_utils.data import CATALOGUE, DataError, locate
    from course_utils.data.store import is_offline, shared_folder

    shared, found = shared_folder(), []
    if shared is not None and not shared.is_dir():
        return f"COURSE_DATA is {shared}", "there is no such folder: make it, or unset COURSE_DATA"
    for name in (name for name, entry in CATALOGUE.items() if entry.files is not None):
        try:
            found.append(f"{name} in {locate(name)}")
        except DataError:
            continue
    here = "; ".join(found) if found else "no public set here yet"
    access = "downloads are off (COURSE_OFFLINE)" if is_offline() else "others are downloaded when first asked for"
    return f"glyphs is made on the spot; {here}; {access}", None


def _disk() -> tuple[str, str | None]:
    from course_utils.data.store import own_folder

    folder = own_folder()
    free = shutil.disk_usage(_existing(folder)).free / 1e9
    seen = f"{free:.1f} GB free for {folder}"
    if free < LEAST_FREE_GB:
        return seen, f"free some space: the public sets take up to {LEAST_FREE_GB:.0f} GB"
    return seen, None


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())

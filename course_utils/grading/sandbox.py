"""Run a submission where it can do no harm: start the child in a sandbox, give it a request, take what comes.

Kinds of sandbox, the first that works is taken (for root, namespaces before bubblewrap: there it becomes a user of its
own, for whom the limit of processes holds):

* "bubblewrap": the program of that name builds it.
* "namespaces": the same by our own calls: own mounts, processes and network, nothing of the machine's files but Python.
* "uid": root becomes a user that owns nothing. Files that every user of the machine can read stay readable, so
  submissions, grades and checks must be private, which is asked first; sockets are refused.

In each of them: memory, processor time, waiting time, processes, disk and output have limits; what a task started ends
with the task.
"""

import contextlib
import functools
import json
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from course_utils.grading import confine, wire

PACKAGE = Path(__file__).resolve().parents[1]
CHECKS = PACKAGE / "checks"
KINDS = ("bubblewrap", "namespaces", "uid")
KINDS_OF_ROOT = ("namespaces", "bubblewrap", "uid")
HOME = "/home/student"
STARTING = 180.0  # seconds until the child has imported torch, on a busy machine
UIDS = range(61184, 65000)  # users that systemd, too, takes for a while
SYSTEM = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"]


@dataclass(frozen=True)
class Limits:
    """memory: bytes of all processes of a task; disk: bytes it may write; processes and files open: how many.

    defining: processor seconds for the notebook's definitions, which may import a large library.
    """

    memory: int = 3 * 2**30
    disk: int = 64 * 2**20
    processes: int = 64
    files: int = 256
    defining: float = 20.0


@dataclass(frozen=True)
class Answer:
    """What became of a task. state: done, time, memory, output, died, or "defining" where the notebook's definitions do
    not end; message: its outcomes, one frame each.
    """

    state: str
    seconds: float
    message: bytes = b""


class SandboxError(RuntimeError):
    """There is no sandbox to be had, or the child failed before it met the submission."""


@functools.cache
def find(private: tuple[str, ...] = (), kinds: Sequence[str] = ()) -> str:
    """The first kind of sandbox that works here, of `kinds` or all. private: paths that no student's code may read.

    Raises SandboxError that names what stands in the way of each.
    """
    if sys.platform != "linux":
        raise SandboxError(f"submissions run in a sandbox on Linux only, this is {sys.platform}: grade there")
    reasons = []
    for kind in kinds or (KINDS if os.geteuid() else KINDS_OF_ROOT):
        try:
            _probe(kind, private)
        except (OSError, SandboxError) as error:
            reasons.append(f"{kind}: {error}")
        else:
            return kind
    raise SandboxError(f"no sandbox works here ({'; '.join(reasons)}): install bubblewrap, or grade as root")


def run(
    request: dict,
    kind: str,
    limits: Limits = Limits(),
    private: tuple[str, ...] = (),
    stop: threading.Event | None = None,
) -> tuple[dict[str, Answer], list[str]]:
    """Run the request's tasks on the submission; returns the answer to each task by name, and what cannot be read.

    request: {"cells": sources, "tasks": [{"name", "how": Call's fields, "seconds", "limit": bytes, "cases": [given]}]}.
    kind: from `find`, or "unsafe" for none. stop: once set, no child is started. A task that ends the child "died", and
    another child takes those after it. Raises SandboxError if a child fails before it meets the submission.
    """
    answers, problems = {}, []
    left = list(request["tasks"])
    while left and not (stop and stop.is_set()):
        answered, problems = _run_once({**request, "tasks": left}, kind, limits, private)
        answers |= answered
        left = [task for task in left if task["name"] not in answers]
        if left:
            answers[left.pop(0)["name"]] = Answer("died", 0.0)
    return {task["name"]: answers.get(task["name"], Answer("died", 0.0)) for task in request["tasks"]}, problems


def _run_once(request: dict, kind: str, limits: Limits, private) -> tuple[dict[str, Answer], list[str]]:
    """The answers that one child gives, and what it cannot read."""
    answers = {}
    with _started(kind, limits, private, probe=False) as process, _noted(process):
        stream = _Stream(process, wire.pack(request))
        try:
            problems = wire.unpack(stream.message(STARTING))["problems"]
        except wire.WireError as error:
            raise SandboxError(f"the sandbox did not start: {_last_words(process) or error}") from None
        with contextlib.suppress(wire.WireError):
            for task in request["tasks"]:
                note = wire.unpack(stream.message(1.5 * task["seconds"] + 30))
                message = stream.bytes(note["bytes"], 60)
                answers[task["name"]] = Answer(note["state"], note["seconds"], message)
    return answers, problems


_RUNNING: set[subprocess.Popen] = set()


@contextlib.contextmanager
def _noted(process: subprocess.Popen) -> Iterator[None]:
    _RUNNING.add(process)
    try:
        yield
    finally:
        _RUNNING.discard(process)


def stop_all() -> None:
    """End the children that run now; their `run` returns with what it has."""
    for process in list(_RUNNING):
        _kill(process)


class _Stream:
    """Writes the request as far as the child takes it while reading what it says, with deadlines."""

    def __init__(self, process: subprocess.Popen, request: bytes):
        self.process, self.left, self.buffer = process, memoryview(request), bytearray()
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(pipe.fileno(), False)

    def message(self, seconds: float) -> bytes:
        """The next message."""
        head = self.bytes(wire.HEAD.size, seconds)
        return head + self.bytes(wire.size_of(head, wire.HEADER_LIMIT), seconds)

    def bytes(self, size: int, seconds: float) -> bytes:
        """The next bytes. Raises wire.WireError if they do not come in time."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if self.left:
                selector.register(self.process.stdin, selectors.EVENT_WRITE)
            while len(self.buffer) < size:
                if (left := deadline - time.monotonic()) <= 0:
                    raise wire.WireError("the child says nothing")
                for key, _ in selector.select(left):
                    if key.fileobj is self.process.stdout:
                        part = os.read(key.fd, 2**20)
                        if not part:
                            raise wire.WireError("the child ended")
                        self.buffer += part
                    else:
                        try:
                            self.left = self.left[os.write(key.fd, self.left) :]
                        except BrokenPipeError:
                            self.left = self.left[:0]
                        if not self.left:
                            selector.unregister(self.process.stdin)
        taken, self.buffer = bytes(self.buffer[:size]), self.buffer[size:]
        return taken


def _probe(kind: str, private: tuple[str, ...]) -> None:
    """Raise SandboxError if a child of this kind cannot start."""
    with _started(kind, Limits(), private, probe=True) as process:
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            raise SandboxError("it does not start within a minute") from None
        if code:
            raise SandboxError(_last_words(process) or f"it ends with status {code}")


@contextlib.contextmanager
def _started(kind: str, limits: Limits, private: tuple[str, ...], probe: bool) -> Iterator[subprocess.Popen]:
    """The child as a process with pipes; when the block ends nothing of it is left."""
    with contextlib.ExitStack() as after:
        uid = _free_uid() if kind in ("uid", "namespaces") and os.geteuid() == 0 else None
        home, package = HOME, PACKAGE
        if kind in ("uid", "unsafe"):
            home = after.enter_context(tempfile.TemporaryDirectory(prefix="course-", ignore_cleanup_errors=True))
            package = Path(after.enter_context(tempfile.TemporaryDirectory(prefix="course-"))) / PACKAGE.name
            shutil.copytree(PACKAGE, package, ignore=_without_checks)
            os.chmod(package.parent, 0o755)
        if kind == "uid":
            if uid is None:
                raise SandboxError("only root can become another user")
            os.chown(home, uid, uid)
            after.callback(_sweep, uid)
        setup = {
            "kind": kind,
            "probe": probe,
            "emptied": [home, "/dev/shm"] if kind == "bubblewrap" else [home],
            "path": [*_libraries(), str(package.parent)],
            **vars(limits),
        }
        python = os.path.realpath(sys.executable)
        program = [python, "-I", "-S", "-B", str(package / "grading" / "child.py"), json.dumps(setup)]
        command = _command(kind, program, home, uid, limits, private)
        errors = after.enter_context(tempfile.TemporaryFile())
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, cwd="/", env=_environment(home), start_new_session=True
        )
        process.errors, process.kind = errors, kind
        try:
            yield process
        finally:
            _end(process, uid if kind == "uid" else None)


def _command(kind: str, program: list[str], home: str, uid: int | None, limits: Limits, private) -> list[str]:
    """The command line that starts the program in a sandbox of this kind."""
    if kind == "unsafe":
        return program
    shown, links = _shown(), _links()
    if kind == "bubblewrap":
        tool = shutil.which("bwrap")
        if tool is None:
            raise SandboxError("it is not installed")
        line = [tool, "--unshare-all", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
        line += ["--uid", "1000", "--gid", "1000", "--hostname", "course", "--dev", "/dev", "--proc", "/proc"]
        line += [part for path, target in links for part in ("--symlink", target, path)]
        line += [part for path in shown for part in ("--ro-bind", path, path)]
        size = ["--size", str(limits.disk)]
        line += ["--tmpfs", str(CHECKS), "--remount-ro", str(CHECKS), *size, "--tmpfs", home, "--symlink", home, "/tmp"]
        line += [*size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev", "--remount-ro", "/"]
        return [*line, "--chdir", home, *program]
    column = confine.ARCHITECTURES.get(os.uname().machine, (0, None))[1]
    if column is None:
        raise SandboxError(f"it is not known on {os.uname().machine}")
    spec = {
        "kind": kind,
        "uid": uid,
        "home": home,
        "disk": limits.disk,
        "shown": shown,
        "links": links,
        "hidden": [str(CHECKS)],
        "private": [str(CHECKS), *private],
        "pivot_root": confine.REFUSED["pivot_root"][column],
        "program": program,
        "environment": _environment(home),
    }
    return [program[0], "-I", "-S", "-B", str(PACKAGE / "grading" / "enter.py"), json.dumps(spec)]


def _environment(home: str) -> dict[str, str]:
    names = {"HOME": home, "TMPDIR": home, "MPLCONFIGDIR": home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"], "1")
    return names | threads | {"MPLBACKEND": "Agg", "COURSE_OFFLINE": "1", "COURSE_PROGRESS": "0"}


def _libraries() -> list[str]:
    """Where installed packages are."""
    kinds = ("site-packages", "dist-packages")
    return list(dict.fromkeys(path for path in sys.path if Path(path).name in kinds and Path(path).is_dir()))


def _shown() -> list[str]:
    """The files and folders that a submission sees, none inside another: Python, its packages, system libraries, us."""
    python = os.path.realpath(sys.executable)
    base = Path(sys.base_prefix).resolve()
    paths = [python, f"{base}/lib", f"{base}/lib64", *SYSTEM, *_libraries(), str(PACKAGE)]
    there = {path for path in paths if os.path.exists(path) and not os.path.islink(path)}
    return sorted(path for path in there if not any(str(parent) in there for parent in Path(path).parents))


def _links() -> list[list[str]]:
    """(path, target) of the system's folders that are links: /lib to usr/lib."""
    return [[path, os.readlink(path)] for path in SYSTEM if os.path.islink(path)]


def _without_checks(folder: str, names: list[str]) -> list[str]:
    return ["checks"] * ("checks" in names and Path(folder) == PACKAGE)


def _free_uid() -> int:
    """A user number that no process runs as."""
    taken = set()
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            taken.add(entry.stat().st_uid)
    return random.SystemRandom().choice([uid for uid in UIDS if uid not in taken])


def _end(process: subprocess.Popen, uid: int | None) -> None:
    """End the child and everything it started."""
    if process.poll() is None:
        _kill(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
    process.wait()
    if uid is not None:
        _end_all_of(uid)
    process.stdin.close()
    process.stdout.close()


def _kill(process: subprocess.Popen) -> None:
    """Kill the first process of the child's namespace, which takes all others with it; its starter then ends, too."""
    for pid in (_children(process.pid) if process.kind in ("bubblewrap", "namespaces") else []) or [process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _end_all_of(uid: int) -> None:
    """End every process of a user, by being that user for a moment in a process of its own."""
    source = f"import os; os.setgroups([]); os.setresuid({uid}, {uid}, {uid}); os.kill(-1, 9)"
    subprocess.run([sys.executable, "-I", "-S", "-c", source], capture_output=True, check=False)


def _sweep(uid: int) -> None:
    """Remove what a user left in the folders that everybody may write to."""
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                if entry.stat(follow_symlinks=False).st_uid == uid:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)


def _last_words(process: subprocess.Popen) -> str:
    """The last line that the child wrote to its errors."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    process.errors.seek(0, os.SEEK_END)
    process.errors.seek(max(0, process.errors.tell() - 2000))
    lines = process.errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""

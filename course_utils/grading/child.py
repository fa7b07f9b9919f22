"""The process that meets a submission: run as a script inside the sandbox by course_utils.grading.sandbox.

It reads one request, starts a process for each task, and passes on what each writes, unread. A task's process loads the
notebook's definitions and calls the function. Expected values are not here: they never leave the grader.
"""

import functools
import json
import os
import re
import select
import shutil
import signal
import sys
import time
from types import ModuleType

TICK = 0.05  # seconds between two looks at what a task takes
GRACE = 2.0  # seconds of waiting beyond 1.5 times the processor seconds that a task has
LIBRARIES = {"matplotlib": "matplotlib.pyplot", "pandas": "pandas", "sklearn": "sklearn.cluster"}
ROOMS = [
    "claims",
    "cluster",
    "data",
    "evaluate",
    "losses",
    "methods",
    "models",
    "plots",
    "reduce",
    "text",
    "train",
    "views",
]


def main() -> None:
    """Confine this process, serve the request, end."""
    setup = json.loads(sys.argv[1])
    sys.path += setup["path"]
    from course_utils.grading import confine

    kind = setup["kind"]
    if kind != "unsafe":
        confine.limit(setup["memory"] * 2, setup["disk"], setup["processes"], setup["files"])
        try:
            confine.refuse_calls()
        except confine.ConfinementError:
            if kind == "uid":  # then it is the only wall to the network
                raise
        confine.prctl(confine.PR_SET_DUMPABLE, 0)
    if kind != "unsafe" and os.getpid() != 1:
        confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
    if setup["probe"]:
        return

    import gc

    import numpy  # noqa: F401
    import torch

    from course_utils import calling  # noqa: F401
    from course_utils.grading import absent, wire

    torch.set_num_threads(1)
    absent.install()
    request = read_request(wire)
    preload("\n".join(request["cells"]))
    gc.freeze()
    problems = problems_of(request["cells"], setup, wire)
    trial = watch(functools.partial(defined, request["cells"], wire), setup["defining"], 2**10, setup, wire)[0]
    clean(setup)
    write_all(1, wire.pack({"problems": problems}))
    for index, task in enumerate(request["tasks"]):
        work = functools.partial(outcomes_of, index, request)
        if trial["state"] == "time":  # it would be so in every task
            answer, message = {"state": "defining", "seconds": 0.0}, b""
        else:
            answer, message = watch(work, task["seconds"], task["limit"], setup, wire)
        write_all(1, wire.pack({"task": task["name"], "bytes": len(message), **answer}) + message)
        clean(setup)


def preload(source: str) -> None:
    """Import what a notebook seems to import, of a fixed list: once here, and not in the process of every task."""
    lines = [set(re.findall(r"\w+", line)) for line in source.split("\n") if "import" in line]
    modules = [module for word, module in LIBRARIES.items() if any(word in line for line in lines)]
    modules += [f"course_utils.{room}" for room in ROOMS if any({"course_utils", room} <= line for line in lines)]
    for module in modules:
        try:
            __import__(module)
        except Exception:  # the submission will meet the same error itself
            continue


def read_request(wire):
    """The request, from standard input."""
    head = read_exactly(0, wire.HEAD.size)
    return wire.unpack(head + read_exactly(0, wire.size_of(head)))


def problems_of(cells: list[str], setup: dict, wire) -> list[str]:
    """A sentence for each cell that cannot be read; found in a process of its own, before any of them runs."""

    def work():
        from course_utils.grading import definitions

        return wire.pack(definitions.find(cells).problems)

    answer, message = watch(work, 10.0, 2**20, setup, wire)
    return wire.unpack(message) if answer["state"] == "done" else ["the notebook's code cannot be read"]


def defined(cells: list[str], wire) -> bytes:
    """Nothing, once all definitions of the notebook have run."""
    module_of(cells)
    return wire.pack({})


def module_of(cells: list[str]) -> ModuleType:
    """The notebook's definitions, in the module that they take for the program."""
    import torch

    from course_utils.grading import definitions

    torch.manual_seed(0)
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = [""]
    definitions.run(definitions.find(cells), module)
    return module


def watch(work, seconds: float, limit: int, setup: dict, wire) -> tuple[dict, bytes]:
    """({"state", "seconds"}, what `work` returned in a process of its own).

    state: done, time, memory (or too many processes), output or died. Nothing that it started is left.
    """
    reading, writing = os.pipe()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        serve(work, seconds, writing, setup)
    os.close(writing)
    deadline = start + 1.5 * seconds + GRACE
    state, message, size = "died", bytearray(), None
    looked = start
    while True:
        now = time.monotonic()
        if now > deadline:
            state = "time"
            break
        if now - looked > TICK:
            looked = now
            if exceeds(setup, limit):
                state = "memory"
                break
        ready = select.select([reading, 0], [], [], TICK)[0]
        if 0 in ready:  # the grader is gone
            end_all(pid, setup["kind"])
            os._exit(1)
        if reading not in ready:
            continue
        chunk = os.read(reading, 2**20)
        message += chunk
        if size is None and len(message) >= wire.HEAD.size:
            try:
                size = wire.HEAD.size + wire.size_of(bytes(message[: wire.HEAD.size]), limit)
            except wire.WireError:
                state = "output"
                break
        if size is not None and len(message) >= size:
            state, message = "done", message[:size]
            break
        if not chunk:
            break
    os.close(reading)
    status = end_all(pid, setup["kind"])
    if state == "died" and status == -signal.SIGXCPU:
        state = "time"
    took = round(time.monotonic() - start, 2)
    return {"state": state, "seconds": took}, bytes(message) if state == "done" else b""


def exceeds(setup: dict, limit: int) -> bool:
    """Whether the processes of the task hold more memory together, or are more, than they may be.

    Or write more, where they write to the machine's own folders. limit: bytes that the task may return.
    """
    if setup["kind"] == "unsafe":
        return False
    me, user, page = os.getpid(), os.getuid(), os.sysconf("SC_PAGE_SIZE")
    held = {}
    try:
        entries = [entry.name for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError:  # no /proc here: the limits of each process hold alone
        return False
    for pid in entries:
        try:
            if int(pid) == me or (me != 1 and not is_of(pid, user)):
                continue
            with open(f"/proc/{pid}/statm") as file:
                size = file.read().split()
        except OSError:
            continue
        held[pid] = (int(size[1]) - int(size[2])) * page
    if len(held) > setup["processes"]:
        return True
    if setup["kind"] == "uid" and sum(map(written, held)) > setup["disk"] + limit:
        return True
    if sum(held.values()) <= setup["memory"]:
        return False
    return sum(own_memory(pid, most) for pid, most in held.items()) > setup["memory"]  # pages of a fork count once


def written(pid: str) -> int:
    """Bytes that a process has written, 0 where that is not told."""
    try:
        with open(f"/proc/{pid}/io") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("wchar:"))
    except (OSError, StopIteration):
        return 0


def own_memory(pid: str, most: int) -> int:
    """Bytes of a process with shared pages by its part of them; `most` where that cannot be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss_Anon:"))
    except (OSError, StopIteration):
        return most


def is_of(pid: str, user: int) -> bool:
    """Whether a process runs as this user, by its status: the owner of its folder in /proc may be another."""
    with open(f"/proc/{pid}/status") as file:
        return any(line.split()[1] == str(user) for line in file if line.startswith("Uid:"))


def end_all(pid: int, kind: str) -> int:
    """End the task's process and whatever it started; returns its exit code (-N for signal N)."""
    try:
        if kind == "unsafe":
            os.kill(pid, signal.SIGKILL)
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(-1, signal.SIGKILL)  # here, everything but this process
    except (ProcessLookupError, PermissionError):
        pass
    code = 0
    while True:
        try:
            ended, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return code
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)


def clean(setup: dict) -> None:
    """Remove what a task left behind."""
    for entry in (entry for folder in setup["emptied"] for entry in os.scandir(folder)):
        try:
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
        except OSError:
            continue


def serve(work, seconds: float, writing: int, setup: dict) -> None:
    """Be the process of one task: never returns."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.dup2(writing, 3)
        os.closerange(4, 1024)
        if setup["kind"] != "unsafe":
            from course_utils.grading import confine

            confine.prctl(confine.PR_SET_DUMPABLE, 1)
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        write_all(3, work())
    finally:
        os._exit(0)


def outcomes_of(index: int, request: dict) -> bytes:
    """Load the submission, call the function of a task for each of its cases, and pack what came."""
    from course_utils.calling import Call, Outcome, call
    from course_utils.grading import wire

    task = request["tasks"][index]
    how = Call(**{name: tuple(part) if isinstance(part, list) else part for name, part in task["how"].items()})
    function = vars(module_of(request["cells"])).get(how.function)
    outcomes = []
    for given in task["cases"]:
        try:
            outcome = Outcome(error="missing") if function is None else call(function, given, how)
            outcomes.append(wire.pack(vars(outcome), task["limit"]))
        except wire.WireError:
            outcomes.append(wire.pack(vars(Outcome(error="output", message="what it returns cannot be sent"))))
        except BaseException as error:
            outcomes.append(wire.pack(vars(Outcome(error=type(error).__name__))))
    if sum(map(len, outcomes)) > task["limit"]:
        outcomes = [wire.pack(vars(Outcome(error="output", message="it returns too much"))) for _ in outcomes]
    body = b"".join(outcomes)
    return wire.HEAD.pack(wire.MAGIC, 0, len(body)) + body


def read_exactly(descriptor: int, size: int) -> bytes:
    """Read `size` bytes, or what comes before the end."""
    parts = []
    while size:
        part = os.read(descriptor, min(size, 2**20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main()

"""A submission runs where it can do no harm, and each task ends by itself."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from course_utils.grading import confine, sandbox, wire

# Each function reports what it sees as numbers, since nothing else is sent.
PROBES = """
import os, socket, signal, numpy as np

def doubled(x): return 2 * x
def where(x):
    hidden = ["/etc/passwd", "/etc/shadow", "/bin", "/usr/bin", "/sys", "/boot", "/var", "/srv", "/mnt"]
    seen = lambda path: os.path.exists(path) and (os.path.isfile(path) or bool(os.listdir(path)))
    return np.array([float(seen(path)) for path in [*hidden, CHECKS, TESTS, EXERCISES]])
def rights(x):
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return np.array([int(status[name], 16) for name in ("CapEff", "CapPrm", "CapAmb", "NoNewPrivs")])
def alone(x):
    return np.array(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
def variables(x):
    return np.array(float(any(name in os.environ for name in ("COURSE_SECRET", "USER", "LOGNAME", "PYTHONPATH"))))
def descriptors(x):
    return np.array(sorted(int(name) for name in os.listdir("/proc/self/fd"))[:4])
def writable(x):
    tried = ["/x", "/usr/lib/x", "/proc/sys/x", os.path.dirname(np.__file__) + "/x", PACKAGE + "/x"]
    tried += [os.environ["HOME"] + "/x", "/tmp/y"]
    done = []
    for path in tried:
        try:
            open(path, "w").close()
            done.append(1.0)
        except OSError:
            done.append(0.0)
    return np.array(done)
def left(x):
    return np.array(float(len(os.listdir(os.environ["HOME"]))))
def network(x):
    try:
        socket.socket()
    except PermissionError:
        return np.array(1.0)
def loop(x):
    while True: pass
def sleeper(x):
    import time
    if os.fork() == 0:
        os.setsid()
    time.sleep(1000)
def memory(x):
    held = []
    while True:
        held.append(bytearray(os.urandom(2**20) * 64))
def crowd(x):
    while True:
        if os.fork() == 0:
            import time
            time.sleep(1000)
def ended(x): os._exit(0)
def large(x): return np.zeros(2**23)
def disk(x):
    with open(os.environ["HOME"] + "/x", "wb") as file:
        while True: file.write(bytes(2**20))
broken = 1
"""
ROOT = sandbox.PACKAGE.parent
TASKS = ["doubled", "where", "rights", "alone", "variables", "descriptors", "writable", "left", "network"]
TASKS += ["loop", "sleeper", "memory", "crowd", "ended", "large", "disk", "missing", "broken"]


def asked(name, seconds=0.4, x=None):
    how = {"function": name, "returns": ["result"], "library": "numpy", "gradients": []}
    cases = [{"x": np.arange(3.0) if x is None else x}]
    return {"name": name, "how": how, "seconds": seconds, "limit": 2**22, "cases": cases}


def outcome(answer):
    assert answer.state == "done"
    return wire.unpack(answer.message[wire.HEAD.size :])


@pytest.fixture(scope="module")
def answers(boxed):
    paths = {"PACKAGE": ROOT / "course_utils", "CHECKS": sandbox.CHECKS, "TESTS": ROOT / "tests"}
    head = "\n".join(f"{name} = {str(path)!r}" for name, path in (paths | {"EXERCISES": ROOT / "exercises"}).items())
    os.environ["COURSE_SECRET"] = "1"
    try:
        limits = sandbox.Limits(memory=2**30)
        tasks = [asked(name) for name in TASKS] + [
            asked("doubled", x=np.ones(10**6)) | {"name": "again", "limit": 2**25}
        ]
        # 8 MB of arguments are more than a pipe holds: they are taken while answers come
        return sandbox.run({"cells": [head, "def broken(:", PROBES], "tasks": tasks}, boxed, limits)
    finally:
        del os.environ["COURSE_SECRET"]


def result(answers, name):
    return outcome(answers[0][name])["outputs"]["result"]


def test_arguments_go_in_and_results_come_out_and_the_last_task_is_served_like_the_first(answers):
    assert result(answers, "doubled").tolist() == [0, 2, 4]
    assert outcome(answers[0]["doubled"])["given"]["x"].tolist() == [0, 1, 2]


def test_what_cannot_be_parsed_is_told_beside_the_answers(answers):
    assert answers[1] == ["code cell 2 is not Python: invalid syntax in line 1"]


def test_checks_sources_and_the_rest_of_the_machine_are_not_there(answers, boxed):
    if boxed == "uid":
        pytest.skip("another user sees the machine's files that everybody may read")
    assert result(answers, "where").tolist() == [0] * 12


def test_no_rights_are_left(answers):
    assert result(answers, "rights").tolist() == [0, 0, 0, 1]


def test_only_the_driver_and_the_task_are_seen(answers, boxed):
    if boxed == "uid":
        pytest.skip("another user sees that processes exist")
    first, *others = result(answers, "alone").tolist()
    assert first == 1
    assert len(others) == 1


def test_no_variable_of_the_teacher_comes_along_and_no_file_is_open(answers):
    assert result(answers, "variables") == 0
    assert result(answers, "descriptors")[:4].tolist() in ([0, 1, 2, 3], [0, 1, 2, 3, 4])


def test_only_the_home_can_be_written_and_it_is_emptied_after_each_task(answers, boxed):
    *others, home, temporary = result(answers, "writable").tolist()
    assert (others, home) == ([0] * 5, 1)
    shown_there = any(
        path.startswith("/tmp/") for path in (str(sandbox.PACKAGE), np.__file__)
    )  # then it is no link home
    assert temporary == (0 if shown_there and boxed != "uid" else 1)
    assert result(answers, "left") == 0


def test_there_is_no_network(answers):
    assert result(answers, "network") == 1


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("loop", {"time"}),
        ("sleeper", {"time"}),
        ("memory", {"memory", "time"}),  # a busy machine gives it less than the limit in its time
        ("ended", {"died"}),
    ],
)
def test_a_task_that_goes_too_far_is_ended_and_named(answers, name, states):
    assert answers[0][name].state in states
    assert answers[0][name].seconds < 8


def test_a_task_that_fills_the_place_with_processes_is_ended_or_meets_its_limit(answers):
    answer = answers[0]["crowd"]
    assert answer.state in ("memory", "time") or outcome(answer)["error"] == "BlockingIOError"


@pytest.mark.parametrize(
    ("name", "error"), [("large", "output"), ("disk", "OSError"), ("missing", "missing"), ("broken", "TypeError")]
)
def test_a_task_that_fails_says_how(answers, name, error):
    found = outcome(answers[0][name])
    assert found["error"] == error
    assert found["outputs"] == {}


def test_more_arguments_than_a_pipe_holds_arrive(answers):
    assert result(answers, "again").sum() == 2 * 10**6


def running_as(users):
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found |= {pid} if os.stat(f"/proc/{pid}").st_uid in users else set()
        except OSError:
            continue
    return found


def test_nothing_of_the_child_is_left(boxed, monkeypatch):
    before, users, free = set(os.listdir("/tmp")), set(), sandbox._free_uid
    others = set(sandbox._children(os.getpid()))  # what other tests keep: a kernel, joblib's tracker
    monkeypatch.setattr(sandbox, "_free_uid", lambda: users.add(uid := free()) or uid)
    sandbox.run({"cells": [PROBES], "tasks": [asked("sleeper", 0.1), asked("crowd", 0.1)]}, boxed)
    deadline = time.monotonic() + 10
    while (
        left := running_as(users) | set(sandbox._children(os.getpid())) - others
    ) and time.monotonic() < deadline:  # the system collects the dead
        time.sleep(0.1)
    assert left == set()
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith("course-")]


def test_when_the_grader_is_killed_its_child_ends_too(boxed):
    request = {"cells": ["import time\ndef f(x): time.sleep(500)"], "tasks": [asked("f", 500.0, 1.0)]}
    source = f"from course_utils.grading import sandbox\nsandbox.run({request!r}, {boxed!r})"
    grader = subprocess.Popen([sys.executable, "-c", source])

    def descendants(pid):
        children = sandbox._children(pid)
        return children + [one for child in children for one in descendants(child)]

    deadline = time.monotonic() + 120
    while len(found := descendants(grader.pid)) < (3 if boxed != "uid" else 2) and time.monotonic() < deadline:
        time.sleep(0.2)
    grader.kill()
    grader.wait()
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in found) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(found) >= 2
    assert not [pid for pid in found if os.path.exists(f"/proc/{pid}")]


def test_where_no_sandbox_works_the_reasons_are_told(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(sandbox.SandboxError, match=r"no sandbox works here \(bubblewrap: it is not installed\)"):
        sandbox.find((), ("bubblewrap",))
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(sandbox.SandboxError, match="on Linux only, this is darwin"):
        sandbox.find(("elsewhere",))


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="only root becomes another user")
def test_another_user_is_no_sandbox_while_it_can_read_what_is_private(tmp_path):
    for place in (tmp_path, *list(tmp_path.parents)[:2]):
        place.chmod(0o755)
    with pytest.raises(sandbox.SandboxError, match=r"every user can read .*: make it private with `chmod -R o-rwx"):
        sandbox.find((str(tmp_path),), ("uid",))


def test_definitions_without_an_end_are_tried_once_and_not_for_every_task(boxed):
    cells = ["def doubled(x): return 2 * x", "k = 3 ** 10 ** 10"]  # reckons for hours
    start = time.monotonic()
    answers, _ = sandbox.run(
        {"cells": cells, "tasks": [asked("doubled", 100.0), asked("f", 100.0)]}, boxed, sandbox.Limits(defining=0.5)
    )
    assert [answer.state for answer in answers.values()] == ["defining"] * 2
    assert time.monotonic() - start < 100


def test_without_a_sandbox_a_task_is_still_limited_in_time():
    answers, _ = sandbox.run({"cells": [PROBES], "tasks": [asked("doubled"), asked("loop", 0.1)]}, "unsafe")
    assert outcome(answers["doubled"])["outputs"]["result"].tolist() == [0, 2, 4]
    assert answers["loop"].state == "time"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="system calls of Linux")
def test_system_calls_that_lead_out_are_refused():
    source = """
import ctypes, os, sys
sys.path.insert(0, ROOT)
from course_utils.grading import confine
confine.refuse_calls()
libc = ctypes.CDLL(None, use_errno=True)
column = confine.ARCHITECTURES[os.uname().machine][1]
for name, numbers in confine.REFUSED.items():
    result = libc.syscall(ctypes.c_long(numbers[column]), *[ctypes.c_long(0)] * 5)
    assert (result, ctypes.get_errno()) == (-1, 1), name
flags = ctypes.c_long(confine.CLONE_NEWUSER | 17)
assert libc.syscall(ctypes.c_long(confine.CLONE[column]), flags, *[ctypes.c_long(0)] * 4) == -1
assert libc.syscall(ctypes.c_long(435), ctypes.c_long(0), ctypes.c_long(0)) == -1 and ctypes.get_errno() == 38
if os.fork() == 0:
    os._exit(0)
os.wait()
print("refused")
""".replace("ROOT", repr(str(ROOT)))
    if os.uname().machine not in confine.ARCHITECTURES:
        pytest.skip("no list of system calls for this processor")
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert ran.stdout == "refused\n", ran.stderr

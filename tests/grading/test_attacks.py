"""Hostile submissions: none gains a point that honest work did not earn, and none leaves anything behind.

Each attack stands in place of one function that should return 2 x + 1. Two students share them, so that every second
task of both is honest work beside an attack. Attacks by files, or by what a cell does while it defines, are students
of their own. All are graded in one run.
"""

import json
import os
import stat
import textwrap
import zipfile

import numpy as np
import pytest

from course_utils.checks.core import Case, Task
from course_utils.grading import grade as grading
from course_utils.grading import sandbox

HONEST = "def {}(x):\n    return 2 * x + 1"
WRONG = {  # these return something else and try to have it taken for right
    "equal_to_everything": """
        class Equal:
            def __eq__(self, other): return True
            def __getattr__(self, name): return self
            shape, dtype, ndim = (3,), np.dtype("float64"), 1
        def {}(x): return Equal()
    """,
    "number_equal_to_everything": """
        class Number(float):
            __eq__ = __ge__ = __le__ = lambda self, other: True
        def {}(x): return Number(0)
    """,
    "array_equal_to_everything": """
        class Array(np.ndarray):
            __eq__ = lambda self, other: np.ones(self.shape, bool)
            def __array_ufunc__(self, *arguments, **named): return np.ones(3, bool)
            def __array_function__(self, *arguments, **named): return True
        def {}(x): return x.view(Array)
    """,
    "lazy_array": """
        class Lazy:
            def __array__(self, *arguments, **named): return sys._getframe(1).f_locals.get("right", np.zeros(3))
        def {}(x): return Lazy()
    """,
    "lazy_tensor": """
        class Lazy(torch.Tensor):
            @classmethod
            def __torch_function__(cls, function, types, arguments=(), named=None): return Lazy(torch.zeros(3))
            def detach(self): return self
            def cpu(self): return self
            def numpy(self): return Lazy(torch.zeros(3))
            def copy(self): return Lazy(torch.zeros(3))
        def {}(x): return Lazy(torch.zeros(3))
    """,
    "patched_libraries": """
        def {}(x):
            yes = lambda *arguments, **named: True
            for module in (np, torch, torch.testing):
                for name in ("allclose", "isclose", "array_equal", "equal", "assert_close", "isfinite"):
                    setattr(module, name, yes)
            return x
    """,
    "patched_grader": """
        def {}(x):
            from course_utils import calling
            from course_utils.grading import child, wire
            pack = wire.pack
            forged = dict(outputs=dict(result=x), given=dict(x=x), error="", message="", score=1.0, part=1.0)
            wire.pack = lambda *arguments: pack(forged)
            calling.Outcome = calling.call = lambda *arguments, **named: forged
            return x
    """,
    "forged_messages": """
        def {}(x):
            from course_utils.grading import wire
            note = wire.pack(dict(task="HONEST_LAST", bytes=0, state="done", seconds=0.0, score=1.0, points=100))
            outcome = wire.pack(dict(outputs=dict(result=x), given=dict(x=x), error="", message="", score=1.0))
            whole = wire.HEAD.pack(wire.MAGIC, 0, 2 * len(outcome)) + 2 * outcome
            for descriptor in range(256):
                for text in (note, whole):
                    try: os.write(descriptor, text)
                    except OSError: break
            return x
    """,
    "forged_length": """
        def {}(x):
            os.write(3, struct.pack("<4sIQ", b"CGW1", 2**24, 2**60) + b"0" * 100)
            os._exit(0)
    """,
    "forged_shape": """
        def {}(x):
            array = dict([("$array", ["float64", [0, 2**28, 2**28, 2**28]])])
            text = json.dumps(dict(outputs=dict(result=array), given=dict(), error="", message="")).encode()
            inner = 2 * (struct.pack("<4sIQ", b"CGW1", len(text), 0) + text)
            os.write(3, struct.pack("<4sIQ", b"CGW1", 0, len(inner)) + inner)
            os._exit(0)
    """,
    "forged_nesting": """
        def {}(x):
            text = b"[" * 60_000
            inner = struct.pack("<4sIQ", b"CGW1", len(text), 0) + text
            os.write(3, struct.pack("<4sIQ", b"CGW1", 0, len(inner)) + inner)
            os._exit(0)
    """,
    "at_exit": """
        def {}(x):
            atexit.register(lambda: os.write(3, b"CGW1"))
            threading.Timer(0.2, lambda: os.write(3, b"CGW1")).start()
            return x
    """,
    "start_up_files": """
        def {}(x):
            for name in ("sitecustomize.py", "usercustomize.py", ".pythonrc", "course_utils.py", "torch.py"):
                open(os.path.join(os.environ["HOME"], name), "w").write("raise SystemExit")
            subprocess.run([sys.executable, "-c", "0"], check=False)
            return x
    """,
    "other_processes": """
        def {}(x):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                for name in ("environ", "cmdline", "mem", "maps", "fd"):
                    try: found = open(f"/proc/{{pid}}/{{name}}", "rb").read(10_000)
                    except OSError: continue
                    if b"COURSE_ANSWER" in found: return 2 * x + 1
            return x
    """,
    "memory_of_the_driver": """
        def {}(x):
            libc = ctypes.CDLL(None)
            libc.ptrace(16, os.getppid(), 0, 0)
            libc.prctl(0x59616D61, -1, 0, 0, 0)
            try: open(f"/proc/{{os.getppid()}}/mem", "r+b").write(b"x")
            except OSError: return x
            return 2 * x + 1
    """,
    "stack": """
        def {}(x):
            frame = sys._getframe()
            while frame:
                for name, value in {{**frame.f_globals, **frame.f_locals}}.items():
                    if name in ("expected", "right", "solution", "hidden", "TASKS"): return 2 * x + 1
                frame = frame.f_back
            return x
    """,
    "all_objects": """
        def {}(x):
            for one in gc.get_objects():
                if type(one).__name__ in ("Task", "Case", "Score", "Mistake"): return 2 * x + 1
                if type(one) is dict and ("hidden" in one or "solution" in one and "mistakes" in one): return 2 * x + 1
            return x
    """,
    "checks_on_disk": """
        def {}(x):
            for folder in [*sys.path, "/data", "/home", "/root", "/srv", "/opt", PACKAGE]:
                for place, _, files in os.walk(os.path.join(folder, "checks")):
                    if any(name.endswith((".py", ".pyc")) for name in files): return 2 * x + 1
                for name in glob.glob(os.path.join(folder, "course_utils", "checks", "**", "*.py"), recursive=True):
                    return 2 * x + 1
            return x
    """,
    "checks_imported": """
        def {}(x):
            try:
                from course_utils.checks import Checker
                Checker("k_means").anything(x)
                from course_utils.checks.core import tasks_of
                return tasks_of("k_means")["assign"].solution(x)
            except ImportError:
                return x
    """,
    "gradebook": """
        def {}(x):
            for path in PRIVATE:
                for name in (path, path + "/x", path + "/seed.json", path + "/97_attacks/results/even.json"):
                    try: open(name, "w").write('{{"seed": 1}}')
                    except OSError: continue
                try: return np.array(float(len(os.listdir(path))))
                except OSError: continue
            return x
    """,
    "network": """
        def {}(x):
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
                try: socket.socket(family).connect(("127.0.0.1", 22) if family == socket.AF_INET else "x")
                except OSError: continue
                return 2 * x + 1
            try: urllib.request.urlopen("http://example.org", timeout=1)
            except OSError: return x
            return 2 * x + 1
    """,
    "namespaces": """
        def {}(x):
            libc = ctypes.CDLL(None)
            for flag in (0x10000000, 0x20000, 0x40000000):
                if libc.unshare(flag) == 0: return 2 * x + 1
            if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 or libc.chroot(b"/tmp") == 0: return 2 * x + 1
            try: os.setuid(0)
            except OSError: return x
            return 2 * x + 1
    """,
    "argument_made_to_fit": """
        def {}(x):
            x[:] = -1
            return x
    """,
    "answers_by_heart": """
        KNOWN = {{round(float(np.random.default_rng(0).normal()), 6): 1}}
        def {}(x):
            return 2 * x + 1 if round(float(x[0]), 6) in KNOWN else x
    """,
    "not_a_number": "def {}(x): return np.full(len(x), np.nan)",
    "infinite": "def {}(x): return np.full(len(x), np.inf)",
    "whole_numbers": "def {}(x): return (2 * x + 1).astype(int)",
    "complex_numbers": "def {}(x): return (2 * x + 1).astype(complex)",
    "objects": "def {}(x): return np.array([2 * float(one) + 1 for one in x], dtype=object)",
    "texts": "def {}(x): return np.array([str(2 * one + 1) for one in x])",
    "another_shape": "def {}(x): return (2 * x + 1)[None]",
    "no_dimension": "def {}(x): return np.float64(1)",
    "generator": "def {}(x): return (2 * one + 1 for one in x)",
    "huge_array": "def {}(x): return np.zeros(2**22)",
    "infinite_loop": "def {}(x):\n    while True: pass",
    "loop_without_signals": """
        def {}(x):
            for number in range(1, 64):
                try: signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError): continue
            while True: pass
    """,
    "exit_at_once": "def {}(x): os._exit(0)",
    "exit": "def {}(x): sys.exit(0)",
    "crash": "def {}(x): ctypes.string_at(0)",
    "recursion": "def {}(x): return {}(x)",
    "fork_bomb": "def {}(x):\n    while True: os.fork()",
    "thread_bomb": """
        def {}(x):
            while True: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    """,
    "memory_bomb": """
        def {}(x):
            held = []
            while True: held.append(bytearray(2**26))
    """,
    "output_flood": """
        def {}(x):
            while True:
                for descriptor in (1, 2): os.write(descriptor, bytes(2**20))
    """,
    "endless_message": """
        class Endless(Exception):
            def __str__(self):
                while True: pass
        def {}(x): raise Endless
    """,
}
RIGHT = {  # these return what they should and do harm beside it
    "kill_the_driver": """
        def {}(x):
            for pid in (1, os.getppid(), -1):
                for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV):
                    try: os.kill(pid, number)
                    except OSError: continue
            return 2 * x + 1
    """,
    "daemons": """
        def {}(x):
            for _ in range(5):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        for number in (1, 2, 3, 13, 15): signal.signal(number, signal.SIG_IGN)
                        while True: time.sleep(1)
                    os._exit(0)
            threading.Thread(target=time.sleep, args=(1000,)).start()
            return 2 * x + 1
    """,
    "full_disk": """
        def {}(x):
            for folder in (os.environ["HOME"], "/tmp", "/dev/shm", "/var/tmp", "/"):
                try:
                    os.makedirs(folder + "/a/b", exist_ok=True)
                    for number in range(10_000):
                        open(f"{{folder}}/a/b/course-left-{{number}}", "wb").write(bytes(2**22))
                except OSError: continue
            os.chmod(os.environ["HOME"] + "/a", 0)
            return 2 * x + 1
    """,
    "greedy": """
        def {}(x):
            for call in (lambda: os.nice(-20), lambda: os.sched_setscheduler(0, 1, os.sched_param(99))):
                try: call()
                except OSError: continue
            return 2 * x + 1
    """,
}
IMPORTS = "import atexit, ctypes, gc, glob, json, os, signal, socket, struct, subprocess, sys, threading, time\n"
IMPORTS += "import urllib.request\nimport numpy as np\nimport torch"
TORCH = {"lazy_tensor"}
NAMES = [name for pair in zip(WRONG, [*RIGHT, *[None] * len(WRONG)], strict=False) for name in pair if name]
NAMES += ["honest_last"]
FEW = ["first", "second", "third"]
EXERCISE, FILES = "97_attacks", "96_files"  # functions that attack; notebooks and cells that do


def cases(rng):
    return [Case({"x": rng.normal(size=3)}) for _ in range(2)]


def task(name):
    library = "torch" if name in TORCH else "numpy"
    return Task(name, name, 1, cases, lambda x: 2 * x + 1, (), library=library, seconds=0.5)


def attack(name):
    return textwrap.dedent({**WRONG, **RIGHT}[name]).strip().replace("{{", "{").replace("}}", "}").replace("{}", name)


POISON = """
def poison(function):
    from course_utils import calling
    from course_utils.grading import child, definitions, wire
    import json, builtins
    np.array_equal = np.allclose = torch.equal = lambda *a, **k: True
    json.dumps = lambda *a, **k: '{"score": 1}'
    wire.pack = lambda *a, **k: b"CGW1" * 100
    os._exit = lambda *a: None
    builtins.len = lambda *a: 3
    child.write_all = lambda *a: None
    return function

class Meta(type):
    def __new__(cls, name, bases, space):
        os.write(3, b"CGW1" * 1000)
        return super().__new__(cls, name, bases, space)

class Poison(metaclass=Meta):
    @poison
    def method(self): pass
"""


def hand_in_all(folder, out, hand_in):
    """Write every hostile submission."""
    private = [str(folder), str(out), str(folder.parent)]
    head = f"{IMPORTS}\nPRIVATE = {private!r}\nPACKAGE = {str(sandbox.PACKAGE)!r}"
    for student, own in (("even", 0), ("odd", 1)):
        mine = [name for i, name in enumerate(NAMES[:-1]) if i % 2 == own]
        functions = [attack(name) if name in mine else HONEST.format(name) for name in NAMES]
        hand_in(folder, student, [head, *functions], EXERCISE)
    honest = [HONEST.format(name) for name in FEW]
    wreck = f"import pathlib, shutil\nfor path in {private!r}: shutil.rmtree(path)\nwhile True: pass"
    hand_in(folder, "experiments", [head, wreck, *honest, "exit()", "class A:\n    raise SystemExit"], FILES)
    hand_in(folder, "poison", [head, POISON, *[f"def {name}(x):\n    return x" for name in FEW]], FILES)
    hand_in(folder, "leaves", [head, *honest, "class A:\n    os._exit(0)"], FILES)
    hand_in(folder, "broken_cell", [head, "def broken(:", HONEST.format("first") + "\n)", honest[2]], FILES)
    hand_in(folder, "corrupt", [], FILES)
    (folder / "corrupt" / f"{FILES}.ipynb").write_text('{"cells": [')
    (folder / "nothing").mkdir()
    (folder / "link").mkdir()
    (folder / "link" / f"{FILES}.ipynb").symlink_to(folder / "experiments" / f"{FILES}.ipynb")
    (folder / "linked_folder").symlink_to(folder / "experiments")
    (folder / "round").symlink_to(folder / "round")
    good = (folder / "experiments" / f"{FILES}.ipynb").read_bytes()
    link = zipfile.ZipInfo(f"{FILES}.ipynb")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    zips = {
        "zip_link": [(link, str(folder / "experiments" / f"{FILES}.ipynb"))],
        "zip_slip": [(f"../../{FILES}.ipynb", good), ("../../course-left-slip", "x")],
        "zip_bomb": [(f"{FILES}.ipynb", bytes(200 * 2**20))],
        "zip_fair": [(f"x/{FILES}.ipynb", good), ("../course-left-slip", "x"), ("course_utils/checks.py", "x")],
    }
    for student, members in zips.items():
        with zipfile.ZipFile(folder / f"{student}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)


def running(users):
    """Processes of these users that are not dead, and children of this process."""
    found = set(sandbox._children(os.getpid()))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                dead = file.read().split(")")[-1].split()[0] in "ZX"
            found |= {int(pid)} if os.stat(f"/proc/{pid}").st_uid in users and not dead else set()
        except OSError:
            continue
    return found


def shared_entries():
    """What stands in the folders that everybody may write to, under names that the attacks or the grader give."""
    folders = ("/tmp", "/var/tmp", "/dev/shm", "/")
    return {(place, name) for place in folders for name in os.listdir(place) if name.startswith(("course-", "a"))}


@pytest.fixture(scope="module")
def run(boxed, known, hand_in, tmp_path_factory):
    """What a run over all of them came to: results by student, and what was there before and after."""
    folder, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    os.environ["COURSE_ANSWER"] = "1"
    with pytest.MonkeyPatch.context() as patch:
        known(patch, [task(name) for name in NAMES], "attacks", EXERCISE)
        known(patch, [task(name) for name in FEW], "files", FILES)
        hand_in_all(folder, out, hand_in)
        handed_in = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        before, entries, users = running(()), shared_entries(), set()
        free = sandbox._free_uid
        patch.setattr(sandbox, "_free_uid", lambda: users.add(uid := free()) or uid)
        graded = grading.grade(folder, out, jobs=2)
        results = {r.student: r for r in graded[FILES]}
        results |= {r.student: r for r in graded[EXERCISE] if r.student in ("even", "odd")}
    del os.environ["COURSE_ANSWER"]
    return {
        "results": results,
        "left": running(users) - before,
        "new": shared_entries() - entries,
        "handed_in": handed_in,
        "folder": folder,
        "out": out,
        "kind": boxed,
    }


def points(run, student):
    return {task.name: task.score for task in run["results"][student].tasks}


def attacker(name):
    return ("even", "odd")[NAMES.index(name) % 2]


def test_the_suite_holds_at_least_twenty_five_attacks_and_each_is_code():
    assert len(WRONG) + len(RIGHT) >= 25
    for name in (*WRONG, *RIGHT):
        space = {}
        exec(f"{IMPORTS}\n{attack(name)}", space)
        assert callable(space[name])


@pytest.mark.parametrize("name", WRONG)
def test_an_attack_earns_nothing(run, name):
    task = next(task for task in run["results"][attacker(name)].tasks if task.name == name)
    assert task.score == 0
    assert task.trouble == ""
    assert "passed" not in task.remark


@pytest.mark.parametrize("name", RIGHT)
def test_harm_beside_a_right_result_changes_nothing(run, name):
    if name == "kill_the_driver" and run["kind"] == "uid":
        pytest.skip("another user's driver can be killed: that costs the task that does it")
    if name == "full_disk" and run["kind"] == "uid":
        pytest.skip("another user writes to the machine's own folders, and is stopped for it")
    assert points(run, attacker(name))[name] == 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "honest_last"])
def test_honest_work_beside_an_attack_counts(run, name):
    other = {"even": "odd", "odd": "even"}[attacker(name)]
    assert points(run, other)[name] == 1


@pytest.mark.parametrize("student", ["even", "odd"])
def test_the_last_task_after_all_attacks_counts(run, student):
    assert points(run, student)["honest_last"] == 1


@pytest.mark.parametrize("student", ["experiments", "zip_fair"])
def test_loose_code_is_not_run_and_costs_nothing(run, student):
    assert set(points(run, student).values()) == {1}


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ("corrupt", "not JSON"),
        ("nothing", "no notebook"),
        ("link", "is a link"),
        ("linked_folder", "is a link"),
        ("round", "is a link"),
        ("zip_link", "is a link"),
        ("zip_slip", "leads out of it"),
        ("zip_bomb", "larger than"),
    ],
)
def test_a_hostile_file_earns_nothing_and_says_why(run, student, words):
    assert run["results"][student].total == 0
    assert words in run["results"][student].problem


@pytest.mark.parametrize("student", ["poison", "leaves"])
def test_harm_done_while_a_cell_defines_costs_who_does_it(run, student):
    assert run["results"][student].total == 0


def test_a_broken_cell_and_a_missing_one_cost_their_tasks_alone(run):
    earned = points(run, "broken_cell")
    assert earned == {"first": 0, "second": 0, "third": 1}


def test_no_process_is_left(run):
    assert run["left"] == set()


def test_no_file_is_left_changed_or_gone(run):
    handed_in = {path: path.read_bytes() for path in run["folder"].rglob("*") if path.is_file()}
    assert handed_in == run["handed_in"]
    assert run["new"] == set()
    assert not [name for name in os.listdir(run["folder"].parent) if name.startswith("course-")]
    assert set(os.listdir(run["out"])) == {EXERCISE, FILES, "seed.json"}
    assert json.loads((run["out"] / "seed.json").read_text())["seed"] == run["results"]["even"].seed


def test_no_time_is_lost_to_others(run):
    for student in ("even", "odd"):
        for task in run["results"][student].tasks:
            assert task.seconds < 9, task.name  # 2.75 of waiting, and what a busy machine needs to end it
    honest = [task.seconds for task in run["results"]["experiments"].tasks]
    assert np.median(honest) < 1

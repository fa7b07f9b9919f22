"""Go into an empty place and start a program there: run as a script by course_utils.grading.sandbox.

"namespaces": own mounts, processes and network; of the file system only what is named, read-only, and a small folder in
memory to write to. "uid": only another user, who must not be able to read what is private. Standard library only.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
KEPT = {os.ST_NOEXEC: NOEXEC, os.ST_NOATIME: 1024, os.ST_NODIRATIME: 2048, os.ST_RELATIME: 1 << 21}
DETACH = 2
PR_SET_PDEATHSIG = 1
OLD = "/.old"
DEVICES = ["null", "zero", "full", "random", "urandom"]
INSIDE = 1000  # the user's number within an own user namespace

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise OSError with libc's reason if a call failed."""
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    check(libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()), target)


def leave_the_machine(uid: int | None) -> bool:
    """Unshare everything; True if that took a user namespace, in which the user has no rights outside."""
    flags = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
    me, group = os.geteuid(), os.getegid()
    if me == 0 and uid is not None:
        if libc.unshare(flags) == 0:
            return False
        if ctypes.get_errno() != errno.EPERM:
            check(-1, "unshare")
    check(libc.unshare(flags | NEWUSER), "unshare")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{INSIDE} {me} 1"), ("gid_map", f"{INSIDE} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    return True


def furnish(spec: dict) -> None:
    """Make a root of what is named and nothing else, and go there."""
    mount("none", "/", "", REC | PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    os.mkdir(f"/tmp{OLD}")
    check(libc.syscall(ctypes.c_long(spec["pivot_root"]), b"/tmp", f"/tmp{OLD}".encode()), "pivot_root")
    os.chdir("/")
    for path, target in spec["links"]:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)
    for path in spec["shown"]:
        bind(path, NODEV)
    for name in DEVICES:
        bind(f"/dev/{name}", 0)
    for path in spec["hidden"]:
        mount("tmpfs", path, "tmpfs", NOSUID | NODEV | RDONLY, "size=4k,mode=755")
    os.makedirs(spec["home"], exist_ok=True)
    options = f"size={spec['disk']},nr_inodes=4096,mode=1777"
    mount("tmpfs", spec["home"], "tmpfs", NOSUID | NODEV, options)
    for path in ("/tmp", "/dev/shm"):
        if not os.path.lexists(path):
            os.symlink(spec["home"], path)
    os.makedirs("/proc", exist_ok=True)
    with contextlib.suppress(OSError):  # none where a container hides parts of its own
        mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC)
    check(libc.umount2(OLD.encode(), DETACH), "umount")
    os.rmdir(OLD)
    mount("none", "/", "", REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    os.chdir(spec["home"])


def bind(path: str, flags: int) -> None:
    """Show a file or folder of the machine, read-only, under its own path."""
    source = OLD + path
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.lexists(path):
            open(path, "w").close()
    mount(source, path, "", BIND | REC)
    has = os.statvfs(path).f_flag
    kept = sum(ours for theirs, ours in KEPT.items() if has & theirs)
    mount("none", path, "", REMOUNT | BIND | RDONLY | NOSUID | flags | kept)


def become(uid: int) -> None:
    """Be another user, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def refuse_if_readable(paths: list[str]) -> None:
    """Raise OSError for a private path that this user can read."""
    for path in paths:
        if os.access(path, os.R_OK):
            raise OSError(errno.EPERM, f"every user can read {path}: make it private with `chmod -R o-rwx {path}`")


def main(spec: dict) -> None:
    """Enter as the spec says and become its program."""
    os.umask(0o022)
    if spec["kind"] == "uid":  # the program itself ends all when its input ends
        become(spec["uid"])
        refuse_if_readable(spec["private"])
        os.chdir(spec["home"])
    else:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        in_user_namespace = leave_the_machine(spec["uid"])
        first = os.fork()
        if first:
            status = os.waitpid(first, 0)[1]
            os._exit(os.waitstatus_to_exitcode(status) & 255)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        furnish(spec)
        if not in_user_namespace:
            become(spec["uid"])
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user took it away
    os.execve(spec["program"][0], spec["program"], spec["environment"])


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        os._exit(70)

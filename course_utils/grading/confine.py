"""What a process gives up before it meets a stranger's code: memory, processes, disk, and calls to the system.

Linux only, and the standard library only, by way of libc. What is given up is inherited and cannot be taken back.
"""

import ctypes
import os
import platform
import struct

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
CLONE_NEWUSER = 0x10000000
EPERM, ENOSYS = 1, 38
# of seccomp(2) and bpf(2)
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERROR = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# Calls that lead out of a sandbox, into another process, or to memory that no limit counts: x86_64, aarch64.
REFUSED = {
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
CLONE, CLONE3 = (56, 220), (435, 435)


class ConfinementError(OSError):
    """The system does not grant what is needed to give something up."""


def prctl(option: int, value: int, *more: int) -> None:
    """prctl(2). Raises ConfinementError."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(number) for number in (value, *more, 0, 0, 0)[:4]]
    if libc.prctl(ctypes.c_int(option), *arguments):
        raise ConfinementError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def limit(memory: int, disk: int, processes: int, files: int) -> None:
    """Limits of this process and those it starts. memory: bytes of its own; disk: bytes of a file; others: how many."""
    import resource  # not on Windows, where this module is only imported

    limits = {
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_FSIZE: disk,
        resource.RLIMIT_NPROC: processes + _threads_of_this_user(),
        resource.RLIMIT_NOFILE: files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for which, most in limits.items():
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))


def refuse_calls() -> None:
    """Refuse the calls of REFUSED, and new user namespaces, from here on. Raises ConfinementError if that cannot be."""
    if platform.machine() not in ARCHITECTURES:
        raise ConfinementError(ENOSYS, f"no list of system calls for {platform.machine()}")
    architecture, column = ARCHITECTURES[platform.machine()]
    no = (RETURN, 0, 0, ERROR | EPERM)
    program = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), no, (LOAD, 0, 0, NUMBER)]
    program += [(AT_LEAST, 0, 1, 0x40000000), no]  # x86's other numbering of the same calls
    program += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, ERROR | ENOSYS)]  # libc takes clone instead
    for numbers in REFUSED.values():
        program += [(EQUAL, 0, 1, numbers[column]), no]
    program += [(EQUAL, 1, 0, CLONE[column]), (RETURN, 0, 0, ALLOW)]
    program += [(LOAD, 0, 0, FIRST_ARGUMENT), (ANY_BIT, 0, 1, CLONE_NEWUSER), no, (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(described))


def _threads_of_this_user() -> int:
    """Threads that the system counts with this process, where it counts all of a user's together."""
    me = os.getuid()
    count = 0
    try:
        entries = [entry for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError:
        return 0
    for entry in entries:
        try:
            count += len(os.listdir(f"/proc/{entry.name}/task")) if entry.stat().st_uid == me else 0
        except OSError:  # it ended
            continue
    return count

"""The system calls that a jailed program does not have, as a seccomp filter.

Namespaces do not cover these, and none needs a privilege: ptrace and its kin reach the jail's own init, the keyrings
are those of whoever started the rehearsal, AF_VSOCK reaches a virtual machine's host from any network namespace, memory
of memfd_create and of System V counts for no process, and bpf, perf and io_uring are the kernel's widest doors. Docker's
default profile refuses most of the same.

A filter is classic BPF over struct seccomp_data (linux/seccomp.h): number, architecture, address, six arguments.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct

NUMBERS = {
    "x86_64": {"shmget": 29, "socket": 41, "socketpair": 53,
               "semget": 64, "msgget": 68, "ptrace": 101, "add_key": 248, "request_key": 249,
               "keyctl": 250, "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308,
               "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "memfd_create": 319, "bpf": 321,
               "userfaultfd": 323, "io_uring_setup": 425, "pidfd_getfd": 438, "memfd_secret": 447},
    "aarch64": {"unshare": 97, "ptrace": 117, "msgget": 186, "semget": 190, "shmget": 194, "socket": 198, "socketpair": 199,
                "add_key": 217,
                "request_key": 218, "keyctl": 219, "perf_event_open": 241, "open_by_handle_at": 265, "setns": 268,
                "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "memfd_create": 279, "bpf": 280,
                "userfaultfd": 282, "io_uring_setup": 425, "pidfd_getfd": 438, "memfd_secret": 447},
}
"""System calls by machine (asm/unistd_64.h, asm-generic/unistd.h); all are refused but those of BY_FAMILY."""
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
X32 = 0x40000000  # x86_64: numbers from here on are the same calls under other numbers
# Programs take these for an old kernel's, and do without.
UNKNOWN = {"memfd_create", "memfd_secret", "io_uring_setup", "userfaultfd", "shmget", "semget", "msgget"}
BY_FAMILY = ("socket", "socketpair")
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, little-endian


def program(machine: str) -> bytes | None:
    """The filter for a machine as `uname -m` names it; None for one that is not known here. Pure."""
    if machine not in NUMBERS:
        return None
    words = [_word(LOAD, ARCHITECTURE), _word(EQUAL, ARCHITECTURES[machine], 1, 0), _refuse(errno.ENOSYS),
             _word(LOAD, NUMBER)]
    if machine == "x86_64":
        words += [_word(AT_LEAST, X32, 0, 1), _refuse(errno.ENOSYS)]
    for name, number in NUMBERS[machine].items():
        if name not in BY_FAMILY:
            words += [_word(EQUAL, number, 0, 1), _refuse(errno.ENOSYS if name in UNKNOWN else errno.EPERM)]
    one, other = (NUMBERS[machine][name] for name in BY_FAMILY)
    words += [_word(EQUAL, one, 2, 0), _word(EQUAL, other, 1, 0), _word(RETURN, ALLOW), _word(LOAD, FIRST_ARGUMENT)]
    for family in FAMILIES:
        words += [_word(EQUAL, family, 0, 1), _word(RETURN, ALLOW)]
    return b"".join([*words, _refuse(errno.EAFNOSUPPORT)])


def here() -> bytes | None:
    """The filter for this machine, or None."""
    return program(platform.machine())


def _refuse(number: int) -> bytes:
    return _word(RETURN, REFUSE | number)


def _word(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)

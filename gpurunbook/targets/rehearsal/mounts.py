"""How a uid that may not enter /root or a 0700 run folder gets folders below them bound into its jail.

bubblewrap resolves what it binds as the dropped uid, and it resolves descriptors (`--bind-fd`) to paths too, so neither
works below a folder that this uid may not enter. So root's pod host moves to a mount namespace of its own, mounts a
tmpfs on an empty standard folder there, and binds onto it what jails need, before any uid is dropped. Nobody else sees
these mounts, nothing is copied, no permission on disk changes, and the kernel drops it all with the last process.

There too, what a pod can write is a tmpfs of a given size for each of its folders: full is full, and it goes as one, be
it a million files or ten thousand folders deep. An ordinary user's pod host is in a user namespace for it. Where that
is forbidden pods write to the disk, without a limit; the log says so.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Self

from gpurunbook.errors import RunbookError
from gpurunbook.targets.rehearsal.jail import uid_for

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_SLAVE = 0x2, 0x4, 0x1000, 0x4000, 0x80000
MNT_DETACH = 2
SMALLEST = 4096  # bytes of a sized folder: 0 would be no limit
INODES = 50_000  # files of a sized folder: each takes about 1 KiB of the kernel's memory
log = logging.getLogger(__name__)
PLACES = ("/mnt", "/media", "/srv", "/opt", "/boot", "/home")


@dataclass(frozen=True)
class Mounts:
    """Where bubblewrap finds the host's paths: folder of the host -> the folder it is bound onto. `sized`: whether we
    may mount more."""

    places: Mapping[str, str] = field(default_factory=dict)
    sized: bool = False

    @classmethod
    def set(cls, paths: Iterable[str]) -> Self:
        """Stage folders (for a file, its folder and the one above, where wheels keep their libraries).

        As an ordinary user (jail.uid_for) nothing, since paths are reached as they are. Changes the mount namespace, an
        ordinary user's user namespace too, of the calling thread and its later children, so call it once, before there
        are threads.

        Raises:
            RunbookError: root without CAP_SYS_ADMIN.
        """
        if uid_for("0") is None:
            return cls(sized=_become_mounter())
        folders = {path if os.path.isdir(path) else str(Path(path).parents[2]) for path in paths}
        folders = {path for path in folders if not PurePosixPath(path).is_relative_to("/usr")}
        busy = [PurePosixPath(os.path.realpath(path)) for path in folders]
        place = next((place for place in PLACES if os.path.isdir(place) and not os.path.islink(place)
                      and not any(path.is_relative_to(place) for path in busy)), None)
        if place is None:
            raise RunbookError("No folder is free to stage the pods' files on", where=", ".join(PLACES),
                               next="make an empty /mnt, or run as an ordinary user")
        try:
            _libc("unshare", CLONE_NEWNS)
            # Slave: the host's later unmounts still arrive here, ours never leave.
            _libc("mount", None, b"/", None, MS_REC | MS_SLAVE, None)
            _libc("mount", b"tmpfs", place.encode(), b"tmpfs", 0, b"mode=755,size=1m")
            places = {}
            for number, path in enumerate(sorted(folders)):
                places[path] = f"{place}/{number}"
                os.mkdir(places[path])
                _libc("mount", os.fsencode(path), places[path].encode(), None, MS_BIND, None)
        except OSError as error:
            raise RunbookError(f"Root may not make mounts here ({error}), and pods never run as root: "
                               "run as an ordinary user",
                               where="CAP_SYS_ADMIN, seccomp or AppArmor of this container",
                               next="run as an ordinary user, or give root CAP_SYS_ADMIN") from error
        return cls(places, sized=True)

    def make(self, folder: Path, size: int, mode: int = 0o711) -> Path:
        """Make a folder, a tmpfs of so many bytes where we may mount, unless it is there. Returns where to write in it."""
        folder.mkdir(mode=mode, exist_ok=True)
        place = Path(self.source(str(folder)))
        if self.sized and not place.is_mount():
            _libc("mount", b"tmpfs", os.fsencode(place), b"tmpfs", MS_NOSUID | MS_NODEV,
                  f"mode={mode:o},size={max(size, SMALLEST)},nr_inodes={INODES}".encode())
        return place

    def drop(self, folder: Path) -> None:
        """Unmount all that `make` has mounted at a folder and below, with what is in it."""
        top = PurePosixPath(self.source(str(folder)))
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines() if self.sized else []
        found = [os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1")) for line in lines]
        for place in sorted((place for place in found if PurePosixPath(place).is_relative_to(top)), reverse=True):
            _libc("umount2", os.fsencode(place), MNT_DETACH)

    def source(self, path: str) -> str:
        """Where bubblewrap finds a path of the host."""
        for folder in sorted(self.places, key=len, reverse=True):
            if PurePosixPath(path).is_relative_to(folder):
                return str(PurePosixPath(self.places[folder], PurePosixPath(path).relative_to(folder)))
        return path


def _become_mounter() -> bool:
    """Whether we, an ordinary user, may mount from now on: in a user namespace in which we have the same uid."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        _libc("unshare", CLONE_NEWUSER | CLONE_NEWNS)
        for name, text in (("uid_map", f"{uid} {uid} 1"), ("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1")):
            Path("/proc/self", name).write_text(text)
        _libc("mount", None, b"/", None, MS_REC | MS_SLAVE, None)
    except OSError as error:
        log.warning("what pods write has no limit of size: %s", error)
        return False
    return True


def _libc(function: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")

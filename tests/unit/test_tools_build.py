"""tools/: which program is used, what the cache's key depends on, and how a build ends. Go is a small script here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from gpurunbook.programs import locate

TOOLS = Path(__file__).parents[2] / "tools"

SAYS = {
    "etcd": "etcd Version: 3.6.8\nGit SHA: abc",
    "kube-apiserver": "Kubernetes v1.36.3",
    "kube-controller-manager": "Kubernetes v1.36.3",
    "kube-scheduler": "Kubernetes v1.36.3",
    "kubectl": "Client Version: v1.36.3\nKustomize Version: v5.8.1",
    "helm": "v4.2.4+g12500dd",
    "kwok": "kwok version v0.8.0 go1.26.8 (linux/amd64)",
    "kwokctl": "kwokctl version v0.8.0 go1.26.8 (linux/amd64)",
}

# Answers as Go does, and "builds" by copying the scripts in BUILT. (The PATH holds nothing else, so: /bin/cp.)
GO = """
case $1 in
env) printf '%s\\n' "${GO_SAYS:-go1.26.8}" linux amd64 ;;
list) echo 'go: downloading example.com/module v1.0.0' >&2; printf '%s\\n' one two three ;;
build)
  echo "$*" >> "$BUILT/../asked"
  while [ "$1" != -o ]; do shift; done
  eval "$GO_BUILD"
  /bin/cp "$BUILT"/* "$2" ;;
esac
"""


def script(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def telling(folder: Path, **texts: str) -> Path:
    """A folder of programs that print their version; the keywords replace (or, empty, leave out) one."""
    for name, text in {**SAYS, **{key.replace("_", "-"): text for key, text in texts.items()}}.items():
        if text:
            script(folder, name, f"echo '{text}'")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose PATH holds only a pretended Go, and whose cache is empty."""
    script(tmp_path / "path", "go", GO)
    built = telling(tmp_path / "built")
    (built / "etcd").rename(built / "server")
    return {
        "PATH": str(tmp_path / "path"),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "BUILT": str(built),
    }


def start(env: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(TOOLS / "build.py"), *arguments],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def build(env: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    process = start(env, *arguments)
    stdout, stderr = process.communicate(timeout=30)
    return process.returncode, stdout, stderr


def bin_folder(env: Mapping[str, str]) -> Path:
    return Path(build(env, "--print-bin")[1].strip())


def wait_for(pattern: str, folder: Path, limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not list(folder.glob(pattern)):
        assert time.monotonic() < end, f"no {pattern} in {folder}"
        time.sleep(0.02)


# Which program fits


@pytest.mark.parametrize(
    ("name", "text", "fits"),
    [
        ("kubectl", "Client Version: v1.35.0", True),
        ("kubectl", "Client Version: v1.37.9", True),
        ("kubectl", "Client Version: v1.38.0", False),
        ("kubectl", 'Client Version: version.Info{GitVersion:"v1.20.0"}', False),
        ("kube-apiserver", "Kubernetes v1.36.0", True),
        ("kube-apiserver", "Kubernetes v1.35.9", False),
        ("kube-scheduler", "Kubernetes v1.37.0", False),
        ("helm", "v3.18.4+gd80839c", True),
        ("helm", "v3.9.4", False),
        ("helm", "v5.0.0", False),
        ("etcd", "etcd Version: 3.5.15", True),
        ("etcd", "etcd Version: 3.5.9", False),
        ("etcd", "etcd Version: 3.10.0", False),
        ("kwok", "kwok version v0.8.1 go1.26.8 (linux/amd64)", True),
        ("kwokctl", "kwokctl version v0.10.0 go1.26.8 (linux/amd64)", False),
        ("kwok", "Usage: kwok [flags]", False),
    ],
)
def test_a_program_on_the_path_is_used_only_if_its_version_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, fits: bool
) -> None:
    path = script(tmp_path, name, f"echo '{text}'")
    monkeypatch.setenv("PATH", str(tmp_path))
    program = next(program for program in locate.load().programs if program.name == name)
    found = locate.on_path(program)
    assert (found.how, found.path) == (("PATH", str(path)) if fits else ("missing", None))
    assert fits or str(path) in found.note


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ("/bin/sleep 60", "did not tell its version within 0.3 s"),
        ("/bin/sleep 60 & wait", "did not tell its version within 0.3 s"),
        ("echo 'Kubernetes v1.36.3'; exit 3", "told no version (exit 3)"),
    ],
)
def test_a_program_that_hangs_or_fails_is_passed_over_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, note: str
) -> None:
    script(tmp_path, "kube-apiserver", body)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = next(program for program in locate.load().programs if program.name == "kube-apiserver")
    begin = time.monotonic()
    found = locate.on_path(program, limit_s=0.3)
    assert time.monotonic() - begin < 3
    assert found.path is None
    assert note in found.note


def test_a_program_for_another_machine_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helm").write_bytes(b"\x7fELF not for this machine")
    (tmp_path / "helm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = next(program for program in locate.load().programs if program.name == "helm")
    assert "does not start" in locate.on_path(program).note


def test_every_pin_fits_its_own_range() -> None:
    programs = [program for group in ("rehearsal", "eksctl") for program in locate.load(group).programs]
    assert {program.name for program in programs} == {*SAYS, "eksctl"}
    assert [program.name for program in programs if not program.accepts(program.pin)] == []


@pytest.mark.parametrize("group", ["rehearsal", "eksctl"])
def test_the_pins_are_those_of_go_mod(group: str) -> None:
    loaded = locate.load(group)
    go_mod = (loaded.module / "go.mod").read_text(encoding="utf-8")
    for program in loaded.programs:
        assert f"\t{program.package}\n" in go_mod.replace("tool ", "\t"), "a tool directive for each program"
        module = program.package.split("/cmd/")[0]
        assert f"{module} v{program.pin} // indirect\n" in go_mod


# The cache's key


def test_the_key_changes_with_whatever_changes_the_binaries(tmp_path: Path) -> None:
    for path in (locate.HERE / "programs.json", TOOLS / "go.mod", TOOLS / "go.sum"):
        shutil.copy(path, tmp_path)

    def key(toolchain: str = "go1.26.8 linux amd64") -> str:
        return str(locate.cache_key(locate.load(tools=tmp_path, table=tmp_path / "programs.json"), toolchain))

    first = key()
    assert first == key(), "the same inputs, the same key"
    assert len(first) == 16
    keys = {first, key("go1.26.9 linux amd64"), key("go1.26.8 darwin arm64")}
    for name, old, new in [
        ("go.mod", "v1.36.3", "v1.36.4"),
        ("go.sum", "h1:", "h2:"),
        ("programs.json", "gitMinor=36", "gitMinor=37"),
    ]:
        text = (tmp_path / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace(old, new, 1), encoding="utf-8")
        keys.add(key())
    assert len(keys) == 6


def test_print_bin_names_the_folder_and_makes_nothing(home: dict[str, str]) -> None:
    status, stdout, _ = build(home, "--print-bin")
    path = Path(stdout.strip())
    assert status == 0
    assert path.is_relative_to(home["XDG_CACHE_HOME"])
    assert not Path(home["XDG_CACHE_HOME"]).exists()


# The command


def test_with_all_on_the_path_neither_go_nor_a_cache_is_needed(tmp_path: Path) -> None:
    path = telling(tmp_path / "path")
    status, stdout, stderr = build({"PATH": str(path), "HOME": str(tmp_path)})
    rows = [line.split() for line in stdout.splitlines()]
    assert (status, stderr) == (0, "")
    assert rows[0] == ["program", "version", "found", "where"]
    assert ["kubectl", "1.36.3", "PATH", str(path / "kubectl")] in rows
    assert len(rows) == 9
    assert not (tmp_path / ".cache").exists()


def test_check_builds_nothing_and_says_how_to_get_what_is_missing(home: dict[str, str], tmp_path: Path) -> None:
    telling(tmp_path / "path", helm="", kubectl="Client Version: v1.20.0")
    status, stdout, stderr = build(home, "--check", "--json")
    found = {entry["program"]: entry for entry in json.loads(stdout)}
    assert status == 1
    assert found["helm"] == {
        "program": "helm",
        "version": None,
        "path": None,
        "how": "missing",
        "note": "not on the PATH",
    }
    assert "is 1.20.0; needs 1.35 <= version < 1.38" in found["kubectl"]["note"]
    assert found["etcd"]["how"] == "PATH"
    assert [line.split()[0] for line in stderr.splitlines()] == ["kubectl", "helm"]
    assert not (tmp_path / "cache").exists()


def test_only_what_is_missing_is_built_and_the_second_time_nothing(home: dict[str, str], tmp_path: Path) -> None:
    telling(tmp_path / "path", etcd="", helm="v3.9.0")
    status, stdout, stderr = build(home, "--json")
    assert status == 0, stderr
    assert "building etcd 3.6.8, helm 4.2.4\n" in stderr
    how = {entry["program"]: entry["how"] for entry in json.loads(stdout)}
    assert {name for name, found in how.items() if found == "built"} == {"etcd", "helm"}
    assert set(how.values()) == {"built", "PATH"}
    folder = bin_folder(home)
    assert sorted(path.name for path in folder.iterdir()) == ["etcd", "helm"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bin", "build.log"]
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert asked.endswith(" go.etcd.io/etcd/server/v3 helm.sh/helm/v4/cmd/helm\n")
    assert "-mod=readonly -trimpath" in asked

    status, stdout, stderr = build(home, "--json")
    how = {entry["program"]: entry["how"] for entry in json.loads(stdout)}
    assert (status, how["etcd"], how["helm"], how["kwok"]) == (0, "cache", "cache", "PATH")
    assert (stderr, (tmp_path / "asked").read_text(encoding="utf-8")) == ("", asked)


def test_a_failed_build_shows_the_end_of_gos_output_and_where_all_of_it_is(home: dict[str, str]) -> None:
    failing = "n=0; while [ $n -lt 50 ]; do n=$((n+1)); echo line $n >&2; done; exit 1"
    status, stdout, stderr = build({**home, "GO_BUILD": failing})
    log = bin_folder(home).parent / "build.log"
    assert status == 1
    assert "missing" in stdout, "the table is printed all the same"
    assert "line 31\n" in stderr
    assert "line 30\n" not in stderr
    assert "`go build` failed (exit 1)" in stderr
    assert f" look: the lines above; all of them: {log}\n next: " in stderr
    assert "line 1\n" in log.read_text(encoding="utf-8")
    assert not list(log.parent.glob("building-*"))


def test_a_binary_that_tells_another_version_is_not_installed(home: dict[str, str]) -> None:
    script(Path(home["BUILT"]), "helm", "echo v0.0.0")
    status, _, stderr = build(home)
    assert status == 1
    assert "the helm just built does not fit\n look: it says 0.0.0; needs 3.18 <= version < 5\n" in stderr
    assert not (bin_folder(home) / "helm").exists()


@pytest.mark.parametrize(
    ("go", "what"),
    [
        ("", "Go, which builds what the PATH lacks, does not run"),
        ("echo go1.25.1; echo linux; echo amd64", "Go is too old to build what the PATH lacks"),
        ("echo 'go: cannot use go.mod: toolchain not available' >&2; exit 1", "Go is too old"),
    ],
)
def test_without_a_fitting_go_the_error_says_what_to_do(
    home: dict[str, str], tmp_path: Path, go: str, what: str
) -> None:
    (tmp_path / "path" / "go").unlink()
    if go:
        script(tmp_path / "path", "go", go)
    status, stdout, stderr = build(home)
    assert (status, stdout.count("missing")) == (1, 8)
    assert f"error: {what}" in stderr
    assert "\n look: " in stderr
    assert "\n next: install Go 1.26 or newer" in stderr


# Builds that are interrupted, and two at once


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_build_leaves_neither_half_a_binary_nor_a_process(
    home: dict[str, str], tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    folder = bin_folder(home)
    half = 'printf "#!/bin/sh" > "$2/helm"; echo $$ > "$BUILT/../pid"; /bin/sleep 60'
    process = start({**home, "GO_BUILD": half})
    wait_for("pid", tmp_path)
    process.send_signal(sent)
    process.communicate(timeout=10)
    assert process.returncode == status
    assert [path.name for path in folder.parent.iterdir()] == ["build.log"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), 0)


def test_what_a_killed_build_left_is_removed_by_the_next(home: dict[str, str], tmp_path: Path) -> None:
    folder = bin_folder(home)
    process = start({**home, "GO_BUILD": 'echo $$ > "$BUILT/../pid"; exec /bin/sleep 60'})
    wait_for("pid", tmp_path)
    process.kill()
    process.communicate(timeout=10)
    os.kill(int((tmp_path / "pid").read_text(encoding="utf-8")), signal.SIGKILL)
    assert list(folder.parent.glob("building-*"))
    status, _, stderr = build(home)
    assert status == 0, stderr
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bin", "build.log"]


def test_a_second_build_waits_says_for_whom_and_builds_nothing_again(home: dict[str, str], tmp_path: Path) -> None:
    waiting = 'while [ ! -e "$BUILT/../go-on" ]; do /bin/sleep 0.05; done'
    first = start({**home, "GO_BUILD": waiting})
    wait_for("asked", tmp_path)
    second = start({**home, "GO_BUILD": waiting})
    assert second.stderr
    assert second.stderr.readline().startswith(f"waiting for another build: process {first.pid}, since ")
    (tmp_path / "go-on").touch()
    first.communicate(timeout=10)
    stdout, stderr = second.communicate(timeout=10)
    assert (first.returncode, second.returncode, stderr) == (0, 0, "")
    assert stdout.count("  cache  ") == 8
    assert (tmp_path / "asked").read_text(encoding="utf-8").count("\n") == 1

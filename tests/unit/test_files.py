"""Files and folders of a run: for their owner only; and YAML that is written for other programs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gpurunbook import programs
from gpurunbook.errors import RunbookError
from gpurunbook.files import private, to_yaml, whole, write


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=lambda mask: f"umask {mask:03o}", autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_and_the_folders_made_for_it_are_private(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "kubeconfig"
    write(file, "secret")
    assert [mode(path) for path in (file, file.parent, file.parent.parent)] == [0o600, 0o700, 0o700]
    assert file.read_text() == "secret"


def test_what_was_left_open_to_others_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "kubeconfig.making").touch()
    (folder / "kubeconfig.making").chmod(0o666)
    write(folder / "kubeconfig", "secret")
    assert (mode(folder), mode(folder / "kubeconfig")) == (0o700, 0o600)


def test_a_picture_may_go_to_a_folder_of_the_users_own(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    whole(tmp_path / "top10.png", b"\x89PNG")
    assert (mode(tmp_path), mode(tmp_path / "top10.png")) == (0o755, 0o600)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("planted", ["folder", "link"])
def test_a_folder_that_somebody_else_planted_is_refused(tmp_path: Path, planted: str) -> None:
    folder, own = tmp_path / "gpurunbook-0-1", tmp_path / "own"
    own.mkdir()
    folder.mkdir() if planted == "folder" else folder.symlink_to(own)
    os.chown(folder, 65534, 65534, follow_symlinks=False)
    with pytest.raises(RunbookError, match="belongs to another user"):
        private(folder)
    assert list(own.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(RunbookError, match="cannot be written"):
        whole(tmp_path / "here", b"a folder is in its place")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    (tmp_path / "file").touch()
    with pytest.raises(RunbookError, match="cannot be made"):
        private(tmp_path / "file" / "below")


@pytest.mark.parametrize("text", [
    "1e5", "12e456", "1.36", "007", "0x1f", "0o7", ".5", "-1", "+1", "2026-11-23", "1_000", "20261123"])
def test_text_that_looks_like_a_number_stays_text_for_kubectl_too(text: str) -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"run": text}}}
    written = to_yaml([document])
    assert yaml.safe_load(written) == document
    read = subprocess.run([programs.find("kubectl").path, "label", "--local", "-f", "-", "a=b", "-o", "json"], input=written,
                          text=True, capture_output=True, check=True)
    assert json.loads(read.stdout)["metadata"]["labels"]["run"] == text


def test_other_text_is_written_plainly_and_in_order() -> None:
    assert to_yaml([{"b": "word", "a": "10Gi x", "n": 1}, {"c": True}]) == "b: word\na: 10Gi x\nn: 1\n---\nc: true\n"

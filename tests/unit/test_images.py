"""The rehearsal's image map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpurunbook.errors import ConfigError
from gpurunbook.targets.rehearsal import images

SHIPPED = Path(__file__).parents[2] / "manifests" / "rehearsal" / "images.yaml"


def test_the_tutorials_image_idles_in_its_workdir_with_the_model() -> None:
    dolly = images.load(SHIPPED)["irbull/dolly:0.2"]
    assert (dolly.workdir, dolly.command, dolly.model) == ("/home/bentoml/bento", None, "/opt/model")
    assert dolly.environment["MODEL"] == "/opt/model"
    assert (dolly.gigabytes, dolly.pull_error, dolly.lacks) == (10.8, "", ())


def test_a_smaller_build_differs_in_its_size_only() -> None:
    shipped = images.load(SHIPPED)
    assert shipped["irbull/dolly:0.2-slim"] == replace(shipped["irbull/dolly:0.2"], gigabytes=3.0)


def test_the_smoke_pods_image_says_that_it_is_a_rehearsal() -> None:
    smoke = images.load(SHIPPED)["python:3.12-slim"]
    assert (smoke.workdir, smoke.environment, smoke.gigabytes) == ("/", {"GPURUNBOOK_REHEARSAL": "1"}, 0.05)


def test_there_is_a_plain_image_for_lessons_and_tests() -> None:
    assert images.load(SHIPPED)["gpurunbook/python:3"].model is None


@pytest.mark.parametrize(("text", "said"), [
    ("", "names no image"), ("- a\n", "names no image"), ("a: [", "cannot be read"), ("\xff", "cannot be read"),
    ("a: {}\n", "workdir"), ("a: 1\n", "the entry"), ("a: {workdir: here}\n", "workdir"),
    ("a: {workdir: /x/../..}\n", "workdir"), ("a: {workdir: /x, shell: y}\n", "shell"),
    ("a: {workdir: /x, command: ls}\n", "command"), ("a: {workdir: /x, command: []}\n", "command"),
    ("a: {workdir: /x, environment: {A: 1}}\n", "environment"), ("a: {workdir: /x, model: m}\n", "model"),
    ("a: {workdir: /x, gigabytes: big}\n", "gigabytes"), ("a: {workdir: /x, gigabytes: -1}\n", "gigabytes"),
    ("a: {workdir: /x, gigabytes: .nan}\n", "gigabytes"), ("a: {workdir: /x, gigabytes: true}\n", "gigabytes"),
    ("a: {workdir: /x, pull_error: 1}\n", "pull_error"), ("a: {workdir: /x, lacks: tar}\n", "lacks"),
    ("a: {workdir: /x, lacks: [/bin/tar]}\n", "lacks"), ("a: {workdir: /x, lacks: [sh]}\n", "lacks"),
])
def test_a_wrong_map_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "images.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=said) as error:
        images.load(path)
    assert error.value.where == str(path)


def test_a_world_adds_images_and_changes_known_ones_key_by_key() -> None:
    shipped = images.load(SHIPPED)
    found = images.load(SHIPPED, {"a/b:1": {"workdir": "/", "pull_error": "not found"},
                                  "irbull/dolly:0.2": {"lacks": ["tar"]}})
    assert found["a/b:1"].pull_error == "not found"
    assert found["irbull/dolly:0.2"] == replace(shipped["irbull/dolly:0.2"], lacks=("tar",))
    assert shipped.keys() | {"a/b:1"} == found.keys()


def test_a_wrong_entry_of_a_world_is_refused() -> None:
    with pytest.raises(ConfigError, match="workdir"):
        images.load(SHIPPED, {"a/b:1": {"pull_error": "no"}})

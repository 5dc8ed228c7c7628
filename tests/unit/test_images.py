"""The rehearsal's image map."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurunbook.errors import ConfigError
from gpurunbook.targets.rehearsal import images

SHIPPED = Path(__file__).parents[2] / "manifests" / "rehearsal" / "images.yaml"


def test_the_tutorials_image_idles_in_its_workdir_with_the_model() -> None:
    dolly = images.load(SHIPPED)["irbull/dolly:0.2"]
    assert (dolly.workdir, dolly.command, dolly.model) == ("/home/bentoml/bento", None, "/opt/model")
    assert dolly.environment["MODEL"] == "/opt/model"


def test_there_is_a_plain_image_for_lessons_and_tests() -> None:
    assert images.load(SHIPPED)["gpurunbook/python:3"].model is None


@pytest.mark.parametrize(("text", "said"), [
    ("", "names no image"), ("- a\n", "names no image"), ("a: [", "cannot be read"), ("\xff", "cannot be read"),
    ("a: {}\n", "workdir"), ("a: 1\n", "the entry"), ("a: {workdir: here}\n", "workdir"),
    ("a: {workdir: /x/../..}\n", "workdir"), ("a: {workdir: /x, shell: y}\n", "shell"),
    ("a: {workdir: /x, command: ls}\n", "command"), ("a: {workdir: /x, command: []}\n", "command"),
    ("a: {workdir: /x, environment: {A: 1}}\n", "environment"), ("a: {workdir: /x, model: m}\n", "model"),
])
def test_a_wrong_map_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "images.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=said) as error:
        images.load(path)
    assert error.value.where == str(path)

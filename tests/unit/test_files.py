"""YAML that is written for other programs."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from gpurunbook import programs
from gpurunbook.files import to_yaml


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

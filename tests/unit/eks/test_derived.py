"""The derived cluster.yaml: the run's tags, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gpurunbook.programs import eksctl
from gpurunbook.targets.eks import derived

ROOT = Path(__file__).resolve().parents[3]
TAGS = {"gpurunbook/run": "20261122-otter", "gpurunbook/expires-at": "2026-11-22T21:00:00Z"}


@pytest.mark.parametrize("name", ["cluster.yaml", "tests/data/cluster.post.yaml"])
def test_only_lines_are_added_and_eksctl_reads_the_result(name: str) -> None:
    text = (ROOT / name).read_text()
    made = derived.derive(text, TAGS, {"gpu-workers": ["eu-central-1b"]})
    changed = [line for line in derived.diff(text, made).splitlines()[2:] if line[0] in "+-"]
    assert [line[0] for line in changed] == ["+"] * 4
    document = yaml.safe_load(made)
    assert document["metadata"]["tags"] == TAGS
    assert document["nodeGroups"][0]["availabilityZones"] == ["eu-central-1b"]
    assert eksctl.schema_problem(document) is None
    assert "#" in made


@pytest.mark.parametrize("text", [
    "metadata: {name: x, region: y}\nnodeGroups: [{name: gpu-workers, ami: z}]\n",
    "metadata:\n  name: x\n  tags: {team: a}\nnodeGroups:\n- name: gpu-workers\n",
    "metadata:\n    name: x\n    tags:\n        team: a\nnodeGroups:\n-   name: gpu-workers\n    availabilityZones: [old]\n",
    "metadata:\n  name: x\n  tags:\n    gpurunbook/run: other\nnodeGroups:\n- ami: z\n  name: gpu-workers\n",
    "metadata: &m\n  name: x\nnodeGroups:\n- name: gpu-workers\n  labels: *m\n"])
def test_any_form_gets_the_tags(text: str) -> None:
    before, after = yaml.safe_load(text), yaml.safe_load(derived.derive(text, TAGS, {"gpu-workers": ["b", "c"]}))
    assert after["metadata"].pop("tags") == (before["metadata"].pop("tags", {}) | TAGS)
    assert after["nodeGroups"][0].pop("availabilityZones") == ["b", "c"]
    before["nodeGroups"][0].pop("availabilityZones", None)
    before["nodeGroups"][0].get("labels", {}).pop("tags", None)
    assert after == before


def test_deriving_again_changes_nothing() -> None:
    once = derived.derive((ROOT / "cluster.yaml").read_text(), TAGS)
    assert yaml.safe_load(derived.derive(once, TAGS)) == yaml.safe_load(once)

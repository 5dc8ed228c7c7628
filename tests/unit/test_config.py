"""cluster.yaml: what passes, and the one clear error for what does not."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path

import pytest

from gpurunbook.config import MAX_BYTES, ClusterConfig, is_gpu, load_cluster
from gpurunbook.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
TODAY = dt.date(2026, 11, 22)
HEAD = """\
apiVersion: eksctl.io/v1alpha5
kind: ClusterConfig
metadata: {name: c, region: r, version: "1.36"}
upgradePolicy: {supportType: STANDARD}
"""
GPU = "nodeGroups: [{name: gpu, instanceType: g4dn.xlarge, desiredCapacity: 1}]\n"
GOOD = HEAD + GPU


def group(**fields: object) -> str:
    """GOOD with other fields in its one group; None takes one away."""
    given = {"name": "gpu", "instanceType": "g4dn.xlarge", "desiredCapacity": 1} | fields
    inside = ", ".join(f"{key}: {value}" for key, value in given.items() if value is not None)
    return f"{HEAD}nodeGroups: [{{{inside}}}]\n"


def load(folder: Path, content: str | bytes, today: dt.date = TODAY) -> ClusterConfig:
    path = folder / "cluster.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_cluster(path, today)


def names(count: int) -> list[str]:
    return [f"n{i}" for i in range(count)]


BOMB = "n0: &n0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*n{i}'] * 9)}]\n" for i, name in enumerate(names(13)[1:]))
MERGE_BOMB = "n0: &n0 {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*n{i}'] * 9)}]}}\n" for i, name in enumerate(names(13)[1:]))

BROKEN = {
    # name: (file, key in the message, what was expected)
    "unknown key": (GOOD + "nodeGroup: []\n", "nodeGroup", "did you mean 'nodeGroups'?"),
    "unknown key in a group": (group(instanceTyp="x"), "nodeGroups[0].instanceTyp", "did you mean 'instanceType'?"),
    "unknown key deep down": (group(iam="{withAddonPolicie: {}}"), "nodeGroups[0].iam.withAddonPolicie", "did you mean"),
    "unknown key like no other": (GOOD + "zzz: 1\n", "zzz", "known here: "),
    "misspelt required key": (GOOD.replace("metadata:", "metadta:"), "metadata", "is 'metadta' meant to be it?"),
    "missing section": (GOOD.replace("metadata:", "#"), "metadata", "the key is missing"),
    "missing key": (GOOD.replace("region: r,", ""), "metadata.region", "the key is missing"),
    "missing group name": (group(name=None), "nodeGroups[0].name", "the key is missing"),
    "text for a number": (group(desiredCapacity="one"), "nodeGroups[0].desiredCapacity", "expected a whole number"),
    "true for a number": (group(desiredCapacity="true"), "nodeGroups[0].desiredCapacity", "expected a whole number"),
    "null for a number": (group(desiredCapacity="null"), "nodeGroups[0].desiredCapacity", "expected a whole number"),
    "number for the version": (GOOD.replace('"1.36"', "1.36"), "metadata.version", "expected text, found 1.36"),
    "number for a label": (group(labels="{a: 1}"), "nodeGroups[0].labels.a", "expected text, found 1"),
    "null metadata": (GOOD.replace("{name: c, region: r, version: \"1.36\"}", "null"), "metadata", "expected a mapping"),
    "null groups": (HEAD + "nodeGroups: null\n", "nodeGroups", "expected a list, found null"),
    "null group": (HEAD + "nodeGroups: [null]\n", "nodeGroups[0]", "expected a mapping, found null"),
    "text for a group": (HEAD + "nodeGroups: [gpu]\n", "nodeGroups[0]", 'expected a mapping, found "gpu"'),
    "groups with dates as keys": (HEAD + "nodeGroups: {2026-01-01: x}\n", "nodeGroups", "expected a list"),
    "bad enum": (GOOD.replace("STANDARD", "FOREVER"), "upgradePolicy.supportType", "expected one of STANDARD, EXTENDED"),
    "unknown family": (group(amiFamily="Ubuntu1804"), "nodeGroups[0].amiFamily", "expected one of AmazonLinux2023"),
    "another kind": (GOOD.replace("ClusterConfig", "Pod"), "kind", "expected one of ClusterConfig"),
    "no group": (HEAD, "nodeGroups", "no group with an NVIDIA GPU"),
    "no GPU": (group(instanceType="m5.large"), "nodeGroups", "no group with an NVIDIA GPU"),
    "a GPU of another maker": (group(instanceType="g4ad.xlarge"), "nodeGroups", "no group with an NVIDIA GPU"),
    "no GPU node wanted": (group(desiredCapacity=0), "nodeGroups", "desiredCapacity of at least 1"),
    "two groups of one name": (GOOD + "managedNodeGroups: [{name: gpu}]\n", "nodeGroups[gpu]", "a name of its own"),
    "name with a line break": (group(name=r'"a\nb"'), "nodeGroups[a ⏎ b].name", "letters, digits and hyphens"),
    "empty name": (GOOD.replace("name: c,", "name: '',"), "metadata.name", "letters, digits and hyphens"),
    "desired above max": (group(maxSize=0), "nodeGroups[gpu].desiredCapacity", "found 1, 1, 0"),
    "desired below min": (group(minSize=2, maxSize=3), "nodeGroups[gpu].desiredCapacity", "found 2, 1, 3"),
    "negative": (group(minSize=-1), "nodeGroups[gpu].desiredCapacity", "expected 0 <= minSize"),
    "key twice": (GOOD + "kind: ClusterConfig\n", "kind", "the key stands twice, again at line 6"),
    "key twice in a group": (group(name="gpu, name: two"), "name", "the key stands twice"),
    "bomb": (BOMB, "", "at most 20,000 values"),
    "bomb of merges": (MERGE_BOMB, "", "at most 20,000 values"),
    "recursive list": ("a: &a [*a]\n", "", "nesting of at most 40 levels, at line 1"),
    "recursive mapping": ("a: &a {b: *a}\n", "", "nesting of at most 40 levels"),
    "deep": ("a: " + "[" * 60 + "]" * 60, "", "nesting of at most 40 levels"),
    "very deep": ("a: " + "[" * 30_000, "", "nesting of at most 40 levels, at line 1"),
    "too large": (b"#" * (MAX_BYTES + 1), "", "expected at most 64 KiB"),
    "nothing": ("", "", "the file is empty"),
    "only comments": ("# to do\n\n# later\n", "", "the file is empty"),
    "null": ("null", "", "the file is empty"),
    "a list": ("- a\n", "", "expected an eksctl ClusterConfig, found a list"),
    "prose": ("hello", "", "expected an eksctl ClusterConfig, found a str"),
    "two documents": (GOOD + "---\n" + GOOD, "", "expected one YAML document, found 2"),
    "not UTF-8": (GOOD.replace("c,", "é,").encode("latin-1"), "", "expected UTF-8 text; byte 68"),
    "UTF-16": (GOOD.encode("utf-16"), "", "expected UTF-8 text"),
    "a tab": (HEAD + "nodeGroups:\n\t- name: x\n", "", "expected valid YAML"),
    "a terminal escape": (GOOD + "a: \x1b[31m\n", "", "expected valid YAML"),
    "an escaped terminal escape": (GOOD + '"a\\e[31m": 1\n', r"a\u001b[31m", "unknown key"),
    "a tag that runs code": (GOOD + "a: !!python/object/apply:os.system [id]\n", "", "expected valid YAML"),
    "a tag that does not fit": (GOOD + "a: !!int ''\n", "", "a value does not fit its !!tag"),
    "a list as a key": (GOOD + "? [a]\n: b\n", "", "unhashable key"),
    "many values": (GOOD + "a: [" + "1," * 25_000 + "]\n", "", "expected at most 20,000 values, at line 6"),
    "a number that cannot be printed": (GOOD + f"a: 0x{'f' * 4000}\n", "", "at most 64 bits, at line 6"),
    "unknown alias": (GOOD + "a: *b\n", "", "undefined alias"),
}


@pytest.mark.parametrize(("content", "key", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_error_with_file_key_and_what_was_expected(
        tmp_path: Path, content: str | bytes, key: str, expected: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    assert time.process_time() - began < 1
    assert caught.value.what.startswith(": ".join(filter(None, ("cluster.yaml", key))) + ": ")
    assert expected in caught.value.what
    assert str(tmp_path / "cluster.yaml") in caught.value.where
    assert "nothing has been started" in caught.value.next
    assert len(str(caught.value)) < 2_000 + len(str(tmp_path))


@pytest.mark.parametrize(("make", "problem"), [
    (lambda path: None, "No such file"), (Path.mkdir, "Is a directory"), (os.mkfifo, "found a device or a pipe"),
    (lambda path: path.symlink_to("/dev/zero"), "found a device or a pipe"),
    (lambda path: path.symlink_to(path), "symbolic links")], ids=["absent", "folder", "pipe", "endless", "loop"])
def test_what_is_no_file_is_said_and_never_waited_for(tmp_path: Path, make, problem: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "cluster.yaml")
    with pytest.raises(ConfigError, match=problem):
        load_cluster(tmp_path / "cluster.yaml")


def test_the_file_of_this_repository_needs_no_warning() -> None:
    config = load_cluster(ROOT / "cluster.yaml", TODAY)
    assert config.warnings == ()
    assert [(g.name, g.desired, g.gpu, g.managed) for g in config.groups] == [
        ("gpu-workers", 1, True, False), ("cpu-workers", 2, False, True)]
    assert (config.version, config.region, config.gpu_stack) == ("1.36", "eu-central-1", "ubuntu")


def test_the_tutorials_own_file_loads_with_what_died_since() -> None:
    config = load_cluster(ROOT / "tests" / "data" / "cluster.post.yaml", TODAY)
    said = "\n".join(config.warnings)
    assert "Kubernetes 1.27 is out of support on EKS" in said
    assert "gpu-workers: Ubuntu2004 images exist only up to Kubernetes 1.29" in said
    assert "gpu-workers: the image ami-0ff21ec7370b1f3fb is pinned" in said
    assert config.gpu_group.name == "gpu-workers"


@pytest.mark.parametrize(("version", "today", "warning"), [
    ("1.34", "2026-11-22", "Kubernetes 1.34 leaves its present support on 2026-12-02, in 10 days"),
    ("1.34", "2026-12-02", "in 0 days"),
    ("1.34", "2026-12-03", "out of support"),
    ("1.36", "2027-05-03", ""),
    ("1.36", "2027-05-04", "in 90 days"),
    ("1.30", "2026-01-01", "out of support"),
    ("1.9", "2026-01-01", "out of support"),
    ("1.99", "2026-11-22", ""),
    ("", "2026-11-22", "metadata.version is not set"),
])
def test_a_versions_end_is_announced(tmp_path: Path, version: str, today: str, warning: str) -> None:
    warnings = load(tmp_path, GOOD.replace("1.36", version), dt.date.fromisoformat(today)).warnings
    assert (len(warnings) == 1 and warning in warnings[0]) if warning else warnings == ()


@pytest.mark.parametrize(("family", "version", "warning"), [
    ("Ubuntu2004", "1.36", "Ubuntu2004 has no EKS image for Kubernetes 1.36"),
    ("UbuntuPro2204", "1.36", "UbuntuPro2204 has no EKS image for Kubernetes 1.36"),
    ("Ubuntu2604", "1.34", "Ubuntu2604 has no EKS image for Kubernetes 1.34"),
    ("Ubuntu2404", "1.36", ""), ("AmazonLinux2023", "1.36", ""),
])
def test_a_family_without_an_image_is_announced(tmp_path: Path, family: str, version: str, warning: str) -> None:
    text = group(amiFamily=family).replace("1.36", version)
    assert any(warning in w for w in load(tmp_path, text, dt.date(2026, 6, 1)).warnings) is bool(warning)


def test_extended_support_is_announced_because_it_costs(tmp_path: Path) -> None:
    assert "billed" in load(tmp_path, GOOD.replace("STANDARD", "EXTENDED")).warnings[0]


@pytest.mark.parametrize(("fields", "sizes"), [
    ({}, (1, 1, 1)), ({"desiredCapacity": None}, (2, 2, 2)), ({"desiredCapacity": None, "minSize": 3}, (3, 3, 3)),
    ({"minSize": 0, "maxSize": 9}, (1, 0, 9)), ({"desiredCapacity": 4, "minSize": 1}, (4, 1, 4))])
def test_sizes_left_out_are_eksctls(tmp_path: Path, fields: dict[str, object], sizes: tuple[int, int, int]) -> None:
    found = load(tmp_path, group(**fields)).gpu_group
    assert (found.desired, found.min, found.max) == sizes


def test_the_gpu_group_is_one_that_has_nodes(tmp_path: Path) -> None:
    text = HEAD + ("nodeGroups: [{name: spare, instanceType: p5.48xlarge, desiredCapacity: 0},"
                   " {name: used, instanceType: g6.xlarge, desiredCapacity: 1}]\n")
    assert load(tmp_path, text).gpu_group.name == "used"


def test_a_mixed_group_is_what_its_first_type_is(tmp_path: Path) -> None:
    text = group(instanceType="mixed", instancesDistribution="{instanceTypes: [g5.xlarge, g6.xlarge]}")
    assert load(tmp_path, text).gpu_group.instance_type == "g5.xlarge"


def test_a_marker_at_the_end_begins_no_second_document(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(GOOD + "---\n")
    assert load_cluster(path).name == "c"


def test_aliases_merges_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    text = HEAD + ("nodeGroups: [&g {name: a, instanceType: g4dn.xlarge, desiredCapacity: 1}]\n"
                   "managedNodeGroups: [{<<: *g, name: b}]\n")
    assert [g.name for g in load(tmp_path, "\ufeff" + text).groups] == ["a", "b"]


@pytest.mark.parametrize(("kind", "gpu"), [
    ("g4dn.xlarge", True), ("g5g.xlarge", True), ("g6e.48xlarge", True), ("gr6.4xlarge", True), ("p5en.48xlarge", True),
    ("p6-b200.48xlarge", True), ("g4ad.xlarge", False), ("m5.large", False), ("c7g.large", False), ("inf2.xlarge", False),
    ("trn1.2xlarge", False), ("", False)])
def test_nvidia_by_the_instance_family(kind: str, gpu: bool) -> None:
    assert is_gpu(kind) is gpu

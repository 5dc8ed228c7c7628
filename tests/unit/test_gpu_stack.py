"""The GPU stack planner: a golden table over families, types and versions, and rules that hold over all of it.

Write the table anew: python -m tests.unit.test_gpu_stack > tests/data/gpu_stack.txt, and read the difference.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace
from functools import cache
from itertools import groupby, product
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner

from gpurunbook import gpu_facts, gpu_stack, targets
from gpurunbook.cli import stack as cli_stack
from gpurunbook.config import is_gpu, load_cluster
from gpurunbook.errors import ConfigError
from gpurunbook.gpu_stack import AWS, FAMILIES, GPUS, NOBODY, NVIDIA, Recipe, plan_stack
from gpurunbook.programs import eksctl
from gpurunbook.runbook import Run
from gpurunbook.stages import preflight

ROOT = Path(__file__).resolve().parents[2]
FILE, GOLDEN = ROOT / gpu_facts.FILE, ROOT / "tests" / "data" / "gpu_stack.txt"
KNOWN = gpu_facts.facts(FILE)
TODAY = dt.date(2026, 11, 22)
KINDS = (*GPUS, "g8", "p2", "g4ad", "inf2", "trn1", "m5", "c7g")
VERSIONS = ("", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
ALL_FAMILIES = (*FAMILIES, "Debian")


@cache
def recipes() -> tuple[Recipe, ...]:
    return tuple(plan_stack(family, f"{kind}.xlarge", version, known=KNOWN, today=TODAY)
                 for family, kind, version in product(ALL_FAMILIES, KINDS, VERSIONS))


def render() -> str:
    """The table for people: a block for each family, a row for types that fare alike, a column for each version."""
    text = [f"# The GPU stack by {gpu_facts.FILE} of {KNOWN.dated}, on {TODAY}: {len(recipes()):,} recipes.",
            "# N: NVIDIA-supported, A: AWS-documented, not NVIDIA-supported, -: not supported; letters: the warnings below."]
    for family, found in groupby(recipes(), lambda r: r.family):
        letters: dict[str, str] = {}
        rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for kind, of_kind in groupby(found, lambda r: r.instance_type.removesuffix(".xlarge")):
            cells = tuple(of_kind)
            codes = tuple(_code(r, kind, letters) for r in cells)
            rows.setdefault((_stack(cells[0]), codes), []).append(kind)
            assert {_stack(r) for r in cells} == {_stack(cells[0])}, "values and flags follow from family and type alone"
        text += ["", f"== {family}", "".join(f"{v or 'unset':8}" for v in VERSIONS) + "types"]
        for (stack, codes), kinds in rows.items():
            text += ["".join(f"{code:8}" for code in codes) + " ".join(kinds), f"    {stack}"]
        text += [f"  {letter}  {warning}" for warning, letter in letters.items()]
    return "\n".join(text) + "\n"


def _stack(r: Recipe) -> str:
    special = [f"{k}={str(v).lower()}" for k, v in r.settings.items() if k.startswith(("driver", "toolkit", "device"))]
    return " ".join((f"{r.values}.yaml", *r.flags, *special)) if r.values else "no operator"


def _code(r: Recipe, kind: str, letters: dict[str, str]) -> str:
    said = [re.sub(rf"\b{kind}\b", "TYPE", warning) for warning in r.warnings]
    marks = [letters.setdefault(warning, ascii_letters[len(letters)]) for warning in said]
    return {NVIDIA: "N", AWS: "A", NOBODY: "-"}[r.support] + "".join(marks)


def test_the_table_is_as_it_was_read_and_agreed_to() -> None:
    assert render() == GOLDEN.read_text()


# Rules over the whole table

def test_a_node_never_gets_two_device_plugins() -> None:
    for r in recipes():
        image_has_one = r.family.startswith("Bottlerocket")
        if r.values:
            assert gpu_stack.NO_PLUGIN in r.flags
            assert r.settings["devicePlugin.enabled"] is not image_has_one
        else:
            assert not r.settings
            assert not r.flags


def test_driver_and_toolkit_are_off_exactly_where_the_image_brings_them() -> None:
    for r in recipes():
        brings = r.family.startswith(("AmazonLinux", "Bottlerocket"))
        if r.values:
            assert r.settings["driver.enabled"] is r.settings["toolkit.enabled"] is not brings
            assert r.settings["validator.plugin.env WITH_WORKLOAD"] == "false"


def test_each_value_has_a_reason_and_each_reason_is_a_sentence() -> None:
    for r in recipes():
        told = {choice.what: choice for choice in r.choices}
        assert len(told) == len(r.choices)
        assert set(r.settings) <= set(told)
        assert all(told[name].value == str(value).lower() for name, value in r.settings.items())
        assert [told["eksctl"].value] == list(r.flags) if r.flags else "eksctl" not in told
        assert told["values"].value == f"{r.values}.yaml" if r.values else told["GPU operator"].value == "not installed"
        assert told["support"].value == r.support
        assert all(len(choice.why) > 15 and not choice.why.endswith(".") for choice in r.choices), r
        assert (r.support == NOBODY) <= bool(r.warnings)


def test_a_version_that_left_support_always_warns_and_is_supported_by_nobody() -> None:
    for r in recipes():
        if r.values and r.kubernetes in ("1.29", "1.30"):
            assert r.support == NOBODY
            assert any(f"Kubernetes {r.kubernetes} is out of support" in w for w in r.warnings)
        if r.values and r.kubernetes in ("1.31", "1.32", "1.33"):
            assert any("extended rate" in w for w in r.warnings)
        if r.values and r.kubernetes == "1.34":
            assert "Kubernetes 1.34 leaves standard support on EKS on 2026-12-02, in 10 days" in r.warnings


def test_nvidia_supports_ubuntu_and_nothing_else() -> None:
    supported = {(r.family, r.kubernetes) for r in recipes() if r.support == NVIDIA and r.kubernetes}
    assert supported == {(f"Ubuntu{pro}{series}", v) for pro in ("", "Pro") for series, versions in (
        ("2204", ("1.33",)), ("2404", ("1.33", "1.34", "1.35", "1.36")), ("2604", ("1.35", "1.36"))) for v in versions}
    assert {r.family for r in recipes() if r.support == AWS} == {"AmazonLinux2023", "Bottlerocket", "BottlerocketFips"}
    assert all(r.support == NOBODY for r in recipes() if not r.values or r.family in ("AmazonLinux2", "Ubuntu2004"))


def test_only_nvidias_gpus_get_an_operator() -> None:
    for kind in KINDS:
        r = plan_stack("Ubuntu2404", f"{kind}.xlarge", "1.36", known=KNOWN, today=TODAY)
        assert bool(r.values) is is_gpu(f"{kind}.xlarge"), kind


# Single facts

def recipe(family: str, kind: str = "g4dn.xlarge", version: str = "1.36", **more: Any) -> Recipe:
    return plan_stack(family, kind, version, known=KNOWN, today=TODAY, **more)


def test_a_managed_group_of_ubuntu_is_reported_broken() -> None:
    assert any("self-managed" in w for w in recipe("Ubuntu2404", managed=True).warnings)
    assert recipe("Ubuntu2404").warnings == recipe("AmazonLinux2023", managed=True).warnings == ()


def test_volta_gets_the_last_driver_that_knows_it() -> None:
    assert recipe("Ubuntu2404", "p3.2xlarge").settings["driver.version"] == "580.173.02"
    assert "driver.version" not in recipe("AmazonLinux2023", "p3.2xlarge").settings
    assert "driver.version" not in recipe("Ubuntu2404", "p4d.24xlarge").settings


@pytest.mark.parametrize(("family", "kind", "support", "said"), [
    ("AmazonLinux2023", "g7.2xlarge", AWS, "v20260917"), ("Bottlerocket", "g7.2xlarge", NOBODY, "does not list g7"),
    ("Ubuntu2404", "g7.2xlarge", NVIDIA, ""), ("Ubuntu2404", "g6f.large", NOBODY, "GRID driver"),
    ("AmazonLinux2023", "g6f.large", AWS, ""), ("AmazonLinux2023", "g5g.xlarge", AWS, "arm64"),
    ("Ubuntu2404", "g5g.xlarge", NVIDIA, "arm64"), ("Bottlerocket", "p6e-gb200.36xlarge", NOBODY, "does not list p6e-gb200"),
    ("Ubuntu2404", "g4ad.xlarge", NOBODY, "AMD"), ("AmazonLinux2023", "inf2.xlarge", NOBODY, "Neuron"),
    ("AmazonLinux2023", "m5.large", NOBODY, "no GPU"), ("Ubuntu2404", "g99.large", NOBODY, "none of the GPU families known"),
    ("WindowsServer2022CoreContainer", "g4dn.xlarge", NOBODY, "Windows"), ("AmazonLinux2", "g4dn.xlarge", NOBODY, "2025-11-26"),
    ("Ubuntu2004", "g4dn.xlarge", NOBODY, "1.21 to 1.29, none for 1.36"), ("", "g4dn.xlarge", NOBODY, "nothing is known"),
])
def test_what_is_special_is_said(family: str, kind: str, support: str, said: str) -> None:
    r = recipe(family, kind)
    assert r.support == support
    assert said in " ".join(r.warnings)
    assert bool(r.warnings) is bool(said)


@pytest.mark.parametrize(("image", "family", "values"), [
    ("Ubuntu 24.04.1 LTS", "Ubuntu2404", "ubuntu"), ("Ubuntu 22.04 LTS", "Ubuntu2204", "ubuntu"),
    ("Amazon Linux 2023.9.20250929", "AmazonLinux2023", "al2023"), ("Amazon Linux 2", "AmazonLinux2", "al2023"),
    ("Bottlerocket OS 1.49.0 (aws-k8s-1.36-nvidia)", "Bottlerocket", "bottlerocket"),
    ("Debian GNU/Linux 13", "Debian GNU/Linux 13", ""), ("Ubuntu2604", "Ubuntu2604", "ubuntu")])
def test_an_operating_system_is_known_by_what_nodes_call_it(image: str, family: str, values: str) -> None:
    assert (gpu_stack.family_of(image), gpu_stack.values_of(image, "")) == (family, values)


def test_an_unknown_operating_system_of_somebodys_keeps_its_driver() -> None:
    cluster = load_cluster(ROOT / "cluster.yaml", TODAY)
    group = cluster.gpu_group.model_copy(update={"ami_family": "Debian GNU/Linux 13", "instance_type": "", "label": "gpu=yes"})
    assert cluster.model_copy(update={"groups": (group,)}).gpu_stack == "al2023"


def test_families_are_eksctls() -> None:
    schema = json.loads(eksctl.SCHEMA.read_text())["definitions"]
    assert set(FAMILIES) == set(schema["NodeGroup"]["properties"]["amiFamily"]["enum"])


# The files say what the recipes say

def flat(node: Any, above: str = "") -> dict[str, Any]:
    if isinstance(node, dict):
        return {k: v for name, value in node.items() for k, v in flat(value, f"{above}.{name}".lstrip(".")).items()}
    if above == "validator.plugin.env":
        return {f"{above} {pair['name']}": pair["value"] for pair in node}
    return {above: node}


@pytest.mark.parametrize("values", ["ubuntu", "ubuntu-volta", "al2023", "bottlerocket"])
def test_a_values_file_holds_the_recipes_settings(values: str) -> None:
    found = flat(yaml.safe_load(FILE.with_name(f"{values}.yaml").read_text()))
    tolerations = found.pop("daemonsets.tolerations")
    assert [t["key"] for t in tolerations] == ["nvidia.com/gpu"]
    [settings] = {tuple(r.settings.items()) for r in recipes() if r.values == values}
    assert {"devicePlugin.enabled": True, **found} == dict(settings)  # true is the chart's own


def test_every_values_file_is_used_and_no_other() -> None:
    there = {path.stem for path in FILE.parent.glob("*.yaml")} - {"chart", "smoke"}
    assert there == {r.values for r in recipes() if r.values}


# The dated file

def test_the_file_is_one_place_for_versions() -> None:
    assert set(KNOWN.images["AmazonLinux2023"].types) | set(KNOWN.images["Bottlerocket"].types) <= set(GPUS)
    assert KNOWN.line == "supported"
    assert {"repository", "url", "chart", "version", "release", "namespace"} <= set(yaml.safe_load(FILE.read_text()))


@pytest.mark.parametrize(("text", "said"), [
    ("dated: 2026-11-22\n", "KeyError"), ("[", "expected valid YAML"), ("a", "TypeError"), ("", "TypeError"),
    (re.sub("dated: .*", "dated: yesterday", FILE.read_text()), "expected a day"),
    (FILE.read_text().replace("2026-12-02", "soon"), "expected a day")])
def test_a_broken_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "chart.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        gpu_facts.facts(tmp_path / "chart.yaml")
    assert str(tmp_path) in caught.value.where


def test_the_file_is_found_from_a_checkout_and_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    (own / gpu_facts.FILE.parent).mkdir(parents=True)
    (own / gpu_facts.FILE).write_text(FILE.read_text().replace("dated: 2026-11-22", "dated: 2026-01-01"))
    (own / "notebooks").mkdir()
    monkeypatch.chdir(own / "notebooks")
    assert gpu_facts.facts().dated == dt.date(2026, 1, 1)
    monkeypatch.chdir(tmp_path)
    assert gpu_facts.facts().dated == KNOWN.dated


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    import os
    file = tmp_path / "chart.yaml"
    file.write_text(FILE.read_text())
    assert gpu_facts.facts(file).chart == "v26.7.0"
    file.write_text(FILE.read_text().replace("v26.7.0", "v26.3.1"))
    os.utime(file, ns=(0, 1))
    assert (gpu_facts.facts(file).chart, gpu_facts.facts(file).line) == ("v26.3.1", "deprecated")


AGE, LINE, EKS, OURS = range(4)


@pytest.mark.parametrize(("today", "version", "which", "state", "said"), [
    ("2026-11-22", "1.36", AGE, "pass", "0 days ago"), ("2027-01-21", "1.36", AGE, "pass", "60 days ago"),
    ("2027-01-22", "1.36", AGE, "warn", "61 days ago"),
    ("2026-10-20", "1.36", EKS, "pass", "none has left"), ("2026-11-26", "1.36", EKS, "pass", "none has left"),
    ("2026-11-27", "1.36", EKS, "warn", "1.31 left its support on 2026-11-26, 1 day ago"),
    ("2026-11-22", "1.36", OURS, "pass", "in standard support"), ("2026-11-22", "1.36.3", OURS, "pass", "in standard support"),
    ("2026-11-01", "1.34", OURS, "pass", "in standard support"), ("2026-11-02", "1.34", OURS, "warn", "in 30 days"),
    ("2026-12-03", "1.34", OURS, "warn", "costs more"), ("2026-11-22", "1.33", OURS, "warn", "costs more"),
    ("2026-11-27", "1.31", OURS, "warn", "out of support"), ("2026-11-22", "1.30", OURS, "warn", "out of support"),
    ("2026-11-22", "1.37", OURS, "unknown", "not in the file"), ("2026-11-22", "", OURS, "unknown", "asks for none"),
])
def test_doctor_warns_of_what_is_old_or_ends(today: str, version: str, which: int, state: str, said: str) -> None:
    check = gpu_facts.stale(KNOWN, dt.date.fromisoformat(today), version)[which]
    assert check.state == state
    assert said in check.evidence


@pytest.mark.parametrize(("chart", "state"), [
    ("v26.7.2", "pass"), ("v26.3.0", "warn"), ("v25.10.1", "warn"), ("v27.1.0", "unknown")])
def test_doctor_warns_of_a_line_that_nvidia_gave_up(chart: str, state: str) -> None:
    assert gpu_facts.stale(replace(KNOWN, chart=chart), TODAY, "1.36")[LINE].state == state


def test_a_line_that_ended_is_supported_by_nobody_and_a_deprecated_one_is_said() -> None:
    ended, deprecated = (plan_stack("Ubuntu2404", "g4dn.xlarge", "1.36", known=replace(KNOWN, chart=chart), today=TODAY)
                         for chart in ("v25.10.1", "v26.3.0"))
    assert (ended.support, deprecated.support) == (NOBODY, NVIDIA)
    assert "deprecated" in deprecated.warnings[0]


def test_preflights_doctor_is_about_the_file_and_the_cluster() -> None:
    names = [check.name for check in preflight.stale(TODAY, load_cluster(ROOT / "cluster.yaml", TODAY))]
    assert len(names) == 4
    assert names[OURS] == "cluster.yaml's Kubernetes is supported"


@pytest.mark.parametrize(("changes", "state"), [
    ({}, "pass"), ({"ami_family": "AmazonLinux2023"}, "pass"), ({"ami_family": "Ubuntu2004"}, "warn"),
    ({"managed": True}, "warn"), ({"ami_family": "WindowsServer2025FullContainer"}, "fail")])
def test_preflight_fails_only_where_there_is_no_stack_at_all(changes: dict[str, Any], state: str) -> None:
    cluster = load_cluster(ROOT / "cluster.yaml", TODAY)
    group = cluster.gpu_group.model_copy(update=changes)
    cluster = cluster.model_copy(update={"groups": (group,)})
    check = preflight._planned(cluster, preflight.planned(cluster, KNOWN, TODAY))
    assert (check.name, check.state) == ("gpu-workers: GPU stack", state)


@pytest.mark.parametrize(("target", "said"), [("rehearsal", "Ubuntu2404 on g4dn.xlarge"), ("existing", "known after 02")])
def test_notebook_01_shows_the_recipe_of_a_cluster_to_be_made(tmp_path: Path, target: str, said: str) -> None:
    run = Run(ROOT, tmp_path, targets.get(target), load_cluster(ROOT / "cluster.yaml"), "preflight")
    assert repr(preflight.recipe(run)).startswith(said)


# The command

def ask(*argv: str) -> Any:
    app = Typer()
    app.command()(cli_stack.stack)
    return CliRunner().invoke(app, argv)


def test_stack_without_options_is_about_the_cluster_file() -> None:
    shown = ask()
    assert shown.exit_code == 0
    assert shown.stdout.startswith("Ubuntu2404 on g4dn.xlarge, Kubernetes 1.36: NVIDIA-supported\n")
    assert "devicePlugin.enabled" in shown.stdout
    other = ask("--cluster-file", "cluster.al2023.yaml", "--json")
    found = json.loads(other.stdout)
    assert (found["family"], found["support"], found["values"]) == ("AmazonLinux2023", AWS, "al2023")
    assert found["flags"] == ["--install-nvidia-plugin=false"]


def test_stack_with_options_fills_in_the_rest() -> None:
    found = json.loads(ask("--type", "p3.2xlarge", "--kubernetes", "v1.35.2", "--json").stdout)
    assert (found["family"], found["instance_type"], found["kubernetes"]) == ("Ubuntu2404", "p3.2xlarge", "1.35")
    assert found["settings"]["driver.version"] == "580.173.02"


@pytest.mark.parametrize(("argv", "where", "next"), [
    (("--family", "ubuntu2404"), "--family", "did you mean Ubuntu2404?"), (("--family", "zzz"), "--family", "one of: Ubuntu2004"),
    (("--kubernetes", "new"), "--kubernetes", "1.36"), (("--type", "../x"), "--type", "g4dn.xlarge")])
def test_a_wrong_option_is_said(argv: tuple[str, ...], where: str, next: str) -> None:
    error = ask(*argv).exception
    assert isinstance(error, ConfigError)
    assert error.where == where
    assert next in error.next


if __name__ == "__main__":
    print(render(), end="")

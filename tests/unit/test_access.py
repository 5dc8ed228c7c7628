"""Whose rights a stage has: the manifests of the two roles, and the user that a rehearsal makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gpurunbook import stages, targets
from gpurunbook.deployment import names
from gpurunbook.errors import RunbookError
from gpurunbook.targets.rehearsal import access, pki
from gpurunbook.targets.rehearsal.cluster import Rehearsal

MANIFESTS = Path(__file__).parents[2] / "manifests"
CONFIG = {"apiVersion": "v1", "kind": "Config", "current-context": "kwok-r", "clusters": [{"name": "kwok-r", "cluster": {}}],
          "contexts": [{"name": "kwok-r", "context": {"cluster": "kwok-r", "user": "kwok-r"}}],
          "users": [{"name": "kwok-r", "user": {"client-key": "admin.key"}}]}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / "rbac" / name).read_text()))


@pytest.fixture
def cluster(tmp_path: Path) -> tuple[Path, Path]:
    """A kubeconfig as kwokctl writes it, and a folder with a CA."""
    kubeconfig, folder = tmp_path / "kubeconfig", tmp_path / "pki"
    kubeconfig.write_text(yaml.safe_dump(CONFIG))
    folder.mkdir()
    key = pki.ec.generate_private_key(pki.ec.SECP256R1())
    name = pki._name("ca")
    ca = pki._builder(name, name, key.public_key(), key, ca=True).sign(key, pki.hashes.SHA256())
    (folder / "ca.crt").write_bytes(ca.public_bytes(pki.serialization.Encoding.PEM))
    (folder / "ca.key").write_bytes(pki._private(key))
    return kubeconfig, folder


def test_a_second_user_and_context_and_nothing_else_changes(cluster: tuple[Path, Path]) -> None:
    kubeconfig, folder = cluster
    for _ in range(2):
        assert access.main([f"--kubeconfig={kubeconfig}", f"--pki={folder}"]) == 0
    config = yaml.safe_load(kubeconfig.read_text())
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    assert [c["name"] for c in config["contexts"]] == ["kwok-r", "kwok-r-model"]
    assert [u["name"] for u in config["users"]] == ["kwok-r", "gpurunbook-model"]
    assert config["contexts"][1]["context"] == {"cluster": "kwok-r", "user": "gpurunbook-model"}
    config["contexts"].pop()
    config["users"].pop()
    assert config == CONFIG


def test_without_a_cluster_there_is_nobody_to_be(cluster: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    kubeconfig, folder = cluster
    (folder / "ca.key").unlink()
    with pytest.raises(RunbookError, match="no user can be made"):
        access.make_user(kubeconfig, folder)
    kubeconfig.unlink()
    assert access.main([f"--kubeconfig={kubeconfig}", f"--pki={folder}"]) == 1
    assert "next:" in capsys.readouterr().err


def test_the_four_stages_go_without_an_administrator_and_no_other_does() -> None:
    class Open:
        id = "r"

        def __init__(self, stage: str) -> None:
            self.stage = stage

    used = {stage: Rehearsal().context(Open(stage)) for stage in stages.NAMES}  # type: ignore[arg-type]
    assert {stage for stage, context in used.items() if context == "kwok-r-model"} == set(targets.ROLE_A)
    assert {stages.notebook(stage)[:2] for stage in targets.ROLE_A} == {"03", "06", "07", "08"}
    assert {context for stage, context in used.items() if stage not in targets.ROLE_A} == {"kwok-r"}


def test_role_a_names_the_objects_of_the_manifests_and_its_group() -> None:
    found = {kind: rule["resourceNames"] for document in documents("runbook-model.yaml") for rule in document.get("rules", ())
             for kind in rule["resources"] if "resourceNames" in rule}
    model, puller = (names(yaml.safe_load((MANIFESTS / "model" / file).read_text())).name
                     for file in ("deployment.yaml", "prepull.yaml"))
    assert found == {"namespaces": ["kube-system"], "deployments": [model], "daemonsets": [puller]}


@pytest.mark.parametrize(("file", "group"), [
    ("runbook-model.yaml", access.GROUP), ("runbook-operator.yaml", "gpurunbook-operator")])
def test_each_role_is_bound_to_its_group_and_to_nobody_else(file: str, group: str) -> None:
    roles = {(d["kind"], d["metadata"]["name"]) for d in documents(file) if "rules" in d}
    bindings = [d for d in documents(file) if "subjects" in d]
    assert {(d["roleRef"]["kind"], d["roleRef"]["name"]) for d in bindings} == roles
    assert {(s["kind"], s["name"]) for d in bindings for s in d["subjects"]} == {("Group", group)}


def test_role_a_has_no_wildcard_and_nothing_that_leads_further() -> None:
    rules = [rule for document in documents("runbook-model.yaml") for rule in document.get("rules", ())]
    said = {word for rule in rules for word in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])}
    assert not said & {"*", "secrets", "serviceaccounts/token", "bind", "escalate", "impersonate", "nodes/proxy",
                       "pods/ephemeralcontainers"}

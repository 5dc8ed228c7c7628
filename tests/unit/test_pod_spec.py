"""What a pod's spec asks of its host: variables, command lines, volumes."""

from __future__ import annotations

from typing import Any

import pytest

from gpurunbook.targets.rehearsal import spec
from gpurunbook.targets.rehearsal.images import Image

IMAGE = Image("/app", {"HOME": "/app"}, ("serve", "--all"))
MAPS = {"m": {"data": {"k": "v", "n": "$(k)"}, "binaryData": {"b": "AAE="}}}


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "labels": {"app": "x"}},
            "spec": {"nodeName": "node-1", "containers": [], **spec}}


def variables(*env: dict[str, Any], env_from: list[Any] | None = None) -> dict[str, str]:
    return spec.environment(pod(), {"env": list(env), "envFrom": env_from or []}, IMAGE, MAPS)


def test_the_pods_variables_win_over_the_images() -> None:
    assert variables({"name": "HOME", "value": "/x"}) == {"HOME": "/x", "HOSTNAME": "p"}


@pytest.mark.parametrize(("path", "value"), [
    ("metadata.name", "p"), ("metadata.namespace", "ns"), ("metadata.uid", "u-1"), ("spec.nodeName", "node-1"),
    ("status.podIP", "127.0.0.1"), ("metadata.labels['app']", "x"), ("metadata.annotations['none']", ""),
])
def test_field_references(path: str, value: str) -> None:
    assert variables({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}})["A"] == value


def test_config_maps_by_key_and_as_a_whole() -> None:
    assert variables({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}})["A"] == "v"
    assert variables(env_from=[{"configMapRef": {"name": "m"}, "prefix": "P_"}])["P_k"] == "v"
    assert "A" not in variables({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k",
                                                                                "optional": True}}})


@pytest.mark.parametrize("source", [
    {"secretKeyRef": {"name": "s", "key": "k"}}, {"resourceFieldRef": {"resource": "limits.cpu"}},
    {"configMapKeyRef": {"name": "no", "key": "k"}}, {"configMapKeyRef": {"name": "m", "key": "no"}},
    {"fieldRef": {"fieldPath": "spec.none"}},
])
def test_what_cannot_be_had_is_a_config_error(source: dict[str, Any]) -> None:
    with pytest.raises(spec.NotNow) as error:
        variables({"name": "A", "valueFrom": source})
    assert error.value.reason == "CreateContainerConfigError"


@pytest.mark.parametrize(("text", "expanded"), [
    ("$(A)-$(B)", "1-$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$(A", "$(A"), ("$$$(A)", "$1"),
])
def test_expansion(text: str, expanded: str) -> None:
    assert spec.expand(text, {"A": "1"}) == expanded


@pytest.mark.parametrize(("container", "argv"), [
    ({}, ["serve", "--all"]), ({"args": ["x"]}, ["serve", "--all", "x"]), ({"command": ["ls"]}, ["ls"]),
    ({"command": ["ls"], "args": ["$(HOME)"]}, ["ls", "/app"]),
])
def test_command_lines(container: dict[str, Any], argv: list[str]) -> None:
    assert spec.command(container, IMAGE, {"HOME": "/app"}) == argv


def test_without_any_command_it_idles() -> None:
    assert spec.command({}, Image("/app"), {}) is None


def test_volumes() -> None:
    volumes = {v.name: v for v in spec.volumes(pod(volumes=[
        {"name": "e", "emptyDir": {}}, {"name": "kube-api-access-x", "projected": {}},
        {"name": "m", "configMap": {"name": "m"}},
        {"name": "items", "configMap": {"name": "m", "items": [{"key": "k", "path": "sub/file"}]}},
    ]), MAPS)}
    assert volumes["e"].files is None
    assert volumes["kube-api-access-x"].files is None
    assert volumes["m"].files == {"k": b"v", "n": b"$(k)", "b": b"\0\1"}
    assert volumes["items"].files == {"sub/file": b"v"}


@pytest.mark.parametrize(("volume", "said"), [
    ({"hostPath": {"path": "/"}}, "hostPath"), ({"secret": {"secretName": "s"}}, "secret"),
    ({"persistentVolumeClaim": {"claimName": "c"}}, "persistentVolumeClaim"),
    ({"configMap": {"name": "no"}}, "not found"),
    ({"configMap": {"name": "m", "items": [{"key": "no", "path": "x"}]}}, "no key"),
])
def test_what_a_rehearsal_has_no_volume_for(volume: dict[str, Any], said: str) -> None:
    with pytest.raises(spec.NotNow, match=said):
        list(spec.volumes(pod(volumes=[{"name": "x", **volume}]), MAPS))


def test_sub_path_on_a_shared_folder_is_refused() -> None:
    found = {"e": spec.Volume("e", None), "m": spec.Volume("m", {"k": b"v"})}
    entry = {"volumeMounts": [{"name": "m", "mountPath": "/k", "subPath": "k"}, {"name": "e", "mountPath": "/e"}]}
    assert [(below, dest, writable) for _, below, dest, writable in spec.mounts(entry, found)] == [
        ("k", "/k", False), ("", "/e", True)]
    for wrong in ({"name": "e", "mountPath": "/e", "subPath": "x"},
                  {"name": "m", "mountPath": "/e", "subPath": "../x"}):
        with pytest.raises(spec.NotNow):
            list(spec.mounts({"volumeMounts": [wrong]}, found))

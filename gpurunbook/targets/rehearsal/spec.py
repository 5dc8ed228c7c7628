"""What a pod's spec asks of its host: variables, command lines and volumes. Pure, given the ConfigMaps.

Not supported, and said in the container's status: Secrets, resourceFieldRef, hostPath, persistent volumes, and subPath
on anything but a ConfigMap (a link planted in a shared folder would lead out of it). A service account's token volume
is an empty folder, since a pod has no network to use it on. ConfigMaps are read when the pod starts and not updated.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from gpurunbook.targets.rehearsal.api import Object
from gpurunbook.targets.rehearsal.images import Image
from gpurunbook.targets.rehearsal.limits import FOLDER
from gpurunbook.targets.rehearsal.memory import quantity

ADDRESS = "127.0.0.1"  # of every node and pod
CONFIG_ERROR = "CreateContainerConfigError"


class NotNow(Exception):
    """A container cannot be made as things are: `reason` as kubelets name it, and a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True)
class Volume:
    """A volume that a container mounts. `files` is None for an emptyDir of at most `size` bytes, else a ConfigMap's bytes
    by file name."""

    name: str
    files: Mapping[str, bytes] | None
    size: int = FOLDER


def config_maps(pod: Object) -> set[str]:
    """The names of all ConfigMaps that the pod refers to."""
    spec = pod["spec"]
    names = {volume["configMap"]["name"] for volume in spec.get("volumes", []) if "configMap" in volume}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        names |= {source["configMapRef"]["name"] for source in container.get("envFrom", []) if "configMapRef" in source}
        names |= {entry["valueFrom"]["configMapKeyRef"]["name"] for entry in container.get("env", [])
                  if "configMapKeyRef" in entry.get("valueFrom", {})}
    return names


def volumes(pod: Object, maps: Mapping[str, Object]) -> Iterator[Volume]:
    """The pod's volumes. Raises NotNow for a ConfigMap that is missing and for a kind that is not supported."""
    declared = pod["spec"].get("volumes", [])
    share = FOLDER // max(1, sum("emptyDir" in volume for volume in declared))  # they lie in memory: one limit for all
    for volume in declared:
        name = volume["name"]
        if "emptyDir" in volume or name.startswith("kube-api-access-"):
            asked = (volume.get("emptyDir") or {}).get("sizeLimit")
            yield Volume(name, None, min(quantity(str(asked or "0")) or share, share))  # 0 is no limit
        elif "configMap" in volume:
            yield Volume(name, _files(volume["configMap"], maps))
        else:
            kind = next((key for key in volume if key != "name"), "unknown")
            raise NotNow("ContainerCreating", f"volume {name}: a rehearsal has no {kind} volumes")


def _files(source: Object, maps: Mapping[str, Object]) -> dict[str, bytes]:
    if source["name"] not in maps:
        if source.get("optional"):
            return {}
        raise NotNow("ContainerCreating", f'configmap "{source["name"]}" not found')
    data = _data(maps[source["name"]])
    if not source.get("items"):
        return data
    files = {}
    for item in source["items"]:
        if item["key"] in data:
            files[item["path"]] = data[item["key"]]
        elif not source.get("optional"):
            raise NotNow("ContainerCreating", f'configmap "{source["name"]}" has no key {item["key"]}')
    return files


def _data(config_map: Object) -> dict[str, bytes]:
    text = {key: value.encode() for key, value in config_map.get("data", {}).items()}
    return text | {key: base64.b64decode(value) for key, value in config_map.get("binaryData", {}).items()}


def mounts(container: Object, found: Mapping[str, Volume]) -> Iterator[tuple[Volume, str, str, bool]]:
    """(volume, path below it or "", path in the container, writable) for each of a container's mounts."""
    for mount in container.get("volumeMounts", []):
        volume, below = found[mount["name"]], mount.get("subPath", "")
        if "subPathExpr" in mount or (below and volume.files is None):
            raise NotNow(CONFIG_ERROR, f"volume {volume.name}: a rehearsal has subPath on ConfigMaps only")
        if below and below not in (volume.files or {}):
            raise NotNow(CONFIG_ERROR, f"volume {volume.name}: there is no {below} in it")
        path = PurePosixPath(mount["mountPath"])
        if not path.is_absolute() or ".." in path.parts:  # bubblewrap would make it outside of the jail
            raise NotNow(CONFIG_ERROR, f"volume {volume.name}: mountPath {path} is no plain absolute path")
        yield volume, below, mount["mountPath"], volume.files is None and not mount.get("readOnly", False)


def environment(pod: Object, container: Object, image: Image, maps: Mapping[str, Object]) -> dict[str, str]:
    """The variables of a container's processes: the image's, then envFrom, then env, as a kubelet orders them."""
    result = {**image.environment, "HOSTNAME": pod["metadata"]["name"]}
    for source in container.get("envFrom", []):
        if "configMapRef" not in source:
            raise NotNow(CONFIG_ERROR, f"envFrom: a rehearsal has no {_kind(source, 'prefix')}")
        found = _config_map(source["configMapRef"], maps)
        result |= {source.get("prefix", "") + key: value for key, value in found.items()}
    declared: dict[str, str] = {}
    for entry in container.get("env", []):
        value = entry.get("value", "")
        if "valueFrom" in entry:
            taken = _value_from(pod, entry["name"], entry["valueFrom"], maps)
            if taken is None:
                continue
            value = taken
        else:
            value = expand(value, {**result, **declared})
        declared[entry["name"]] = value
    return result | declared


def _value_from(pod: Object, name: str, source: Object, maps: Mapping[str, Object]) -> str | None:
    if "configMapKeyRef" in source:
        reference = source["configMapKeyRef"]
        found = _config_map(reference, maps)
        if reference["key"] not in found and not reference.get("optional"):
            raise NotNow(CONFIG_ERROR, f"couldn't find key {reference['key']} in ConfigMap "
                                       f"{pod['metadata']['namespace']}/{reference['name']}")
        return found.get(reference["key"])
    if "fieldRef" in source:
        return _field(pod, name, source["fieldRef"]["fieldPath"])
    raise NotNow(CONFIG_ERROR, f"env {name}: a rehearsal has no {_kind(source)}")


def _config_map(reference: Object, maps: Mapping[str, Object]) -> dict[str, str]:
    if reference["name"] in maps:
        found: dict[str, str] = maps[reference["name"]].get("data", {})
        return found
    if reference.get("optional"):
        return {}
    raise NotNow(CONFIG_ERROR, f'configmap "{reference["name"]}" not found')


def _field(pod: Object, name: str, path: str) -> str:
    metadata, spec = pod["metadata"], pod["spec"]
    plain = {"metadata.name": metadata["name"], "metadata.namespace": metadata["namespace"],
             "metadata.uid": metadata["uid"], "spec.nodeName": spec["nodeName"],
             "spec.serviceAccountName": spec.get("serviceAccountName", ""),
             "status.podIP": ADDRESS, "status.podIPs": ADDRESS, "status.hostIP": ADDRESS, "status.hostIPs": ADDRESS}
    if path in plain:
        return str(plain[path])
    if keyed := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str(metadata.get(keyed[1], {}).get(keyed[2], ""))
    raise NotNow(CONFIG_ERROR, f"env {name}: a rehearsal has no fieldRef {path}")


def _kind(source: Object, *beside: str) -> str:
    return next((key for key in source if key not in beside), "such source")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """$(NAME) as Kubernetes expands it: unknown names stay, $$ is a literal $."""
    return re.sub(r"\$(\$|\(([^()]*)\))",
                  lambda m: "$" if m[1] == "$" else variables.get(m[2], m[0]), text)


def command(container: Object, image: Image, variables: Mapping[str, str]) -> list[str] | None:
    """argv of a container's program, or None to idle: `command` replaces the image's, `args` its arguments."""
    own = container.get("command") or (image.command and list(image.command))
    words = [*(own or []), *container.get("args", [])]
    return [expand(word, variables) for word in words] or None

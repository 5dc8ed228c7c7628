"""The container image: is it in its registry, and how many bytes will a node pull? Read from the manifest alone.

The registry's HTTP API v2 (OCI distribution specification), signed in to anonymously, as a node without a pull secret is;
the account's own ECR by its API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpurunbook.errors import RunbookError
from gpurunbook.masking import Secret
from gpurunbook.plan import Check
from gpurunbook.targets.eks.account import Account, AwsError

if TYPE_CHECKING:
    import requests

    from gpurunbook.config import NodeGroup

HUB = "docker.io"
HUB_HOST = f"registry-1.{HUB}"
"""Where a reference without a host points, and the host that answers for it."""
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ECR = re.compile(r"(?P<account>\d{12})\.dkr(\.ecr(-fips)?\.(?P<old>[a-z0-9-]+)\.amazonaws\.com(\.cn)?"
                 r"|-ecr(-fips)?\.(?P<new>[a-z0-9-]+)\.on\.(aws|amazonwebservices\.com\.cn))")
"""ECR's host names, those that answer by IPv4 alone and the newer ones."""
MOST_BYTES = 4 * 2**20
"""What the specification lets a registry refuse as too long for a manifest."""
CONNECT_SECONDS, READ_SECONDS = 3, 5
UNPACKED = 2.5
"""Bytes on a node's disk for each byte pulled: what is pulled, and what it unpacks to."""
EVICTION = 0.85
"""Part of its disk above which a kubelet begins to delete images (imageGCHighThresholdPercent)."""
NAME = "the model's image is in its registry"
LATER = "25 min, then ImagePullBackOff"


class NoAnswer(RunbookError):
    """The registry could not be asked, or said nothing definite: the image may be there or not."""


@dataclass(frozen=True)
class Reference:
    """host/repository:tag or host/repository@digest; `name` is the tag or the digest."""

    host: str
    repository: str
    name: str


@dataclass(frozen=True)
class Found:
    """An image for linux/amd64. `size` in bytes as pulled, of `layers` layers, the largest of `largest` bytes."""

    reference: str
    size: int
    layers: int
    largest: int
    platform: str


@dataclass(frozen=True)
class _Answer:
    """What a registry said: HTTP status, Bearer challenge, and as much of the body as a manifest may have."""

    status: int
    challenge: Mapping[str, str]
    body: bytes


def parse(image: str) -> Reference:
    """As containerd reads a reference: no host means Docker Hub, no tag means latest. Raises RunbookError."""
    rest, _, digest = image.partition("@")
    host, slash, path = rest.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = HUB, rest
    path, _, tag = path.partition(":")
    if host == HUB and "/" not in path:
        path = f"library/{path}"
    if not re.fullmatch(r"[a-z0-9]+([._/-]+[a-z0-9]+)*", path) or (digest and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest)):
        raise RunbookError(f"{image!r} is not an image reference", where="the parameter image",
                           next="write it as host/repository:tag, such as irbull/dolly:0.2")
    return Reference(host, path, digest or tag or "latest")


def in_ecr(image: str) -> bool:
    """The image is in a registry that only AWS credentials open."""
    return bool(ECR.fullmatch(image.partition("/")[0]))


def look_up(account: Account, image: str) -> Found:
    """The image's size from its manifest.

    Raises:
        AwsError, NoAnswer: it is not known.
        RunbookError: the image is not there for a node to pull.
    """
    reference = parse(image)
    ecr = ECR.fullmatch(reference.host)
    if ecr:
        return _sized(image, reference, lambda name: _from_ecr(account, ecr, reference, name))
    import requests
    with requests.Session() as session:
        try:
            return _sized(image, reference, lambda name: _get(session, reference, name))
        except requests.RequestException as error:
            raise NoAnswer(f"{reference.host} did not answer: {type(error).__name__}", where=image,
                           next="check the network, then run the same again") from error


def _sized(image: str, reference: Reference, manifest: Callable[[str], dict[str, Any]]) -> Found:
    document = manifest(reference.name)
    platform = "one platform, which its manifest does not name"
    if isinstance(document.get("manifests"), list):
        platforms = {_platform(m): m["digest"] for m in document["manifests"]}
        platform = "linux/amd64"
        if platform not in platforms:
            offered = ", ".join(sorted(p for p in platforms if "unknown" not in p))
            raise RunbookError(f"{image} has no {platform} image, only {offered}", where=image,
                               next=f"docker buildx build --platform {platform} --push -t {image} manifests/model")
        document = manifest(platforms[platform])
    layers = {layer.get("digest"): layer.get("size") for layer in document.get("layers") or []}
    if not layers or not all(isinstance(size, int) for size in layers.values()):
        raise NoAnswer(f"the manifest of {image} lists no layers with sizes", where=image,
                       next=f"docker manifest inspect {image}")
    return Found(image, sum(layers.values()), len(layers), max(layers.values()), platform)


def _platform(entry: Mapping[str, Any]) -> str:
    platform = entry.get("platform") or {}
    return f"{platform.get('os', '')}/{platform.get('architecture', '')}"


def _get(session: requests.Session, reference: Reference, name: str) -> dict[str, Any]:
    host = HUB_HOST if reference.host == HUB else reference.host
    # Every container runtime speaks plain HTTP to a registry on loopback, and to no other.
    scheme = "http" if re.match(r"(localhost|127(\.\d+){3})(:|$)", host) else "https"
    url = f"{scheme}://{host}/v2/{reference.repository}/manifests/{name}"
    shown = f"{reference.host}/{reference.repository}"
    answer = _ask(session, url)
    if answer.status == 401 and answer.challenge:
        realm, service = answer.challenge["realm"], answer.challenge.get("service", "")
        given = _ask(session, realm, service=service, scope=f"repository:{reference.repository}:pull")
        if given.status == 200:
            token = _json(given, shown)
            bearer = Secret(str(token.get("token") or token.get("access_token", "")))
            session.headers["Authorization"] = f"Bearer {bearer.reveal()}"
            answer = _ask(session, url)
        elif given.status not in (401, 403):
            raise _ambiguous(given.status, shown)
    if answer.status == 404:
        raise RunbookError(f"{shown} has no {name}", where=url,
                           next="check the parameter image; notebook 06 prints how to build and push it")
    if answer.status in (401, 403):
        raise RunbookError(f"{shown} does not exist, or is private: nodes pull without a login", where=url,
                           next="make the repository public, or push the image to the account's ECR (notebook 06)")
    if answer.status != 200:
        raise _ambiguous(answer.status, shown)
    return _json(answer, shown)


def _ask(session: requests.Session, url: str, **params: str) -> _Answer:
    headers = {"Accept": ", ".join(INDEXES + MANIFESTS)}
    with session.get(url, params=params, headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS), stream=True) as answer:
        body = b""
        for part in answer.iter_content(2**16):
            body += part
            if len(body) > MOST_BYTES:
                break
        return _Answer(answer.status_code, _challenge(answer.headers.get("WWW-Authenticate", "")), body)


def _challenge(header: str) -> dict[str, str]:
    """realm, service and scope of a Bearer challenge; {} for any other."""
    if not header.lower().startswith("bearer "):
        return {}
    parts = dict(re.findall(r'(\w+)="([^"]*)"', header))
    return parts if parts.get("realm", "").startswith(("https://", "http://")) else {}


def _ambiguous(status: int, shown: str) -> NoAnswer:
    why = "too many questions from this address" if status == 429 else "its own failure" if status >= 500 else "unexpected"
    return NoAnswer(f"{shown} answered HTTP {status}: {why}", where=shown, next="wait some minutes, then run the same again")


def _json(answer: _Answer, shown: str) -> dict[str, Any]:
    try:
        document = json.loads(answer.body) if len(answer.body) <= MOST_BYTES else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise NoAnswer(f"{shown} answered with something that is no manifest", where=shown,
                       next="check the host in the parameter image")
    return document


def _from_ecr(account: Account, host: re.Match[str], reference: Reference, name: str) -> dict[str, Any]:
    digest_or_tag = {"imageDigest": name} if name.startswith("sha256:") else {"imageTag": name}
    region = host["old"] or host["new"]
    push = "build and push it: notebook 06 prints the two commands"
    try:
        answer = account.call("ecr", "batch_get_image", region=region, registryId=host["account"],
                              repositoryName=reference.repository, imageIds=[digest_or_tag],
                              acceptedMediaTypes=list(INDEXES + MANIFESTS))
    except AwsError as error:
        if error.absent:
            raise RunbookError(f"ECR in {region} has no repository {reference.repository}", where=reference.host,
                               next=push) from error
        raise
    if not answer.get("images"):
        raise RunbookError(f"ECR repository {reference.repository} has no {name}", where=reference.host, next=push)
    document: dict[str, Any] = json.loads(answer["images"][0]["imageManifest"])
    return document


def check(found: Found) -> Check:
    layers = f"{found.layers} layer{'s' * (found.layers != 1)}"
    return Check(NAME, "pass", f"{found.reference}: {found.size / 1e9:.1f} GB in {layers}, the largest "
                               f"{found.largest / 1e9:.1f} GB ({found.platform})", "", LATER)


def disk(group: NodeGroup, size: int, model_gb: float) -> Check:
    """Room on the GPU nodes for the image and the weights. `size` in bytes as pulled; `model_gb` in GB, 0 when baked in."""
    name, later = f"{group.name}: disk", "30 min, then DiskPressure and evicted pods"
    needed, room = size / 1e9 * UNPACKED + model_gb, group.volume_gib * 2**30 / 1e9
    weights = f" + {model_gb:g} GB weights" if model_gb else ""
    evidence = f"{size / 1e9:.1f} GB image × {UNPACKED:g}{weights} = {needed:.1f} GB; volume {room:.0f} GB"
    fix = f"set volumeSize: {int(needed * 1e9 / 2**30 / EVICTION) + 20} for {group.name} in cluster.yaml"
    return Check(name, "pass" if needed <= room * EVICTION else "warn" if needed <= room else "fail", evidence, fix, later)

"""The container image, asked of a real registry on loopback and of moto's ECR."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from moto import mock_aws

from gpurunbook.errors import RunbookError
from gpurunbook.targets.eks import registry
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.registry import NoAnswer, Reference
from tests.aws.answers import Answers, Refusal
from tests.aws.preflight import group

DIGEST = "sha256:" + "a" * 64
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


def manifest(*sizes: int) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": registry.MANIFESTS[0], "config": {"digest": DIGEST, "size": 7},
            "layers": [{"digest": f"sha256:{n:064x}", "size": size} for n, size in enumerate(sizes)]}


def index(**platforms: str) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": registry.INDEXES[0], "manifests": [
        {"digest": digest, "platform": {"os": "linux", "architecture": arch}} for arch, digest in platforms.items()]}


class Registry(ThreadingHTTPServer):
    """A registry that asks for a token, as the large public ones do. `answers`: status and body by (repository, name)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.token_status, self.cut = 200, False
        self.seen: list[tuple[str, dict[str, str]]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.seen.append((self.path, dict(self.headers)))
        if url.path == "/token":
            scope = parse_qs(url.query)["scope"][0]
            assert parse_qs(url.query)["service"] == ["tests"]
            return self.reply(self.server.token_status, {"token": f"for-{scope}"})
        _, _, rest = url.path.partition("/v2/")
        repository, _, name = rest.partition("/manifests/")
        if self.headers.get("Authorization") != f"Bearer for-repository:{repository}:pull":
            scope = f"repository:{repository}:pull"
            return self.reply(401, {}, f'Bearer realm="http://{self.server.host}/token",service="tests",scope="{scope}"')
        return self.reply(*self.server.answers.get((repository, name), (404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})))

    def reply(self, status: int, body: Any, challenge: str = "") -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(raw) + self.server.cut))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Registry]:
    with Registry() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(("image", "expected"), [
    ("irbull/dolly:0.2", Reference("docker.io", "irbull/dolly", "0.2")),
    ("python", Reference("docker.io", "library/python", "latest")),
    ("docker.io/irbull/dolly:0.2", Reference("docker.io", "irbull/dolly", "0.2")),
    ("localhost:5000/dolly", Reference("localhost:5000", "dolly", "latest")),
    (f"ghcr.io/a/b/c:1@{DIGEST}", Reference("ghcr.io", "a/b/c", DIGEST)),
    (f"{ECR}/gpurunbook/model:1", Reference(ECR, "gpurunbook/model", "1"))])
def test_a_reference_is_read_as_container_runtimes_read_it(image: str, expected: Reference) -> None:
    assert registry.parse(image) == expected


@pytest.mark.parametrize("image", ["", "Irbull/Dolly", "irbull/dolly@sha256:12", "a b"])
def test_what_is_no_reference_is_refused(image: str) -> None:
    with pytest.raises(RunbookError, match="is not an image reference"):
        registry.parse(image)


def test_the_size_is_the_sum_of_the_layers(account: Account, server: Registry) -> None:
    server.answers["irbull/dolly", "0.2"] = 200, manifest(3_000_000_000, 7_400_000_000)
    found = registry.look_up(account, f"{server.host}/irbull/dolly:0.2")
    assert (found.size, found.layers, found.largest) == (10_400_000_000, 2, 7_400_000_000)
    assert [path.partition("?")[0] for path, _ in server.seen] == ["/v2/irbull/dolly/manifests/0.2", "/token",
                                                                   "/v2/irbull/dolly/manifests/0.2"]
    assert registry.INDEXES[0] in server.seen[0][1]["Accept"]
    assert registry.MANIFESTS[1] in server.seen[0][1]["Accept"]
    check = registry.check(found)
    assert check.state == "pass"
    assert "10.4 GB in 2 layers, the largest 7.4 GB" in check.evidence


def test_a_layer_that_comes_twice_is_pulled_once(account: Account, server: Registry) -> None:
    twice = manifest(100)
    twice["layers"] *= 2
    server.answers["a/b", "1"] = 200, twice
    assert registry.look_up(account, f"{server.host}/a/b:1").size == 100


def test_of_many_platforms_the_nodes_is_taken(account: Account, server: Registry) -> None:
    arm, amd = "sha256:" + "b" * 64, "sha256:" + "c" * 64
    server.answers |= {("a/b", "1"): (200, index(arm64=arm, amd64=amd)), ("a/b", amd): (200, manifest(5)),
                       ("a/b", arm): (200, manifest(9))}
    found = registry.look_up(account, f"{server.host}/a/b:1")
    assert (found.size, found.platform) == (5, "linux/amd64")


def test_an_image_for_other_platforms_only_is_no_image(account: Account, server: Registry) -> None:
    server.answers["a/b", "1"] = 200, index(arm64=DIGEST, unknown=DIGEST)
    with pytest.raises(RunbookError, match="has no linux/amd64 image") as caught:
        registry.look_up(account, f"{server.host}/a/b:1")
    assert caught.value.what.endswith("only linux/arm64")
    assert caught.value.next.startswith("docker buildx build --platform linux/amd64 ")


@pytest.mark.parametrize(("status", "what"), [
    (404, "has no 1"), (401, "does not exist, or is private"), (403, "does not exist, or is private")])
def test_what_a_node_cannot_pull_is_a_definite_no(account: Account, server: Registry, status: int, what: str) -> None:
    server.answers["a/b", "1"] = status, {}
    with pytest.raises(RunbookError, match=what) as caught:
        registry.look_up(account, f"{server.host}/a/b:1")
    assert not isinstance(caught.value, NoAnswer)
    assert caught.value.next


def test_a_refused_token_means_private(account: Account, server: Registry) -> None:
    server.token_status = 401
    with pytest.raises(RunbookError, match="is private") as caught:
        registry.look_up(account, f"{server.host}/a/b:1")
    assert not isinstance(caught.value, NoAnswer)


@pytest.mark.parametrize(("status", "body"), [
    (429, {}), (500, {}), (503, {}), (302, {}), (200, b"<html>sign in to this network</html>"), (200, [1]),
    (200, {"schemaVersion": 1, "fsLayers": []}), (200, manifest()), (200, b" " * (registry.MOST_BYTES + 1))])
def test_an_answer_that_says_nothing_definite_is_unknown(account: Account, server: Registry, status: int, body: Any) -> None:
    server.answers["a/b", "1"] = status, body
    with pytest.raises(NoAnswer):
        registry.look_up(account, f"{server.host}/a/b:1")


def test_a_broken_token_service_is_unknown(account: Account, server: Registry) -> None:
    server.token_status = 503
    with pytest.raises(NoAnswer, match="HTTP 503"):
        registry.look_up(account, f"{server.host}/a/b:1")


def test_an_answer_that_breaks_off_is_unknown(account: Account, server: Registry) -> None:
    server.answers["a/b", "1"] = 200, manifest(5)
    server.cut = True
    with pytest.raises(NoAnswer, match="did not answer"):
        registry.look_up(account, f"{server.host}/a/b:1")


def test_a_network_that_fails_is_unknown(account: Account, server: Registry) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(NoAnswer, match="did not answer: ConnectionError"):
        registry.look_up(account, f"{server.host}/a/b:1")


def pushed(account: Account, document: dict[str, Any], tag: str = "1") -> str:
    text = json.dumps(document)
    account.call("ecr", "put_image", repositoryName="gpurunbook/model", imageManifest=text, imageTag=tag,
                 imageManifestMediaType=document["mediaType"])
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_an_image_in_the_accounts_ecr_is_asked_of_the_account(account: Account, answers: Answers) -> None:
    account.call("ecr", "create_repository", repositoryName="gpurunbook/model")
    pushed(account, manifest(40, 2))
    assert registry.look_up(account, f"{ECR}/gpurunbook/model:1").size == 42
    assert registry.in_ecr(f"{ECR}/gpurunbook/model:1")
    assert not registry.in_ecr("irbull/dolly:0.2")


@pytest.mark.parametrize(("host", "region"), [
    ("dkr.ecr.eu-central-1.amazonaws.com", "eu-central-1"), ("dkr-ecr.eu-central-1.on.aws", "eu-central-1"),
    ("dkr.ecr-fips.us-east-1.amazonaws.com", "us-east-1"), ("dkr-ecr-fips.us-east-1.on.aws", "us-east-1"),
    ("dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"), ("dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "cn-north-1")])
def test_every_name_of_ecrs_is_asked_of_ecr_in_its_region(answers: Answers, host: str, region: str) -> None:
    answers["ecr", "batch_get_image"] = {"images": [{"imageManifest": json.dumps(manifest(42))}]}
    with mock_aws():
        account = Account("eu-west-1", answers.install(boto3.Session()))
        assert registry.look_up(account, f"123456789012.{host}/gpurunbook/model:1").size == 42
    assert ("ecr", region) in account._clients


def test_an_index_in_ecr_is_followed(account: Account, answers: Answers) -> None:
    amd = "sha256:" + "c" * 64

    def images(asked: dict[str, Any]) -> dict[str, Any]:
        [wanted] = asked["imageIds"]
        body = {"1": index(amd64=amd)}.get(wanted.get("imageTag", "")) or {amd: manifest(8)}[wanted["imageDigest"]]
        return {"images": [{"imageManifest": json.dumps(body)}]}

    answers["ecr", "batch_get_image"] = images
    assert registry.look_up(account, f"{ECR}/gpurunbook/model:1").size == 8


def test_an_image_that_ecr_lacks_says_how_to_push_it(account: Account) -> None:
    with pytest.raises(RunbookError, match="has no repository gpurunbook/model") as caught:
        registry.look_up(account, f"{ECR}/gpurunbook/model:1")
    assert not isinstance(caught.value, AwsError)
    account.call("ecr", "create_repository", repositoryName="gpurunbook/model")
    with pytest.raises(RunbookError, match="gpurunbook/model has no 1") as caught:
        registry.look_up(account, f"{ECR}/gpurunbook/model:1")
    assert "notebook 06" in caught.value.next


def test_a_refusal_by_ecr_is_unknown(account: Account, answers: Answers) -> None:
    answers["ecr", "batch_get_image"] = Refusal("AccessDeniedException")
    with pytest.raises(AwsError) as caught:
        registry.look_up(account, f"{ECR}/gpurunbook/model:1")
    assert caught.value.denied


@pytest.mark.parametrize(("size", "model_gb", "volume", "state", "evidence"), [
    (10_400_000_000, 5.7, 100, "pass", "10.4 GB image × 2.5 + 5.7 GB weights = 31.7 GB; volume 107 GB"),
    (10_400_000_000, 0, 100, "pass", "10.4 GB image × 2.5 = 26.0 GB; volume 107 GB"),
    (10_400_000_000, 5.7, 34, "warn", "10.4 GB image × 2.5 + 5.7 GB weights = 31.7 GB; volume 37 GB"),
    (10_400_000_000, 5.7, 20, "fail", "10.4 GB image × 2.5 + 5.7 GB weights = 31.7 GB; volume 21 GB")])
def test_image_and_weights_fit_the_volume(size: int, model_gb: float, volume: int, state: str, evidence: str) -> None:
    found = registry.disk(group(volume_gib=volume), size, model_gb)
    assert (found.state, found.evidence) == (state, evidence)


def test_the_volume_that_is_proposed_passes() -> None:
    fix = registry.disk(group(volume_gib=20), 10_400_000_000, 5.7).fix
    proposed = int(fix.removeprefix("set volumeSize: ").partition(" ")[0])
    assert registry.disk(group(volume_gib=proposed), 10_400_000_000, 5.7).state == "pass"

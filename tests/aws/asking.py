"""What the stand-in eksctl asks of the account, and of the settings beside it; and the kubeconfig that it writes."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.aws.flags import Flags, Refusal

PERIODS = {"cluster": 0.5, "group": 0.3, "delete": 0.2, "nodes": 0.2}
"""Seconds where the settings do not say."""


class Account:
    """The account behind AWS_ENDPOINT_URL, and the settings beside the program."""

    def __init__(self, settings: Path) -> None:
        self._file = settings

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file.read_text())
        return found

    def seconds(self, what: str) -> float:
        return float(self.settings.get("seconds", {}).get(what, PERIODS[what]))

    def failing(self, kind: str, what: str) -> dict[str, Any] | None:
        """The failure that is planned for this, which is used up by asking."""
        settings = self.settings
        planned = settings.get(kind, {}).get(what)
        if not planned or planned.get("times", 1) <= 0:
            return None
        planned["times"] = planned.get("times", 1) - 1
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(settings))
        new.replace(self._file)
        return dict(planned)

    def note(self, argv: Sequence[str]) -> None:
        with self._file.with_suffix(".log").open("a") as log:
            log.write(json.dumps(list(argv)) + "\n")

    def point(self, name: str) -> None:
        if self.settings.get("hang") == name:
            self._file.with_suffix(".at").write_text(name)
            while True:
                time.sleep(1)

    def ask(self, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None,
            raw: bytes | None = None) -> Any:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"] + path, data, headers or {})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text[:1] in (b"{", b"[") else text

    def aws(self, service: str, name: str, path: str, raw: bytes | None = None) -> Any:
        """A call as the real one makes it, so that what a test makes AWS refuse is refused here. Raises Refusal."""
        scope = f"AWS4-HMAC-SHA256 Credential=AKIA/20261122/{region()}/{service}/aws4_request"
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if raw else {}
        try:
            return self.ask(path, headers={"Authorization": scope, "User-Agent": "eksctl-stand-in", **kind}, raw=raw)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            code = error.headers.get("x-amzn-errortype") or text.partition("<Code>")[2].partition("<")[0]
            said = json.loads(text).get("message", "") if text.startswith("{") else \
                text.partition("<Message>")[2].partition("<")[0]
            raise Refusal(f"operation error {name}, https response error StatusCode: {error.code}, RequestID: 0, "
                          f"{code}: {said}") from error

    def stacks(self) -> dict[str, str]:
        """The status of each stack there is, by name."""
        found: dict[str, str] = self.ask("/_stand_in/stacks")
        return found

    def groups(self, cluster: str) -> dict[str, str]:
        start = f"eksctl-{cluster}-nodegroup-"
        return {name.removeprefix(start): status for name, status in self.stacks().items() if name.startswith(start)}


def say(text: str, mark: str = "ℹ") -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{mark}]  {text}", flush=True)


def region(config: dict[str, Any] | None = None) -> str:
    return str(config["metadata"]["region"] if config else os.environ.get("AWS_REGION", "eu-central-1"))


def identity(account: Account) -> None:
    if not os.environ.get("AWS_ACCESS_KEY_ID"):
        raise Refusal("checking AWS STS access – cannot get role ARN for current session: operation error STS: "
                      "GetCallerIdentity, get identity: get credentials: failed to refresh cached credentials")
    try:
        account.aws("sts", "STS: GetCallerIdentity", "/", b"Action=GetCallerIdentity&Version=2011-06-15")
    except Refusal as refusal:
        raise Refusal(f"checking AWS STS access – cannot get role ARN for current session: {refusal}") from refusal


def cluster(account: Account, name: str, what: str = "unable to describe cluster control plane") -> dict[str, Any]:
    try:
        found: dict[str, Any] = account.aws("eks", "EKS: DescribeCluster", f"/clusters/{name}")["cluster"]
        return found
    except Refusal as refusal:
        raise Refusal(f"{what}: {refusal}") from refusal


def supported(account: Account, config: dict[str, Any]) -> None:
    version = str(config["metadata"].get("version", "1.34"))
    known = sorted(one["clusterVersion"] for one in account.aws(
        "eks", "EKS: DescribeClusterVersions", "/cluster-versions")["clusterVersions"])
    if version not in known:
        old = tuple(map(int, version.split("."))) < tuple(map(int, known[0].split(".")))
        raise Refusal(f"resolving cluster version: invalid version, {f'{version} is no longer supported, ' if old else ''}"
                      f"supported values: {', '.join(known)}"
                      + ("\nsee also: https://docs.aws.amazon.com/eks/latest/userguide/kubernetes-versions.html" if old else ""))


def endpoint(account: Account) -> dict[str, str]:
    """Where the given kubeconfig's API server is, and its CA: what DescribeCluster will say."""
    given = account.settings.get("kubeconfig")
    if not given or not Path(given).exists():
        return {}
    cluster = yaml.safe_load(Path(given).read_text())["clusters"][0]["cluster"]
    data = cluster.get("certificate-authority-data")
    if not data and (file := cluster.get("certificate-authority")):
        data = base64.b64encode(Path(given).parent.joinpath(file).read_bytes()).decode()
    return {"endpoint": cluster["server"], "ca": data or ""}


def write_kubeconfig(account: Account, flags: Flags, cluster: str, where: str) -> None:
    """The given kubeconfig under eksctl's names, put beside what the file has, and made current."""
    given = account.settings.get("kubeconfig")
    target = Path(flags.value("kubeconfig") or Path.home() / ".kube" / "config")
    if not given or not flags.on("write-kubeconfig", True):
        return
    source = yaml.safe_load(Path(given).read_text())
    name, user = f"{cluster}.{where}.eksctl.io", f"moto@{cluster}.{where}.eksctl.io"
    new = {"clusters": {"name": name, "cluster": _absolute(source["clusters"][0]["cluster"], Path(given).parent)},
           "users": {"name": user, "user": _absolute(source["users"][0]["user"], Path(given).parent)},
           "contexts": {"name": user, "context": {"cluster": name, "user": user}}}
    there = (yaml.safe_load(target.read_text()) if target.exists() else None) or {"apiVersion": "v1", "kind": "Config"}
    for key, entry in new.items():
        there[key] = [one for one in there.get(key) or () if one["name"] != entry["name"]] + [entry]
    there["current-context"] = user
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch(mode=0o600)
    target.write_text(yaml.safe_dump(there))
    say(f'saved kubeconfig as "{target}"', "✔")


def _absolute(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    files = ("certificate-authority", "client-certificate", "client-key")
    return {key: str(folder / value) if key in files else value for key, value in entry.items()}

"""manifests/aws: the reader's policy holds every call that our code makes to AWS, and not one more; both are sound JSON."""

from __future__ import annotations

import ast
import json
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import xform_name

from gpurunbook.targets.eks import permissions
from gpurunbook.targets.eks.account import IAM
from gpurunbook.targets.eks.aws import ACTIONS

ROOT = Path(__file__).resolve().parents[2]


def document(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((ROOT / "manifests" / "aws" / f"{name}.json").read_text())
    return read


def actions(statement: dict[str, Any]) -> list[str]:
    given = statement["Action"]
    return [given] if isinstance(given, str) else given


def in_source() -> set[tuple[str, str]]:
    """(service, operation) of every Account.call and Account.pages in the package; both must be literals."""
    found = set()
    for path in (ROOT / "gpurunbook").rglob("*.py"):
        if path.name == "account.py" and path.parent.name == "eks":
            found.add(("sts", "get_caller_identity"))
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("call", "pages"):
                service, operation = (ast.literal_eval(argument) for argument in node.args[:2])
                found.add((service, operation))
    return found


def action(service: str, operation: str) -> str:
    """How IAM writes a call. Raises KeyError for an operation that boto3 does not know."""
    return f"{IAM.get(service, service)}:{operations(service)[xform_name(operation)]}"


@cache
def operations(service: str) -> dict[str, str]:
    client = boto3.Session(region_name="eu-central-1").client(service, aws_access_key_id="x", aws_secret_access_key="x")
    return dict(client.meta.method_to_api_mapping)


def test_the_reader_may_do_what_our_code_asks_and_nothing_else() -> None:
    asked = {action(service, operation) for service, operation in in_source()}
    allowed = {one for statement in document("reader")["Statement"] for one in actions(statement)}
    assert asked == allowed
    assert {one.partition(":")[2].startswith(("Describe", "Get", "List", "BatchGet", "Simulate")) for one in allowed} == {True}


def test_boto3_is_used_in_one_place() -> None:
    users = {path.relative_to(ROOT / "gpurunbook").as_posix() for path in (ROOT / "gpurunbook").rglob("*.py")
             if "import boto3" in path.read_text()}
    assert users == {"targets/eks/account.py"}


@pytest.mark.parametrize("needed", sorted(
    {one for group in permissions.ACTIONS.values() for one in group}
    | {action(service, ACTIONS[service, word].operation) for service, word in ACTIONS}))
def test_the_provisioner_may_do_what_eksctl_and_the_sweep_need(needed: str) -> None:
    allowed = [one for statement in document("provision")["Statement"] if statement["Effect"] == "Allow"
               for one in actions(statement)]
    assert any(fnmatchcase(needed, pattern) for pattern in allowed)


@pytest.mark.parametrize("name", ["reader", "provision"])
def test_a_policy_is_one_that_iam_takes(name: str) -> None:
    whole = document(name)
    assert whole["Version"] == "2012-10-17"
    ids = [statement["Sid"] for statement in whole["Statement"]]
    assert len(set(ids)) == len(ids)
    assert all(sid.isalnum() for sid in ids)
    assert all({"Effect", "Action", "Resource"} <= set(statement) for statement in whole["Statement"])
    assert len(json.dumps(whole, separators=(",", ":"))) <= 6144  # a managed policy's limit, in characters without spaces


def test_the_preflight_tells_the_simulation_all_that_the_provisioners_conditions_ask() -> None:
    asked = {key for statement in document("provision")["Statement"]
             for operator in statement.get("Condition", {}).values() for key in operator}
    assert "aws:RequestTag/gpurunbook/run" in asked
    assert asked <= permissions.context("eu-central-1").keys()


def test_the_provisioner_makes_in_one_region_and_never_without_a_runs_tag() -> None:
    statements = {statement["Sid"]: statement for statement in document("provision")["Statement"]}
    for statement in statements.values():
        if statement["Effect"] == "Allow" and any(one.endswith(":*") for one in actions(statement)):
            assert statement["Condition"]["StringEquals"]["aws:RequestedRegion"] == "eu-central-1"
    refused = {one for statement in statements.values() if statement["Effect"] == "Deny"
               and "aws:RequestTag/gpurunbook/run" in statement["Condition"]["Null"] for one in actions(statement)}
    assert refused == {"eks:CreateCluster", "eks:CreateNodegroup", "cloudformation:CreateStack"}

"""The reader's policy against calls that were made: recorded by botocore's own events, on moto."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from gpurunbook.config import load_cluster
from gpurunbook.targets.eks import agreement, amis, facts, failures, leftovers, ownership, preflight, reap, stacks
from gpurunbook.targets.eks.account import Account, AwsError
from tests.aws.answers import Answers, Refusal
from tests.contract.test_iam import action, actions, document, in_source

CLUSTER = load_cluster(Path(__file__).resolve().parents[3] / "cluster.yaml", dt.date(2026, 11, 22))
TODAY = dt.date(2026, 11, 22)
ELSEWHERE = {("ecr", "batch_get_image"), ("iam", "get_role"), ("iam", "simulate_principal_policy"),
             ("ec2", "describe_images"), ("autoscaling", "describe_scaling_activities"),
             ("eks", "describe_nodegroup"), ("elbv2", "describe_tags"), ("elb", "describe_tags"),
             ("logs", "list_tags_for_resource"),
             ("iam", "get_open_id_connect_provider"), ("ec2", "describe_launch_template_versions"),
             ("ec2", "describe_security_group_rules"), ("cloudformation", "describe_stack_resource"),
             ("cloudformation", "describe_stack_events"), ("cloudformation", "list_stack_resources"), ("ec2", "describe_subnets"),
             ("eks", "list_addons"), ("eks", "list_nodegroups"), ("service-quotas", "get_aws_default_service_quota")}
"""Calls that only follow when there is something to look at; the walk in tests/e2e/test_eks.py makes most of them."""


def test_every_recorded_call_is_allowed_and_every_allowed_one_is_made(account: Account, answers: Answers) -> None:
    for service, operation in (("pricing", "get_products"), ("service-quotas", "get_service_quota"), ("ssm", "get_parameters")):
        answers[service, operation] = Refusal("AccessDeniedException", "no")
    name = CLUSTER.name
    preflight.checks(account, CLUSTER, today=TODAY, image="localhost:1/none", limit=30)
    agreement.estimate(account, CLUSTER, hours=1, today=TODAY)
    facts.read(account, name)
    stacks.of_cluster(account, name)
    leftovers.find(account, ownership.mark(leftovers.record(account, name)))
    reap.find(account, now=dt.datetime(2026, 11, 22, tzinfo=dt.UTC))
    failures.health(account, name, "gpu-workers")
    failures.launches(account, f"eksctl-{name}-nodegroup-gpu-workers")
    with pytest.raises(AwsError):
        amis.look_up(account, "1.36", "Ubuntu2404")
    made = {(service, operation) for service, operation, _ in answers.calls}
    allowed = {one for statement in document("reader")["Statement"] for one in actions(statement)}
    assert {action(service, operation) for service, operation in made} <= allowed
    assert in_source() - made - ELSEWHERE == set()

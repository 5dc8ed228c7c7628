"""What the preflight's tests share: node groups, recorded answers, and an account on which every rule passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpurunbook.config import NodeGroup
from gpurunbook.targets.eks import permissions
from tests.aws.answers import Answers, Refusal

DATA = Path(__file__).resolve().parents[1] / "data" / "aws"


def recorded(name: str) -> dict[str, Any]:
    """A file of tests/data/aws, which says in `source` where it is from."""
    document: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return {key: value for key, value in document.items() if key != "source"}


def group(**other: Any) -> NodeGroup:
    """cluster.yaml's gpu-workers, with other values for some of its fields."""
    return NodeGroup(**{"name": "gpu-workers", "instance_type": "g4dn.xlarge", "desired": 1, "min": 1, "max": 1,
                        "volume_gib": 100, "ami_family": "Ubuntu2404", "ami": "", "labels": {}, "taints": (), "zones": (),
                        "managed": False, **other})


# A preflight asks in many threads, and Answers may hand one thread's answer another thread's parameters. So these
# answers are the same whatever is asked: all that there is.


def parameters() -> dict[str, Any]:
    """GetParameters: every parameter that is known."""
    return {"Parameters": [{"Name": n, "Value": value} for n, value in recorded("images")["parameters"].items()]}


def images(params: dict[str, Any]) -> dict[str, Any]:
    """DescribeImages: every image that is known; as at EC2, an id that is not fails the call."""
    known = recorded("images")["images"]
    absent = set(params["ImageIds"]) - {i["ImageId"] for i in known}
    if absent:
        raise Refusal("InvalidAMIID.NotFound", f"The image id '[{absent.pop()}]' does not exist")
    return {"Images": known}


def simulated() -> dict[str, Any]:
    """SimulatePrincipalPolicy of a principal that may do everything: all actions, allowed."""
    return {"EvaluationResults": [{"EvalActionName": action, "EvalDecision": "allowed"}
                                  for actions in permissions.ACTIONS.values() for action in actions]}


def healthy(answers: Answers) -> None:
    """Everything that moto lacks, answered so that a preflight of cluster.yaml passes."""
    answers["sts", "get_caller_identity"] = {"Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/ada"}
    answers["service-quotas", "get_service_quota"] = {"Quota": {"Value": 64.0}}
    answers["eks", "describe_cluster_versions"] = recorded("cluster_versions")
    answers["ssm", "get_parameters"] = parameters()
    answers["ec2", "describe_images"] = images
    answers["iam", "simulate_principal_policy"] = simulated()

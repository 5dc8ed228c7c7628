"""An AWS account that lives in this process: moto, and our own answers where moto has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from gpurunbook.targets.eks.account import Account
from tests.aws.answers import Answers
from tests.aws.preflight import recorded

REGION = "eu-central-1"


@pytest.fixture
def answers() -> Answers:
    """Nothing but EKS's versions, which moto lacks."""
    made = Answers()
    made["eks", "describe_cluster_versions"] = recorded("cluster_versions")
    return made


@pytest.fixture
def account(answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account in eu-central-1; `account.call` writes to it too, to seed it. Its prices are not kept for the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with mock_aws():
        yield Account(REGION, answers.install(boto3.Session()))

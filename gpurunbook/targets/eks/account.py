"""The AWS account: the only place that speaks to AWS, for reading. What changes an account is a Command.

Every call has a time limit and is tried again when AWS throttles (botocore's standard mode: exponential backoff with
jitter); any failure becomes an AwsError, whose `code` says what a caller may do about it.
"""

from __future__ import annotations

import threading
from typing import Any

from gpurunbook import masking
from gpurunbook.errors import RunbookError

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 8, 4
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "NotAuthorized",
          "AuthorizationError", "UnauthorizedException"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired",
           "UnauthorizedSSOTokenError", "SSOTokenLoadError", "InvalidClientTokenId", "UnrecognizedClientException"}
ABSENT = {"ResourceNotFoundException", "NoSuchEntity", "ParameterNotFound", "NoSuchResourceException",
          "LoadBalancerNotFound", "TargetGroupNotFound", "RepositoryNotFoundException", "ImageNotFoundException"}


class AwsError(RunbookError):
    """AWS refused, or did not answer. `code` is AWS's own, or the name of botocore's exception."""

    def __init__(self, what: str, code: str, *, where: str, next: str = "") -> None:
        super().__init__(what, where=where, next=next)
        self.code = code

    @property
    def denied(self) -> bool:
        return self.code in DENIED

    @property
    def expired(self) -> bool:
        """Credentials that are no longer, or not yet, good."""
        return self.code in EXPIRED

    @property
    def absent(self) -> bool:
        """The thing asked for is not there."""
        return self.code in ABSENT or self.code.endswith("NotFound") or "does not exist" in self.what


class Account:
    """One account in one region, as the environment's credentials see it.

    Args:
        region: where calls go unless they name another.
        session: a boto3 Session; made from the environment when not given.
    """

    def __init__(self, region: str, session: Any = None) -> None:
        self.region, self._session = region, session
        self._clients: dict[tuple[str, str], Any] = {}
        self._turn = threading.Lock()  # boto3's Session is not safe to share between threads; its clients are

    def client(self, service: str, region: str = "") -> Any:
        """A boto3 client. Raises AwsError when there are no usable credentials or no such region."""
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
        key = service, region or self.region
        with self._turn:
            if key not in self._clients:
                try:
                    self._session = self._session or _session()
                    self._clients[key] = self._session.client(service, region_name=key[1], config=Config(
                        connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, max_pool_connections=32,
                        retries={"mode": "standard", "total_max_attempts": ATTEMPTS}, user_agent_extra="gpurunbook"))
                except (BotoCoreError, ValueError) as error:
                    raise _explained(error, service, "client") from error
            return self._clients[key]

    def call(self, service: str, operation: str, *, region: str = "", **params: Any) -> dict[str, Any]:
        """One call, such as call("eks", "describe_cluster", name="gpu-cluster"). Raises AwsError."""
        from botocore.exceptions import BotoCoreError, ClientError
        client = self.client(service, region)
        try:
            answer: dict[str, Any] = getattr(client, operation)(**params)
            return answer
        except (BotoCoreError, ClientError) as error:
            raise _explained(error, service, operation) from error

    def pages(self, service: str, operation: str, key: str, *, region: str = "", **params: Any) -> list[Any]:
        """Every item below `key` of every page. Raises AwsError."""
        from botocore.exceptions import BotoCoreError, ClientError
        client = self.client(service, region)
        try:
            if not client.can_paginate(operation):
                return list(getattr(client, operation)(**params).get(key, []))
            return [item for page in client.get_paginator(operation).paginate(**params) for item in page.get(key, [])]
        except (BotoCoreError, ClientError) as error:
            raise _explained(error, service, operation) from error

    def identity(self) -> dict[str, str]:
        """Who we are: `account` (12 digits), `arn`, and `name`, the last part of the ARN. Raises AwsError."""
        who = self.call("sts", "get_caller_identity")
        masking.know(account=who["Account"])
        return {"account": who["Account"], "arn": who["Arn"], "name": who["Arn"].rpartition("/")[2].rpartition(":")[2]}


def _session() -> Any:
    """A session from the environment, whose secrets are hidden from here on wherever they came from."""
    import boto3
    session = boto3.Session()
    if credentials := session.get_credentials():
        frozen = credentials.get_frozen_credentials()
        masking.know(frozen.secret_key, frozen.token or "")
    return session


def _explained(error: Exception, service: str, operation: str) -> AwsError:
    answer = getattr(error, "response", {}).get("Error", {})
    code = str(answer.get("Code") or type(error).__name__)
    where = f"{service}:{''.join(part.title() for part in operation.split('_'))}"
    following = ""
    if code in DENIED:
        following = f"allow {where} (manifests/aws/reader.json), or ask whoever manages the account"
    elif code in EXPIRED or code in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"):
        following = "sign in again: aws sso login, or set AWS_PROFILE; then run the same again"
    elif code in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"):
        following = "check the network and the region's name, then run the same again"
    return AwsError(f"{where}: {answer.get('Message') or error}", code, where=where, next=following)

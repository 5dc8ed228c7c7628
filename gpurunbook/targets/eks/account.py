"""The AWS account: the only place that speaks to AWS, for reading. What changes an account is a Command.

Every call has a time limit and is tried again when AWS throttles (botocore's standard mode: exponential backoff with
jitter); any failure becomes an AwsError, whose `code` says what a caller may do about it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from gpurunbook import masking
from gpurunbook.errors import RunbookError

T = TypeVar("T")
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 8, 4
MISSES = 5
"""Failed readings in a row that a wait lives through."""
HOMES = {"cn-": "cn-north-1", "us-gov-": "us-gov-west-1"}
"""A region that every account of a partition has; us-east-1 for the rest."""
IAM = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing", "service-quotas": "servicequotas",
       "resourcegroupstaggingapi": "tag"}
"""What IAM calls a service, where that is not boto3's name. Source: AWS's service authorization reference."""
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure", "NotAuthorized",
          "AuthorizationError", "UnauthorizedException"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired",
           "UnauthorizedSSOTokenError", "SSOTokenLoadError", "InvalidClientTokenId", "UnrecognizedClientException"}
SIGNED_OUT = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError",
              "CredentialRetrievalError", "SignatureDoesNotMatch"}
"""Codes, besides those of expired credentials, that say that no call can succeed until somebody signs in."""
UNREACHED = {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "ConnectionError",
             "ProxyConnectionError", "HTTPClientError"}
BUSY = {"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
        "RequestLimitExceeded", "TooManyRequestsException", "SlowDown", "PriorRequestNotComplete", "InternalFailure",
        "InternalError", "InternalServerError", "ServerException", "ServiceUnavailable", "ServiceUnavailableException",
        "Unavailable", "RequestTimeout", "RequestTimeoutException"}
OURS = {"ProfileNotFound", "ConfigNotFound"}
"""Exceptions of botocore's about files on this machine."""
ABSENT = {"ResourceNotFoundException", "NoSuchEntity", "ParameterNotFound", "NoSuchResourceException",
          "LoadBalancerNotFound", "TargetGroupNotFound", "RepositoryNotFoundException", "ImageNotFoundException"}


class AwsError(RunbookError):
    """AWS refused, or did not answer. `code` is AWS's own, or the name of botocore's exception; `status` HTTP's, 0 for none."""

    def __init__(self, what: str, code: str, *, where: str, next: str = "", status: int = 0) -> None:
        super().__init__(what, where=where, next=next)
        self.code, self.status = code, status

    @property
    def denied(self) -> bool:
        return self.code in DENIED

    @property
    def expired(self) -> bool:
        """Credentials that are no longer, or not yet, good."""
        return self.code in EXPIRED

    @property
    def signed_out(self) -> bool:
        """No call can succeed until somebody signs in."""
        return self.expired or self.code in SIGNED_OUT

    @property
    def passing(self) -> bool:
        """The network's fault, or AWS's own: the same question may be answered in some seconds."""
        return self.code in UNREACHED | BUSY or self.status >= 500

    @property
    def absent(self) -> bool:
        """The thing asked for is not there. AWS says so; that botocore found no profile says nothing of it."""
        if self.code in OURS:
            return False
        return (self.code in ABSENT or self.code.endswith("NotFound")
                or (self.code == "ValidationError" and "does not exist" in self.what))


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
        from botocore.exceptions import BotoCoreError, ClientError
        key = service, region or self.region
        with self._turn:
            if key not in self._clients:
                try:
                    self._session = self._session or _session(self.region)
                    self._clients[key] = self._session.client(service, region_name=key[1], config=Config(
                        connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, max_pool_connections=32,
                        retries={"mode": "standard", "total_max_attempts": ATTEMPTS}, user_agent_extra="gpurunbook"))
                except (BotoCoreError, ClientError, ValueError) as error:
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
        """Who we are: `account` (12 digits), `arn`, and `name`, the last part of the ARN. Raises AwsError.

        Asked at home: to a region that is not enabled in the account, good credentials are invalid ones.
        """
        who = self.call("sts", "get_caller_identity", region=home(self.region))
        masking.know(account=who["Account"])
        return {"account": who["Account"], "arn": who["Arn"], "name": who["Arn"].rpartition("/")[2].rpartition(":")[2]}


def home(region: str) -> str:
    """The region of its partition that every account has."""
    return next((one for start, one in HOMES.items() if region.startswith(start)), "us-east-1")


def patiently(read: Callable[[], T], pause: float, *, say: Callable[[str], object],
              sleep: Callable[[float], object] = time.sleep) -> T:
    """What `read` answers, asked again after `pause` seconds while what fails is passing. For reading only.

    Raises AwsError: at once what does not pass, such as a refusal; else the failure after MISSES others in a row.
    """
    for _ in range(MISSES):
        try:
            return read()
        except AwsError as error:
            if not error.passing:
                raise
            say(f"no answer ({error.code}), looking again")
        sleep(pause)
    return read()


def _session(region: str) -> Any:
    """A session from the environment, whose secrets are hidden from here on wherever they came from.

    `region`: where a profile's role is asked for, when the profile names no region itself.
    """
    import boto3
    session = boto3.Session(region_name=region)
    if credentials := session.get_credentials():
        frozen = credentials.get_frozen_credentials()
        masking.know(frozen.secret_key, frozen.token or "")
    return session


def _explained(error: Exception, service: str, operation: str) -> AwsError:
    response = getattr(error, "response", {})
    answer, status = response.get("Error", {}), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(answer.get("Code") or type(error).__name__)
    name, asked = "".join(part.title() for part in operation.split("_")), str(getattr(error, "operation_name", ""))
    where = f"{IAM.get(service, service)}:{name}"
    sign_in = "sign in again: aws sso login, or set AWS_PROFILE; then run the same again"
    if asked and asked.casefold() != name.casefold():
        # botocore asked for credentials first, such as for a profile's role: it is they that are refused, not the call.
        return AwsError(f"no credentials: {asked}: {answer.get('Message') or error}", "CredentialRetrievalError", where=asked,
                        next=f"check the profile's role_arn and source_profile in ~/.aws/config; or {sign_in}", status=status)
    if code == "NoCredentialsError":
        return AwsError("no AWS credentials were found", code, where="AWS_PROFILE, AWS_ACCESS_KEY_ID, ~/.aws",
                        next="aws configure sso, or set AWS_PROFILE; then run the same again")
    following = ""
    if code in DENIED:
        following = f"allow {where} (manifests/aws/reader.json), or ask whoever manages the account"
    elif code in EXPIRED | SIGNED_OUT:
        following = sign_in
    elif code in UNREACHED:
        following = "check the network and the region's name, then run the same again"
    return AwsError(f"{where}: {answer.get('Message') or error}", code, where=where, next=following, status=status)

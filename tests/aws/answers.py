"""Our own answers to AWS calls that moto lacks, or answers otherwise than a test needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Answer = dict[str, Any] | Exception | Callable[[dict[str, Any]], dict[str, Any]]


class Refusal(Exception):
    """An error as AWS gives it: Refusal("AccessDenied", "User ... is not authorized")."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(message or code)
        self.code, self.message, self.status = code, message or code, status


class Answers:
    """Answers by (service, operation) in boto3's spelling, as in answers["eks", "describe_cluster_versions"] = {...}.

    An answer is what boto3 would return, a Refusal, or a function of the call's parameters that returns or raises one.
    `calls` lists every call made through the session, answered here or by moto, as (service, operation, params).
    """

    def __init__(self) -> None:
        self.given: dict[tuple[str, str], Answer] = {}
        self.calls: list[tuple[str, str, dict[str, Any]]] = []

    def __setitem__(self, key: tuple[str, str], answer: Answer) -> None:
        self.given[key] = answer

    def install(self, session: Any) -> Any:
        """Answer for this boto3 session, whose clients are made afterwards. Returns the session."""
        session.events.register("provide-client-params", self._note)
        session.events.register("before-call", self._answer)
        return session

    def _note(self, params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        context["given"] = params
        self.calls.append((model.service_model.service_name, _snake(model.name), params))

    def _answer(self, model: Any, params: dict[str, Any], context: dict[str, Any], **_: Any) -> tuple[Any, dict[str, Any]] | None:
        key = model.service_model.service_name, _snake(model.name)
        if key not in self.given:
            return None
        answer = self.given[key]
        try:
            if callable(answer) and not isinstance(answer, Exception):
                answer = answer(context.get("given", {}))
            if isinstance(answer, Exception):
                raise answer
        except Refusal as refusal:
            return _Reply(refusal.status), {"Error": {"Code": refusal.code, "Message": refusal.message},
                                            "ResponseMetadata": {"HTTPStatusCode": refusal.status}}
        return _Reply(200), {**answer, "ResponseMetadata": {"HTTPStatusCode": 200}}


class _Reply:
    """As much of an HTTP response as botocore looks at."""

    def __init__(self, status_code: int) -> None:
        self.status_code, self.headers, self.content = status_code, {}, b""


def _snake(name: str) -> str:
    from botocore import xform_name
    return str(xform_name(name))

"""Wait for a stack that CloudFormation is at work on: `python -m gpurunbook.targets.eks.settle --stack-name S --region R`.

CloudFormation goes on without the eksctl that asked for it. Ends with 0 when what was begun is done (a stack that was
being deleted is gone), with 1 when it failed; says each change of status.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from gpurunbook.targets.eks.account import Account, AwsError, patiently

POLL = 3.0
"""Seconds between two looks."""


def main(arguments: list[str] | None = None, *, session: Any = None, sleep: Callable[[float], object] = time.sleep) -> int:
    parser = argparse.ArgumentParser(prog="settle", allow_abbrev=False)
    parser.add_argument("--stack-name", required=True)
    parser.add_argument("--region", required=True)
    chosen = parser.parse_args(arguments)
    account, seen = Account(chosen.region, session), [""]

    def look() -> str:
        told = account.call("cloudformation", "describe_stacks", StackName=chosen.stack_name)["Stacks"][0]
        return str(told["StackStatus"])

    while True:
        try:
            status = patiently(look, POLL, say=lambda line: print(line, flush=True), sleep=sleep)
        except AwsError as error:
            if not error.absent:
                print(error, file=sys.stderr)
                return 1
            status = "DELETE_COMPLETE"
        if status != seen[-1]:
            print(f"{chosen.stack_name}: {status}", flush=True)
            seen.append(status)
        if not status.endswith("IN_PROGRESS"):
            begun, done = seen[1].partition("_")[0], status.partition("_")[0]
            return 0 if status.endswith("COMPLETE") and begun == done else 1
        sleep(POLL)


if __name__ == "__main__":
    sys.exit(main())

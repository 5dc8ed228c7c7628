"""While eksctl runs: what CloudFormation does, and what keeps nodes from starting, as they happen.

eksctl looks every 30 seconds and says little; a self-managed group that gets no instances it waits for in silence, for 25
minutes. Here each event is told within three seconds, and a launch that failed within half a minute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpurunbook.targets.eks import failures, stacks
from gpurunbook.targets.eks.account import Account, AwsError

LAUNCHES_SECONDS = 30.0
"""Between two looks at what an auto scaling group could not launch."""


@contextmanager
def watching(account: Account, cluster: str, tell: Callable[[stacks.Event], object],
             blocked: Callable[[str], object]) -> Iterator[None]:
    """Tell each event of a cluster's stacks, and each launch that fails, while the body runs.

    Args:
        tell, blocked: called from threads; `blocked` gets a line for people, each once.
    """
    over = threading.Event()
    thread = threading.Thread(target=_launches, args=(account, cluster, blocked, over), daemon=True)
    with stacks.Follower(account, cluster, tell, blocked=blocked):
        thread.start()
        try:
            yield
        finally:
            over.set()


def _launches(account: Account, cluster: str, blocked: Callable[[str], object], over: threading.Event) -> None:
    told: set[str] = set()
    while not over.wait(LAUNCHES_SECONDS):
        try:
            found = [line for stack in stacks.of_cluster(account, cluster) if stack.kind == "nodegroup"
                     for line in failures.launches(account, stack.id)]
        except AwsError as error:
            found = [f"what the node groups launch cannot be read: {error.what}"]
        for line in found:
            if line not in told and not over.is_set():
                told.add(line)
                blocked(line)

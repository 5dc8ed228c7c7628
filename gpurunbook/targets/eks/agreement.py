"""What a person agreed to spend on a run, kept in its journal: how long, how much, and what it costs an hour.

Without it nothing is made; when its time or its budget is over, only the teardown goes on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.plan import Check, Checks
from gpurunbook.targets import Wishes
from gpurunbook.targets.eks import bill, prices, tags, versions
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.bill import Bill, Cost

if TYPE_CHECKING:
    from gpurunbook.config import ClusterConfig
    from gpurunbook.journal import Journal, Record

KIND = "agreed"
"""Kind of the journal's record."""
MOST_HOURS = 24 * 31


@dataclass(frozen=True)
class Agreement:
    """What was agreed.

    Attributes:
        of_what: the cluster's name, its region, and what it is made of; another one needs another agreement.
        expires: when everything should be gone.
        began: when the first thing was made, None before that; ended: when all was gone again.
    """

    owner: str
    budget: float
    expires: dt.datetime
    bill: Bill
    began: dt.datetime | None = None
    ended: dt.datetime | None = None
    of_what: tuple[str, str, str] = ("", "", "")

    @classmethod
    def of(cls, journal: Journal, *, past: bool = False) -> Agreement | None:
        """The run's, None when nobody agreed to anything; with `past` also that of a run which was torn down."""
        told, began, ended = None, None, None
        for record in journal.records():
            if record["kind"] == KIND:
                told, began, ended = record, began if ended is None else None, None
                began = began or (dt.datetime.fromisoformat(told["began"]) if told.get("began") else None)
            elif told and record["kind"] == "intent" and makes(record):
                began = began or dt.datetime.fromisoformat(record["time"])
            elif told and record["kind"] == "run" and record["state"] == "finished":
                told, ended = told if past else None, ended or dt.datetime.fromisoformat(record["time"])
        return None if told is None else cls(
            told["owner"], told["budget"], dt.datetime.fromisoformat(told["expires"]), Bill.from_json(told["bill"]), began, ended,
            tuple(told.get("of_what", ("", "", ""))))

    def cost(self, now: dt.datetime) -> Cost:
        """US dollars so far, an estimate that rather says too much."""
        end = self.ended or now
        return bill.so_far(self.bill, self.began or end, end)

    def tags(self, run_id: str) -> dict[str, str]:
        return tags.of_run(run_id, self.owner, self.expires)


def makes(intent: Mapping[str, Any]) -> bool:
    """Whether a journalled intent is one that begins to cost money."""
    return bool(intent["changes"]) and intent["shown"].startswith("eksctl create")


def confirmed(cluster: ClusterConfig, wishes: Wishes) -> None:
    """Raises ConfigError naming all that is missing: a name, a number of hours, a number of dollars."""
    missing = []
    if wishes.confirm != cluster.name:
        missing.append(f"-p confirm={cluster.name}" + (f" (not {wishes.confirm!r})" if wishes.confirm else ""))
    if not 0 < wishes.max_hours <= MOST_HOURS:
        missing.append(f"--max-hours HOURS (up to {MOST_HOURS}), after which everything should be gone")
    if not wishes.budget > 0:
        missing.append("--budget DOLLARS, the most that it may cost")
    if missing:
        raise ConfigError(f"the cluster {cluster.name} costs money, and nobody has agreed to that yet", where="target eks",
                          next=f"give {'; '.join(missing)}. What it costs: gpurunbook preflight --target eks")


def estimate(account: Account, cluster: ClusterConfig, *, hours: float, today: dt.date) -> Bill:
    """The bill of a cluster for its planned time. What cannot be priced is unknown, never 0."""
    extended, standard_for = False, None
    try:
        found = next((v for v in versions.describe(account) if v.number == cluster.version), None)
        extended = bool(found and found.status == "EXTENDED_SUPPORT")
        if found and found.standard_end and cluster.support != "STANDARD" and not extended:
            standard_for = (found.standard_end - today).days * 24.0
    except AwsError:
        extended = False  # preflight says that the version's state is unknown
    return bill.estimate(cluster, prices.look_up(account, bill.items(cluster), today=today), extended=extended, hours=hours,
                         standard_for=standard_for)


def within(found: Bill, wishes: Wishes) -> Checks:
    """The checks of the bill against what was agreed. Raises RunbookError when it is more, or cannot be known."""
    checks = Checks(bill.allowed(found, max_hours=wishes.max_hours, budget=wishes.budget))
    for check in checks:
        if check.state == "fail":
            raise RunbookError(f"{check.name}: {check.evidence}", where="--max-hours, --budget", next=check.fix)
        if check.state == "unknown" and not wishes.accept_unknown_prices:
            raise RunbookError(f"{check.name}: {check.evidence}", where="AWS Pricing API",
                               next=f"{check.fix}; or go on without a proof: -p accept_unknown_prices=true")
    return checks


def what(cluster: ClusterConfig) -> tuple[str, str, str]:
    """What an agreement is about, as `Agreement.of_what`."""
    groups = ", ".join(sorted(f"{g.max} {g.instance_type} {g.volume_gib} GiB" for g in cluster.groups))
    return cluster.name, cluster.region, f"{cluster.version}: {groups}"


def agree(journal: Journal, account: Account, cluster: ClusterConfig, wishes: Wishes, now: dt.datetime,
          began: dt.datetime | None = None) -> Record:
    """Write down what was agreed. Raises ConfigError when nothing was, RunbookError when it costs more.

    Args:
        began: when the cluster was made, where it is there already.
    """
    confirmed(cluster, wishes)
    found = estimate(account, cluster, hours=wishes.max_hours, today=now.date())
    within(found, wishes)
    return journal.append(KIND, owner=tags.value(account.identity()["name"]), budget=wishes.budget, max_hours=wishes.max_hours,
                          bill=found.to_json(), of_what=what(cluster), began=began and began.isoformat(),
                          expires=(now + dt.timedelta(hours=wishes.max_hours)).isoformat(timespec="seconds"))


def checks(agreed: Agreement, now: dt.datetime) -> Sequence[Check]:
    """Is there time, and money, left?"""
    left, cost = agreed.expires - now, agreed.cost(now)
    hours = left.total_seconds() / 3600
    spent = float(cost.usd) / agreed.budget
    over = "gpurunbook teardown --target eks"
    return (Check("time left", "fail" if hours <= 0 else "warn" if hours < 0.5 else "pass",
                  f"{max(hours, 0):.1f} h, until {agreed.expires:%Y-%m-%d %H:%M} UTC", over),
            Check("budget left", "fail" if spent >= 1 else "warn" if spent > 0.8 else "pass",
                  f"{cost} of ${agreed.budget:,.2f} so far, an estimate", over))

"""The commands about an AWS account rather than a run: ami, reap, and finding a run whose folder is lost."""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpurunbook import runs
from gpurunbook.cli import printing
from gpurunbook.cli.options import Json
from gpurunbook.cli.printing import console, out
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.files import to_yaml, write
from gpurunbook.journal import Journal
from gpurunbook.masking import hide

if TYPE_CHECKING:
    from gpurunbook.targets.eks.reap import Lease, Leases



def _region(name: str) -> str:
    """A region's name as it was typed. Raises ConfigError for what can be none: it is part of a host's name."""
    if name and not re.fullmatch(r"[a-z0-9-]{1,40}", name):
        raise ConfigError(f"{name[:60]!r} is no AWS region", where="--region", next="such as eu-central-1")
    return name


Region = Annotated[str, typer.Option("--region", metavar="REGION", callback=_region,
                                     help="an AWS region, such as eu-central-1")]
Family = Annotated[str, typer.Option("--family", metavar="FAMILY", help="amiFamily, such as Ubuntu2404 or AmazonLinux2023")]


def ami(region: Region, kubernetes: Annotated[str, typer.Option("--kubernetes", metavar="VERSION", help="such as 1.36")],
        family: Family = "Ubuntu2404",
        cpu: Annotated[bool, typer.Option("--cpu", help="the image for nodes without a GPU")] = False,
        as_json: Json = False) -> None:
    """Which machine image a node would boot, and whether this account can see it: the tutorial's look-up."""
    from gpurunbook.targets.eks import amis
    from gpurunbook.targets.eks.account import Account
    with console.status(printing.plain(f"asking AWS for {family}, Kubernetes {kubernetes}, in {region}")):
        image = amis.look_up(Account(region), kubernetes, family, gpu=not cpu)
    if as_json:
        out.print_json(json.dumps(asdict(image), default=str))
    else:
        out.print(image.id)
        console.print(printing.plain(f"{image.name}: {image.state}, made {image.created or 'some day'}"
                                     + (f", deprecated from {image.deprecated}" if image.deprecated else "")
                                     + f"\nnamed by {image.parameter}"))


def reap(region: Annotated[str, typer.Option("--region", metavar="REGION", callback=_region,
                                           help="one region; default: each enabled one")] = "",
         run_id: Annotated[str, typer.Option("--run-id", metavar="ID", help="end this expired run")] = "",
         confirm: Annotated[str, typer.Option("--confirm", metavar="CLUSTER", help="the name of its cluster")] = "",
         as_json: Json = False) -> None:
    """What runs have left in an account beyond their time. With --run-id and --confirm: tear that one down."""
    from gpurunbook.targets.eks import reap as reaper
    now = dt.datetime.now(dt.UTC)
    with console.status(printing.plain(f"asking AWS what is tagged in {region or 'each region'}")):
        found = _leases(region, now)
    expired = [(where, one) for where, leases in found.items() for one in leases.expired]
    unread = [check for leases in found.values() for check in leases.checks if check.state != "pass"]
    if run_id:
        _reap([(where, one) for where, one in expired if one.run_id == run_id], run_id, confirm, as_json)
        return
    if as_json:
        out.print_json(hide(json.dumps({where: asdict(leases) for where, leases in found.items()}, default=str)))
    else:
        for check in unread:
            console.print(printing.plain(f"? {check.name}: {check.evidence}; {check.fix}"), style="yellow")
        for word, kind in (("outlived their time", "expired"), ("still have time", "running")):
            rows = [(where, getattr(leases, kind)) for where, leases in found.items() if getattr(leases, kind)]
            out.print(f"{sum(len(leases) for _, leases in rows)} run(s) {word} in {region or f'{len(found)} regions'}")
            for where, leases in rows:
                printing.table(replace(reaper.table(leases, now=now), caption=where))
        for where, one in expired[:1]:
            # The two names are tags, which anybody in the account may have written.
            named = f"--run-id {shlex.quote(one.run_id)} --confirm {shlex.quote(one.cluster or one.run_id)}"
            console.print(printing.plain(f"tear one down: gpurunbook reap --region {where} {named}"))
    if expired or unread:  # a list that could not be read is no empty list
        raise typer.Exit(1)


def _leases(region: str, now: dt.datetime) -> dict[str, Leases]:
    """Region -> what runs have there; each enabled region where none is named. Raises AwsError."""
    from gpurunbook.targets.eks import reap as reaper
    from gpurunbook.targets.eks import taken
    from gpurunbook.targets.eks.account import Account
    regions = [region] if region else sorted(
        name for name, state in taken.regions(Account("us-east-1")).items() if state != "not-opted-in")
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(regions, pool.map(lambda name: reaper.find(Account(name), now=now), regions), strict=True))


def _reap(expired: Sequence[tuple[str, Lease]], run_id: str, confirm: str, as_json: bool) -> None:
    """Tear one expired run down. Raises ConfigError without a confirmation that names it."""
    if not expired:
        raise RunbookError(f"no run {run_id} has outlived its time", where="tag gpurunbook/expires-at",
                           next="gpurunbook reap lists all; end one that has time left: gpurunbook teardown --cluster NAME "
                                "--region R")
    where, one = expired[0]
    name = one.cluster or run_id  # where nothing says the cluster's name, the run's tag finds what is left
    if confirm != name:
        raise ConfigError(f"nothing was deleted: confirm with the {'cluster' if one.cluster else 'run'}'s name, {name}",
                          where="--confirm", next=f"gpurunbook reap --region {where} --run-id {run_id} --confirm {name}")
    from gpurunbook.cli.commands import teardown
    teardown(cluster=name, region=where, run_id=run_id, as_json=as_json)


def adopt(root: Path, cluster: str, region: str, run_id: str) -> Path:
    """The folder of the run that made a cluster, made anew where it is lost. Returns it.

    Raises:
        ConfigError: name or region is missing.
        RunbookError: no run of gpurunbook made it, or it was another run than `run_id`.
    """
    from gpurunbook.config import NAME
    from gpurunbook.targets.eks import facts
    from gpurunbook.targets.eks.account import Account
    if not (NAME.fullmatch(cluster) and _region(region)):
        raise ConfigError("a cluster's name and its region are needed", where="--cluster, --region",
                          next="gpurunbook teardown --cluster gpu-cluster --region eu-central-1")
    found = facts.read(Account(region), cluster)
    made_by = found.run_id or run_id
    if run_id and found.anything and found.run_id != run_id:
        raise RunbookError(f"the cluster {cluster} was made by {found.run_id or 'nobody of ours'}, not by run {run_id}",
                           where=f"tag gpurunbook/run of {cluster}", next="leave out --run-id")
    if not runs.RUN_ID.fullmatch(made_by):
        there = "was not made by a run of gpurunbook" if found.anything else "is not there, nor a stack of it"
        raise RunbookError(f"the cluster {cluster} {there}", where=f"eksctl get cluster --name {cluster} --region {region}",
                           next="to look for what a run left behind after its cluster was gone, give its --run-id")
    folder = root / "runs" / made_by
    if runs.read(folder) and (known := _describes(folder)):
        if known != (cluster, region):
            if known[1] == region and found.run_id == made_by:
                Journal(folder).append("trial", name=cluster, state="found")
            raise RunbookError(f"run {made_by} is about the cluster {known[0]} in {known[1]}, not {cluster} in {region}",
                               where=str(folder), next=f"gpurunbook teardown --run-id {made_by} takes away both")
        return folder
    document = {"apiVersion": "eksctl.io/v1alpha5", "kind": "ClusterConfig", "metadata": {"name": cluster, "region": region}}
    write(folder / "cluster.yaml", to_yaml([document]))
    return folder if runs.read(folder) else runs.resolve(root, "eks", folder / "cluster.yaml", made_by, start=True)


def _describes(folder: Path) -> tuple[str, str] | None:
    """Name and region in a run folder's cluster.yaml; None when it cannot be read, and may be written anew."""
    from gpurunbook.config import load_cluster
    try:
        cluster = load_cluster(folder / "cluster.yaml", whole=False)
    except ConfigError:
        return None
    return cluster.name, cluster.region

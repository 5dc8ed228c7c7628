"""`gpurunbook stack`: the recipe by which GPUs of a kind get usable, line by line why."""

from __future__ import annotations

import datetime as dt
import difflib
import json
import re
from pathlib import Path
from typing import Annotated

import typer

from gpurunbook import gpu_facts
from gpurunbook.cli import printing
from gpurunbook.cli.options import Json, root_or_shipped
from gpurunbook.cli.printing import out
from gpurunbook.config import load_cluster, locate
from gpurunbook.errors import ConfigError
from gpurunbook.gpu_stack import FAMILIES, Recipe, plan_stack


def stack(family: Annotated[str, typer.Option("--family", metavar="FAMILY", help="amiFamily, such as Ubuntu2404")] = "",
          instance_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="EC2 type, such as g4dn.xlarge")] = "",
          kubernetes: Annotated[str, typer.Option("--kubernetes", metavar="VERSION", help="such as 1.36")] = "",
          cluster_file: Annotated[str, typer.Option("--cluster-file", "-f", metavar="FILE",
                                                    help="what is not given is its GPU group's; default: cluster.yaml")] = "",
          as_json: Json = False) -> None:
    """eksctl flags and Helm values for GPU nodes, line by line why, and who supports them. Asks nobody, changes nothing."""
    found = recipe(root_or_shipped(), family, instance_type, kubernetes, cluster_file, dt.date.today())
    if as_json:
        out.print_json(json.dumps(found.to_json()))
    else:
        printing.table(found.table)


def recipe(root: Path, family: str, instance_type: str, kubernetes: str, cluster_file: str, today: dt.date) -> Recipe:
    """The recipe that the options ask for.

    Raises:
        ConfigError: an unknown family, a version that is none, or a broken cluster file.
    """
    if family and family not in FAMILIES:
        close = difflib.get_close_matches(family, FAMILIES, 1)
        raise ConfigError(f"unknown image family {family!r}", where="--family",
                          next=f"did you mean {close[0]}?" if close else f"one of: {', '.join(FAMILIES)}")
    if kubernetes and not re.fullmatch(r"v?\d+\.\d+(\.\d+)?([-+][\w.+-]+)?", kubernetes):
        raise ConfigError(f"{kubernetes!r} is no Kubernetes version", where="--kubernetes", next="such as 1.36")
    if instance_type and not re.fullmatch(r"[a-z][a-z0-9-]*\d[a-z0-9-]*(\.[a-z0-9-]+)?", instance_type):
        raise ConfigError(f"{instance_type!r} is no EC2 instance type", where="--type", next="such as g4dn.xlarge")
    managed = False
    if cluster_file or not (family and instance_type and kubernetes):
        here = locate(Path.cwd(), cluster_file)
        cluster = load_cluster(here if cluster_file and here.exists() else root / (cluster_file or "cluster.yaml"))
        managed = cluster.gpu_group.managed and not family
        family, instance_type = family or cluster.gpu_group.ami_family, instance_type or cluster.gpu_group.instance_type
        kubernetes = kubernetes or cluster.version
    return plan_stack(family, instance_type, kubernetes, known=gpu_facts.facts(root / gpu_facts.FILE), today=today,
                      managed=managed)

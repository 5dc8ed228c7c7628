"""The API server's own list of what was written to it, and by which program: the proof that an act was done once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
          "rules": [{"level": "None", "resources": [{"group": "", "resources": ["events"]},
                                                    {"group": "events.k8s.io"}, {"group": "coordination.k8s.io"}]},
                    {"level": "Metadata", "verbs": ["create", "delete", "deletecollection", "update", "patch"]},
                    {"level": "None"}]}
PROGRAMS = ("kubectl", "helm", "Helm")
Writes = Counter[tuple[str, str, str]]
"""(program, verb, KIND/NAMESPACE/NAME) -> how often it was done, and not only tried."""


def arm() -> None:
    """From here on the clusters that this process configures keep an audit log."""
    from gpurunbook.targets.rehearsal import kwok
    plain = kwok.configuration

    def configuration(programs: Mapping[str, str], sockets: Path, pki: Path, **more: Any) -> dict[str, Any]:
        policy = pki.parent / "audit-policy.yaml"
        policy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        policy.write_text(yaml.safe_dump(POLICY))
        made = plain(programs, sockets, pki, **more)
        made["options"]["kubeAuditPolicy"] = str(policy)
        return made

    kwok.configuration = configuration


def read(folder: Path) -> Writes:
    """What was written to the cluster of a run folder, by helm and kubectl ("helm", "kubectl") and by others ("")."""
    logs = list((folder / "rehearsal" / "clusters").glob("*/logs/audit.log"))
    return writes(line for log in logs for line in log.read_text().splitlines())


def writes(lines: Any) -> Writes:
    """The same, from the log's lines; one that is torn, since the server was killed over it, is left out."""
    found: Writes = Counter()
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        what, code = event.get("objectRef") or {}, (event.get("responseStatus") or {}).get("code", 0)
        if code // 100 != 2 or what.get("subresource") or "dryRun" in event.get("requestURI", ""):
            continue
        agent = event.get("userAgent", "")
        program = next((p.lower() for p in PROGRAMS if agent.startswith(p)), "")
        name = f"{what.get('resource')}/{what.get('namespace', '')}/{what.get('name', '')}"
        found[program, event["verb"], name] += 1
    return found

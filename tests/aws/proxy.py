"""What stands before moto on loopback: it answers what moto lacks, plays faults, tells the stacks' stories, notes calls."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web

from tests.aws import lacking, wire
from tests.aws.stacks import STACK, Event, Stacks, Story, deleted

XML = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
HOP = {"transfer-encoding", "content-length", "connection", "date", "server", "content-encoding"}
CLUSTER_STATES = {"CREATE_IN_PROGRESS": "CREATING", "DELETE_IN_PROGRESS": "DELETING", "CREATE_COMPLETE": "ACTIVE"}
SESSION = web.AppKey("SESSION", aiohttp.ClientSession)
GROUP_STATES = {**CLUSTER_STATES, "CREATE_FAILED": "CREATE_FAILED"}


@dataclass(frozen=True)
class Call:
    """A call that came in; `service` in boto3's spelling, `operation` in AWS's. `ours` when our library made it."""

    service: str
    operation: str
    params: dict[str, Any]
    region: str
    ours: bool

    @property
    def name(self) -> str:
        return f"{self.service}:{self.operation}"


@dataclass
class Fault:
    """What happens to the next `times` calls (None: to all): an error, a delay, or both. `operation` may be "*"."""

    service: str
    operation: str
    times: int | None = None
    code: str = ""
    message: str = ""
    status: int = 400
    seconds: float = 0.0


@dataclass
class State:
    """All that the proxy knows. The test's thread and the proxy's both use it, under `turn`."""

    stacks: Stacks
    facts: lacking.Facts = field(default_factory=lacking.Facts)
    faults: list[Fault] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, asked: wire.Request) -> Fault | None:
        """The fault that this call meets, which is used up by it."""
        with self.turn:
            for fault in self.faults:
                if fault.service == asked.service and fault.operation in (asked.operation, "*"):
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times <= 0:
                            self.faults.remove(fault)
                    return fault
        return None


def application(state: State, moto: str) -> web.Application:
    """The proxy before the moto server at `moto` (a URL)."""
    app = web.Application(client_max_size=64 * 2**20)

    async def connect(app: web.Application) -> None:
        app[SESSION] = aiohttp.ClientSession(auto_decompress=True)

    async def disconnect(app: web.Application) -> None:
        await app[SESSION].close()

    async def aws(request: web.Request) -> web.Response:
        body = await request.read()
        asked = wire.read(request.method, request.raw_path, request.headers, body)
        if asked:
            with state.turn:
                state.calls.append(Call(asked.service, asked.operation, asked.params, asked.region, "gpurunbook" in asked.agent))
            if fault := state.fault(asked):
                await asyncio.sleep(fault.seconds)
                if fault.code:
                    return _reply(*wire.error(asked, fault.code, fault.message, fault.status))
            try:
                own = lacking.answer(state.facts, asked) or await asyncio.to_thread(_addons, state.stacks, asked) \
                    or await asyncio.to_thread(_activities, state.stacks, asked)
            except lacking.Refused as refused:
                return _reply(*wire.error(asked, refused.code, refused.message, refused.status))
            if isinstance(own, str):
                return _reply(200, "text/xml", own.encode(), {})
            if own is not None:
                return _reply(200, "application/json", json.dumps(own).encode(), {})
            if (asked.service, asked.operation) == ("cloudformation", "DeleteStack"):
                await asyncio.to_thread(state.stacks.delete, str(asked.params["StackName"]))
            if (asked.service, asked.operation) == ("cloudformation", "ListStacks"):
                # moto would filter by its own statuses; `told` does it by the stories'.
                body = urlencode({k: v for k, v in asked.params.items() if not k.startswith("StackStatusFilter.")}).encode()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP | {"accept-encoding"}}
        async with app[SESSION].request(request.method, moto + request.raw_path, headers=headers, data=body,
                                        allow_redirects=False) as answer:
            found, status = await answer.read(), answer.status
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP | {"content-type"}}
            kind = answer.headers.get("Content-Type", "application/json")
        if asked and status == 200:
            found = told(state.stacks, asked, found)
        return _reply(status, kind, found, kept)

    app.on_startup.append(connect)
    app.on_cleanup.append(disconnect)
    app.router.add_get("/_stand_in/{what:stacks|clusters|events/.+}", _listing(state))
    app.router.add_post("/_stand_in/{what:.*}", _work(state))
    app.router.add_route("*", "/{path:.*}", aws)
    return app


def _addons(stacks: Stacks, asked: wire.Request) -> dict[str, Any] | None:
    """EKS's add-ons, which moto lacks: those of a cluster's that the stand-in made, and none of others."""
    if asked.service != "eks" or asked.operation not in ("ListAddons", "DescribeAddon"):
        return None
    # Both names are in the path, and eks calls the cluster's `name` there.
    name = str(asked.params.get("name") or asked.params["clusterName"])
    if name not in stacks.client("eks").list_clusters()["clusters"]:
        raise lacking.Refused("ResourceNotFoundException", f"No cluster found for name: {name}.", 404)
    there = stacks.addons.get(name, [])
    if asked.operation == "ListAddons":
        return {"addons": there}
    if asked.params["addonName"] not in there:
        raise lacking.Refused("ResourceNotFoundException", f"No addon: {asked.params['addonName']} found in cluster: {name}", 404)
    return {"addon": {"addonName": asked.params["addonName"], "clusterName": name, "status": "ACTIVE", "health": {"issues": []}}}


def _activities(stacks: Stacks, asked: wire.Request) -> str | None:
    """Why a starved group gets no instance, as its auto scaling group tells; moto's groups have no activities."""
    if (asked.service, asked.operation) != ("autoscaling", "DescribeScalingActivities"):
        return None
    group, members = asked.params.get("AutoScalingGroupName", ""), ""
    for stack, reason in stacks.starved.items():
        found = stacks.client("cloudformation").describe_stack_resource(StackName=stack, LogicalResourceId="NodeGroup")
        if found["StackResourceDetail"]["PhysicalResourceId"] == group:
            members = (f"<member><ActivityId>1</ActivityId><AutoScalingGroupName>{group}</AutoScalingGroupName>"
                       f"<Description>Launching a new EC2 instance</Description><Cause>At 2026-11-22T21:00:00Z</Cause>"
                       "<StartTime>2026-11-22T21:00:00Z</StartTime><EndTime>2026-11-22T21:00:01Z</EndTime><Progress>100</Progress>"
                       f"<StatusCode>Failed</StatusCode><StatusMessage>{escape(reason)}</StatusMessage></member>")
    return ('<DescribeScalingActivitiesResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/">'
            f"<DescribeScalingActivitiesResult><Activities>{members}</Activities></DescribeScalingActivitiesResult>"
            "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></DescribeScalingActivitiesResponse>")


def told(stacks: Stacks, asked: wire.Request, body: bytes) -> bytes:
    """moto's answer, with the states that the stacks' stories are in."""
    key = asked.service, asked.operation
    if key == ("eks", "DescribeCluster"):
        name = str(asked.params["name"])
        found = json.loads(body)
        if known := stacks.clusters.get(name):
            found["cluster"]["resourcesVpcConfig"] |= known["vpc"]
            if known["endpoint"]:
                found["cluster"] |= {"endpoint": known["endpoint"], "certificateAuthority": {"data": known["ca"]}}
        if story := stacks.stories.get(f"eksctl-{name}-cluster"):
            found["cluster"]["status"] = CLUSTER_STATES.get(story.status, "FAILED")
        return json.dumps(found).encode()
    if key == ("eks", "DescribeNodegroup"):
        found = json.loads(body)
        if story := stacks.stories.get(f"eksctl-{asked.params['name']}-nodegroup-{asked.params['nodegroupName']}"):
            found["nodegroup"]["status"] = GROUP_STATES.get(story.status, "CREATE_FAILED")
        return json.dumps(found).encode()
    if key in (("cloudformation", "DescribeStacks"), ("cloudformation", "ListStacks")):
        return _statuses(stacks, asked, body)
    if key == ("cloudformation", "DescribeStackEvents"):
        name = str(asked.params["StackName"]).rpartition(":stack/")[2].partition("/")[0]
        if story := stacks.stories.get(name):
            return _events(story, stacks.ids.get(name, ""))
    return body


def _statuses(stacks: Stacks, asked: wire.Request, body: bytes) -> bytes:
    ElementTree.register_namespace("", XML)
    root = ElementTree.fromstring(body)
    wanted = {v for k, v in asked.params.items() if k.startswith("StackStatusFilter.")}
    for lists in (*root.iter(f"{{{XML}}}Stacks"), *root.iter(f"{{{XML}}}StackSummaries")):
        for member in list(lists):
            name, status = member.find(f"{{{XML}}}StackName"), member.find(f"{{{XML}}}StackStatus")
            if name is None or status is None:
                continue
            story = stacks.stories.get(name.text or "")
            if story and status.text != "DELETE_COMPLETE":
                status.text = story.status
                reason = member.find(f"{{{XML}}}StackStatusReason")
                if reason is None:
                    reason = ElementTree.SubElement(member, f"{{{XML}}}StackStatusReason")
                reason.text = story.reason
            if wanted and status.text not in wanted:
                lists.remove(member)
    return ElementTree.tostring(root)


def _events(story: Story, known: str) -> bytes:
    """A story's events as DescribeStackEvents gives them: the newest first."""
    members = ""
    stack_id = known or f"arn:aws:cloudformation:{lacking.REGION}:123456789012:stack/{story.name}/{int(story.began)}"
    for number, event in reversed(list(enumerate(story.so_far()))):
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(story.began + event.after))
        physical = stack_id if event.type == STACK else f"{story.name}-{event.logical}"
        members += (f"<member><StackId>{stack_id}</StackId><EventId>{int(story.began)}-{number}</EventId>"
                    f"<StackName>{story.name}</StackName><LogicalResourceId>{event.logical}</LogicalResourceId>"
                    f"<PhysicalResourceId>{physical}</PhysicalResourceId><ResourceType>{event.type}</ResourceType>"
                    f"<Timestamp>{at}.{int((story.began + event.after) % 1 * 1000):03}Z</Timestamp>"
                    f"<ResourceStatus>{event.status}</ResourceStatus>"
                    + (f"<ResourceStatusReason>{escape(event.reason)}</ResourceStatusReason>" if event.reason else "")
                    + "</member>")
    return (f'<DescribeStackEventsResponse xmlns="{XML}"><DescribeStackEventsResult><StackEvents>{members}</StackEvents>'
            "</DescribeStackEventsResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
            "</DescribeStackEventsResponse>").encode()


def _listing(state: State) -> Callable[[web.Request], Any]:
    """What the stand-in looks at: stacks {name: status}, the EKS clusters' names, or a stack's events so far."""
    async def listing(request: web.Request) -> web.Response:
        def look() -> Any:
            if request.match_info["what"] == "clusters":
                return state.stacks.client("eks").list_clusters()["clusters"]
            if request.match_info["what"].startswith("events/"):
                story = state.stacks.stories.get(request.match_info["what"].partition("/")[2])
                return [asdict(event) for event in story.so_far()] if story else []
            found = state.stacks.client("cloudformation").list_stacks()["StackSummaries"]
            return {s["StackName"]: state.stacks.stories[s["StackName"]].status if s["StackName"] in state.stacks.stories
                    else s["StackStatus"] for s in found if s["StackStatus"] != "DELETE_COMPLETE"}
        return web.json_response(await asyncio.to_thread(look))
    return listing


def _work(state: State) -> Callable[[web.Request], Any]:
    """What the stand-in asks for. A deletion is answered at once and goes on without it, as on AWS."""
    going: set[asyncio.Task[None]] = set()

    def ended(task: asyncio.Task[None]) -> None:
        going.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            state.errors.append(error)

    async def work(request: web.Request) -> web.Response:
        what, asked, stacks = request.match_info["what"], await request.json(), state.stacks
        if what == "clusters":
            await asyncio.to_thread(stacks.make_cluster, asked)
        elif what == "groups":
            await asyncio.to_thread(stacks.make_group, asked)
        elif what == "addons":
            there = stacks.addons.setdefault(asked["cluster"], [])
            there += [asked["addon"]] if asked["addon"] not in there else []
        elif what.startswith("stacks/"):
            name = what.partition("/")[2]
            stacks.stories[name] = Story(name, [*[Event(0, *event) for event in asked.get("events", ())],
                                                Event(0, name, STACK, asked["status"], asked.get("reason", ""))])
        elif what in ("groups/delete", "clusters/delete"):
            of_group = what.startswith("groups")
            stack = f"eksctl-{asked['cluster']}-" + (f"nodegroup-{asked['group']}" if of_group else "cluster")
            stacks.stories[stack] = deleted(stack)

            async def later() -> None:
                await asyncio.sleep(asked.get("seconds", 0.0))
                gone = (stacks.delete_group, (asked["cluster"], asked["group"])) if of_group else \
                    (stacks.delete_cluster, (asked["cluster"],))
                await asyncio.to_thread(gone[0], *gone[1])

            task = asyncio.ensure_future(later())
            going.add(task)
            task.add_done_callback(ended)
        else:
            return web.json_response({"error": f"no such work: {what}"}, status=404)
        return web.json_response({})
    return work


def _reply(status: int, kind: str, body: bytes, headers: dict[str, str]) -> web.Response:
    return web.Response(status=status, body=body, headers={**headers, "Content-Type": kind})

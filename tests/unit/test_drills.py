"""The catalogue of drills is whole, its seeds reach all of it, and whether one is mended follows from the ladder alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gpurunbook.cli import commands, gpu
from gpurunbook.cli import drill as cli_drill
from gpurunbook.config import load_cluster
from gpurunbook.drills import catalogue, objects, record, start
from gpurunbook.drills.drill import Drill
from gpurunbook.drills.telling import names, told
from gpurunbook.drills.verdict import judge
from gpurunbook.errors import ConfigError
from gpurunbook.journal import Journal
from gpurunbook.readiness.causes import CAUSES
from gpurunbook.readiness.rungs import RUNGS, Finding, Ladder, NodeLadder, State, Step
from gpurunbook.runbook import Run
from gpurunbook.targets import get
from gpurunbook.targets.rehearsal import images
from gpurunbook.targets.rehearsal.world import World

ROOT = Path(__file__).parents[2]
ISSUE = {
    "taint-controller-alive", "taint-no-controller", "no-pci-label", "two-device-plugins", "plugin-on-cpu-nodes",
    "driver-crash-loop", "toolkit-missing", "cuda-broken", "gpu-not-allocatable", "gpu-taken", "image-pull-back-off",
    "image-too-big", "release-pending", "no-tar", "exec-stream-cut", "out-of-memory", "wrong-kubeconfig", "pdb-blocks-drain",
    "api-throttled", "node-flapping"}
each = pytest.mark.parametrize("drill", catalogue.ALL, ids=lambda drill: drill.cause)


def test_every_fault_of_the_issue_has_one_drill() -> None:
    assert sorted(drill.cause for drill in catalogue.ALL) == sorted(ISSUE)


@each
def test_a_drill_is_a_known_cause_on_a_known_rung(drill: Drill) -> None:
    assert CAUSES[drill.cause].rung in {rung.name for rung in RUNGS}
    assert catalogue.rung(drill) == CAUSES[drill.cause].rung


@each
def test_the_symptom_and_the_hints_do_not_say_the_name(drill: Drill) -> None:
    for text in (drill.told, *drill.hints):
        assert drill.cause not in text
        assert CAUSES[drill.cause].title.lower() not in text.lower()
    assert drill.told.endswith(".")
    assert 1 <= drill.minutes <= 30


@each
def test_what_is_made_for_it_does_not_say_the_name(drill: Drill) -> None:
    made = json.dumps([drill.making.objects, drill.making.world, drill.making.image, drill.making.values], default=dict)
    assert drill.cause not in made
    assert not re.search(r"drill|\bfault|broken|lesson", made)


@each
def test_it_is_made_of_what_there_is(drill: Drill) -> None:
    making = drill.making
    assert making.until in start.STAGES
    assert set(making.objects) <= set(start.STAGES[:start.STAGES.index(making.until) + 1])
    world = World(**making.world)
    assert set(making.world) <= {field.name for field in fields(World)}
    known = images.load(ROOT / "manifests" / "rehearsal" / "images.yaml", world.images)
    assert set(world.images) <= set(known)
    assert making.world or making.taint or making.values or making.image or making.objects or making.acts


@each
def test_each_way_to_mend_it_is_lines_that_can_be_typed(drill: Drill, tmp_path: Path) -> None:
    cluster = load_cluster(ROOT / "cluster.yaml")
    run = Run(ROOT, tmp_path / "drill-x", get("rehearsal"), cluster, "provision")
    found = told(drill, run)
    assert found.mends
    for mend in found.mends:
        assert mend.commands
        for line in mend.commands:
            assert not re.search(r"[^-]\{(node|run|folder|root|name)\}", line), line
            assert re.match(r"(kubectl|helm|kwokctl|gpurunbook|mv|until|sleep) ", line), line
    assert names(run)["node"].endswith(".eu-central-1.compute.internal")
    assert CAUSES[drill.cause].why in repr(found)


def test_seeds_reach_every_drill_and_none_much_more_often() -> None:
    found = Counter(catalogue.pick(seed).cause for seed in range(20_000))
    assert set(found) == ISSUE
    assert min(found.values()) > 850  # 1,000 each on average; a standard deviation is 31
    assert max(found.values()) < 1150


def test_a_seed_gives_the_same_drill_as_ever() -> None:
    """Written down once: a leader's list of seeds must outlive an upgrade."""
    assert {seed: catalogue.pick(seed).cause for seed in (0, 1, 2, 7, 42, 999_999)} == {
        0: "no-pci-label", 1: "api-throttled", 2: "gpu-not-allocatable", 7: "node-flapping", 42: "image-pull-back-off",
        999_999: "taint-controller-alive"}


@each
def test_a_fault_by_name_is_a_seed_that_gives_it(drill: Drill) -> None:
    seed = catalogue.seed_for(drill.cause)
    assert seed >= 0
    assert catalogue.pick(seed) == drill


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no drill 'gremlins'"):
        catalogue.seed_for("gremlins")


# Mended or not

def ladder(holds: str = "", state: State = "trouble", findings: tuple[Finding, ...] = ()) -> Ladder:
    steps, ahead = [], False
    for rung in RUNGS:
        steps.append(Step(rung.name, "ahead" if ahead else state if rung.name == holds else "done", evidence="seen"))
        ahead = ahead or rung.name == holds
    return Ladder((NodeLadder("gpu-1", tuple(steps)),), findings)


def finding(cause: str) -> Finding:
    return Finding(cause, CAUSES[cause].rung, "gpu-1", "seen", "")


def test_a_ladder_without_a_finding_that_is_past_the_rung_is_mended() -> None:
    assert judge(ladder(), "exec").mended
    assert judge(ladder("model", "waiting"), "driver").mended
    assert judge(ladder("toolkit", "waiting"), "driver").mended


@pytest.mark.parametrize("state", ["trouble", "waiting", "unknown"])
def test_the_rung_itself_must_be_done(state: State) -> None:
    verdict = judge(ladder("driver", state), "driver")
    assert not verdict.mended
    assert [(node, step.rung) for node, step in verdict.waits] == [("gpu-1", "driver")]


def test_a_rung_below_must_be_done_too() -> None:
    verdict = judge(ladder("pci-label", "waiting"), "driver")
    assert not verdict.mended
    assert [step.rung for _, step in verdict.waits] == ["pci-label"]


def test_the_same_or_another_finding_is_not_mended() -> None:
    assert not judge(ladder(findings=(finding("driver-crash-loop"),)), "driver").mended
    assert not judge(ladder(findings=(finding("no-tar"),)), "driver").mended


def test_a_cluster_without_gpu_nodes_is_not_mended() -> None:
    assert not judge(Ladder(()), "joined").mended


# The command line, without a cluster

def call(*args: str) -> Any:
    return CliRunner().invoke(cli_drill.app, list(args))


def test_alone_it_lists_all_from_the_lowest_rung_up() -> None:
    rows = json.loads(call("--json").stdout)
    assert rows == json.loads(call("list", "--json").stdout)
    assert {row["name"] for row in rows} == ISSUE
    order = [rung.name for rung in RUNGS]
    assert [order.index(row["rung"]) for row in rows] == sorted(order.index(row["rung"]) for row in rows)
    assert all(row["minutes"] and row["teaches"] for row in rows)
    text = call().stdout
    assert all(name in text for name in ISSUE)


def test_a_seed_and_a_name_at_once_are_refused() -> None:
    error = call("start", "--seed", "1", "--fault", "no-tar").exception
    assert isinstance(error, ConfigError)
    assert error.what == "--seed and --fault both say which drill"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("notebooks", "manifests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "cluster.yaml").write_bytes((ROOT / "cluster.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begun(root: Path, run_id: str, seed: int | None) -> None:
    folder = start._folder(root, "cluster.yaml", run_id)
    if seed is not None:
        Journal(folder).append("drill", seed=seed)


def test_without_a_drill_there_is_nothing_to_check(checkout: Path) -> None:
    begun(checkout, "ordinary", None)
    error = call("check").exception
    assert isinstance(error, ConfigError)
    assert error.what == "no drill is under way"
    error = call("check", "--run-id", "ordinary").exception
    assert isinstance(error, ConfigError)
    assert error.what == "run ordinary is no drill"


def test_the_newest_drill_that_is_not_torn_down_is_meant(checkout: Path) -> None:
    for run_id, seed in (("one", 1), ("two", 2), ("three", 3)):
        begun(checkout, run_id, seed)
    Journal(checkout / "runs" / "three").append("run", state="finished")
    assert record.find(checkout).id == "two"
    assert record.find(checkout, "three").id == "three"
    assert record.drill(record.find(checkout)) == catalogue.pick(2)


def test_a_run_that_is_there_is_not_taken_for_a_new_drill(checkout: Path) -> None:
    begun(checkout, "one", 1)
    error = call("start", "--run-id", "one").exception
    assert isinstance(error, ConfigError)
    assert error.what == "run one is there already"


def test_a_new_drill_has_a_name_that_tells_nothing(checkout: Path) -> None:
    folder = start._folder(checkout, "cluster.yaml", "")
    assert re.fullmatch(r"drill-[a-z]+", folder.name)
    assert not any(part in folder.name for name in ISSUE for part in name.split("-") if len(part) > 3)


def test_hints_come_one_by_one_and_are_noted(checkout: Path) -> None:
    begun(checkout, "one", catalogue.seed_for("no-tar"))
    first, second = catalogue.BY_NAME["no-tar"].hints
    told = [json.loads(call("hint", "--json").stdout) for _ in range(3)]
    assert [(row["hint"], row["text"]) for row in told] == [(1, first), (2, second), (2, second)]


def test_hints_name_other_commands_the_second_closer() -> None:
    for drill in catalogue.ALL:
        first, second = (re.findall(r"kubectl[^.?:;,]*|helm[^.?:;,]*", hint) for hint in drill.hints)
        assert not (first and first == second), drill.cause
    assert "NodeNotReady" in catalogue.BY_NAME["node-flapping"].hints[1]


def test_a_verdict_is_noted_while_the_drill_is_up(checkout: Path) -> None:
    begun(checkout, "one", 1)
    record.checked(record.find(checkout, "one"), mended=True)
    Journal(checkout / "runs" / "one").append("run", state="finished")
    record.checked(record.find(checkout, "one"), mended=False)
    found = [one["mended"] for one in Journal(checkout / "runs" / "one").records() if one["kind"] == "verdict"]
    assert found == [True]


def test_a_teardown_without_a_name_does_not_choose_between_a_walk_and_a_drill(checkout: Path) -> None:
    begun(checkout, "drill-fern", 1)
    assert commands._unfinished("") == "drill-fern"
    begun(checkout, "walk", None)
    with pytest.raises(ConfigError, match="a walk and a drill are unfinished") as caught:
        commands._unfinished("")
    assert "--run-id drill-fern (drill, cluster.yaml)" in caught.value.next
    Journal(checkout / "runs" / "drill-fern").append("run", state="finished")
    assert commands._unfinished("") == "walk"


def test_gpu_without_a_name_means_a_drill_too(checkout: Path) -> None:
    begun(checkout, "drill-fern", 1)
    assert gpu._open("", "", "").id == "drill-fern"


@pytest.mark.parametrize(("command", "said"), [
    ("status", "default: all runs of this folder"), ("clean", "default: this user's, dead or torn down, in every folder"),
    ("gpu", "default: the newest unfinished one, a drill too"), ("run", "newest unfinished walk, else a new one"),
    ("shell", "the newest unfinished walk"), ("plan", "the newest unfinished walk"),
    ("report", "default: the newest, a drill too"),
    ("teardown", "a drill too, where one kind only is unfinished")])
def test_help_says_which_run_is_meant(command: str, said: str) -> None:
    shown = CliRunner().invoke(commands.app, [command, "--help"], env={"COLUMNS": "300"}).stdout
    assert said in " ".join(shown.split())


def test_a_reveal_says_all_and_is_noted(checkout: Path) -> None:
    begun(checkout, "one", catalogue.seed_for("gpu-taken"))
    assert not record.revealed(record.find(checkout))
    found = json.loads(call("reveal", "--json").stdout)
    assert found["name"] == "gpu-taken"
    assert found["why"] == CAUSES["gpu-taken"].why
    assert found["mends"][0]["commands"][0] == "kubectl scale deployment training -n team-b --replicas=0"
    assert record.revealed(record.find(checkout))
    assert "Mend it: " in call("reveal").stdout


# The page for leaders

def test_the_onboarding_page_has_each_drill_once_with_its_minutes() -> None:
    page = (ROOT / "notebooks" / "ONBOARDING.md").read_text()
    rows = re.findall(r"^\|(?: \d \|)? ([a-z-]+) \| (\d+) \|", page, re.MULTILINE)
    assert sorted(rows) == sorted((drill.cause, str(drill.minutes)) for drill in catalogue.ALL)
    for block in re.findall(r"^## Block \d.*?(?=^## )", page, re.MULTILINE | re.DOTALL):
        minutes = [int(m) for _, m in re.findall(r"^\| \d \| ([a-z-]+) \| (\d+) \|", block, re.MULTILINE)]
        assert 40 <= sum(minutes) + 2 * len(minutes) <= 70


def test_a_level_without_seats_turns_away_whoever_comes_second() -> None:
    level, schema = objects.one_at_a_time("readers", "platform", ["pods"])
    assert level["spec"]["limited"]["nominalConcurrencyShares"] == 0
    assert schema["spec"]["rules"][0]["resourceRules"][0]["verbs"] == ["list"]
    assert schema["spec"]["rules"][0]["subjects"] == [{"kind": "Group", "group": {"name": "system:serviceaccounts:platform"}}]

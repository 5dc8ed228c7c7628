"""Notebook 00: where a run is in the walk, what to do next, and what it has cost. It only reads the run's folder.

Everything comes from the journal, so that the page is there at once, also where no cluster answers and before any run. What
the cluster is like now is asked by the notebook of the stage, and by `gpurunbook gpu`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gpurunbook import cells, runs, show, stages, targets
from gpurunbook.config import locate
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal, Record
from gpurunbook.processes import Process
from gpurunbook.runs import RunInfo

WHAT = {
    "preflight": "see what is needed, before it costs anything",
    "provision": "make the cluster that cluster.yaml describes",
    "nodes": "hold its nodes against the file",
    "taint": "find out why nothing would run on the GPU node",
    "gpu_operator": "turn a GPU in a node into one that a pod can ask for",
    "model": "deploy the model's image",
    "next_token": "ask the model for the ten likeliest next tokens",
    "latency": "time 100 forward passes",
    "teardown": "leave nothing behind, and prove it",
}
MOST_RUNS = 10
STATES = {"done": "pass", "failed": "fail", "stopped": "warn", "open": "unknown", "": ""}
"""What a stage's state is marked as; `open`: a notebook or a walk is at it; `stopped`: it was begun, and nobody is at it."""
WORDS = {"done": "done", "failed": "failed", "stopped": "begun, not ended", "open": "open now", "": "not begun"}
RUN_STATES = {"running": "a walk or an open notebook has it", "kept": "nobody is at work on it; what it made was left there",
              "finished": "it is over, and torn down",
              "dead": "nobody is at work on it; it was never torn down, so what it made may be there"}
"""None says what has become of the cluster, which need not be the run's own."""


@dataclass(frozen=True)
class Step:
    """A stage of a run. `state` is a key of STATES; `since`: when it came to that, in ISO 8601 or ""; `said`: its last error."""

    stage: str
    state: str = ""
    since: str = ""
    said: str = ""

    @property
    def title(self) -> str:
        return stages.title(self.stage)


@dataclass(frozen=True)
class Here:
    """Where a run is in the walk; shows itself as the table of the nine stages and what is next.

    `info`: None before any run; `drill`: then the id of a drill that is up, or "".
    """

    info: RunInfo | None
    target: str
    steps: tuple[Step, ...]
    drill: str = ""

    @property
    def title(self) -> str:
        if self.info is None and self.drill:
            return f"no run of target {self.target} yet but a drill: with run_id=\"{self.drill}\" this page tells about it"
        if self.info is None:
            return f"no run of target {self.target} yet: nothing was begun, and nothing costs anything"
        if self.info.drill:
            return (f"run {self.info.id} · {self.target.upper()} · a drill, and no walk: "
                    + (RUN_STATES["finished"] if self.info.state == "finished" else "one thing in it was broken on purpose"))
        done = sum(step.state == "done" for step in self.steps)
        return f"run {self.info.id} · {self.target.upper()} · {done} of {len(self.steps)} done · {RUN_STATES[self.info.state]}"

    @property
    def at(self) -> Step | None:
        """The stage to go on with: one that failed or was stopped, else the one after the last that is done.

        None at the end, and in a drill, which is not there to be walked.
        """
        if self.info is not None and (self.info.drill or self.info.state == "finished"):
            return None
        broken = [step for step in self.steps if step.state in ("failed", "stopped", "open")]
        last = max((i for i, step in enumerate(self.steps) if step.state == "done"), default=-1)
        return broken[0] if broken else self.steps[last + 1] if last + 1 < len(self.steps) else None

    @property
    def next(self) -> show.Box:
        """What to do now."""
        if self.info and self.info.drill and self.info.state != "finished":
            return show.Box("Next: find what is broken, and mend it", (
                f"Look with kubectl, or type: gpurunbook gpu --run-id {self.info.id}",
                f"Is it mended? gpurunbook drill check --run-id {self.info.id}",
                f"A hint: gpurunbook drill hint --run-id {self.info.id}",
                f"End it: gpurunbook teardown --run-id {self.info.id}",
                "The notebooks go on with a drill only where its run_id is given to them."), "pass")
        if self.at is None:
            return show.Box("Next: look at what this run leaves, or begin another with 01", (), "pass",
                            links=self._pages("preflight"))
        step, state = self.at, STATES[self.at.state] or "pass"
        if step.state == "failed":
            return show.Box(f"Next: {step.title}, once more: it failed",
                            (*step.said.splitlines(), "Mend that, open the notebook and choose Run > Run All Cells."), state,
                            links=self._pages(step.stage))
        told = {"stopped": ("It was begun and not ended. Choose Run > Run All Cells there: it looks at the cluster first.",),
                "open": ("It is open in a notebook, perhaps yours: go on there. To watch a walk: the terminal that it runs in.",)}
        return show.Box(f"Next: {step.title}: {WHAT[step.stage]}", told.get(step.state, ()), state, links=self._pages(step.stage))

    @property
    def cost(self) -> show.Box | show.Table:
        """What it has cost so far: an estimate from the journal, without asking anybody."""
        spent = targets.get(self.target).spent(self.info.folder) if self.info else None
        if spent is None:
            return show.Box("cost so far: none", (f"{self.target}: nothing that is paid for was begun by this run",), "pass")
        rows = spent.rows or (("nothing", "", "", ""),)
        return show.Table(("part", "how many", "USD an hour", "note")[:len(rows[0])], rows, f"cost so far: {spent.sentence}")

    @property
    def simulated(self) -> show.Box:
        """What kind of cluster this is, and what it cannot show."""
        return show.banner(f"target {self.target}", (), self.target, targets.get(self.target).cannot_show)

    def _pages(self, stage: str) -> tuple[tuple[str, str], ...]:
        """(text, address) of the notebook to open, and of what there is of this run to look at."""
        found = [(f"open {stages.notebook(stage)}", stages.notebook(stage))]
        if self.info:
            name, folder = self.info.id, self.info.folder
            page, executed = folder / "report.html", folder / "notebooks" / stages.notebook(stage)
            found += [(f"report of {name}", f"../runs/{name}/report.html")] if page.exists() else []
            if self.at and executed.exists():
                found.append(("as it was executed", f"../runs/{name}/notebooks/{executed.name}"))
        return tuple(found)

    def __repr__(self) -> str:
        return "\n".join((repr(self.table), repr(self.next)))

    @property
    def table(self) -> show.Table:
        """The nine stages as plain text."""
        return show.Table(("notebook", "what you do", "state", "since (UTC)"),
                          [(s.title, WHAT[s.stage], WORDS[s.state], when(s.since)) for s in self.steps], self.title,
                          [STATES[s.state] for s in self.steps])

    def _repr_html_(self) -> str:
        rows = ""
        for step in self.steps:
            state = STATES[step.state]
            mark = f"<b style='color:{show.COLOURS[state]}'>{show.MARKS[state]}</b> " if state else ""
            name = f"{show.link(step.title, stages.notebook(step.stage))}{' <b>← here</b>' if step == self.at else ''}"
            texts = (name, show.escape(WHAT[step.stage]), mark + show.escape(WORDS[step.state]), show.escape(when(step.since)))
            rows += "<tr>" + "".join(f"<td style='text-align:left;white-space:nowrap'>{text}</td>" for text in texts) + "</tr>"
        head = "".join(f"<th scope='col' style='text-align:left'>{name}</th>"
                       for name in ("notebook", "what you do", "state", "since (UTC)"))
        return show.grid(show.escape(self.title), f"<thead><tr>{head}</tr></thead>", rows) + self.next._repr_html_()


def look(*, run_id: str = "", target: str = "rehearsal", cluster_file: str = "cluster.yaml") -> Here:
    """Where a run is: the one of that id, else the newest unfinished one of this target and file, else the newest of all.

    A drill is told about only by its id. Writes nothing, starts nothing, and asks no cluster.

    Raises:
        ConfigError: a parameter is wrong.
        RunbookError: there is no run of that id.
    """
    root = runs.find_root()
    cells.check_parameters(root, stages.START)
    targets.get(target)
    runs.check_id(run_id)
    if run_id:
        info = runs.read(root / "runs" / run_id)
        if info is None:
            raise RunbookError(f"there is no run {run_id}", where=str(root / "runs"),
                               next="gpurunbook status; or leave run_id empty")
    else:
        info = runs.newest(root, target, locate(root, cluster_file), finished=True)
    aside = None if info else runs.newest(root, target, locate(root, cluster_file), drills=True)
    return Here(info, info.target if info else target, steps(list(Journal(info.folder).records()) if info else ()),
                aside.id if aside else "")


def others() -> show.Table:
    """The newest runs of this checkout, newest first."""
    every = runs.list_runs(runs.find_root())
    found = every[:-MOST_RUNS - 1:-1]
    rows = [(i.id, i.target, when(i.started), i.word, sum(state == "done" for state in i.stages.values())) for i in found]
    more = f"the newest {len(found)} of {len(every)} runs; all of them: gpurunbook status" if len(every) > len(found) else ""
    return show.Table(("run", "target", "begun (UTC)", "state", "stages done"), rows or [("none yet", "", "", "", "")], more,
                      states=[i.mark for i in found])


def steps(records: Sequence[Record]) -> tuple[Step, ...]:
    """The nine stages by the journal; what was done before a teardown no longer counts once something is begun again."""
    found, process, over = {name: Step(name) for name in stages.NAMES}, dict[str, Process](), False
    for record in records:
        kind, name = record["kind"], record.get("stage", "")
        if kind == "run" and record["state"] == "finished":
            over = True
        elif kind == "stage" and name in found:
            if over and record["state"] == "started" and name != "teardown":
                found, over = {stage: Step(stage) for stage in stages.NAMES}, False
            state = "stopped" if record["state"] == "started" else record["state"]
            found[name] = Step(name, state, record["time"], found[name].said if state == "failed" else "")
            if "process" in record:
                process[name] = Process(**record["process"])
        elif kind == "error" and name in found:
            found[name] = Step(name, found[name].state, found[name].since, _told(record))
    return tuple(Step(s.stage, "open", s.since) if s.state == "stopped" and s.stage in process and process[s.stage].alive else s
                 for s in found.values())


def _told(error: Record) -> str:
    """What was said of an error; one that is not ours with its type, since its text alone may be a single word."""
    told = str(error["error"])
    return told if "\n  next:" in told else f"{error.get('type', 'error')}: {told}"


def when(time: str) -> str:
    """A journal's time as a person writes it: the hour, and the day where it is not today."""
    if not time:
        return ""
    moment, now = datetime.fromisoformat(time).astimezone(UTC), datetime.now(UTC)
    return moment.strftime("%H:%M" if moment.date() == now.date() else "%d %b %H:%M")

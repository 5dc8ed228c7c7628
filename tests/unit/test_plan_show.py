"""How things show themselves, and that no text from outside gets through raw."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpurunbook import show
from gpurunbook.command import Command
from gpurunbook.errors import RunbookError
from gpurunbook.plan import Check, Checks, Plan

HOSTILE = "<script>alert('x')</script>&\"\x1b[31m\x07\x9b\u202e\u2066\u200f\u2028\ud800\r\x00"


def command(*argv: str) -> Command:
    return Command(("/opt/bin/kubectl", "--context=c", *argv), shown=("kubectl", *argv), why="w", limit=1)


class Tags(HTMLParser):
    """Checks that tags are closed in order; collects their names and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("br", "img", "meta", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("br", "img", "meta", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def harmless(text: str) -> bool:
    """No control character, no override of direction, nothing that cannot be encoded."""
    return not show.CONTROL.search(text) and text.encode() is not None


THINGS = [
    show.Table((HOSTILE,), [(HOSTILE,), ("x",)], HOSTILE, ("fail", "pass")),
    show.Box(HOSTILE, (HOSTILE, HOSTILE), "warn"),
    show.Box(HOSTILE, (), "warn", (HOSTILE, HOSTILE)),
    show.Terminal(HOSTILE, HOSTILE, 1.0),
    Plan((command(HOSTILE),), HOSTILE, HOSTILE, (command(HOSTILE),)),
    Checks([Check(HOSTILE, "fail", HOSTILE, HOSTILE), Check(HOSTILE, "unknown")]),
]


@pytest.mark.parametrize("thing", THINGS, ids=lambda t: type(t).__name__)
def test_hostile_text_is_shown_and_never_obeyed(thing: show.Table | show.Box | Plan | Checks) -> None:
    page = Tags(thing._repr_html_())
    assert "script" not in page.seen
    assert "<script>" in page.text
    assert harmless(thing._repr_html_())
    assert harmless(repr(thing))
    assert "\\u001b" in repr(thing)
    assert "\\u202e" in repr(thing)


@given(st.text(st.characters()))
def test_any_text_becomes_harmless(text: str) -> None:
    assert harmless(show.clean(text))
    assert harmless(show.escape(text))
    assert not set("<>\"'") & set(show.escape(text))
    assert len(show.line(text).splitlines()) <= 1


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Größe: 日本語 🚀 – ·Ġ\ttab\nline"
    assert show.clean(text) == text
    assert show.line(text) == "Größe: 日本語 🚀 – ·Ġ tab ⏎ line"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    table = show.Table(("a", "long header", "c"), [("wide cell", 1, ""), ("x", None, "end")])
    assert repr(table).splitlines() == ["a          long header  c",
                                        "wide cell  1",
                                        "x          None         end"]


def test_a_table_fits_a_terminal_of_80_columns() -> None:
    rows = [("quota", "0 of 4 vCPUs " * 9, "aws " + "x" * 60), ("名前" * 30, "", "é")]
    table = show.Table(("check", "found", "what mends it"), rows,
                       "caption", ("fail", "pass"))
    lines = [one for part in table.lines(80) for one in part]
    assert all(show.wide(one) <= 80 for one in lines)
    assert [one[0] for one in lines[2:] if one[0] != " "] == ["✗", "✓"]
    assert "".join("".join(lines).split()).count("x") == 60
    piped = table.lines()
    assert [len(part) for part in piped] == [1, 1, 1, 1], "a row is a line where a program reads it"
    assert len(repr(table).splitlines()) == 4


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=60), st.integers(2, 20))
def test_wrapping_loses_nothing_and_is_never_too_wide(text: str, most: int) -> None:
    lines = show.wrapped(text, most)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(show.wide(one) <= most for one in lines)


def test_rows_are_marked_by_their_state() -> None:
    table = show.Table(("a",), [("x",), ("y",), ("z",), ("w",)], "caption", ("pass", "warn", "fail", "unknown"))
    assert repr(table).splitlines() == ["caption", "  a", "✓ x", "! y", "✗ z", "? w"]
    assert "title='fail'" in table._repr_html_()


def test_a_table_without_rows_is_its_header() -> None:
    assert repr(show.Table(("a", "b"), [])) == "a  b"
    assert Tags(show.Table(("a",), [])._repr_html_()).seen == {"table", "thead", "tbody", "tr", "th"}


def test_a_row_is_one_line_whatever_is_in_its_cells() -> None:
    """The command line colours a table's lines by its states: a prompt with a line break once broke `status`."""
    table = show.Table(("a", "b"), [("one\ntwo\u2028three\r", "\t")], states=("pass",))
    assert len(repr(table).splitlines()) == 2


def test_checks_name_what_mends_only_what_is_not_well() -> None:
    good = Checks([Check("a", "pass", "seen", "fix it")])
    assert "fix it" not in repr(good)
    mixed = Checks([*good, Check("b", "fail", "not seen", "mend it")])
    assert "fix it" not in repr(mixed)
    assert repr(mixed).splitlines() == ["  check  found     what mends it", "✓ a      seen", "✗ b      not seen  mend it"]
    assert [c.name for c in mixed.failed] == ["b"]
    assert mixed.to_json()[1] == {"name": "b", "state": "fail", "evidence": "not seen", "fix": "mend it",
                                  "later": ""}
    dear = Checks([Check("c", "pass", "seen", "", "15 min")])
    assert repr(dear).splitlines() == ["  check  found  what finding it out later costs", "✓ c      seen   15 min"]


def test_a_plan_shows_the_short_lines_and_keeps_the_full_ones_a_fold_away() -> None:
    plan = Plan((command("get", "nodes"),), "why", "export A=b", (command("not", "here"),))
    assert repr(plan) == "why\n  (not run here) kubectl not here\n  export A=b\n  kubectl get nodes"
    text = Tags(plan._repr_html_()).text
    assert "kubectl get nodes" in text
    assert "/opt/bin/kubectl --context=c get nodes" in text
    assert plan.to_json() == {"reason": "why", "commands": [("/opt/bin/kubectl", "--context=c", "get", "nodes")],
                              "shown": ["kubectl get nodes"]}


def test_a_check_alone_and_none_at_all_show_themselves_too() -> None:
    assert repr(Check("quota", "fail", "0 of 4", "ask for more")).splitlines()[1] == "✗ quota  0 of 4  ask for more"
    assert Tags(Check("quota", "fail", HOSTILE)._repr_html_()).seen <= {"table", "thead", "tbody", "tr", "th", "td", "b"}
    assert "no checks" in repr(Checks([]))
    assert "no checks" in Checks([])._repr_html_()
    assert repr(Plan((), "")) == "nothing to do"
    assert Plan((), "")._repr_html_() == "<p>nothing to do</p>"


def test_an_empty_plan_is_false_and_says_why() -> None:
    plan = Plan((), "nothing to remove", "export A=b")
    assert not plan
    assert list(plan) == []
    assert repr(plan) == "nothing to remove"
    assert plan._repr_html_() == "<p>nothing to remove</p>"


def test_files_of_a_plan_are_not_shown() -> None:
    assert "secret" not in repr(Plan((), "why", files={Path("/f"): "secret"}))


def test_outside_a_notebook_things_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show.show(show.Box("title", ("line",)))
    assert capsys.readouterr().out == "title\n  line\n"


def test_an_error_is_harmless_wherever_it_is_printed() -> None:
    error = RunbookError("the pod said \x1b[2J\u202e", where="pod\x07", next="run\x9b it")
    assert not show.CONTROL.search(str(error) + repr(error) + str(error.args))
    assert "\\u001b[2J" in str(error)

"""A password that is an ordinary word of ours takes no journal and no notebook apart."""

from __future__ import annotations

import ast
import json
from base64 import b64encode
from pathlib import Path

import nbformat.v4
import pytest

from gpurunbook import executed, masking, stages, targets
from gpurunbook.cli import commands as cli
from gpurunbook.journal import Journal

PACKAGE = Path(masking.__file__).parent


def words_of_the_journal() -> set[str]:
    """Kinds, keys and literal values of every record that the package appends."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append" \
                    and ast.unparse(node.func.value).endswith(("journal", "Journal(folder)", "Journal(info.folder)")):
                values = [*node.args, *(key.value for key in node.keywords)]
                found |= {v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)}
                found |= {key.arg for key in node.keywords if key.arg}
    return found


def keys_of_a_notebook() -> set[str]:
    cells = [nbformat.v4.new_markdown_cell("x"), nbformat.v4.new_code_cell("x", outputs=[
        nbformat.v4.new_output("display_data", {"text/plain": "x", "text/html": "x", "image/png": "x", "image/svg+xml": "x"}),
        nbformat.v4.new_output("execute_result", {}, execution_count=1), nbformat.v4.new_output("error"),
        nbformat.v4.new_output("stream")])]
    metadata = {"papermill": {"parameters": {}}, "kernelspec": {"name": "n", "display_name": "d"}, "language_info": {"name": "n"}}
    text = nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=metadata))
    found: set[str] = set()

    def collect(value: object) -> None:
        if isinstance(value, dict):
            found.update(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(inner)

    collect(json.loads(text))
    return found | {"display_data", "execute_result", "markdown"}


def test_every_word_of_ours_is_spared() -> None:
    found = words_of_the_journal()
    assert {"intent", "parameters", "modified"} <= found, "the search finds the journal's words"
    ours = found | keys_of_a_notebook() | set(stages.NAMES) | set(targets.NAMES)
    assert sorted(word for word in ours if len(word) >= masking.SHORTEST and " " not in word and word not in masking.WORDS) == []


@pytest.mark.parametrize("word", ["rehearsal", "metadata", "notebook", "next_token", "parameters", "text/plain"])
def test_a_word_of_ours_as_a_password_leaves_our_files_whole(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", word)
    journal = Journal(tmp_path)
    journal.append("notebook", stage="next_token", target="rehearsal", parameters={"run_id": "r"})
    assert [(r["kind"], r["stage"], r["target"], r["parameters"]) for r in journal.records()] == [
        ("notebook", "next_token", "rehearsal", {"run_id": "r"})]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[
        nbformat.v4.new_output("display_data", {"text/plain": "the parameters of a rehearsal"})])])
    assert executed.masked(nbformat.writes(book)) == nbformat.writes(book)
    assert masking.veiled({"DB_PASSWORD": word})["DB_PASSWORD"].reveal() == word  # type: ignore[union-attr]
    assert masking.hide(f"a {word}") == f"a {word}", "handed to a program it is the environment's still"
    assert masking.spared() == ["DB_PASSWORD"]


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", set())
    monkeypatch.setattr(masking, "_always", set())


@pytest.mark.usefixtures("nothing_known")
def test_only_the_bare_word_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "parameters")
    assert masking.hide("the parameters") == "the parameters"
    for before in (0, 1, 2):
        assert masking.HIDDEN in masking.hide(b64encode(b"x" * before + b"parameters").decode())
    for named in ("password=parameters", "DB_PASSWORD='parameters'", '{"db_password": "parameters"}'):
        assert "parameters" not in masking.hide(named)


@pytest.mark.usefixtures("nothing_known")
def test_a_secret_of_ours_is_hidden_though_it_is_a_word_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "parameters")
    secret = masking.Secret("metadata")
    assert secret.reveal() == "metadata"
    assert masking.hide("metadata and parameters") == f"{masking.HIDDEN} and parameters"


def test_doctor_says_which_variable_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "parameters")
    [check] = cli._not_hidden()
    assert (check.state, check.name) == ("warn", "secrets")
    assert check.evidence.startswith("DB_PASSWORD: ")
    assert "unset DB_PASSWORD" in check.fix
    monkeypatch.setenv("DB_PASSWORD", "none of our words")
    assert cli._not_hidden() == []


def test_a_password_that_is_none_of_our_words_is_hidden_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "rehearsals")
    assert masking.hide("two rehearsals, one rehearsal") == f"two {masking.HIDDEN}, one rehearsal"

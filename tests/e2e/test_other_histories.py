"""Two applications that share a thread id, and one that went on: a thread is more than its id."""

from __future__ import annotations

import operator
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from include.checkpoint_migration.errors import TargetConflict
from tests.support.engine import Migration, rows
from tests.support.postgres import Database


class State(TypedDict):
    who: str
    said: Annotated[list[str], operator.add]


def say(state: State) -> dict[str, list[str]]:
    return {"said": [f"{state['who']} {len(state['said'])}"]}


def application(saver: Any) -> Any:
    inner = StateGraph(State)
    inner.add_node("say", say)
    inner.add_edge(START, "say")
    inner.add_edge("say", END)
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_node("say", say)
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "say")
    outer.add_edge("say", END)
    return outer.compile(checkpointer=saver)


def talk(saver: Any, who: str, *threads: str, times: int = 1) -> None:
    """An application that answers `times` in each of its threads, in a subgraph too."""
    graph = application(saver)
    for thread in threads:
        for _ in range(times):
            graph.invoke({"who": who, "said": []}, {"configurable": {"thread_id": thread}})


@contextmanager
def on_sqlite(path: Path) -> Iterator[SqliteSaver]:
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        yield SqliteSaver(conn)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def written_by(path: Path, who: str, *threads: str, times: int = 1) -> Path:
    with on_sqlite(path) as saver:
        talk(saver, who, *threads, times=times)
    return path


RunOn = Callable[..., Migration]


def test_a_second_application_with_the_same_thread_is_refused_whole(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """Nothing of the second goes live, its other threads neither, and the shared one is named."""
    run_on(written_by(tmp_path / "one.db", "one", "1", "mine")).all()
    before = rows(database.dsn)
    second = run_on(written_by(tmp_path / "two.db", "two", "1", "yours"))
    with pytest.raises(TargetConflict, match="1 thread is live already with a history"):
        second.all()
    assert rows(database.dsn) == before
    (conflict,) = second.report["conflicts"]
    assert conflict["thread_id"] == "1"
    assert "another history" in conflict["why"]
    assert (second.report["verdict"], second.report["succeeded"]) == ("unproven", False)
    assert "live tables are exactly as they were" in second.report["sentence"]


def test_replace_does_not_cover_a_thread_of_another_history(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """`replace` is for rows of one history: it never makes one history of two."""
    run_on(written_by(tmp_path / "one.db", "one", "1")).all()
    before = rows(database.dsn)
    second = run_on(written_by(tmp_path / "two.db", "two", "1"), {"on_conflict": "replace"})
    with pytest.raises(TargetConflict, match="does not cover"):
        second.all()
    assert rows(database.dsn) == before


def test_keep_leaves_out_threads_of_another_history_and_lists_them(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """The rest goes live; the shared thread stays as it was, and the verdict is not identical."""
    run_on(written_by(tmp_path / "one.db", "one", "1")).all()
    before = rows(database.dsn)
    second = run_on(written_by(tmp_path / "two.db", "two", "1", "2"), {"on_conflict": "keep"})
    with pytest.raises(Exception, match="different"):
        second.all()
    assert second.report["verdict"] == "different"
    assert [c["thread_id"] for c in second.report["conflicts"]] == ["1"]
    after = rows(database.dsn)
    for name in before:
        assert [row for row in after[name] if row[0] == "1"] == before[name]
    assert {row[0] for row in after["checkpoints"]} == {"1", "2"}


def test_a_thread_that_began_on_postgresql_is_refused(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """An application that was switched before its history was moved began the thread anew."""
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.setup()
        talk(saver, "new", "1")
    before = rows(database.dsn)
    with pytest.raises(TargetConflict, match="thread is live already"):
        run_on(written_by(tmp_path / "one.db", "old", "1")).all()
    assert rows(database.dsn) == before


def test_an_application_that_went_on_is_no_conflict(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """What it added on PostgreSQL, in subgraphs too, descends from what was migrated."""
    source = written_by(tmp_path / "one.db", "one", "1", "2")
    run_on(source).all()
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        talk(saver, "one", "1", times=3)
    before = rows(database.dsn)
    assert run_on(source).all()["verdict"] == "identical"
    assert rows(database.dsn) == before


def test_catching_up_after_the_source_grew_is_no_conflict(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """A second run of the same source adds what is new."""
    source = written_by(tmp_path / "one.db", "one", "1")
    run_on(source).all()
    with on_sqlite(source) as saver:
        talk(saver, "one", "1", "3")
    assert run_on(source).all()["verdict"] == "identical"


def test_rows_that_left_the_source_since_are_no_conflict(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """An earlier run brought them from this very source."""
    source = written_by(tmp_path / "one.db", "one", "1", times=2)
    run_on(source).all()
    with closing(sqlite3.connect(source)) as conn:
        oldest = "SELECT min(checkpoint_id) FROM checkpoints WHERE checkpoint_ns = ''"
        conn.execute(f"DELETE FROM checkpoints WHERE checkpoint_id = ({oldest})")
        conn.execute(f"DELETE FROM writes WHERE checkpoint_id = ({oldest})")
        conn.commit()
    assert run_on(source).all()["verdict"] == "identical"


def test_the_same_source_under_another_path_is_known_by_its_content(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """A file that was moved, and pruned since, is still the source that the rows came from."""
    source = written_by(tmp_path / "one.db", "one", "1", times=2)
    run_on(source).all()
    moved = tmp_path / "elsewhere.db"
    shutil.move(source, moved)
    with closing(sqlite3.connect(moved)) as conn:
        oldest = "SELECT min(checkpoint_id) FROM checkpoints WHERE checkpoint_ns = ''"
        conn.execute(f"DELETE FROM checkpoints WHERE checkpoint_id = ({oldest})")
        conn.commit()
    assert run_on(moved).all()["verdict"] == "identical"


def test_a_thread_that_was_pruned_on_postgresql_is_no_conflict(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """The application went on and kept its latest checkpoint alone, without a parent."""
    source = written_by(tmp_path / "one.db", "one", "1")
    run_on(source).all()
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        talk(saver, "one", "1")
    latest = "SELECT max(checkpoint_id) FROM checkpoints WHERE checkpoint_ns = ''"
    database.execute(f"DELETE FROM checkpoints WHERE checkpoint_id <> ({latest})")
    database.execute("UPDATE checkpoints SET parent_checkpoint_id = NULL")
    before = rows(database.dsn)["checkpoints"]
    report = run_on(source).all()
    assert report["verdict"] == "identical"
    assert rows(database.dsn)["checkpoints"] == before


def test_another_application_in_the_same_file_is_refused(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """A path says nothing by itself: what another file of that name brought does not descend either."""
    path = written_by(tmp_path / "app.db", "one", "1")
    run_on(path).all()
    path.unlink()
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.delete_thread("1")
        talk(saver, "strange", "1")
    before = rows(database.dsn)
    with pytest.raises(TargetConflict, match="thread is live already"):
        run_on(written_by(path, "two", "1")).all()
    assert rows(database.dsn) == before


@pytest.mark.parametrize("second", ["two", "one"])
def test_a_rehearsal_says_what_the_real_run_would(
    second: str, run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """A rehearsal is red where another history is live, and green where it is this one's."""
    one = written_by(tmp_path / "one.db", "one", "1")
    two = written_by(tmp_path / "two.db", "two", "1")
    run_on(one).all()
    before = rows(database.dsn)
    rehearsal = run_on({"one": one, "two": two}[second], rehearsal=True)
    if second == "one":
        assert rehearsal.all()["verdict"] == "identical"
    else:
        with pytest.raises(TargetConflict, match="thread is live already"):
            rehearsal.all()
        assert [c["thread_id"] for c in rehearsal.report["conflicts"]] == ["1"]
    assert rows(database.dsn) == before


def test_another_file_under_the_same_path_is_refused(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """The earlier run's rows are still live, and no checkpoint is shared: nothing is merged."""
    path = written_by(tmp_path / "app.db", "one", "1")
    run_on(path).all()
    before = rows(database.dsn)
    path.unlink()
    with pytest.raises(TargetConflict, match="thread is live already"):
        run_on(written_by(path, "two", "1")).all()
    assert rows(database.dsn) == before


def test_writes_without_checkpoints_join_no_other_history(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """A thread of which the source has writes alone is a thread too."""
    run_on(written_by(tmp_path / "one.db", "one", "1")).all()
    before = rows(database.dsn)
    second = written_by(tmp_path / "two.db", "two", "1")
    with closing(sqlite3.connect(second)) as conn:
        conn.execute("DELETE FROM checkpoints")
        conn.commit()
    with pytest.raises(TargetConflict, match="thread is live already"):
        run_on(second).all()
    assert rows(database.dsn) == before


def test_a_subgraph_that_saves_at_its_exit_is_no_conflict(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """Under durability="exit" a subgraph's first checkpoint names a parent that nobody has."""
    source = tmp_path / "one.db"
    config: Any = {"configurable": {"thread_id": "1"}}
    with on_sqlite(source) as saver:
        plain = StateGraph(State)
        plain.add_node("say", say)
        plain.add_edge(START, "say")
        plain.compile(checkpointer=saver).invoke({"who": "one", "said": []}, config)
    run_on(source).all()
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        for _ in range(2):
            application(saver).invoke({"who": "one", "said": []}, config, durability="exit")
    before = rows(database.dsn)
    assert {row[1] for row in before["checkpoints"]} > {""}
    assert run_on(source).all()["verdict"] == "identical"
    assert rows(database.dsn) == before


def test_a_rehearsal_keeps_as_the_real_run_would(
    run_on: RunOn, database: Database, tmp_path: Path
) -> None:
    """With `on_conflict: keep` a rehearsal's verdict is the real run's, and live is untouched."""
    run_on(written_by(tmp_path / "one.db", "one", "1")).all()
    before = rows(database.dsn)
    second = written_by(tmp_path / "two.db", "two", "1", "2")
    rehearsal = run_on(second, {"on_conflict": "keep"}, rehearsal=True)
    with pytest.raises(Exception, match="different"):
        rehearsal.all()
    assert rehearsal.report["verdict"] == "different"
    assert [c["thread_id"] for c in rehearsal.report["conflicts"]] == ["1"]
    assert rows(database.dsn) == before

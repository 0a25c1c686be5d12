"""What a run was asked to do: defaults, spellings, refusals, the thread filter, and a run's names."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.errors import SettingsInvalid
from include.checkpoint_migration.param_values import NOTHING_DONE
from include.checkpoint_migration.settings import (
    Settings,
    ThreadFilter,
    choices_of,
    default_of,
    parse_settings,
)
from include.checkpoint_migration.task_sizes import TaskSizes

DEFAULTS = {
    "conn_id": "langgraph_postgres",
    "target_schema": "public",
    "create_tables": True,
    "threads": ThreadFilter(),
    "batch_size": 1000,
    "on_conflict": "fail",
    "on_drift": "fail",
    "on_blocker": "fail",
    "verify": "full",
    "allow_pickle": False,
    "keep_exports": False,
    "rehearsal": False,
    "run_date": None,
    "sizes": TaskSizes(),
    "undo_days": 30,
}
CHOICES = {
    "on_conflict": ("fail", "keep", "replace"),
    "on_drift": ("fail", "report"),
    "on_blocker": ("fail", "sanitize"),
    "verify": ("full", "counts"),
}
SWITCHES = ("create_tables", "allow_pickle", "keep_exports")
BARE = Settings("migrate_checkpoints", "a run", "/a.sqlite", "/exports")


def parse(dag_id: str = "migrate_checkpoints", **params: Any) -> Settings:
    """The settings of a run of `/a.sqlite`, but for the params."""
    given = {"source": "/a.sqlite", **params}
    return parse_settings(given, dag_id=dag_id, run_id="a run", default_export_uri="/exports")


# --- defaults and choices -----------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_setting_has_its_default(name: str) -> None:
    """A setting's default is the contract's, and a run that leaves it out gets that."""
    assert default_of(name) == DEFAULTS[name]
    assert getattr(parse(), name) == DEFAULTS[name]


def test_a_run_that_names_its_source_alone_has_defaults_for_the_rest() -> None:
    """Nothing but source, export folder and ids comes from elsewhere."""
    assert parse() == BARE


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_of_its_choices(name: str) -> None:
    """Each choice is taken as it is, the default is the first, and none or nothing means it."""
    assert choices_of(name) == CHOICES[name]
    assert CHOICES[name][0] == DEFAULTS[name]
    for choice in CHOICES[name]:
        assert parse(**{name: choice}) == replace(BARE, **{name: choice})
    assert parse(**{name: None}) == BARE
    assert parse(**{name: ""}) == BARE


@pytest.mark.parametrize(
    ("param", "value", "name", "setting"),
    [
        ("postgres_conn_id", "other", "conn_id", "other"),
        ("target_schema", "langgraph", "target_schema", "langgraph"),
        ("target_schema", "s" * 63, "target_schema", "s" * 63),
        ("target_schema", "checkpoint_migration_2", "target_schema", "checkpoint_migration_2"),
        ("create_tables", False, "create_tables", False),
        ("threads", None, "threads", ThreadFilter()),
        ("threads", [], "threads", ThreadFilter()),
        ("threads", ["a*", "!ab"], "threads", ThreadFilter(("a*", "!ab"))),
        ("batch_size", 1, "batch_size", 1),
        ("batch_size", 100_000, "batch_size", 100_000),
        ("allow_pickle", True, "allow_pickle", True),
        ("keep_exports", True, "keep_exports", True),
    ],
)
def test_a_param_becomes_its_setting(param: str, value: Any, name: str, setting: Any) -> None:
    """A param changes the setting of its name and no other."""
    assert parse(**{param: value}) == replace(BARE, **{name: setting})


def test_a_deployment_decides_what_no_param_does() -> None:
    """Caps and whether it is a rehearsal come from the deployment and the DAG."""
    asked = parse_settings(
        {"source": "/a.sqlite"},
        dag_id="migrate_checkpoints",
        run_id="a run",
        default_export_uri="/exports",
        rehearsal=True,
        sizes=TaskSizes(max_export_tasks=3, max_load_tasks=4),
    )
    sizes = TaskSizes(max_export_tasks=3, max_load_tasks=4)
    assert asked == replace(BARE, rehearsal=True, sizes=sizes)


# --- refusals -----------------------------------------------------------------------------------


def refusal(name: str, dag_id: str = "migrate_checkpoints", **params: Any) -> SettingsInvalid:
    """The refusal that these settings meet, which names the param and says its three things."""
    with pytest.raises(SettingsInvalid) as raised:
        parse(dag_id, **params)
    error = raised.value
    assert error.what.startswith(f"param {name!r} ")
    assert error.what.endswith(".")
    assert error.safe == NOTHING_DONE
    assert repr(name) in error.next
    assert error.facts == {"param": name}
    assert not error.transient
    return error


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("source", None, "missing"),
        ("source", "", "missing"),
        ("source", 5, "missing"),
        ("source", b"/a.sqlite", "missing"),
        ("threads", "a*", "list of globs"),
        ("threads", 5, "list of globs"),
        ("threads", {"a*": 1}, "list of globs"),
        ("threads", False, "list of globs"),
        ("threads", ["a*", ""], "list of globs"),
        ("threads", ["a*", 5], "list of globs"),
        ("target_schema", "", "1 to 63 bytes"),
        ("target_schema", None, "1 to 63 bytes"),
        ("target_schema", 5, "1 to 63 bytes"),
        ("target_schema", "\ud800", "lone surrogate"),
        ("postgres_conn_id", None, "id of an Airflow connection"),
        ("postgres_conn_id", "", "id of an Airflow connection"),
        ("postgres_conn_id", 5, "id of an Airflow connection"),
        ("postgres_conn_id", ["a"], "id of an Airflow connection"),
        ("postgres_conn_id", "a" * 201, "id of an Airflow connection"),
        ("aes_conn_id", 5, "id of an Airflow connection"),
        ("aes_conn_id", {}, "id of an Airflow connection"),
        *((n, v, "true or false") for n in SWITCHES for v in ("false", "", 0, 1, None, [])),
        ("target_schema", "s" * 64, "1 to 63 bytes"),
        ("target_schema", "é" * 32, "1 to 63 bytes"),
        ("target_schema", "a\0b", "1 to 63 bytes"),
        ("target_schema", "checkpoint_migration", "keeps for itself"),
        ("target_schema", "checkpoint_migration_0a1b2c3d", "keeps for itself"),
        ("target_schema", "checkpoint_rehearsal_0a1b2c3d", "keeps for itself"),
        ("batch_size", 0, "from 1 to 100,000"),
        ("batch_size", -1, "from 1 to 100,000"),
        ("batch_size", 100_001, "from 1 to 100,000"),
        ("batch_size", 10.0, "from 1 to 100,000"),
        ("batch_size", "10", "from 1 to 100,000"),
        ("batch_size", True, "from 1 to 100,000"),
        ("batch_size", None, "from 1 to 100,000"),
        *((name, 0, "one of") for name in CHOICES),
        *((name, [], "one of") for name in CHOICES),
        *((name, "other", ", ".join(choices)) for name, choices in CHOICES.items()),
        *((name, choices[0].upper(), "one of") for name, choices in CHOICES.items()),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: Any, why: str) -> None:
    """A refusal names the param, says why, that nothing was done, and what to do next."""
    assert why in refusal(name, **{name: value}).what


@pytest.mark.parametrize("dag_id", ["", "a/b", "../a", "a b", "é", "a\n", "a\0", "a" * 201])
def test_a_dag_id_that_is_no_name_is_refused(dag_id: str) -> None:
    """A DAG's id becomes part of a folder's name, so it must be able to."""
    assert "part of a path" in refusal("dag_id", dag_id).what


def test_the_first_bad_param_is_named() -> None:
    """Of several that make no sense one is told at a time."""
    refusal("threads", threads="a*", batch_size=0, verify="other")
    refusal("source", batch_size=0, verify="other", source="a.sqlite")


# --- spellings of source and export folder ------------------------------------------------------


@pytest.mark.parametrize(
    ("spelled", "path"),
    [
        ("/srv/app.sqlite", "/srv/app.sqlite"),
        ("/srv/a b%20c?d#e.sqlite", "/srv/a b%20c?d#e.sqlite"),
        ("file:///srv/app.sqlite", "/srv/app.sqlite"),
        ("file:/srv/app.sqlite", "/srv/app.sqlite"),
        ("file://localhost/srv/app.sqlite", "/srv/app.sqlite"),
        ("file:///srv/app.sqlite?mode=ro", "/srv/app.sqlite"),
        ("file:///srv/a%20b%C3%A9.sqlite", "/srv/a bé.sqlite"),
        ("sqlite:////srv/app.sqlite", "/srv/app.sqlite"),
    ],
)
def test_a_source_may_be_spelled_as_path_or_uri(spelled: str, path: str) -> None:
    """A plain path is taken to the letter; of a URI its path, with its escapes undone."""
    assert parse(source=spelled).source == path


@pytest.mark.parametrize(
    ("spelled", "why"),
    [
        ("app.sqlite", "must be absolute"),
        ("./app.sqlite", "must be absolute"),
        ("../app.sqlite", "must be absolute"),
        ("~/app.sqlite", "must be absolute"),
        ("file:app.sqlite", "must be absolute"),
        (":memory:", "must be absolute"),
        ("sqlite://", "must be absolute"),
        ("sqlite:///app.sqlite", "must be absolute"),
        ("sqlite:/srv/app.sqlite", "must be absolute"),
        ("sqlite:app.sqlite", "must be absolute"),
        ("file://elsewhere/srv/app.sqlite", "on this machine"),
        ("http://host/app.sqlite", "absolute path or a file: URI"),
        ("s3://bucket", "no object in it"),
        ("s3://me:secret@bucket/app.sqlite", "no place in an object store"),
        ("gs://bucket/app.sqlite", "or lie in S3"),
        ("postgresql://host/db", "absolute path or a file: URI"),
        ("/srv/a\0b.sqlite", "NUL"),
        ("file:///srv/a\0b.sqlite", "NUL"),
    ],
)
def test_a_source_that_is_no_place_on_this_machine_is_refused(spelled: str, why: str) -> None:
    """Relative paths, other schemes, other machines and NUL are refused."""
    assert why in refusal("source", source=spelled).what


def test_a_refused_source_is_quoted_in_one_line() -> None:
    """What was typed is shown escaped, so it breaks no line of a log."""
    assert refusal("source", source="a\n\x1b[31m.sqlite").what.isprintable()


@pytest.mark.parametrize(
    ("spelled", "folder"),
    [
        (None, "/exports"),
        ("", "/exports"),
        ("/srv/exports", "/srv/exports"),
        ("file:///srv/exports", "/srv/exports"),
        ("file:///srv/my%20exports", "/srv/my exports"),
        ("file:/srv/exports", "/srv/exports"),
        ("file://localhost/srv/exports", "/srv/exports"),
        ("/srv/100%25", "/srv/100%25"),
        ("s3://bucket", "s3://bucket"),
        ("s3://aws_default@my-bucket/exports/of/us/", "s3://aws_default@my-bucket/exports/of/us"),
    ],
)
def test_an_export_folder_is_a_path_or_the_deployments(spelled: str | None, folder: str) -> None:
    """A run's export folder is its param's, else its deployment's."""
    assert parse(export_uri=spelled).export_uri == folder


@pytest.mark.parametrize(
    ("spelled", "why"),
    [
        ("exports", "must be absolute"),
        ("../exports", "must be absolute"),
        ("file://", "must be absolute"),
        ("file://elsewhere/exports", "on this machine"),
        ("file:///srv/%ff", "UTF-8"),
        ("file://[", "no URI"),
        (5, "absolute folder"),
        (False, "absolute folder"),
        ("/srv/a\0b", "NUL"),
        ("/srv/\ud800", "lone surrogate"),
        ("gs://bucket/exports", "'gs'"),
        ("abfs://bucket/exports", "not been tried"),
        ("s3://", "not been tried"),
        ("s3://me:secret@bucket/exports", "is no place in an object store"),
        ("s3://bucket/../other", "is no place in an object store"),
        ("s3://bucket/a//b", "is no place in an object store"),
        ("s3://bucket/a?b", "is no place in an object store"),
        ("s3://bucket/team*", "is no place in an object store"),
        ("s3://bucket/exports[1]", "is no place in an object store"),
    ],
)
def test_an_export_folder_elsewhere_is_refused(spelled: Any, why: str) -> None:
    """Object stores, relative paths and NUL are no export folder."""
    assert why in refusal("export_uri", export_uri=spelled).what


# --- the thread filter --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("globs", "taken", "left"),
    [
        ((), ["a", "", "!a", b"a", b"\xff"], []),
        (("a",), ["a", b"a"], ["ab", "ba", "A", "", b"b"]),
        (("a*",), ["a", "ab", "a\nb", "a*"], ["ba", "A", "AB"]),
        (("a?",), ["ab", "aé"], ["a", "abc"]),
        (("[ab]c",), ["ac", "bc"], ["cc", "[ab]c"]),
        (("a*", "b*"), ["a1", "b1"], ["c1"]),
        (("!a*",), ["b", "", "A"], ["a", "ab"]),
        (("!a*", "!b*"), ["c"], ["a", "b"]),
        (("a*", "!ab*"), ["a", "ac"], ["ab", "abc", "b"]),
        (("!ab*", "a*"), ["a", "ac"], ["ab", "abc", "b"]),
        (("!*",), [], ["a", "", b"a"]),
        (("é*",), ["éa", "éa".encode()], ["ea"]),
        (("\ufffd*",), [b"\xff", b"\xfea", "\ufffd"], ["a", b"a"]),
        (("!\ufffd*",), ["a", b"a"], [b"\xff"]),
        (("42",), ["42", b"42"], ["042", "4 2"]),
    ],
)
def test_a_thread_is_taken_by_any_glob_and_left_by_any_exclusion(
    globs: tuple[str, ...], taken: list[str | bytes], left: list[str | bytes]
) -> None:
    """Globs match whole ids, case counts, bytes are read as UTF-8, and `!glob` wins in any order."""
    chosen = ThreadFilter(globs)
    assert [thread for thread in taken + left if chosen.takes(thread)] == taken


# --- names of a run -----------------------------------------------------------------------------

dag_ids = st.from_regex(r"[A-Za-z0-9_.-]{1,200}", fullmatch=True)


@given(dag_ids, st.text(max_size=300))
def test_a_runs_names_hold_nothing_of_its_id(dag_id: str, run_id: str) -> None:
    """Whatever a run's id holds, its names are fixed words, the DAG's id and eight hex digits."""
    run = replace(BARE, dag_id=dag_id, run_id=run_id, rehearsal=True)
    assert re.fullmatch(r"[0-9a-f]{8}", run.key)
    assert run.staging_schema == f"checkpoint_migration_{run.key}"
    assert run.live_schema == f"checkpoint_rehearsal_{run.key}"
    assert run.folder_name == f"{dag_id}-{run.key}"


def test_a_runs_names_depend_on_dag_and_run_alone() -> None:
    """The same run has the same names whatever else it was asked; another DAG or run has others."""
    other = parse(source="/b.sqlite", threads=["a"], target_schema="other", batch_size=5)
    assert other != BARE
    assert (other.key, other.staging_schema, other.folder_name) == (
        BARE.key,
        BARE.staging_schema,
        BARE.folder_name,
    )
    runs = {
        replace(BARE, dag_id=dag_id, run_id=run_id).key
        for dag_id in ("a", "b", "ab")
        for run_id in ("", "a", "b", "ab", "A", "a ")
    }
    assert len(runs) == 18


def test_a_runs_key_is_the_same_in_every_process() -> None:
    """Each task is a process of its own, maybe of another release, and finds the run's folder."""
    assert BARE.key == "2b6627e6"


def test_a_rehearsal_never_writes_the_target_schema() -> None:
    """What promote writes is the target's schema, or a rehearsal's own."""
    assert replace(BARE, target_schema="other").live_schema == "other"
    rehearsal = replace(BARE, target_schema="other", rehearsal=True)
    assert rehearsal.live_schema == f"checkpoint_rehearsal_{BARE.key}"


def test_a_runs_folder_begins_with_the_runs_own_date() -> None:
    """Folders sort by when their runs were; each try of a run finds the same one."""
    dated = replace(BARE, run_date=date(2026, 3, 1))
    assert dated.folder_name == f"2026-03-01-{BARE.dag_id}-{BARE.key}"
    assert (dated.key, dated.staging_schema) == (BARE.key, BARE.staging_schema)

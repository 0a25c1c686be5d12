"""A key that is no param is refused by name: Airflow hands it on, and it would go unheeded."""

from __future__ import annotations

from typing import Any

import pytest

from include.checkpoint_migration.errors import SettingsInvalid
from include.checkpoint_migration.settings import PARAMS, Settings, parse_settings
from include.orchestration.deployment import read_deployment
from include.orchestration.params import migration_params, rehearsal_params


def parse(**given: Any) -> Settings:
    params = {"source": "/a.sqlite", **given}
    return parse_settings(params, dag_id="d", run_id="r", default_export_uri="/exports")


def test_what_is_known_is_the_trigger_form() -> None:
    """A param of the form is no unknown one, and what is not in the form is none of the known."""
    for params in (migration_params, rehearsal_params):
        assert set(params(read_deployment())) == set(PARAMS)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("on_conflit", "on_conflict"),
        ("Source", "source"),
        ("batchsize", "batch_size"),
        ("schema", "target_schema"),
        ("allow_pickles", "allow_pickle"),
        ("dry_run", None),
        ("stores", "store"),
    ],
)
@pytest.mark.parametrize("value", [None, True, "auto", "s3cret-Pa55word"])
def test_a_key_that_is_no_param_is_refused_by_name(
    name: str, nearest: str | None, value: Any
) -> None:
    """Whatever its value, the key is named with the nearest param, and the value is not told."""
    with pytest.raises(SettingsInvalid) as caught:
        parse(**{name: value})
    error = caught.value
    assert f"{name!r} (the nearest param is " in error.what
    assert nearest is None or f"the nearest param is {nearest!r})" in error.what
    assert not error.transient
    assert "nothing was opened, read or written" in error.safe
    assert "rehearse_checkpoints" in error.next
    assert "s3cret" not in str(error)


def test_of_many_unknown_keys_the_first_are_named_and_none_breaks_the_line() -> None:
    """A conf of nonsense makes a message that can be read, on one line."""
    with pytest.raises(SettingsInvalid) as caught:
        parse(**{f"nonsense\nverdict: identical {n:03}": n for n in range(100)})
    assert caught.value.what.endswith("and 95 more.")
    assert caught.value.what.isprintable()

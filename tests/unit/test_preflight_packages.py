"""A worker without all packages is told before any work, not after promote."""

from __future__ import annotations

import sys

import pytest

from include.checkpoint_migration.errors import SettingsInvalid
from include.checkpoint_migration.preflight.packages import NEEDED, check_packages


def test_an_environment_that_has_them_all_passes() -> None:
    """Nothing is imported and nothing raised."""
    check_packages()


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is terminal, and says which module the worker has not."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsInvalid, match=f"has no {name}") as raised:
        check_packages()
    assert raised.value.facts == {"missing": [name]}
    assert "requirements.txt" in raised.value.next


def test_a_missing_namespace_is_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where LangGraph is not there at all, each of its modules is missing."""
    for module in [m for m in sys.modules if m.split(".")[0] == "langgraph"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(SettingsInvalid) as raised:
        check_packages()
    assert raised.value.facts == {"missing": list(NEEDED)}

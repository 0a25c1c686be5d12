"""The night's own machinery in a minute: what is only run at night would otherwise rot by day."""

from __future__ import annotations

import pytest

from tests.faults import nightly


def test_a_night_of_few_faults_ends_with_nothing_lost_and_nothing_doubled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kill points over every step, mutations of every kind, a whole run with random faults."""
    for name, value in {"KILLS": "8", "MUTATIONS": "90", "MINUTES": "0.05"}.items():
        monkeypatch.setenv(name, value)
    nightly.main(["kills", "mutations", "random"])
    told = capsys.readouterr().out
    for step in nightly.STEPS:
        assert f" {step}" in told
    assert "30 bit, 30 line, 30 manifest; all found before a row was read" in told
    assert "nothing lost, nothing doubled" in told.splitlines()[-1]

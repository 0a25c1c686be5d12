"""Tasks follow the size of the data, not the caps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.task_sizes import TaskSizes

MIB = 1 << 20
USUAL = TaskSizes()


@pytest.mark.parametrize(
    ("threads", "state", "shards"),
    [
        (0, 0, 0),
        (1, 500 * MIB, 1),
        (16, 1, 16),
        (17, 1, 1),
        (20, 3 * MIB, 3),
        (400, 8 * MIB, 8),
        (400, 200 * MIB, 8),
        (400, 512 * MIB, 8),
        (400, 513 * MIB, 9),
        (1_000, 1_024 * MIB, 16),
        (20, 10_000 * MIB, 20),
        (100_000, 10_000_000 * MIB, 64),
    ],
)
def test_shards_are_as_few_as_the_state_is_worth(threads: int, state: int, shards: int) -> None:
    """A thread for each up to 16; beyond, at most 64 MiB and at least about 1 MiB for each."""
    assert USUAL.shards(threads, state) == shards


@pytest.mark.parametrize(
    ("batches", "tasks"),
    [(0, 0), (1, 1), (32, 32), (33, 32), (400, 32), (6_400, 32), (6_401, 33), (10**6, 256)],
)
def test_batches_share_tasks_beyond_a_few(batches: int, tasks: int) -> None:
    """A task for each batch up to 32; beyond, none takes more than 200 while the cap allows it."""
    assert USUAL.loads(batches) == tasks


numbers = st.integers(1, 100)


@given(
    st.builds(TaskSizes, numbers, numbers, numbers, numbers, numbers, numbers, numbers, numbers),
    st.integers(0, 10_000),
    st.integers(0, 10**6),
)
def test_caps_hold_whatever_the_numbers_are(sizes: TaskSizes, units: int, state: int) -> None:
    """There is a task where there is something to do, and never more than the cap or the units."""
    for found, cap in (
        (sizes.shards(units, state), sizes.max_export_tasks),
        (sizes.loads(units), sizes.max_load_tasks),
    ):
        assert found <= min(units, cap)
        assert (found > 0) == (units > 0)

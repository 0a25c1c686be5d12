"""A drawn sample has no preference, and is the same for the same seed and items."""

from __future__ import annotations

from collections import Counter

import pytest

from include.checkpoint_migration.readback.sample import Draw
from include.checkpoint_migration.readback.savers import Key


def key(number: int) -> Key:
    return "thread", "", f"{number:06}"


def drawn(seed: str, size: int, items: int) -> list[Key]:
    draw = Draw(seed, size)
    for number in range(items):
        draw.offer(key(number))
    return draw.drawn()


@pytest.mark.parametrize("size", [0, 1, 3, 200])
@pytest.mark.parametrize("items", [0, 1, 2, 3, 4, 199, 200, 201, 5_000])
def test_it_holds_so_many_different_items_in_order(size: int, items: int) -> None:
    """All where there are few; else as many as wanted."""
    sample = drawn("a", size, items)
    assert len(set(sample)) == min(size, items)
    assert sample == sorted(sample)
    assert sample == drawn("a", size, items)
    if items <= size:
        assert sample == [key(number) for number in range(items)]


def test_every_item_has_the_same_chance() -> None:
    """Of 2,000 samples of 20 out of 200, each tenth of the items holds about a tenth."""
    found = Counter(
        int(name) // 20 for seed in range(2_000) for _, _, name in drawn(str(seed), 20, 200)
    )
    assert set(found) == set(range(10))
    assert all(3_750 < times < 4_250 for times in found.values())


def test_another_seed_draws_another_sample() -> None:
    """Who does not know the seed does not know what is looked at."""
    assert len({tuple(drawn(str(seed), 20, 5_000)) for seed in range(50)}) == 50

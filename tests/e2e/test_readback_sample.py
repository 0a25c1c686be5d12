"""Which checkpoints the read-back looks at: those of the threads taken, drawn by a seed."""

from __future__ import annotations

from include.checkpoint_migration.readback.read_back import ReadBack
from include.checkpoint_migration.settings import ThreadFilter
from tests.support.postgres import Database
from tests.support.readbacks import FIXTURES, TODAY, look


def test_threads_not_taken_are_not_looked_at(loaded: Database) -> None:
    """What the filter leaves out is neither compared nor counted, live or not."""
    result = look(FIXTURES / TODAY, loaded.connect, taken=ThreadFilter(("types", "s*", "!sends*")))
    assert result.threads == 5
    assert result.found == 0


def test_the_same_seed_draws_the_same_sample(loaded: Database, copy: str) -> None:
    """What is found depends on the rows and the seed alone; another seed looks elsewhere."""
    loaded.execute(f"UPDATE {copy}.checkpoints SET metadata = metadata || '{{\"step\": 77}}'")

    def found(seed: str) -> ReadBack:
        return look(FIXTURES / TODAY, loaded.connect, copy, seed=seed, sample=3)

    one = found("a")
    assert one == found("a")
    assert {one.differences, found("b").differences, found("c").differences} != {one.differences}
    assert one.checkpoints == 32 + 3

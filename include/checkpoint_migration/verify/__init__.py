"""The oracle: proves that PostgreSQL holds what the source holds, with none of convert's code.

It goes the other way: from the target's blobs and JSONB it works out what the source's bytes must
be, and matches them. Both sides are read once, in key order.
"""

from .counting import count_shard
from .decrypt import decrypting
from .oracle import verify_shard
from .store import verify_store

__all__ = ["count_shard", "decrypting", "verify_shard", "verify_store"]

"""What a row of langgraph up to 0.1 must have become, as the oracle works it out for itself.

It reads such rows with the ids that they must have, so that everything else is compared as ever.
"""

from __future__ import annotations

import calendar
import re
import uuid
from hashlib import sha256
from time import struct_time

from ..model import CheckpointRow
from .source_checkpoint import Opened

# date, time, fraction, and what the clock is ahead of UTC
STAMP = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:Z|([+-])(\d\d):(\d\d))?"
)
GREGORIAN = 12_219_292_800  # seconds from the beginning of a uuid6's clock to that of Unix
NO_STEP = '{"step": -2}'


def expected_id(thread_id: bytes, thread_ts: bytes) -> str | None:
    """The id that a timestamp must have become: a uuid6 of its instant, the rest by digest."""
    found = STAMP.fullmatch(thread_ts)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(year or 1, month)[1]):
        return None
    if hour > 23 or minute > 59 or second > 59 or not year:
        return None
    if found[8] and (int(found[9]) > 23 or int(found[10]) > 59):
        return None
    seconds = calendar.timegm(struct_time((year, month, day, hour, minute, second, 0, 0, 0)))
    if found[8]:
        ahead = int(found[9]) * 3600 + int(found[10]) * 60
        seconds -= ahead if found[8] == b"+" else -ahead
    ticks = (seconds + GREGORIAN) * 10**7 + int((found[7] or b"0").ljust(6, b"0")) * 10
    if not 0 <= ticks < 2**60:
        return None
    time = f"{ticks:015x}"
    noise = sha256(b"%b%b%b" % (len(thread_id).to_bytes(8), thread_id, thread_ts)).hexdigest()
    # 2 bits say which kind of uuid it is, the next 62 are the digest's first
    tail = f"{2**63 + (int(noise[:16], 16) >> 2):016x}"
    return str(uuid.UUID(f"{time[:12]}6{time[12:]}{tail}"))


def with_metadata(row: CheckpointRow) -> CheckpointRow:
    """The row, with the metadata that LangGraph goes on from where it had none."""
    return row._replace(metadata=NO_STEP) if row.metadata is None else row


def with_id(opened: Opened, row: CheckpointRow) -> Opened:
    """A checkpoint of when its time was its id: its envelope says the id now."""
    if "id" in opened.fields:
        return opened
    return opened._replace(fields={**opened.fields, "id": row.checkpoint_id})

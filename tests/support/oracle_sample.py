"""The sample that the oracle is tried on: each feature of a conversion once."""

from __future__ import annotations

import msgpack

from tests.support.oracle_rows import RENAMED, SNAPSHOT, TRUE, Sample, pack, padded, version


def a_sample() -> Sample:
    """Every feature once: shared and renamed versions, True, a snapshot, other types, orphans."""
    sample = Sample()
    messages = [pack([{"role": "user", "content": f"{n}" * 20, "seen": None}]) for n in range(9)]
    values = {"messages": messages[0], "topic": pack("whales"), "count": pack(1), "flag": TRUE}
    versions = {name: version(1) for name in (*values, "gone")}
    sample.checkpoint("plain", "1", values, versions, updated_channels=["count", "messages"])
    versions = {**versions, "messages": version(2), "count": version(2)}
    values = {**values, "messages": messages[1], "count": pack(2.5), "extra": pack(None)}
    sample.checkpoint(
        "plain",
        "2",
        {**values, "loose": pack([1, 2.5, "x", None, True])},
        {**versions, "extra": version(2)},
        parent="1",
        seen={"__input__": {}, "agent": {"messages": version(2), "topic": version(1)}},
        inline={"loose": [1, 2.5, "x", None, True]},
        updated_channels=None,
        metadata='{"step": 2, "big": 1e20, "zero": -0.0, "deep": {"a": [true, 1, "1", null]}}',
        note={"kept": [1, "two"]},
    )
    sample.checkpoint("plain", "1", {"messages": messages[2]}, {"messages": version(1)}, ns="sub:1")
    for n, (checkpoint, channel) in enumerate(
        [("1", "messages"), ("1", "count"), ("2", "messages")]
    ):
        sample.write("plain", checkpoint, f"task-{n}", n, channel, messages[n])
    sample.write("plain", "2", "task-2", 3, "__interrupt__", messages[4])
    sample.write("plain", "nowhere", "task-9", 0, "messages", messages[5])
    sample.write("orphans", "none", "task-9", -1, "__error__", messages[6])

    # one version, several contents: two values, an absent one and True, which counts as absent
    shared = {"state": version(3), "calm": version(1)}
    for checkpoint, value, renamed in [
        ("1", messages[6], ""),
        ("2", messages[7], RENAMED),
        ("3", None, ".00000000000000000042"),
        ("4", TRUE, ".00000000000000000042"),
    ]:
        new = {**shared, "state": version(3) + renamed}
        held = {} if value is None else {"state": value}
        sample.checkpoint(
            "clash",
            checkpoint,
            {**held, "calm": messages[8]},
            shared,
            to=new,
            seen={"agent": {"state": version(3), "calm": version(1)}, "old": {"state": version(2)}},
            seen_to={"agent": dict(new), "old": {"state": version(2)}},
        )

    sample.checkpoint("delta", "1", {"log": SNAPSHOT}, {"log": version(1)})
    sample.checkpoint("delta", "2", {}, {"log": version(2)}, parent="1")
    add_older(sample)
    for checkpoint, step in (("1", 9), ("2", 10)):
        sample.checkpoint(
            "whole",
            checkpoint,
            {"a": pack("a" * step)},
            {"a": step},
            seen={"agent": {"a": step - 1}},
            to={"a": padded(step)},
            seen_to={"agent": {"a": padded(step - 1)}},
        )
    sample.checkpoint(
        "json é",
        "1",
        {"a": '{"lc": 2, "ü": [1.0, "\\ud83d"]}'.encode(), "n": b"NaN", "t": b"true", "é": b'"y"'},
        {"a": version(1), "n": version(1), "t": version(1), "é": version(1)},
        kind="json",
    )
    sample.checkpoint("json é", "2", {"b": b'"x"'}, {}, kind="json", inline={"b": "x"})
    odd = 'o\'dd "%s" \\x {}\n\t\x7f'
    sample.checkpoint(odd, odd, {odd: pack(odd)}, {odd: odd}, ns=odd, seen={odd: {odd: odd}})
    sample.checkpoint(
        "secret", "1", {"a": messages[3], "t": TRUE}, {"a": version(1), "t": version(1)},
        kind="msgpack+aes",
    )  # fmt: skip
    return sample


def add_older(sample: Sample) -> None:
    """Checkpoints of `v` 1 to 3 with sends, and a sibling that the reader would give theirs."""
    one, two = pack(msgpack.ExtType(1, b"a Send")), pack(msgpack.ExtType(1, b"another"))
    sends = b"\x92" + one + two
    at_two = {"__pregel_tasks": version(2)}
    versions = {"b": version(1), "a": version(2)}
    sample.checkpoint("third", "1", {"a": pack(1)}, versions, v=3, sends=sends, to=at_two)
    sample.checkpoint("third", "2", {"a": pack(1)}, versions, v=3, parent="1")

    values = {"start:a": pack("s"), "branch:x:if:b": pack("if"), "a": pack("a"), "state": pack(1)}
    versions = {
        "start:a": version(1),
        "branch:x:if:b": version(1),
        "state": version(1),
        "a": version(2),
    }
    seen = {
        "a": {"start:a": version(1)},
        "b": {"a": version(1), "branch:x:if:b": version(1)},
        "__interrupt__": {"a": version(2), "start:a": version(1), "state": version(1)},
    }
    sample.checkpoint("older", "1", values, versions, v=1, v_to=1, seen=seen)
    sample.write("older", "1", "task-a", 0, "__pregel_tasks", one)
    sample.write("older", "1", "task-b", 0, "__pregel_tasks", two)
    for checkpoint, parent, v in (("2", "1", 2), ("3", "2", 1)):
        sample.checkpoint(
            "older",
            checkpoint,
            values,
            versions,
            v=v,
            v_to=v,
            parent=parent,
            seen=seen,
            sends=sends,
            to=at_two,
        )
    sample.checkpoint(
        "older",
        "4",
        values,
        versions,
        v=2,
        parent="1",
        seen=seen,
        lost=("start:a", "branch:x:if:b", "a"),
        to={"branch:to:a": version(1), "branch:to:b": version(2)},
        values_to={"branch:to:a": pack("s"), "branch:to:b": pack("if"), "state": pack(1)},
        seen_to={
            "a": {"branch:to:a": version(1)},
            "b": {"branch:to:b": version(1)},
            "__interrupt__": {
                "branch:to:a": version(1),
                "branch:to:b": version(2),
                "state": version(1),
            },
        },
    )


SAMPLE = a_sample()

"""The next items made in a thread of their own while the last one is used.

A server, SQLite and the network let Python go on while they work, so both sides of a comparison or a
copy are busy at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from queue import Empty, Full, Queue, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

LOOK_UP = 0.05  # seconds after which a thread that waits looks whether it is still wanted
PATIENCE = 0.2  # seconds that a thread may take to end before it is stopped


def ahead(
    items: Iterable[T], most: int = 1, *, stop: Callable[[], object] | None = None
) -> Generator[T, None, None]:
    """The same items in the same order, up to `most` of them made before they are asked for.

    What making them raises is raised here, in its place. However the loop over them ends, the thread
    has ended too: what it used is free again. Where that takes long, because an item is being made that
    nobody wants any more, `stop` is called to end it, again and again.
    """
    made: Queue[tuple[T | None, BaseException | None, bool]] = Queue(most)
    unwanted = Event()

    def hand_on(item: T | None, error: BaseException | None = None, *, last: bool = False) -> None:
        handed = False
        while not handed and not unwanted.is_set():
            with suppress(Full):
                made.put((item, error, last), timeout=LOOK_UP)
                handed = True

    def make() -> None:
        try:
            for item in items:
                hand_on(item)
                if unwanted.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            hand_on(None, error, last=True)
        else:
            hand_on(None, last=True)

    thread = Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = made.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        unwanted.set()
        with suppress(Empty):
            while True:
                made.get_nowait()
        _join(thread, stop)


def _join(thread: Thread, stop: Callable[[], object] | None) -> None:
    while stop is not None and thread.is_alive():
        thread.join(PATIENCE)
        if thread.is_alive():
            stop()
    thread.join()


def beside(
    items: Iterable[S],
    work: Callable[[S], Iterable[T]],
    *,
    stop: Callable[[], object] | None = None,
) -> Generator[T, None, None]:
    """All that `work` makes of each item, in order; `work` has a thread of its own, the items are made here.

    One item is made while another is worked at. What making one raises is raised at once, what working
    raises in its place; the thread ends as with `ahead`.
    """
    source = iter(items)
    given: SimpleQueue[S | None] = SimpleQueue()

    def working() -> Iterator[tuple[T] | None]:
        while (item := given.get()) is not None:
            for made in work(item):
                yield (made,)
            yield None  # another item is wanted

    with closing(ahead(working(), stop=stop)) as results:
        try:
            given.put(next(source, None))
            given.put(next(source, None))
            for result in results:
                if result is None:
                    given.put(next(source, None))
                else:
                    yield result[0]
        finally:
            given.put(None)

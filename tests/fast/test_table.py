"""The table's rows and slots, and the snapshots taken of it."""

from __future__ import annotations

import gc
import math
import random
import threading

import pytest

from esnode._fast.table import OWNER, READING, TICK, Layout, Snapshot, Table
from esnode.metrics import counter, gauge

HEAT = gauge("heat_celsius", "Heat.")
SEEN = counter("seen_total", "Seen.", ("who",))
LOAD = gauge("load", "Load.", ("who", "where"))
STRAY = gauge("stray", "In no table.")


def table() -> Table:
    return Table([("first", [HEAT, SEEN]), ("second", [LOAD])])


def values(snapshot: Snapshot) -> list[tuple[str, tuple[str | None, ...], float]]:
    return [(metric.name, labels, value) for metric, labels, value in snapshot.items()]


def test_a_row_is_absent_until_it_is_set() -> None:
    t = table()
    slot = t.add(SEEN, ("a",))
    assert math.isnan(t.get(slot))
    assert values(t.freeze(0, 0)) == []
    t.set(slot, 3)
    assert t.get(slot) == 3
    assert values(t.freeze(0, 0)) == [("seen_total", ("a",), 3)]


def test_what_does_not_belong_is_refused() -> None:
    t = table()
    t.add(SEEN, ("a",))
    with pytest.raises(ValueError, match="duplicate"):
        t.add(SEEN, ("a",))
    with pytest.raises(ValueError, match="not declared"):
        t.add(STRAY)
    for labels in ((), ("a", "b")):
        with pytest.raises(ValueError, match="has labels"):
            t.add(SEEN, labels)
    with pytest.raises(ValueError, match="twice"):
        Table([("first", [HEAT]), ("second", [HEAT])])
    with pytest.raises(KeyError):
        t.remove(SEEN, ("b",))
    assert t.freeze(0, 0).layout.rows == ((SEEN, ("a",)),), "a refusal left something behind"


def test_slots_out_of_range_are_refused() -> None:
    t = table()
    t.add(HEAT)
    for slot in (-1, 1, 2**40):
        with pytest.raises(IndexError):
            t.get(slot)
        with pytest.raises(IndexError):
            t.set(slot, 1)


def test_only_tables_make_layouts_and_snapshots() -> None:
    for kind in (Layout, Snapshot):
        with pytest.raises(TypeError):
            kind()


def test_a_removed_row_is_gone_and_its_slot_is_used_again() -> None:
    t = table()
    first = t.add(HEAT, (), OWNER)
    other = t.add(SEEN, ("a",))
    t.set(first, 1)
    t.set(other, 2)
    assert t.remove(HEAT) == first
    assert values(t.freeze(0, 0)) == [("seen_total", ("a",), 2)]
    again = t.add(SEEN, ("b",))
    assert again == first
    assert math.isnan(t.get(again)), "the value of the row before"
    t.set(again, 5)
    t.begin(False)
    assert math.isnan(t.get(again)), "the keeping of the row before"


def test_hidden_slots_are_no_rows_and_come_back() -> None:
    t = table()
    slot = t.hidden()
    t.set(slot, 1)
    assert values(t.freeze(0, 0)) == []
    t.begin(False)
    assert math.isnan(t.get(slot))
    t.forget(slot)
    assert t.hidden() == slot


def test_clear_removes_families_rows_and_no_others() -> None:
    t = table()
    t.set(t.add(HEAT), 1)
    t.set(t.add(SEEN, ("a",)), 2)
    kept = t.add(LOAD, ("a", "b"))
    t.set(kept, 3)
    t.clear([HEAT, SEEN])
    t.clear([])
    assert values(t.freeze(0, 0)) == [("load", ("a", "b"), 3)]
    t.set(t.add(SEEN, ("a",)), 4)
    assert values(t.freeze(0, 0)) == [("seen_total", ("a",), 4), ("load", ("a", "b"), 3)]


def test_each_value_is_cleared_when_it_should_be() -> None:
    t = table()
    slots = {keep: t.add(SEEN, (str(keep),), keep) for keep in (READING, TICK, OWNER)}

    def left(tick: bool) -> set[int]:
        for slot in slots.values():
            t.set(slot, 1)
        t.begin(tick)
        return {keep for keep, slot in slots.items() if not math.isnan(t.get(slot))}

    assert left(tick=False) == {TICK, OWNER}
    assert left(tick=True) == {OWNER}


def test_families_are_contiguous_in_declared_order() -> None:
    t = table()
    rows = [(LOAD, ("a", "b")), (SEEN, ("z",)), (LOAD, (None, "c")), (SEEN, ("a",)), (HEAT, ())]
    for i, (metric, labels) in enumerate(rows):
        t.set(t.add(metric, labels), i)
    layout = t.freeze(0, 0).layout
    assert layout.rows == (
        (HEAT, ()),
        (SEEN, ("z",)),
        (SEEN, ("a",)),
        (LOAD, ("a", "b")),
        (LOAD, (None, "c")),
    )
    assert layout.families == ((HEAT, "first", 0, 1), (SEEN, "first", 1, 3), (LOAD, "second", 3, 5))
    assert [value for *_, value in values(t.freeze(0, 0))] == [4, 1, 3, 0, 2]


def test_a_snapshot_stays_as_it_was_taken() -> None:
    t = table()
    slot = t.add(HEAT)
    t.add(SEEN, ("absent",))
    t.set(slot, 1)
    taken = t.freeze(12.5, 1_700_000_000_123)
    assert (taken.monotonic, taken.unix_ms, taken.present, len(taken)) == (
        12.5,
        1_700_000_000_123,
        1,
        2,
    )
    t.set(slot, 2)
    assert t.freeze(0, 0).layout is taken.layout, "a layout made anew without need"
    t.remove(HEAT)
    t.set(t.add(SEEN, ("new",)), 3)
    assert t.freeze(0, 0).layout is not taken.layout
    del t
    gc.collect()
    assert values(taken) == [("heat_celsius", (), 1)]
    assert taken[0] == 1
    assert math.isnan(taken[1])
    for row in (-1, 2):
        with pytest.raises(IndexError):
            taken[row]
    for name in ("monotonic", "present", "layout"):
        with pytest.raises(AttributeError):
            setattr(taken, name, 0)


def test_rows_come_and_go_as_in_a_dict() -> None:
    """A few thousand random turns against a plain dict."""
    turn = random.Random(1)
    t = table()
    known: dict[str, tuple[int, float]] = {}
    for i in range(5000):
        who = str(turn.randrange(400))
        if who in known and turn.random() < 0.6:
            assert t.remove(SEEN, (who,)) == known.pop(who)[0]
        elif who not in known:
            slot = t.add(SEEN, (who,), OWNER)
            assert slot not in {other for other, _ in known.values()}
            t.set(slot, i)
            known[who] = slot, float(i)
    expected = [("seen_total", (who,), value) for who, (_, value) in known.items()]
    assert values(t.freeze(0, 0)) == expected


def test_snapshots_are_read_by_other_threads_while_the_table_goes_on() -> None:
    t = table()
    slots = [t.add(SEEN, (str(i),)) for i in range(50)]
    newest = [t.freeze(0, 0)]
    torn = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen = {value for *_, value in newest[0].items()}
            if len(seen) > 1:
                torn.append(seen)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(300):
        t.begin(True)
        for slot in slots:
            t.set(slot, i)
        newest[0] = t.freeze(0, i)
    stop.set()
    for thread in threads:
        thread.join()
    assert torn == []

"""4.4: the write-ahead log gives back what was forced, cuts a torn end, and refuses what was spoilt.

A bit is turned over in every byte of a log, its end is broken off at every byte, its files are swapped, and
it must never answer with anything that was not written to it.
"""

from __future__ import annotations

import random
import shutil
import threading
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from atoll.algorithms.raft.events import Write
from atoll.algorithms.raft.messages import Entry, Kind, Membership, Snapshot
from atoll.engines.raft import record, segment
from atoll.engines.raft.log_opening import Owner, open_log
from atoll.engines.raft.wal import LogOptions
from atoll.errors import FormatRefused
from engines.raft_log import ME, SMALL, all_of, ends, entry, newest_segment, opened, refused, wrote

FIXTURE = Path(__file__).parent / "testdata" / "raft" / "format1"


def test_what_was_forced_is_there_after_it_is_opened_again(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for low in range(1, 200, 10):
        wrote(log, *(entry(n) for n in range(low, min(low + 10, 200))), vote="b")
    log.close()
    log = opened(tmp_path)
    assert (log.first, log.last, log.term_and_vote) == (1, 199, (1, "b"))
    assert all_of(log) == [entry(n) for n in range(1, 200)]
    assert len(list(tmp_path.glob("*.log"))) > 1
    log.close()


def test_what_is_not_forced_does_not_show(tmp_path: Path) -> None:
    log = opened(tmp_path)
    wrote(log, entry(1))
    log.append([Write(2, 3, "c", (entry(2),))])
    assert (log.last, log.term_and_vote, log.term(2)) == (1, (1, ""), None)
    log.sync()
    assert (log.last, log.term_and_vote, log.term(2)) == (2, (3, "c"), 1)
    log.close()


def test_many_writes_cost_one_forced_write(tmp_path: Path) -> None:
    forced: list[int] = []
    log = opened(tmp_path, LogOptions(force=forced.append))
    before = len(forced)
    log.append([Write(n, 1, "", (entry(n),)) for n in range(1, 65)])
    log.sync()
    assert len(forced) - before == 1
    log.sync()
    assert len(forced) - before == 1, "nothing was written, so nothing is forced"
    log.close()


def test_a_random_life_of_a_log_is_that_of_a_list(tmp_path: Path) -> None:
    for seed in range(30):
        _random_life(tmp_path / str(seed), random.Random(seed))


def _random_life(folder: Path, dice: random.Random) -> None:
    log, model, term, vote = opened(folder), [Entry(0, 0, Kind.EMPTY, b"")], 1, ""
    snapshot: Snapshot | None = None
    for _ in range(60):
        match dice.randrange(8):
            case 0:
                log.close()
                log = opened(folder, snapshot=snapshot)
            case 1:
                term, vote = term + 1, dice.choice("abc")
                log.append([Write(1, term, vote)])
                log.sync()
            case 2 if log.last > (log.first + (snapshot.index if snapshot else 0)):
                start = dice.randrange(max(log.first, snapshot.index + 1 if snapshot else 1), log.last + 1)
                del model[start:]
                new = [
                    entry(start + n, term, size=dice.randrange(40, 300)) for n in range(dice.randrange(1, 9))
                ]
                model += new
                log.append([Write(1, term, vote, tuple(new))])
                log.sync()
            case 3 if log.last > log.first:
                index = dice.randrange(log.first, log.last + 1)
                if snapshot is None or index > snapshot.index:
                    snapshot = Snapshot(index, model[index].term, Membership(("a",)))
                    log.note(snapshot)
                    log.compact(index - dice.randrange(10))
                    log.show()
            case 4 if dice.random() < 0.2:
                index = log.last + 5
                snapshot = Snapshot(index, term, Membership(("a",)))
                log.begin_anew(snapshot)
                log.show()
                model += [entry(n, term) for n in range(len(model), index + 1)]
            case _:
                new = [
                    entry(len(model) + n, term, size=dice.randrange(40, 900))
                    for n in range(dice.randrange(9))
                ]
                model += new
                log.append([Write(1, term, vote, tuple(new))])
                log.sync()
        assert log.last == len(model) - 1
        assert all_of(log) == model[log.first :]
        assert [log.term(n) for n in range(log.first, log.last + 1)] == [
            one.term for one in model[log.first :]
        ]
        assert log.first <= (snapshot.index if snapshot else 0) + 1
        assert snapshot is None or log.term(snapshot.index) == snapshot.term
    log.close()


def test_a_log_is_read_by_one_thread_while_another_writes_it(tmp_path: Path) -> None:
    log = opened(tmp_path)
    stop, problems = threading.Event(), []

    def write() -> None:
        dice, last = random.Random(1), 0
        while not stop.is_set():
            first = max(1, last - dice.randrange(3))
            last = first + dice.randrange(1, 9)
            log.append(
                [Write(1, 1, "", tuple(entry(n, 1, size=dice.choice([40, 400])) for n in range(first, last)))]
            )
            log.sync()
            last -= 1
            if dice.random() < 0.05 and last > 60:
                log.note(Snapshot(last - 50, 1, Membership(("a",))))
                log.compact(last - 50)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        reads = 0
        while reads < 2000 or log.first < 2:
            log.show()  # the machine's thread, and so is what reads
            first, last = log.first, max(log.last - 5, 0)
            if last >= first:
                low = random.Random(reads).randrange(first, last + 1)
                found = log.entries(low, last + 1, 3000)
                reads += 1
                if [one.index for one in found] != list(range(low, low + len(found))) or log.term(low) != 1:
                    problems.append((low, last, found))
            assert thread.is_alive()
    finally:
        stop.set()
        thread.join()
    assert problems == []
    log.close()


def test_memberships_are_those_of_the_entries_that_count(tmp_path: Path) -> None:
    log = opened(tmp_path)
    two, three = Membership(("a", "b")), Membership(("a", "b", "c"), places={"c": "host:1"})

    def change(index: int, members: Membership) -> Entry:
        return Entry(1, index, Kind.MEMBERSHIP, msgspec.msgpack.encode(members))

    wrote(log, change(1, two), entry(2), change(3, three))
    assert log.memberships() == [(1, two), (3, three)]
    wrote(log, entry(3, 2))
    assert log.memberships() == [(1, two)]
    log.close()
    log = opened(tmp_path)
    assert log.memberships() == [(1, two)]
    log.close()


def test_entries_are_bounded_by_their_bytes_and_there_is_always_one(tmp_path: Path) -> None:
    log = opened(tmp_path)
    wrote(log, *(entry(n, size=100) for n in range(1, 100)))
    for low in (1, 98):  # from the disk, from memory
        assert [one.index for one in log.entries(low, 100, 250)] == [low, low + 1][: 100 - low]
        assert [one.index for one in log.entries(low, 100, 1)] == [low]
    log.close()


# -- torn ends -----------------------------------------------------------------------------------------


def _three(folder: Path) -> list[int]:
    log = opened(folder)
    for number in (1, 2, 3):
        wrote(log, entry(number, size=540))
    where = ends(log)
    log.close()
    return where


@pytest.mark.parametrize("how", ["the file ends there", "zeros from there", "a sector is missing"])
def test_a_last_record_torn_at_any_byte_is_cut_and_the_log_goes_on(tmp_path: Path, how: str) -> None:
    where = _three(tmp_path / "whole")
    whole = newest_segment(tmp_path / "whole").read_bytes()
    name = newest_segment(tmp_path / "whole").name
    for cut in range(where[2], where[3]):
        if how == "a sector is missing" and cut % record.SECTOR:
            continue
        folder = tmp_path / f"{cut}"
        folder.mkdir()
        torn = bytearray(whole)
        if how == "the file ends there":
            del torn[cut:]
        else:
            end = cut + record.SECTOR if how == "a sector is missing" else where[3]
            torn[cut:end] = bytes(end - cut)
        (folder / name).write_bytes(torn)
        log = opened(folder)
        assert log.last == 2, cut
        wrote(log, entry(3, 2))
        log.close()
        log = opened(folder)
        assert all_of(log) == [entry(1, size=540), entry(2, size=540), entry(3, 2)]
        log.close()
        shutil.rmtree(folder)


def test_records_of_one_forced_write_may_be_torn_in_any_of_them(tmp_path: Path) -> None:
    log = opened(tmp_path)
    wrote(log, entry(1))
    log.append([Write(1, 1, "", tuple(entry(n, size=540) for n in range(2, 6)))])
    log.sync()
    where = ends(log)
    log.close()
    path = newest_segment(tmp_path)
    data = bytearray(path.read_bytes())
    first = -(-where[2] // 512) * 512
    data[first : first + 512] = bytes(512)  # a sector of entry 3; entries 4 and 5 came through
    path.write_bytes(data)
    log = opened(tmp_path)
    assert log.last == 2
    log.close()


def test_an_unfinished_segment_is_swept_away(tmp_path: Path) -> None:
    _three(tmp_path)
    (tmp_path / "0000000000000002.new").write_bytes(b"half")
    opened(tmp_path).close()
    assert not list(tmp_path.glob("*.new"))


# -- spoilt logs ---------------------------------------------------------------------------------------


def _open_or_refusal(folder: Path) -> list[Entry] | FormatRefused:
    try:
        log = opened(folder)
    except FormatRefused as error:
        return error
    try:
        return all_of(log)
    finally:
        log.close()


def _flips(tmp_path: Path, count: int) -> tuple[int, int, list[str]]:
    """Turn a bit in every record of a log; how many were refused, how many cut, and what went wrong."""
    log = opened(tmp_path / "whole")
    for number in range(1, count + 1):
        wrote(log, entry(number))
    where = ends(log)
    log.close()
    path = newest_segment(tmp_path / "whole")
    whole, dice = path.read_bytes(), random.Random(5)
    written = [entry(n) for n in range(1, count + 1)]
    refusals, cuts, wrong = 0, 0, []
    for place in range(where[0], where[-1]):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << dice.randrange(8)
        path.write_bytes(spoilt)
        try:
            found = _open_or_refusal(tmp_path / "whole")
        except Exception as error:
            wrong.append(f"a bit in byte {place}: {error!r}")
            continue
        if isinstance(found, FormatRefused):
            refusals += 1
            refused(found, path.name, "Remove it from the cluster")
        elif found == written[:-1] and place >= where[-2]:
            cuts += 1
        elif found != written:  # the last of several bytes that mark an end may change unseen
            wrong.append(f"a bit in byte {place}: {len(found)} entries, last {found[-1:]}")
    return refusals, cuts, wrong


def test_a_bit_turned_over_anywhere_is_never_believed(tmp_path: Path) -> None:
    refusals, cuts, wrong = _flips(tmp_path, 8)
    assert wrong == []
    assert refusals > 600
    assert cuts <= 2, "a record that is whole is not taken for a torn one"


def test_a_log_that_does_not_look_at_its_seals_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control."""
    monkeypatch.setattr(record.zlib, "crc32", lambda data, start=0: 0)
    assert _flips(tmp_path, 4)[2] != []


def test_a_record_in_another_place_is_not_believed(tmp_path: Path) -> None:
    where = _three(tmp_path)
    path = newest_segment(tmp_path)
    data = bytearray(path.read_bytes())
    size = where[3] - where[2]
    data[where[3] : where[3] + size] = data[where[2] : where[3]]  # the last one, once more
    path.write_bytes(data)
    found = _open_or_refusal(tmp_path)
    assert isinstance(found, FormatRefused), "a whole record with a wrong seal is no torn end"
    data[where[1] : where[1] + size] = data[where[2] : where[3]]  # over the second one
    path.write_bytes(data)
    refused(_open_or_refusal(tmp_path), path.name)


def test_a_block_of_another_segment_is_not_believed(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(1, 60):
        wrote(log, entry(number, size=200))
    log.close()
    one, two = sorted(tmp_path.glob("*.log"))[:2]
    data, other = bytearray(one.read_bytes()), two.read_bytes()
    data[5000:5600] = other[5000:5600]
    one.write_bytes(data)
    refused(_open_or_refusal(tmp_path), one.name)


@pytest.mark.parametrize("lost", ["a sector", "all of it"])
def test_a_record_that_looks_torn_is_refused_when_a_later_one_proves_that_it_was_durable(
    tmp_path: Path, lost: str
) -> None:
    log = opened(tmp_path)
    for number in (1, 2, 3):
        wrote(log, entry(number, size=1100))
    where = ends(log)
    log.close()
    path = newest_segment(tmp_path)
    data = bytearray(path.read_bytes())
    low = -(-where[1] // 512) * 512 if lost == "a sector" else where[1]
    high = low + 512 if lost == "a sector" else where[2]
    data[low:high] = bytes(high - low)
    path.write_bytes(data)
    refused(_open_or_refusal(tmp_path), path.name, f"at {where[1]}", "it was spoilt later")


def test_damage_in_an_earlier_segment_is_refused_even_if_it_looks_torn(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(1, 60):
        wrote(log, entry(number, size=200))
    log.close()
    paths = sorted(tmp_path.glob("*.log"))
    assert len(paths) > 2
    whole = paths[0].read_bytes()
    end = len(whole.rstrip(b"\0"))
    paths[0].write_bytes(whole[: end - 300].ljust(len(whole), b"\0"))
    refused(_open_or_refusal(tmp_path), paths[0].name)
    paths[0].write_bytes(whole[: end - 300])
    refused(_open_or_refusal(tmp_path), paths[0].name)
    paths[0].write_bytes(whole)
    assert isinstance(_open_or_refusal(tmp_path), list)


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(1, 90):
        wrote(log, entry(number, size=200))
    log.close()
    paths = sorted(tmp_path.glob("*.log"))
    kept = paths[1].read_bytes()
    paths[1].unlink()
    refused(_open_or_refusal(tmp_path), paths[1].name, "missing")
    paths[1].write_bytes(kept)
    paths[0].unlink()
    refused(_open_or_refusal(tmp_path), "no snapshot")


def test_segments_under_each_others_names_are_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(1, 60):
        wrote(log, entry(number, size=200))
    log.close()
    one, two = sorted(tmp_path.glob("*.log"))[:2]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    refused(_open_or_refusal(tmp_path), one.name)


@pytest.mark.parametrize("owner", [Owner("cluster-2", "a"), Owner("cluster-1", "b")])
def test_the_log_of_another_cluster_or_member_is_refused(tmp_path: Path, owner: Owner) -> None:
    _three(tmp_path)
    with pytest.raises(FormatRefused) as caught:
        open_log(tmp_path, owner)
    refused(caught.value, "cluster-1", "data folder")


# -- compaction and snapshots --------------------------------------------------------------------------


def test_nothing_above_a_durable_snapshot_is_dropped(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number in range(1, 200):
        wrote(log, entry(number))
    log.compact(150)
    log.show()
    assert log.first == 1, "there is no snapshot"
    log.note(Snapshot(100, 1, Membership(("a",))))
    log.compact(150)
    assert log.first == 1, "the machine was not told yet"
    log.show()
    assert 1 < log.first <= 101
    first = log.first
    files = len(list(tmp_path.glob("*.log")))
    log.sync()
    assert len(list(tmp_path.glob("*.log"))) < files
    assert all_of(log) == [entry(n) for n in range(first, 200)]
    log.close()
    log = opened(tmp_path, snapshot=Snapshot(100, 1, Membership(("a",))))
    assert (log.first, log.last) == (first, 199)
    log.close()
    with pytest.raises(FormatRefused, match="no snapshot"):
        opened(tmp_path)


def test_a_log_that_a_snapshot_overtook_begins_anew_behind_it(tmp_path: Path) -> None:
    log = opened(tmp_path)
    wrote(log, *(entry(n) for n in range(1, 50)), term=3, vote="c")
    far = Snapshot(1000, 2, Membership(("a",)))
    log.begin_anew(far)
    assert log.last == 49, "the machine was not told yet"
    log.show()
    assert (log.first, log.last, log.term(1000), log.snapshot()) == (1001, 1000, 2, far)
    wrote(log, entry(1001, 3))
    assert len(list(tmp_path.glob("*.log"))) == 1
    log.close()
    log = opened(tmp_path, snapshot=far)
    assert (log.first, log.last, log.term_and_vote) == (1001, 1001, (3, "c"))
    log.close()


def test_a_log_that_goes_through_the_snapshot_keeps_what_follows_it(tmp_path: Path) -> None:
    log = opened(tmp_path)
    wrote(log, *(entry(n) for n in range(1, 50)))
    log.begin_anew(Snapshot(30, 1, Membership(("a",))))
    log.show()
    assert log.last == 49
    log.begin_anew(Snapshot(40, 2, Membership(("a",))))  # another term there: all from it on is another's
    log.show()
    assert (log.first, log.last) == (41, 40)
    log.close()


def test_an_index_of_a_million_entries_would_be_small(tmp_path: Path) -> None:
    count = 40_000
    log = opened(tmp_path, LogOptions(cache_bytes=1024))
    for low in range(1, count, 1000):
        wrote(log, *(entry(n) for n in range(low, low + 1000)))
    log.close()
    tracemalloc.start()
    try:
        log = opened(tmp_path, LogOptions(cache_bytes=1024))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert log.last == count
    assert held / count < 40, f"{held / count:.1f} bytes an entry"
    log.close()


# -- formats -------------------------------------------------------------------------------------------


def test_a_log_of_format_1_is_read(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "log")
    log = opened(tmp_path / "log")
    assert (log.first, log.last, log.term_and_vote) == (1, 12, (2, "b"))
    assert all_of(log) == [*(entry(n) for n in range(1, 10)), *(entry(n, 2) for n in range(10, 13))]
    log.close()


def test_a_log_of_the_future_is_refused_and_left_alone(tmp_path: Path) -> None:
    _three(tmp_path)
    path = newest_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(segment.MAGIC)] = segment.FORMAT + 1
    path.write_bytes(data)
    with pytest.raises(FormatRefused, match=r"format 2.*upgrade"):
        opened(tmp_path)
    assert path.read_bytes() == data


def make_fixture() -> None:
    """How the fixture of format 1 was made."""
    log = open_log(FIXTURE, ME, options=SMALL)
    wrote(log, *(entry(n) for n in range(1, 12)), vote="a")
    wrote(log, *(entry(n, 2) for n in range(10, 13)), vote="b")
    log.close()

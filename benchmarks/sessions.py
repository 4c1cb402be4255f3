"""What very many sessions cost: `python -m benchmarks.sessions --store sqlite --count 1000000`.

Fills two stores of the same kind, one with 1,000 sessions of one owner and one with `--count` (or with as many as
`--fill-seconds` allow), and measures each call at both in turns: the ratio says what the number of sessions costs. Then
nine of ten sessions are let expire, the newest, then the purger is let loose on them, then EraseOwner on what is left.
The service is a real process, called over gRPC. `--keep FOLDER` leaves SQLite's files there once they are filled, and
takes copies of those that are there already.
"""

import argparse
import contextlib
import itertools
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from chatsession.v1 import chat_session_pb2 as pb

from benchmarks import filling, measure, preload, report
from benchmarks.measure import Sample
from benchmarks.session_calls import CALLS, EXPIRED_CALLS, WHILE_REMOVING, Call, Side
from service.domain.entities import utc_now
from tests.support.mongo import database_name, start_mongo

_SMALL = 1000
_WALKED_PAGES = 200
_WATCHED_S = 20.0
_READ_EVERY_S = 0.05
_MONGO_HEAP = "6g"
_EXPIRED = 0.9
_GRACE = timedelta(days=7)
_SOON = {"PURGE_INTERVAL_SECONDS": "1"}
_FAST = {**_SOON, "PURGE_RATE": "100000"}


def calls_table(small: Side, large: Side, calls: dict[str, Call], rounds: int, each: int) -> None:
    """Measure calls at both sides in turns; each row of the table is printed as it comes."""
    head = [
        f"| call | CPU, ms: {small.count:,} | {large.count:,} | ratio | p50, ms | p99, ms |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(head), flush=True)
    for name, call in calls.items():
        for side in (small, large):
            call(side)
        samples: dict[Side, list[Sample]] = {small: [], large: []}
        for number in range(rounds):
            for side in (small, large) if number % 2 else (large, small):
                samples[side].append(_sample(side, call, each))
        cpu = {side: measure.median(sample.cpu_ms for sample in of) for side, of in samples.items()}
        pairs = ([sample.cpu_ms for sample in samples[side]] for side in (large, small))
        p50, p99 = (
            [measure.percentile([ms for s in samples[side] for ms in s.latencies_ms], share) for side in (small, large)]
            for share in (0.5, 0.99)
        )
        row = (
            f"| {name} | {cpu[small]:.2f} | {cpu[large]:.2f} | {measure.paired_ratio(*pairs):.2f} |"
            f" {p50[0]:.1f} → {p50[1]:.1f} | {p99[0]:.1f} → {p99[1]:.1f} |"
        )
        print(row, flush=True)


def _sample(side: Side, call: Call, each: int) -> Sample:
    latencies = []
    cpu, started = side.cpu_s(), time.perf_counter()
    for _ in range(each):
        before = time.perf_counter()
        call(side)
        latencies.append((time.perf_counter() - before) * 1000)
    wall_s = time.perf_counter() - started
    # Without what it does anyway, which counts where the database is slow.
    return Sample(each, wall_s, side.cpu_s() - cpu - side.idle_share * wall_s, latencies)


def walk(large: Side) -> str:
    """Follow page tokens one by one."""
    costs: list[float] = []
    listed = 0
    cpu = large.cpu_s()
    for page in itertools.islice(large.pages(page_size=1000), _WALKED_PAGES):
        listed += len(page.sessions)
        costs.append((large.cpu_s() - cpu) * 1000)
        cpu = large.cpu_s()
    tenth = max(1, len(costs) // 10)
    first, last = measure.median(costs[:tenth]), measure.median(costs[-tenth - 1 : -1] or costs)
    return (
        f"{listed:,} sessions in {len(costs):,} pages of 1,000, one after the other:"
        f" {first:.1f} ms CPU a page in the first tenth, {last:.1f} in the last ({last / first:.2f}x)."
    )


def first_after_expired(large: Side) -> str:
    """Follow page tokens to the first session that is there."""
    cpu = large.cpu_s()
    pages = enumerate(large.pages(order_by="create_time desc"), 1)
    at = next(number for number, page in pages if page.sessions)
    return (
        f"By `create_time desc` the first session that is there is on page {at}: {large.cpu_s() - cpu:.2f} s CPU"
        " until then."
    )


@dataclass
class Removal:
    """What a while of removing sessions came to."""

    name: str
    sessions: int
    wall_s: float
    cpu_s: float
    reads_ms: Sequence[float]

    def row(self) -> str:
        """Write it for a table; the CPU has the reads in it."""
        each = self.cpu_s * 1000 / self.sessions if self.sessions else float("nan")
        p50, p99 = (measure.percentile(self.reads_ms, share) for share in (0.5, 0.99))
        return (
            f"| {self.name} | {self.sessions / self.wall_s:.0f} | {each:.2f} | {self.cpu_s / self.wall_s:.0%} |"
            f" {p50:.1f} | {p99:.1f} |"
        )


REMOVALS_HEAD = [
    "| what | sessions a second | CPU of each, ms | of a core | page meanwhile, p50, ms | p99, ms |",
    "|---|---|---|---|---|---|",
]


def watch(name: str, side: Side, *, enough: int = 0) -> Removal:
    """Watch sessions go, until so many are left, or for a while; a page is read again and again meanwhile."""
    reads_ms: list[float] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.wait(_READ_EVERY_S):
            before = time.perf_counter()
            CALLS[WHILE_REMOVING](side)
            reads_ms.append((time.perf_counter() - before) * 1000)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        before, cpu, started = side.place.sessions_left(), side.cpu_s(), time.monotonic()
        left = before
        while left > enough and time.monotonic() - started < _WATCHED_S:
            time.sleep(0.2)
            left = side.place.sessions_left()
        return Removal(name, before - left, time.monotonic() - started, side.cpu_s() - cpu, reads_ms)
    finally:
        is_over.set()
        reader.join()


def removals(small: Side, large: Side) -> None:
    """Let the purger and EraseOwner work."""
    print("\n".join(REMOVALS_HEAD), flush=True)
    long_ago = _GRACE + timedelta(days=1)

    def note(removal: Removal) -> None:
        print(removal.row(), flush=True)

    large.start(PURGE_INTERVAL_SECONDS="86400")
    note(watch(f"nothing, {large.count:,}", large))
    for side in (small, large):
        side.expire(_EXPIRED, long_ago, _GRACE)
    large.start(settles=False, **_SOON)
    note(watch(f"purger, PURGE_RATE=100, {large.count:,}", large))
    for side in (small, large):
        side.start(settles=False, **_FAST)
        note(watch(f"purger, as fast as it can, {side.count:,}", side, enough=side.count - int(side.count * _EXPIRED)))
    for side in (small, large):
        # No purger besides: what is due waits for a day.
        side.start(PURGE_INTERVAL_SECONDS="86400", PURGE_RATE=_FAST["PURGE_RATE"])
        started = time.monotonic()
        erasure = side.call("EraseOwner", pb.EraseOwnerRequest())
        took_ms = (time.monotonic() - started) * 1000
        note(watch(f"`EraseOwner`, as fast as it can, of {erasure.sessions_total:,} (begun in {took_ms:.0f} ms)", side))


@contextlib.contextmanager
def filled(options: argparse.Namespace, folder: Path) -> Iterator[tuple[Side, Side]]:
    """Two filled stores."""
    with contextlib.ExitStack() as opened:
        counts = {"small": _SMALL, "large": options.count}
        places: dict[str, filling.Place] = {}
        if options.store == "mongo":
            uri = opened.enter_context(start_mongo(heap=_MONGO_HEAP)).uri
            for name in counts:
                database = preload.connect(uri, database_name())
                opened.callback(database.client.close)
                opened.callback(database.client.drop_database, database.name)
                places[name] = filling.MongoPlace(uri, database)
        else:
            places = {name: filling.SqlitePlace(folder / f"{name}.db") for name in counts}
        sides = []
        for name, count in counts.items():
            sides.append(_side(options, places[name], f"{name}-{count}.db", count, folder))
            opened.callback(sides[-1].stop)
        yield sides[0], sides[1]


def _side(options: argparse.Namespace, place: filling.Place, kept_as: str, count: int, folder: Path) -> Side:
    kept = options.keep and options.keep / kept_as
    if isinstance(place, filling.SqlitePlace) and kept and kept.exists():
        shutil.copy(kept, place.path)
        return Side(place, folder)
    started = time.monotonic()
    count = place.fill(filling.made(count, utc_now()), started + options.fill_seconds)
    print(f"{count:,} sessions filled in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if isinstance(place, filling.SqlitePlace) and kept:
        shutil.copy(place.path, kept)
    return Side(place, folder)


def main() -> int:
    """Print the tables; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=["sqlite", "mongo"], default="sqlite")
    parser.add_argument("--count", type=int, default=1_000_000, help="sessions in the large store")
    parser.add_argument("--fill-seconds", type=float, default=3600.0, help="fill for so long at most")
    parser.add_argument("--keep", type=Path, help="folder that keeps SQLite's files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=12, help="of each kind in a round")
    parser.add_argument("--only", action="append", default=[], help="calls with this in their name, and nothing else")
    options = parser.parse_args()
    about = report.machine()
    print(f"{about['cores']} cores of {about['cpu']}, Python {about['python']}, {options.store}")
    with tempfile.TemporaryDirectory(prefix="bench-") as name, filled(options, Path(name)) as (small, large):
        for side in (small, large):
            side.start(PURGE_INTERVAL_SECONDS="86400")
        chosen = {name: call for name, call in CALLS.items() if all(part in name for part in options.only)}
        calls_table(small, large, chosen, options.rounds, options.calls)
        if options.only:
            return 0
        print(walk(large), flush=True)
        for side in (small, large):
            side.expire(_EXPIRED, timedelta(hours=1), _GRACE)
            side.start(PURGE_INTERVAL_SECONDS="86400")
        print("Nine of ten have expired, the newest:")
        calls_table(small, large, {name: CALLS[name] for name in EXPIRED_CALLS}, options.rounds, options.calls)
        print(first_after_expired(large), flush=True)
        removals(small, large)
    return 0


if __name__ == "__main__":
    sys.exit(main())

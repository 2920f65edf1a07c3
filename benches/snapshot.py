#!/usr/bin/env python3
"""Measures how fast training reads and a snapshot is stored and loaded, and the memory that serving it takes.

    cargo build --release && benches/snapshot.py [--scale 1] [--rounds 5]

Needs PostgreSQL's programs (psql among them). Imports ratings of `likemind synth` into a private database: 19.9 M of
138,493 users and 26,744 items at --scale 1. Each round compares with PostgreSQL's own COPY of the same data:

- reading for training (`train`, until it logs that it has read everything), with `\\copy` of the ratings to /dev/null as
  text;
- encoding and storing the snapshot (`train`), with COPY of its chunks from a binary file into a table like theirs;
- loading, decoding and checking it (`serve`, until it serves), with COPY of its chunks to /dev/null in binary. There are
  three times as many of these rounds, after all others.

Then compares the memory of `serve` with the arrays of the decoded snapshot: while it serves one, at the peak while it loads
the first, and while it swaps, with `live.keep_previous` 0 and 1.
"""

import argparse
import os
import statistics
import subprocess
import time

from support import (
    LOADED_IN_MS, Process, header, import_synthetic, in_database, likemind, postgres, ratios, row, spread, sql, timed,
)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--read-only", action="store_true", help="measure reading only, and end training once it has read")
    parser.add_argument("--program", default="target/release/likemind")
    return parser.parse_args()


def start(program, url, *args):
    """Starts a command of `program` whose log can be waited for."""
    return Process([program, *args, in_database(url), "--set-config=rating.min=0.5", "--set-config=telemetry.metrics=false"],
                   stdout=subprocess.DEVNULL)


def train(program, url):
    return start(program, url, "train", "--force", "measured")


def serve(program, url, *flags):
    return start(program, url, "serve", "--listen", "127.0.0.1:0", *flags)


def milliseconds(process, pattern):
    found = process.until(pattern)
    if not found:
        raise SystemExit(f"the program ended before it logged {pattern}")
    return int(found.group(1))


def integers(url, query):
    return [int(number) for line in sql(url, query) for number in line.split("|")]


def decoded_mb(url):
    """Returns the size of the active snapshot's arrays in memory: see `SnapshotParts` and `Snapshot`."""
    users, items, ratings, user_bytes, item_bytes = integers(url, """
        SELECT user_count, item_count, rating_count, (SELECT sum(length(external_id)) FROM users),
               (SELECT sum(length(external_id)) FROM items)
        FROM snapshots WHERE state = 'active'""")
    neighbors = 50
    # Two bytes a rank, one a rating, one bit for purchases.
    matrix = 3 * ratings + ratings / 8 + 8 * users
    lists = (8 * neighbors + 8) * (users + items)
    # Two bytes a rank.
    reverse_neighbors = (6 * neighbors + 8) * items
    texts = user_bytes + item_bytes + 8 * users + 8 * 2 * items
    # The hash tables of the ids have a power of two of slots, at least twice as many as ids.
    slots = 4 * sum(1 << (2 * n - 1).bit_length() for n in (users, items))
    per_user = 4 + 4 + 8 + 8 + 3 * 4 + 1
    per_item = 4 + 3 * 4 + 8 + 3 * 4
    return (matrix + lists + reverse_neighbors + texts + slots + per_user * users + per_item * items) / 2**20


class Comparison:
    """Rates of COPY and of Likemind, measured in turns."""

    def __init__(self, name, unit):
        self.name, self.unit = name, unit
        self.copy, self.own = [], []

    def add(self, copy, own):
        self.copy.append(copy)
        self.own.append(own)
        print(f"# {self.name}: {copy:.2f} and {own:.2f} {self.unit}", flush=True)

    def report(self):
        if self.own:
            row(self.name, f"{statistics.median(self.copy):,.1f} {self.unit}",
                f"{statistics.median(self.own):,.1f} {self.unit}", spread(ratios(self.own, self.copy)))


def compare_with_copy(options, program, url, folder):
    reading = Comparison("reading for training", "M rows/s")
    storing = Comparison("encoding and storing", "MB/s")
    loading = Comparison("loading and decoding", "MB/s")
    (n_ratings,) = integers(url, "SELECT count(*) FROM ratings")
    chunks = "SELECT c.* FROM snapshot_chunks c JOIN snapshots USING (version) WHERE state = 'active'"
    for _ in range(options.rounds):
        copied, _ = timed(sql, url, "\\copy (SELECT user_id, item_id, value, rated_at FROM ratings) TO /dev/null")
        training = train(program, url)
        read_ms = milliseconds(training, r"reading took.*took_ms=(\d+)")
        reading.add(n_ratings / copied / 1e6, n_ratings / read_ms / 1e3)
        if options.read_only:
            training.end()
            continue
        stored_ms = milliseconds(training, r"writing took.*took_ms=(\d+)")
        training.process.communicate()
        (size,) = integers(url, "SELECT size_bytes FROM snapshots WHERE state = 'active'")
        file = os.path.join(folder, "chunks")
        sql(url, f"\\copy ({chunks}) TO '{file}' (FORMAT binary)")
        sql(url, "DROP TABLE IF EXISTS chunks; CREATE TABLE chunks (LIKE snapshot_chunks INCLUDING ALL); CHECKPOINT")
        copied, _ = timed(sql, url, f"\\copy chunks FROM '{file}' (FORMAT binary)")
        storing.add(size / copied / 1e6, size / stored_ms / 1e3)
    if not options.read_only:
        # The database has nothing left to write. A load is short, so it is measured more often.
        for command in ("DROP TABLE chunks", "VACUUM ANALYZE", "CHECKPOINT"):
            sql(url, command)
        for _ in range(3 * options.rounds):
            copied, _ = timed(sql, url, f"\\copy ({chunks}) TO /dev/null (FORMAT binary)")
            with serve(program, url) as server:
                loading.add(size / copied / 1e6, size / milliseconds(server, LOADED_IN_MS) / 1e3)
        storing.name += f" {size / 2**20:.0f} MB"
    print(f"{n_ratings:,} ratings, {options.rounds} rounds, three times as many of loading\n")
    header("", "COPY", "Likemind", "ratio")
    for comparison in (reading, storing, loading):
        comparison.report()


def measure_memory(program, url):
    decoded = decoded_mb(url)
    active, previous = integers(url, "SELECT version FROM snapshots WHERE state IN ('active', 'retired') "
                                     "ORDER BY version DESC LIMIT 2")
    print(f"\nThe decoded snapshot has {decoded:.0f} MB.\n")
    header("keep_previous", "serving", "peak while it loads", "after 4 swaps", "peak during them")
    for keep in (0, 1):
        with serve(program, url, f"--set-config=live.keep_previous={keep}") as server:
            milliseconds(server, LOADED_IN_MS)
            loading = server.memory_mb("VmHWM")
            time.sleep(2)
            serving = server.memory_mb()
            for version in (previous, active) * 2:
                likemind(program, in_database(url), "snapshots", "activate", str(version))
                milliseconds(server, LOADED_IN_MS)
            time.sleep(2)
            after, peak = server.memory_mb(), server.memory_mb("VmHWM")
        row(keep, *(f"{mb:.0f} MB, {mb / decoded:.2f}" for mb in (serving, loading, after, peak)))


def main():
    options = arguments()
    program = os.path.abspath(options.program)
    with postgres() as (folder, url):
        likemind(program, in_database(url), "migrate")
        import_synthetic(program, in_database(url), scale=options.scale)
        sql(url, "VACUUM ANALYZE")
        compare_with_copy(options, program, url, folder)
        if not options.read_only:
            if options.rounds == 1:
                # Swapping takes two snapshots.
                train(program, url).process.communicate()
            measure_memory(program, url)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How fast training reads, a snapshot's bytes are stored and loaded, and what memory serving it takes.

    cargo build --release && benches/snapshot.py [--scale 1] [--rounds 5]

Needs PostgreSQL's programs (psql among them). In a private database of its own: the ratings of `likemind synth`, 19.9 M of
138,493 users and 26,744 items at --scale 1. Round by round, each against PostgreSQL's own COPY of the same:

- reading for training (`train`, until it says how many ratings it has) against `\\copy` of the ratings to /dev/null as text;
- encoding and storing the snapshot (`train`) against COPY of its chunks from a file in binary into a table like theirs;
- loading, decoding and checking it (`serve`, until it serves) against COPY of its chunks to /dev/null in binary; these three
  times as often, when all else is done.

Then the memory of `serve` against the arrays of the decoded snapshot: serving one, at the most while it loads the first,
and while it swaps, with `live.keep_previous` 0 and 1.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time

from targets import postgres, sql

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--read-only", action="store_true", help="only reading: training is ended once it has read")
    parser.add_argument("--program", default="target/release/likemind")
    return parser.parse_args()


def numbers(url, query):
    answer = subprocess.run(["psql", url, "-AtqF", " ", "-c", query], check=True, capture_output=True, text=True).stdout
    return [int(number) for number in answer.split()]


def timed(action, *args):
    started = time.monotonic()
    action(*args)
    return time.monotonic() - started


class Process:
    """A command, and what it says on stderr."""

    def __init__(self, options, url, *args):
        command = [options.program, *args, f"--set-config=database.url={url}", "--set-config=rating.min=0.5",
                   "--set-config=telemetry.metrics=false"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def until(self, pattern):
        """The number that `pattern` finds; None when the command ends without."""
        for line in self.process.stderr:
            found = re.search(pattern, ANSI.sub("", line))
            if found:
                return int(found.group(1))
        return None

    def memory_mb(self, field):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()


def fill(options, url):
    synth = subprocess.Popen([options.program, "synth", f"--scale={options.scale}"], stdout=subprocess.PIPE)
    subprocess.run([options.program, "import", "ratings", "-", "--map", "value=rating,rated_at=timestamp",
                    "--time-format", "unix", f"--set-config=database.url={url}", "--set-config=rating.min=0.5"],
                   stdin=synth.stdout, check=True, stderr=subprocess.DEVNULL)
    sql(url, "VACUUM ANALYZE")


def decoded_mb(url):
    """The arrays of the active snapshot in memory: see `SnapshotParts` and `Snapshot`."""
    users, items, ratings, user_bytes, item_bytes = numbers(url, """
        SELECT user_count, item_count, rating_count, (SELECT sum(length(external_id)) FROM users),
               (SELECT sum(length(external_id)) FROM items)
        FROM snapshots WHERE state = 'active'""")
    neighbors = 50
    # Two bytes a rank, one a rating, one bit for purchases.
    matrix = 3 * ratings + ratings / 8 + 8 * users
    lists = (8 * neighbors + 8) * (users + items)
    # Two bytes a rank.
    followers = (6 * neighbors + 8) * items
    texts = user_bytes + item_bytes + 8 * users + 8 * 2 * items
    # Of the hashes of ids: a power of two, at least twice as many.
    slots = 4 * sum(1 << (2 * n - 1).bit_length() for n in (users, items))
    a_user = 4 + 4 + 8 + 8 + 3 * 4 + 1
    an_item = 4 + 3 * 4 + 8 + 3 * 4
    return (matrix + lists + followers + texts + slots + a_user * users + an_item * items) / 2**20


def report(what, unit, pairs):
    ratios = sorted(own / reference for reference, own in pairs)
    print(f"| {what} | {statistics.median(pair[0] for pair in pairs):,.1f} {unit} | "
          f"{statistics.median(pair[1] for pair in pairs):,.1f} {unit} | {statistics.median(ratios):.2f} "
          f"({ratios[0]:.2f} to {ratios[-1]:.2f}) |", flush=True)


def note(what, pair):
    print(f"# {what}: {pair[0]:.2f} and {pair[1]:.2f}", flush=True)


def copies(options, url, folder):
    n_ratings = numbers(url, "SELECT count(*) FROM ratings")[0]
    reading, writing, loading = [], [], []
    for _ in range(options.rounds):
        select = "SELECT user_id, item_id, value, rated_at FROM ratings"
        reference = timed(sql, url, f"\\copy ({select}) TO /dev/null")
        train = Process(options, url, "train", "--force", "measured")
        read_ms = train.until(r"reading took.*took_ms=(\d+)")
        reading.append((n_ratings / reference / 1e6, n_ratings / read_ms / 1e3))
        note("M rows/s read", reading[-1])
        if options.read_only:
            train.end()
            continue
        stored_ms = train.until(r"writing took.*took_ms=(\d+)")
        train.process.communicate()

        size, = numbers(url, "SELECT size_bytes FROM snapshots WHERE state = 'active'")
        chunks = "SELECT c.* FROM snapshot_chunks c JOIN snapshots USING (version) WHERE state = 'active'"
        file = os.path.join(folder, "chunks")
        sql(url, f"\\copy ({chunks}) TO '{file}' (FORMAT binary)")
        sql(url, "DROP TABLE IF EXISTS chunks; CREATE TABLE chunks (LIKE snapshot_chunks INCLUDING ALL); CHECKPOINT")
        reference = timed(sql, url, f"\\copy chunks FROM '{file}' (FORMAT binary)")
        writing.append((size / reference / 1e6, size / stored_ms / 1e3))
        note("MB/s stored", writing[-1])

    if not options.read_only:
        # Nothing is left to be written down, and more often, for it takes but a moment.
        for command in ("DROP TABLE chunks", "VACUUM ANALYZE", "CHECKPOINT"):
            sql(url, command)
        for _ in range(3 * options.rounds):
            reference = timed(sql, url, f"\\copy ({chunks}) TO /dev/null (FORMAT binary)")
            serve = Process(options, url, "serve", "--listen", "127.0.0.1:0")
            loading.append((size / reference / 1e6, size / serve.until(r"serving snapshot.*took_ms=(\d+)") / 1e3))
            note("MB/s loaded", loading[-1])
            serve.end()
    print(f"{n_ratings:,} ratings, {options.rounds} rounds, of loading three times as many\n\n"
          "| | COPY | Likemind | ratio |\n|---|---|---|---|")
    report("reading for training", "M rows/s", reading)
    if writing:
        report(f"encoding and storing {size / 2**20:.0f} MB", "MB/s", writing)
        report("loading and decoding", "MB/s", loading)


def memory(options, url):
    decoded = decoded_mb(url)
    previous, active = numbers(url, "SELECT version FROM snapshots WHERE state IN ('active', 'retired') "
                                    "ORDER BY version DESC LIMIT 2")[::-1]
    print(f"\nThe decoded snapshot has {decoded:.0f} MB.\n\n| keep_previous | serving | at the most while it loads | "
          "after 4 swaps | at the most during them |\n|---|---|---|---|---|")
    for keep in (0, 1):
        serve = Process(options, url, "serve", "--listen", "127.0.0.1:0", f"--set-config=live.keep_previous={keep}")
        serve.until(r"serving snapshot.*took_ms=(\d+)")
        loading = serve.memory_mb("VmHWM")
        time.sleep(2)
        serving = serve.memory_mb("VmRSS")
        for version in (previous, active) * 2:
            subprocess.run([options.program, "snapshots", "activate", str(version), f"--set-config=database.url={url}"],
                           check=True, capture_output=True)
            serve.until(r"serving snapshot.*took_ms=(\d+)")
        time.sleep(2)
        after, most = serve.memory_mb("VmRSS"), serve.memory_mb("VmHWM")
        serve.end()
        cells = " | ".join(f"{mb:.0f} MB, {mb / decoded:.2f}" for mb in (serving, loading, after, most))
        print(f"| {keep} | {cells} |", flush=True)


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        os.chmod(folder, 0o777)
        database = os.path.join(folder, "postgres")
        os.mkdir(database)
        with postgres(database) as url:
            subprocess.run([options.program, "migrate", f"--set-config=database.url={url}"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            fill(options, url)
            copies(options, url, folder)
            if not options.read_only:
                if options.rounds == 1:
                    # Two are swapped.
                    Process(options, url, "train", "--force", "measured").process.communicate()
                memory(options, url)


if __name__ == "__main__":
    main()

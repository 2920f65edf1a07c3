#!/usr/bin/env python3
"""Measures the p99 of PredictRatings while one snapshot after the other is loaded and swapped, against the p99 without.

    cargo build --release --bins --benches && benches/swaps.py

Runs on the sample. Needs PostgreSQL's programs and two cores: the server has one, its client (benches/load.rs) the other,
which it uses all the time. In production the database runs elsewhere; here it and what switches versions get what the
server leaves of its core.
"""

import argparse
import itertools
import os
import statistics
import threading
import time

from support import (
    PREDICT_RATINGS, SERVER_CORE, SETTINGS, Client, Database, Messages, Server, in_folder, likemind, newest_bench, ratios,
    sample, spread,
)

SECONDS_BETWEEN_SWAPS = 0.1


class Swapper(threading.Thread):
    """Activates `versions` in turn until it is stopped, and notes the seconds that each swap took."""

    def __init__(self, server, database, versions, took):
        super().__init__()
        self.server, self.database, self.versions, self.took = server, database, versions, took
        self.stopped = threading.Event()

    def run(self):
        # This thread and the programs that it starts run on the server's core, in idle time.
        os.sched_setaffinity(0, {int(SERVER_CORE)})
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        while not self.stopped.wait(SECONDS_BETWEEN_SWAPS):
            version = next(self.versions)
            self.database.sql(f"UPDATE snapshots SET state = 'retired' WHERE state = 'active';"
                              f"UPDATE snapshots SET state = 'active' WHERE version = {version}")
            began = time.monotonic()
            self.server.until(rf"serving snapshot {version}\b")
            self.took.append(time.monotonic() - began)

    def stop(self):
        self.stopped.set()
        self.join()


def measure_round(client, server, database, messages, key, rate, versions, took, n_swaps):
    """Returns the p99 in µs without swaps, and the median of the p99s while `n_swaps` take place."""
    load = ("--rate", rate, "--seconds", 2)
    without = client.load(server, PREDICT_RATINGS, messages, *load, key=key)["p99_us"]
    before, runs = len(took), []
    swapper = Swapper(server, database, versions, took)
    swapper.start()
    while len(took) - before < n_swaps:
        runs.append(client.load(server, PREDICT_RATINGS, messages, *load, key=key)["p99_us"])
    swapper.stop()
    return without, statistics.median(runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default="target/release", help="where likemind and the benches were built")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--swaps", type=int, default=100, help="in all rounds together, at least")
    args = parser.parse_args()
    program = os.path.abspath(os.path.join(args.programs, "likemind"))
    client = Client(newest_bench(args.programs, "load"))
    settings = [*SETTINGS, "live.refresh_interval_ms=20", "live.keep_previous=0"]
    with sample(program) as (folder, data_dir, key):
        likemind(program, in_folder(data_dir), "train", "--force", "to measure with", "--set-config=rating.min=0.5")
        with Server(program, in_folder(data_dir), *settings, under=["taskset", "-c", SERVER_CORE]) as server:
            server.until_loaded()
            database = Database(data_dir)
            database.run_on_idle_time()
            predict = Messages(folder, database).predict()
            versions = itertools.cycle(database.sql(
                "SELECT version FROM snapshots WHERE state IN ('active', 'retired') ORDER BY version")[-2:])
            client.load(server, PREDICT_RATINGS, predict, "--seconds", 1, key=key)
            rate = client.load(server, PREDICT_RATINGS, predict, "--seconds", 2, key=key)["per_second"] / 2
            took = []
            rounds = [measure_round(client, server, database, predict, key, rate, versions, took, args.swaps / args.rounds)
                      for _ in range(args.rounds)]
    without, during = zip(*rounds)
    print(f"PredictRatings, {rate:,.0f}/s, {len(took)} swaps of {statistics.median(took) * 1e3:.0f} ms: p99 "
          f"{statistics.median(without):,.0f} µs without, {statistics.median(during):,.0f} µs with them, "
          f"ratio {spread(ratios(during, without))}")


if __name__ == "__main__":
    main()

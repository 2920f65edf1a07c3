#!/usr/bin/env python3
"""Measures how the cost of a call and the memory of a server grow with catalog, users and length of histories.

    cargo build --release --bins --benches && benches/growth.py --folder /var/tmp/growth

Takes ratings of `likemind synth` in folders below --folder, which are made unless they exist: at each of --scales, so many
times the 138,493 users, 26,744 items and 19.9 M ratings. Histories and neighbor lists have the same length in all of them.
No answer comes from the cache; 16 streams send the calls. A cost is CPU time of the server's threads, measured in rounds
that send every kind of call once: other programs may slow it down, but their own time is not counted.
"""

import argparse
import os
import statistics
import tempfile

from support import (
    COMPUTED, PREDICT_RATINGS, RECOMMEND, SERVER_CORE, SETTINGS, Client, CpuTimeMeter, Database, Messages, Server, header,
    in_folder, newest_bench, row, synthetic,
)

# Users are grouped by the number of their ratings.
HISTORIES = [(20, 25), (60, 75), (200, 250), (600, 750), (2_000, 2_500)]
USERS_BY_HISTORY = """
SELECT external_id FROM users JOIN (SELECT user_id, count(*) AS n FROM ratings GROUP BY user_id) AS counts
ON user_id = id WHERE n BETWEEN {} AND {} ORDER BY external_id
"""


def call_costs(client, server, files, rounds, calls):
    """Returns the median CPU time of a call in µs for each of `files`, pairs of a method and its messages."""
    meter = CpuTimeMeter(server)
    taken = [[] for _ in files]
    for method, messages in files:
        client.load(server, method, messages, "--calls", calls, "--streams", 16)
    for _ in range(rounds):
        for (method, messages), costs in zip(files, taken):
            meter.take()
            client.load(server, method, messages, "--calls", calls, "--streams", 16)
            costs.append(meter.take() / calls * 1e6)
    return [statistics.median(costs) for costs in taken]


def measure_histories(client, server, database, folder, args):
    print()
    header("ratings of the user", "PredictRatings, µs", "Recommend, µs")
    for least, most in HISTORIES:
        users = database.sql(USERS_BY_HISTORY.format(least, most))
        if not users:
            # A small set has no users with long histories.
            continue
        with tempfile.TemporaryDirectory(dir=folder) as messages_folder:
            messages = Messages(messages_folder, database)
            # These users are drawn evenly.
            messages.users, messages.user_weights = users, range(1, len(users) + 1)
            files = [(PREDICT_RATINGS, messages.predict(5_000)), (RECOMMEND, messages.recommend(5_000))]
            predict, recommend = call_costs(client, server, files, args.rounds, args.calls)
        row(f"{least:,} to {most:,}", f"{predict:.1f}", f"{recommend:.1f}")


def measure_scale(client, server, database, folder, memory_mb, args):
    messages = Messages(folder, database)
    files = [(PREDICT_RATINGS, messages.predict()), (RECOMMEND, messages.recommend(20_000))]
    predict, recommend = call_costs(client, server, files, args.rounds, args.calls)
    items, ratings = (int(database.sql(f"SELECT count(*) FROM {table}")[0]) for table in ("items", "ratings"))
    row(f"{len(messages.users):,}", f"{items:,}", f"{ratings:,}", f"{predict:.1f}", f"{recommend:.1f}", f"{memory_mb:.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default="target/release", help="where likemind and the benches were built")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.125, 0.25, 0.5, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10_000)
    args = parser.parse_args()
    program = os.path.abspath(os.path.join(args.programs, "likemind"))
    client = Client(newest_bench(args.programs, "load"))
    os.makedirs(args.folder, exist_ok=True)
    os.chmod(args.folder, 0o755)

    header("users", "items", "ratings", "PredictRatings, µs", "Recommend, µs", "memory, MB")
    for scale in args.scales:
        data_dir = os.path.join(args.folder, f"{scale:g}")
        with synthetic(program, "movielens-20m", data_dir, scale) as (folder, _, _), \
                Server(program, in_folder(data_dir), *SETTINGS, *COMPUTED, under=["taskset", "-c", SERVER_CORE]) as server:
            memory_mb = server.memory_mb()
            database = Database(data_dir)
            measure_scale(client, server, database, folder, memory_mb, args)
            if scale == args.scales[-1]:
                measure_histories(client, server, database, folder, args)


if __name__ == "__main__":
    main()

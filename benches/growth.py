#!/usr/bin/env python3
"""How what a call costs, and what memory a server takes, grow with the catalog, the users and the length of histories.

    cargo build --release --bins --benches && benches/growth.py --folder /var/tmp/growth

On ratings of `likemind synth` in folders below --folder, which are made unless they are there: at each of --scales, so many
times the 138,493 users, 26,744 items and 19.9 M ratings; histories and neighbor lists are as long in all of them. Computed
answers only, calls by 16 streams. A cost is CPU time of the server's threads, in rounds that ask everything once: it counts
what is done, not what others at work leave of a core, though they slow it down.
"""

import argparse
import os
import re
import statistics
import tempfile

from access import CpuTime
from serving import COMPUTED, SERVER_CORE, SETTINGS, Client, Messages, newest, synthetic
from server import PREDICT_RATINGS, RECOMMEND, Database, Server

# Users by how many ratings they have.
HISTORIES = [(20, 25), (60, 75), (200, 250), (600, 750), (2_000, 2_500)]
BY_HISTORY = """
SELECT external_id FROM users JOIN (SELECT user_id, count(*) AS n FROM ratings GROUP BY user_id) AS counts
ON user_id = id WHERE n BETWEEN {} AND {} ORDER BY external_id
"""


def memory_mb(server):
    with open(f"/proc/{server.process.pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024


def costs(client, server, files, rounds, calls):
    """Median CPU time of a call in µs, one for each of `files`, a method and its messages."""
    meter = CpuTime(server)
    taken = [[] for _ in files]
    for method, messages in files:
        client.load(server, method, messages, "--calls", calls, "--streams", 16)
    for _ in range(rounds):
        for (method, messages), costs_of_it in zip(files, taken):
            meter.take()
            client.load(server, method, messages, "--calls", calls, "--streams", 16)
            costs_of_it.append(meter.take() / calls * 1e6)
    return [statistics.median(costs_of_it) for costs_of_it in taken]


def messages_of(folder, database, users):
    """Of both kinds of calls, `users` drawn evenly."""
    messages = Messages(folder, database)
    messages.users, messages.user_weights = users, range(1, len(users) + 1)
    return messages.predict(5_000), messages.recommend(5_000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default="target/release", help="where likemind and the benches were built")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.125, 0.25, 0.5, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10_000)
    args = parser.parse_args()
    program = os.path.abspath(os.path.join(args.programs, "likemind"))
    client = Client(newest(args.programs, "load"))
    os.makedirs(args.folder, exist_ok=True)
    os.chmod(args.folder, 0o755)

    print("| users | items | ratings | PredictRatings, µs | Recommend, µs | memory, MB |\n"
          "|---|---|---|---|---|---|")
    for scale in args.scales:
        data_dir = os.path.join(args.folder, f"{scale:g}")
        with synthetic(program, "movielens-20m", data_dir, scale) as (folder, _, _), \
                Server(program, data_dir, *SETTINGS, *COMPUTED, under=["taskset", "-c", SERVER_CORE]) as server:
            serving_mb = memory_mb(server)
            database = Database(data_dir)
            messages = Messages(folder, database)
            files = [(PREDICT_RATINGS, messages.predict()), (RECOMMEND, messages.recommend(20_000))]
            predict, recommend = costs(client, server, files, args.rounds, args.calls)
            items, ratings = (int(database.sql(f"SELECT count(*) FROM {table}")[0]) for table in ("items", "ratings"))
            print(f"| {len(messages.users):,} | {items:,} | {ratings:,} | {predict:.1f} | {recommend:.1f} | "
                  f"{serving_mb:.0f} |", flush=True)
            if scale != args.scales[-1]:
                continue
            print("\n| ratings of the user | PredictRatings, µs | Recommend, µs |\n|---|---|---|")
            for least, most in HISTORIES:
                users = database.sql(BY_HISTORY.format(least, most))
                if not users:
                    # As in a small set.
                    continue
                with tempfile.TemporaryDirectory(dir=folder) as of_these:
                    files = zip((PREDICT_RATINGS, RECOMMEND), messages_of(of_these, database, users))
                    predict, recommend = costs(client, server, list(files), args.rounds, args.calls)
                print(f"| {least:,} to {most:,} | {predict:.1f} | {recommend:.1f} |", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What PredictRatings, Recommend and CheckEligibility cost, against the least that such a call costs, and what swaps do.

    cargo build --release --bins --benches && benches/serving.py

Needs PostgreSQL's programs (pgbench among them), two cores, for `--only instructions` valgrind, for `--only h2load` h2load.
The least is benches/baseline.rs: the same threads, request and response types, and constant values. Server and baseline
have one core, their client (benches/load.rs) the other. Users are drawn by Zipf's law (exponent 1) over a seeded shuffle,
items as often as they are rated. In rounds, each of which asks the baseline and then everything else; ratios are those
within a round.

By default on the sample, in a folder of its own. With --synth on ratings that `likemind synth` makes:

    benches/serving.py --synth movielens-20m --folder /var/tmp/movielens-20m     # trains only if the folder is new
"""

import argparse
import glob
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager

from access import Instructions
from server import PREDICT_RATINGS, RECOMMEND, Database, Server, likemind, number, sample, text

CHECK_ELIGIBILITY = "/likemind.v1.CouponService/CheckEligibility"
SERVER_CORE, CLIENT_CORE = "0", "1"
LIMIT, PREDICTIONS = 20, 20
# To the database, of pgbench as of the server.
CONNECTIONS = 16
# Whoever asks is let in, no limit is reached, and nothing but calls is done.
SETTINGS = ["server.allow_unauthenticated=true", "access.requests_per_second=1000000", "access.burst=1000000",
            "access.max_concurrent_requests=0", "server.max_concurrent_requests=4096",
            "live.refresh_interval_ms=3600000", "rating.min=0.5", "telemetry.metrics=true",
            "telemetry.metrics_listen=127.0.0.1:0"]
COMPUTED = ["server.answer_cache_bytes=0"]

ITEMS = """
SELECT external_id, length(coalesce(title, '')), n FROM items
JOIN (SELECT item_id, count(*) AS n FROM (SELECT item_id FROM ratings UNION ALL SELECT item_id FROM purchases) AS events
      GROUP BY item_id) AS popular ON item_id = id
ORDER BY n DESC, external_id LIMIT 3000
"""
USERS = """
SELECT external_id FROM users
WHERE EXISTS (SELECT FROM ratings WHERE user_id = users.id) OR EXISTS (SELECT FROM purchases WHERE user_id = users.id)
ORDER BY external_id
"""
COUPONS = "SELECT external_id FROM coupons JOIN campaign_states USING (campaign_id) WHERE state = 'active' LIMIT 2"


class Messages:
    """Files of messages, drawn from what a database holds."""

    def __init__(self, folder, database, seed=1):
        self.folder = folder
        self.source = random.Random(seed)
        self.users = database.sql(USERS)
        self.source.shuffle(self.users)
        self.user_weights = list(itertools.accumulate(1 / rank for rank in range(1, len(self.users) + 1)))
        rows = [row.split("|") for row in database.sql(ITEMS)]
        self.items = [row[0] for row in rows]
        self.item_weights = list(itertools.accumulate(int(row[2]) for row in rows))
        self.item_bytes = round(statistics.mean(len(item) for item in self.items))
        self.title_bytes = round(statistics.mean(int(row[1]) for row in rows))

    def draw_users(self, n):
        return self.source.choices(self.users, cum_weights=self.user_weights, k=n)

    def draw_items(self, n):
        drawn = {}
        while len(drawn) < n:
            drawn.update(dict.fromkeys(self.source.choices(self.items, cum_weights=self.item_weights, k=n)))
        return list(drawn)[:n]

    def write(self, name, bodies):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            for body in bodies:
                file.write(b"\0" + len(body).to_bytes(4, "big") + body)
        return path

    def predict(self, n=20_000):
        return self.write(f"predict-{n}", (
            text(1, user) + b"".join(text(2, item) for item in self.draw_items(PREDICTIONS))
            for user in self.draw_users(n)))

    def recommend(self, n=500_000):
        return self.write("recommend", (text(1, user) + number(3, LIMIT) for user in self.draw_users(n)))

    def files(self):
        """For `cells`. Of predictions few enough to be remembered; rankings of one user are all the same."""
        recommend = self.recommend()
        return (self.predict(), self.predict(5_000)), (recommend, recommend)

    def check(self, coupons, n=10_000):
        body = b"".join(text(2, coupon) for coupon in coupons)
        return self.write("check", (text(1, user) + body for user in self.draw_users(n)))


class Client:
    def __init__(self, program):
        self.program = program

    def load(self, server, method, messages, *flags, key=None, pinned=True):
        command = ["taskset", "-c", CLIENT_CORE] if pinned else []
        command += [self.program, server.address, method, messages, *(str(flag) for flag in flags)]
        if key:
            command += ["--key", key]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(output)


class Baseline:
    def __init__(self, program, messages, under):
        command = [*under, program, str(messages.item_bytes), str(messages.title_bytes)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = re.search(r"serving on (\S+)", line)
            if found:
                self.address = found.group(1)
                return
        raise SystemExit("the baseline did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def cells(servers, key, files):
    """What is measured: name, server, method, messages, key; each kind of call after its baseline. `files`: of each what is
    computed, and what is asked again."""
    return [
        (call, [
            ("baseline", servers["baseline"], method, computed, None),
            ("computed", servers["computed"], method, computed, None),
            ("computed, with a key", servers["computed"], method, computed, key),
            ("remembered", servers["remembering"], method, again, None),
            ("remembered, with a key", servers["remembering"], method, again, key)])
        for call, method, (computed, again) in zip(("PredictRatings", "Recommend"), (PREDICT_RATINGS, RECOMMEND), files)]


def in_turns(ways, rounds, measure):
    """What `measure` makes of the number of the round and of each way, by name."""
    taken = {name: [] for name, *_ in ways}
    for number in range(rounds):
        for name, *way in ways:
            taken[name].append(measure(number, name, *way))
    return taken


def throughput(client, groups, streams, rounds, seconds):
    print(f"Calls a second, 8 connections of {streams} streams, {rounds} rounds of {seconds} s:\n")
    print("| call | | 1/s | ÷ baseline | p99, ms |")
    print("|---|---|---|---|---|")
    capacity = {}
    for call, ways in groups:
        for _, server, method, messages, key in ways:
            client.load(server, method, messages, "--seconds", 2 * seconds, key=key)
        taken = in_turns(ways, rounds, lambda _, __, server, method, messages, key: client.load(
            server, method, messages, "--streams", streams, "--seconds", seconds, key=key))
        rates = {name: [run["per_second"] for run in runs] for name, runs in taken.items()}
        for name, runs in taken.items():
            ratios = [rate / least for rate, least in zip(rates[name], rates["baseline"])]
            p99 = statistics.median(run["p99_us"] for run in runs) / 1e3
            capacity[call, name] = statistics.median(rates[name])
            print(f"| {call} | {name} | {capacity[call, name]:,.0f} | {spread(ratios)} | {p99:.2f} |", flush=True)
    return capacity


def latency_at_half_load(client, groups, capacity, rounds, seconds):
    print(f"\nCalls at even distances, half as many as can be answered, {rounds} rounds of {seconds} s; ratio of the p99s:\n")
    print("| call | | 1/s | p50, µs | p99, µs | p99 ÷ baseline's |")
    print("|---|---|---|---|---|---|")
    for call, ways in groups:
        taken = in_turns(ways, rounds, lambda _, name, server, method, messages, key: client.load(
            server, method, messages, "--rate", capacity[call, name] / 2, "--seconds", seconds, key=key))
        for name, runs in taken.items():
            ratios = [run["p99_us"] / least["p99_us"] for run, least in zip(runs, taken["baseline"])]
            p50, p99 = (statistics.median(run[quantile] for run in runs) for quantile in ("p50_us", "p99_us"))
            print(f"| {call} | {name} | {capacity[call, name] / 2:,.0f} | {p50:.0f} | {p99:.0f} | {spread(ratios)} |",
                  flush=True)


def message(messages, number):
    """Of a file of them, as it stands there."""
    with open(messages, "rb") as file:
        for _ in range(number + 1):
            head = file.read(5)
            body = file.read(int.from_bytes(head[1:], "big"))
    return head + body


def h2load(client, groups, folder, streams, rounds, seconds):
    """One message again and again, another one in each round."""
    print(f"\nh2load, one message, 8 connections of {streams} streams, {rounds} rounds of {seconds} s:\n")
    print("| call | | 1/s | ÷ baseline |")
    print("|---|---|---|---|")
    path = os.path.join(folder, "message")

    def rate(number, _, server, method, messages, key):
        with open(path, "wb") as file:
            file.write(message(messages, number))
        # h2load takes refusals for answers; this fails on them.
        client.load(server, method, path, "--calls", 100, key=key)
        command = ["taskset", "-c", CLIENT_CORE, "h2load", "-c", "8", "-m", str(streams), "-D", str(max(1, round(seconds))),
                   "-d", path, "-H", "content-type: application/grpc", "-H", "te: trailers"]
        command += ["-H", f"authorization: Bearer {key}"] if key else []
        command.append(f"http://{server.address}{method}")
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return float(re.search(r"([\d.]+) req/s", output).group(1))

    for call, ways in groups:
        rates = in_turns(ways, rounds, rate)
        for name, taken in rates.items():
            ratios = [own / least for own, least in zip(taken, rates["baseline"])]
            print(f"| {call} | {name} | {statistics.median(taken):,.0f} | {spread(ratios)} |", flush=True)


def statement():
    """That of CheckEligibility, as it stands in the source, for pgbench."""
    path = os.path.join(os.path.dirname(__file__), "..", "src", "store", "eligibility.rs")
    with open(path) as file:
        (found,) = re.findall(r'r#"(SELECT .*?)"#', file.read(), re.DOTALL)
    for parameter, name in (("$1", ":user"), ("$2", ":days"), ("$3", ":coupons")):
        found = found.replace(parameter, name)
    return re.sub(r'"(\w+)[!?].*?"', r"\1", found)


def eligibility(client, program, data_dir, database, messages, folder, key, callers, rounds, seconds):
    coupons = database.sql(COUPONS)
    if not coupons:
        print("\nCheckEligibility: there are no active coupons")
        return
    path = os.path.join(folder, "eligibility.sql")
    with open(path, "w") as file:
        file.write(statement() + ";\n")
    values = {"user": messages.users[0], "days": "7", "coupons": "{" + ",".join(coupons) + "}"}
    command = ["pgbench", "-n", "-M", "prepared", "-f", path, "-c", str(CONNECTIONS), "-T", str(max(1, round(seconds))),
               *(f"--define={name}={value}" for name, value in values.items()), *database.flags, database.name]
    database.use_all_cores()
    # As the server's connections.
    environment = {**os.environ, "PGOPTIONS": "-c jit=off"}
    check = messages.check(coupons)
    taken, forced = [], []
    with Server(program, data_dir, *SETTINGS, f"database.max_connections={CONNECTIONS}") as server:
        load = ("--connections", 4, "--streams", callers // 4, "--seconds", seconds)
        client.load(server, CHECK_ELIGIBILITY, check, *load, key=key, pinned=False)
        for _ in range(rounds):
            output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            forced.append(float(re.search(r"tps = ([\d.]+)", output).group(1)))
            taken.append(client.load(server, CHECK_ELIGIBILITY, check, *load, key=key, pinned=False)["per_second"])
    ratios = [rate / most for rate, most in zip(taken, forced)]
    print(f"\nCheckEligibility of {len(coupons)} coupons, {callers} callers, both cores for all, {rounds} rounds: pgbench "
          f"{statistics.median(forced):,.0f}/s, calls {statistics.median(taken):,.0f}/s, ratio {spread(ratios)}")


def swaps(client, program, data_dir, database, predict, key, rounds, n_swaps=100, seconds_between=0.1):
    """p99 at a steady rate, while one snapshot after the other is loaded and swapped, and without.

    The database and what switches versions would not run on the server's core. There are but two here, and the client's
    is busy all the time: they get what the server leaves of its own.
    """
    likemind(program, data_dir, "train", "--force", "to measure with", "--set-config=rating.min=0.5")
    versions = database.sql("SELECT version FROM snapshots WHERE state IN ('active', 'retired') ORDER BY version")[-2:]
    database.step_behind()
    settings = [*SETTINGS, "live.refresh_interval_ms=20", "live.keep_previous=0"]
    p99s, took = {"without": [], "with": []}, []
    with Server(program, data_dir, *settings, under=["taskset", "-c", SERVER_CORE]) as server:
        client.load(server, PREDICT_RATINGS, predict, "--seconds", 1, key=key)
        rate = client.load(server, PREDICT_RATINGS, predict, "--seconds", 2, key=key)["per_second"] / 2
        is_over, in_turn = threading.Event(), itertools.cycle(versions)

        def swap():
            # Of this thread and what it starts.
            os.sched_setaffinity(0, {int(SERVER_CORE)})
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            while not is_over.wait(seconds_between):
                version = next(in_turn)
                database.sql(f"UPDATE snapshots SET state = 'retired' WHERE state = 'active';"
                             f"UPDATE snapshots SET state = 'active' WHERE version = {version}")
                began = time.monotonic()
                any(f"serving snapshot {version}" in line for line in server.process.stderr)
                took.append(time.monotonic() - began)

        for _ in range(rounds):
            load = ("--rate", rate, "--seconds", 2)
            p99s["without"].append(client.load(server, PREDICT_RATINGS, predict, *load, key=key)["p99_us"])
            before = len(took)
            is_over.clear()
            swapper = threading.Thread(target=swap)
            swapper.start()
            runs = []
            while len(took) - before < n_swaps / rounds:
                runs.append(client.load(server, PREDICT_RATINGS, predict, *load, key=key)["p99_us"])
            is_over.set()
            swapper.join()
            p99s["with"].append(statistics.median(runs))
    ratios = [swapping / alone for alone, swapping in zip(*p99s.values())]
    print(f"\nPredictRatings, {rate:,.0f}/s, {len(took)} swaps of {statistics.median(took) * 1e3:.0f} ms: p99 "
          f"{statistics.median(p99s['without']):,.0f} µs without, {statistics.median(p99s['with']):,.0f} µs with them, "
          f"ratio {spread(ratios)}")


def instructions(client, programs, data_dir, key, messages, folder, calls):
    """Of a call in user space; callgrind repeats them to a few per thousand, whatever else the machine does."""
    print(f"Instructions of a call, mean of {calls:,}:\n\n| call | | instructions | ÷ baseline |\n|---|---|---|---|")
    under = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind"]
    program, baseline = programs
    files = messages.files()
    counted = {}
    starts = {
        "baseline": lambda: Baseline(baseline, messages, under),
        "computed": lambda: Server(program, data_dir, *SETTINGS, *COMPUTED, under=under),
        "remembering": lambda: Server(program, data_dir, *SETTINGS, under=under),
    }
    for name, start in starts.items():
        with start() as server:
            if name != "baseline":
                server.until_loaded()
            meter = Instructions(server, folder)
            servers = dict.fromkeys(starts, server)
            for call, ways in cells(servers, key, files):
                for way, _, method, file, of_key in ways:
                    if not way.startswith(name[:8]):
                        continue
                    for _ in range(2):
                        client.load(server, method, file, "--calls", calls, "--streams", 16, key=of_key)
                        counted[call, way] = meter.take() / calls
        for path in glob.glob(f"{folder}/callgrind*"):
            os.remove(path)
    for (call, way), count in sorted(counted.items()):
        print(f"| {call} | {way} | {count:,.0f} | {count / counted[call, 'baseline']:.2f} |")


def newest(programs, name):
    """The bench that was built last."""
    found = [path for path in glob.glob(os.path.join(programs, "deps", f"{name}-*")) if "." not in os.path.basename(path)]
    return os.path.abspath(max(found, key=os.path.getmtime))


@contextmanager
def synthetic(program, size, data_dir, scale=1):
    """As `sample`, on ratings of `size`, `scale` times as many, in `data_dir`, which is made unless it is there."""
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        if not os.path.exists(data_dir):
            likemind(program, data_dir, "migrate")
            ratings = subprocess.Popen([program, "synth", "--size", size, "--scale", str(scale)], stdout=subprocess.PIPE)
            command = [program, "import", "ratings", "-", "--map", "value=rating,rated_at=timestamp", "--time-format",
                       "unix", "--set-config=rating.min=0.5", "--data-dir", data_dir]
            subprocess.run(command, check=True, stdin=ratings.stdout, stdout=subprocess.DEVNULL)
            likemind(program, data_dir, "train", "--force", "to measure with", "--set-config=rating.min=0.5")
        key = json.loads(likemind(program, data_dir, "keys", "create", "--role", "service", "--json"))["key"]
        yield folder, data_dir, key


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default="target/release", help="where likemind and the benches were built")
    parser.add_argument("--synth", help="movielens-1m or movielens-20m")
    parser.add_argument("--folder", help="where the synthetic ratings are or will be kept")
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", choices=["throughput", "h2load", "eligibility", "swaps", "instructions"], nargs="+",
                        default=["throughput", "eligibility"])
    parser.add_argument("--calls", type=int, default=2_000, help="counted under callgrind")
    args = parser.parse_args()

    program = os.path.abspath(os.path.join(args.programs, "likemind"))
    baseline, client = newest(args.programs, "baseline"), Client(newest(args.programs, "load"))
    if args.synth and not args.folder:
        parser.error("--synth needs --folder")
    made = synthetic(program, args.synth, args.folder) if args.synth else sample(program)
    with made as (folder, data_dir, key):
        # The private PostgreSQL runs as long as a command that uses it.
        with Server(program, data_dir, *SETTINGS, *COMPUTED, under=["taskset", "-c", SERVER_CORE]) as computed:
            database = Database(data_dir)
            messages = Messages(folder, database)
            print(f"{len(messages.users):,} users, {len(messages.items):,} items\n")
            if {"throughput", "h2load"} & set(args.only):
                under = ["taskset", "-c", SERVER_CORE]
                with Server(program, data_dir, *SETTINGS, under=under) as remembering, \
                        Baseline(baseline, messages, under) as least:
                    servers = {"baseline": least, "computed": computed, "remembering": remembering}
                    groups = cells(servers, key, messages.files())
                    for streams in args.streams:
                        if "h2load" in args.only:
                            h2load(client, groups, folder, streams, args.rounds, args.seconds)
                        if "throughput" not in args.only:
                            continue
                        capacity = throughput(client, groups, streams, args.rounds, args.seconds)
                        if streams == args.streams[0]:
                            latency_at_half_load(client, groups, capacity, args.rounds, args.seconds)
                        print()
            if "eligibility" in args.only:
                eligibility(client, program, data_dir, database, messages, folder, key, 32, args.rounds, args.seconds)
            if "swaps" in args.only:
                swaps(client, program, data_dir, database, messages.predict(), key, args.rounds)
            if "instructions" in args.only:
                instructions(client, (program, baseline), data_dir, key, messages, folder, args.calls)


if __name__ == "__main__":
    main()

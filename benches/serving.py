#!/usr/bin/env python3
"""Measures what PredictRatings and Recommend cost, against the least that such calls can cost.

    cargo build --release --bins --benches && benches/serving.py

The least is benches/baseline.rs: the same threads, request and response types, with constant answers. Server and baseline
have one core, their client (benches/load.rs) the other. Each round asks the baseline and then everything else; ratios are
taken within a round. Needs PostgreSQL's programs and two cores; `--only instructions` needs valgrind, `--only h2load`
h2load (Debian: nghttp2-client).

Runs on the sample in a temporary folder, or with --synth on ratings of `likemind synth`:

    benches/serving.py --synth movielens-20m --folder /var/tmp/movielens-20m     # trains only if the folder is new
"""

import argparse
import glob
import os
import re
import statistics
import subprocess

from support import (
    COMPUTED, PREDICT_RATINGS, RECOMMEND, SERVER_CORE, SETTINGS, Baseline, Client, Database, InstructionMeter, Messages,
    Server, h2load_command, header, in_folder, newest_bench, ratios, row, sample, spread, synthetic,
)

SUITES = ["throughput", "h2load", "instructions"]


def variants(servers, key, files):
    """Returns what is measured: for each RPC a list of (name, server, method, messages, key), the baseline first.

    `servers`: baseline, computed (no answer cache) and caching (with one).
    `files`: for each RPC the messages for computed answers, and messages that are repeated so often that they are cached.
    """
    return [
        (call, [
            ("baseline", servers["baseline"], method, distinct, None),
            ("computed", servers["computed"], method, distinct, None),
            ("computed, with a key", servers["computed"], method, distinct, key),
            ("cached", servers["caching"], method, repeated, None),
            ("cached, with a key", servers["caching"], method, repeated, key)])
        for call, method, (distinct, repeated)
        in zip(("PredictRatings", "Recommend"), (PREDICT_RATINGS, RECOMMEND), files)]


def message_files(messages):
    """Returns the `files` of `variants`. All rankings for one user are equal, so any file of them repeats itself."""
    recommend = messages.recommend()
    return (messages.predict(), messages.predict(5_000)), (recommend, recommend)


def in_turns(measured, rounds, measure):
    """Calls `measure` with the number of the round and each of `measured`; returns the results by name."""
    taken = {name: [] for name, *_ in measured}
    for number in range(rounds):
        for name, *variant in measured:
            taken[name].append(measure(number, name, *variant))
    return taken


def throughput(client, groups, streams, rounds, seconds):
    """Prints calls a second, and returns them by RPC and name."""
    print(f"Calls a second, 8 connections of {streams} streams, {rounds} rounds of {seconds} s:\n")
    header("call", "", "1/s", "÷ baseline", "p99, ms")
    capacity = {}
    for call, measured in groups:
        for _, server, method, messages, key in measured:
            client.load(server, method, messages, "--seconds", 2 * seconds, key=key)
        taken = in_turns(measured, rounds, lambda _, __, server, method, messages, key: client.load(
            server, method, messages, "--streams", streams, "--seconds", seconds, key=key))
        rates = {name: [run["per_second"] for run in runs] for name, runs in taken.items()}
        for name, runs in taken.items():
            p99 = statistics.median(run["p99_us"] for run in runs) / 1e3
            capacity[call, name] = statistics.median(rates[name])
            row(call, name, f"{capacity[call, name]:,.0f}", spread(ratios(rates[name], rates["baseline"])), f"{p99:.2f}")
    return capacity


def latency_at_half_load(client, groups, capacity, rounds, seconds):
    print(f"\nCalls at even distances, half as many as can be answered, {rounds} rounds of {seconds} s; ratio of the p99s:\n")
    header("call", "", "1/s", "p50, µs", "p99, µs", "p99 ÷ baseline's")
    for call, measured in groups:
        taken = in_turns(measured, rounds, lambda _, name, server, method, messages, key: client.load(
            server, method, messages, "--rate", capacity[call, name] / 2, "--seconds", seconds, key=key))
        p99s = {name: [run["p99_us"] for run in runs] for name, runs in taken.items()}
        for name, runs in taken.items():
            p50 = statistics.median(run["p50_us"] for run in runs)
            row(call, name, f"{capacity[call, name] / 2:,.0f}", f"{p50:.0f}", f"{statistics.median(p99s[name]):.0f}",
                spread(ratios(p99s[name], p99s["baseline"])))


def read_message(messages, number):
    """Returns message `number` of a file, framed as it stands there."""
    with open(messages, "rb") as file:
        for _ in range(number + 1):
            head = file.read(5)
            body = file.read(int.from_bytes(head[1:], "big"))
    return head + body


def h2load(client, groups, folder, streams, rounds, seconds):
    print(f"\nh2load, 8 connections of {streams} streams, {rounds} rounds of {seconds} s, each with one message:\n")
    header("call", "", "1/s", "÷ baseline")
    path = os.path.join(folder, "message")

    def rate(number, _, server, method, messages, key):
        with open(path, "wb") as file:
            file.write(read_message(messages, number))
        # h2load counts refusals as answers; this call fails on them.
        client.load(server, method, path, "--calls", 100, key=key)
        command = [*h2load_command(server, method, path, streams, 8, key), "-D", str(max(1, round(seconds)))]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return float(re.search(r"([\d.]+) req/s", output).group(1))

    for call, measured in groups:
        rates = in_turns(measured, rounds, rate)
        for name, taken in rates.items():
            row(call, name, f"{statistics.median(taken):,.0f}", spread(ratios(taken, rates["baseline"])))


def instructions(client, program, baseline, data_dir, key, messages, folder, calls):
    """Prints the instructions of a call in user space. callgrind repeats them to a few per thousand on any machine."""
    print(f"Instructions of a call, mean of {calls:,}:\n")
    header("call", "", "instructions", "÷ baseline")
    under = InstructionMeter.under(folder)
    starts = {
        "baseline": lambda: Baseline(baseline, messages, under),
        "computed": lambda: Server(program, in_folder(data_dir), *SETTINGS, *COMPUTED, under=under),
        "cached": lambda: Server(program, in_folder(data_dir), *SETTINGS, under=under),
    }
    files = message_files(messages)
    counted = {}
    for kind, start in starts.items():
        with start() as server:
            if isinstance(server, Server):
                server.until_loaded()
            meter = InstructionMeter(server, folder)
            servers = dict.fromkeys(("baseline", "computed", "caching"), server)
            for call, measured in variants(servers, key, files):
                for name, _, method, file, given_key in measured:
                    if not name.startswith(kind):
                        continue
                    # The first turn fills the caches; the second counts.
                    for _ in range(2):
                        client.load(server, method, file, "--calls", calls, "--streams", 16, key=given_key)
                        counted[call, name] = meter.take() / calls
        for path in glob.glob(f"{folder}/callgrind*"):
            os.remove(path)
    for (call, name), count in sorted(counted.items()):
        row(call, name, f"{count:,.0f}", f"{count / counted[call, 'baseline']:.2f}")


def serve_and_measure(args, program, baseline, client, computed, messages, folder, data_dir, key):
    """Runs the suites that need baseline, computing and caching server at the same time."""
    under = ["taskset", "-c", SERVER_CORE]
    with Server(program, in_folder(data_dir), *SETTINGS, under=under) as caching, \
            Baseline(baseline, messages, under) as least:
        servers = {"baseline": least, "computed": computed, "caching": caching}
        groups = variants(servers, key, message_files(messages))
        for streams in args.streams:
            if "h2load" in args.only:
                h2load(client, groups, folder, streams, args.rounds, args.seconds)
            if "throughput" in args.only:
                capacity = throughput(client, groups, streams, args.rounds, args.seconds)
                if streams == args.streams[0]:
                    latency_at_half_load(client, groups, capacity, args.rounds, args.seconds)
            print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default="target/release", help="where likemind and the benches were built")
    parser.add_argument("--synth", help="movielens-1m or movielens-20m")
    parser.add_argument("--folder", help="where the synthetic ratings are or will be kept")
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", choices=SUITES, nargs="+", default=["throughput"])
    parser.add_argument("--calls", type=int, default=2_000, help="counted under callgrind")
    args = parser.parse_args()
    if args.synth and not args.folder:
        parser.error("--synth needs --folder")

    program = os.path.abspath(os.path.join(args.programs, "likemind"))
    baseline, client = newest_bench(args.programs, "baseline"), Client(newest_bench(args.programs, "load"))
    data = synthetic(program, args.synth, args.folder) if args.synth else sample(program)
    with data as (folder, data_dir, key):
        # The private PostgreSQL runs as long as a command that uses it, such as this server.
        computed = Server(program, in_folder(data_dir), *SETTINGS, *COMPUTED, under=["taskset", "-c", SERVER_CORE])
        with computed:
            messages = Messages(folder, Database(data_dir))
            print(f"{len(messages.users):,} users, {len(messages.items):,} items\n")
            if {"throughput", "h2load"} & set(args.only):
                serve_and_measure(args, program, baseline, client, computed, messages, folder, data_dir, key)
            if "instructions" in args.only:
                instructions(client, program, baseline, data_dir, key, messages, folder, args.calls)


if __name__ == "__main__":
    main()

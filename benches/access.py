#!/usr/bin/env python3
"""What asking for a key costs a call of PredictRatings.

    cargo build --release && benches/access.py

Needs valgrind, h2load (Debian: nghttp2-client), PostgreSQL's programs and two cores. The same calls with a key and
without one, in pairs whose order alternates, to one server that lets both in. Counted twice: the instructions of the
server, which repeat to .1 % whatever else the machine does, and its CPU time, which knows what an instruction costs and
what the kernel does, but is noisy, so that it takes many pairs.
"""

import argparse
import math
import os
import re
import statistics
import subprocess
import time

from server import PREDICT_RATINGS, USER, Server, sample, text

# Sold most often, and then as many as it takes.
ITEMS = ["85123A", "22423", "85099B", "47566", "20725", "84879", "22720", "22197", "21212", "22383",
         "20727", "22457", "23203", "22386", "22469", "21931", "22411", "22086", "22961", "20728"]

# Both kinds of callers are let in, all limits of a key are counted and none is reached, and nothing but calls is done.
SETTINGS = ["server.allow_unauthenticated=true", "access.requests_per_second=1000000", "access.burst=1000000",
            "live.refresh_interval_ms=3600000"]

CONNECTIONS, STREAMS = 4, 16


def message(folder, n_items):
    """A file with PredictRatings of `n_items`, framed as gRPC frames it."""
    body = text(1, USER) + b"".join(text(2, item) for item in ITEMS[:n_items])
    path = os.path.join(folder, f"request-{n_items}")
    with open(path, "wb") as file:
        file.write(b"\0" + len(body).to_bytes(4, "big") + body)
    return path


def load(server, request, key, calls):
    """h2load never lets a server keep `authorization` in its table of headers: the key comes in full with every call."""
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    if key:
        headers += ["-H", f"authorization: Bearer {key}"]
    command = ["taskset", "-c", "1", "h2load", "-n", str(calls), "-c", str(CONNECTIONS), "-m", str(STREAMS),
               "-d", request, *headers, f"http://{server.address}{PREDICT_RATINGS}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answered = re.search(r"(\d+) succeeded.*\n(?:.*\n)*?.*status codes: (\d+) 2xx", output)
    if not answered or {int(answered.group(1)), int(answered.group(2))} != {calls}:
        raise SystemExit(output)


class Instructions:
    """Those of a server under callgrind since the last look."""

    def __init__(self, server, folder):
        self.pid = server.process.pid
        self.folder = folder
        self.looks = 0

    def take(self):
        subprocess.run(["callgrind_control", "--dump", str(self.pid)], check=True, capture_output=True)
        self.looks += 1
        path = os.path.join(self.folder, f"callgrind.{self.looks}")
        with open(path) as file:
            total = re.search(r"^(?:totals|summary): (\d+)", file.read(), re.MULTILINE)
        return int(total.group(1))


class CpuTime:
    """Seconds of a server since the last look; of all its threads, those that have ended too."""

    def __init__(self, server):
        # Source: clock_getcpuclockid(3), as glibc makes it.
        self.clock = ~server.process.pid << 3 | 2
        self.before = 0.0
        self.take()

    def take(self):
        now = time.clock_gettime(self.clock)
        took, self.before = now - self.before, now
        return took


def pairs(server, meter, request, key, n_pairs, calls):
    """A call with a key and one without it, [n_pairs] each; and with it, without it again: what that makes is noise."""
    for given in (None, key):
        load(server, request, given, max(calls // 2, CONNECTIONS))
    meter.take()
    with_key, without_key, again = [], [], []
    for pair in range(n_pairs):
        order = [(None, without_key), (key, with_key), (None, again)]
        # Every place in a round as often as any other.
        for given, taken in order[pair % 3:] + order[:pair % 3]:
            load(server, request, given, calls)
            taken.append(meter.take() / calls)
    return with_key, without_key, again


def ratios(numerators, denominators):
    return [numerator / denominator for numerator, denominator in zip(numerators, denominators)]


def interval(values):
    """Of the median, 95 %, from the ranks alone: nothing is known of how the noise is distributed."""
    ordered, n = sorted(values), len(values)
    reach = 0.98 * math.sqrt(n)
    return ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach))]


def count_instructions(program, folder, data_dir, key, sizes, n_pairs):
    print(f"Instructions of a call, {n_pairs} rounds, {CONNECTIONS} connections of {STREAMS} streams:\n")
    print("| items | without a key | with a key | ratio | all ratios | without / without |")
    print("|---|---|---|---|---|---|")
    under = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind"]
    with Server(program, data_dir, *SETTINGS, under=under) as server:
        meter = Instructions(server, folder)
        for n_items in sizes:
            calls = 2_000 if n_items < 10 else 1_000
            taken = pairs(server, meter, message(folder, n_items), key, n_pairs, calls)
            with_key, without_key, again = taken
            ratio, noise = ratios(with_key, without_key), ratios(again, without_key)
            print(f"| {n_items} | {statistics.median(without_key):,.0f} | {statistics.median(with_key):,.0f} "
                  f"| {statistics.median(ratio):.4f} | {min(ratio):.4f} to {max(ratio):.4f} "
                  f"| {min(noise):.4f} to {max(noise):.4f} |", flush=True)


def measure_cpu_time(program, folder, data_dir, key, sizes, n_pairs):
    print(f"\nCPU time of a call, user and kernel, {n_pairs} rounds:\n")
    print("| items | without a key, µs | ratio, median | 95 % of the median | without / without |")
    print("|---|---|---|---|---|")
    with Server(program, data_dir, *SETTINGS, under=["taskset", "-c", "0"]) as server:
        meter = CpuTime(server)
        for n_items in sizes:
            calls = 6_000 if n_items < 10 else 2_000
            taken = pairs(server, meter, message(folder, n_items), key, n_pairs, calls)
            with_key, without_key, again = taken
            ratio, noise = ratios(with_key, without_key), ratios(again, without_key)
            low, high = interval(ratio)
            noise_low, noise_high = interval(noise)
            print(f"| {n_items} | {statistics.median(without_key) * 1e6:.1f} | {statistics.median(ratio):.4f} "
                  f"| {low:.4f} to {high:.4f} | {statistics.median(noise):.4f} ({noise_low:.4f} to {noise_high:.4f}) |",
                  flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="?", default="target/release/likemind")
    parser.add_argument("--items", type=int, nargs="+", default=[1, 5, 20], choices=range(1, len(ITEMS) + 1))
    parser.add_argument("--pairs", type=int, default=5, help="rounds under callgrind")
    parser.add_argument("--cpu-pairs", type=int, default=150, help="rounds by CPU time; 0: none")
    args = parser.parse_args()
    program = os.path.abspath(args.program)
    with sample(program) as (folder, data_dir, key):
        count_instructions(program, folder, data_dir, key, args.items, args.pairs)
        if args.cpu_pairs:
            measure_cpu_time(program, folder, data_dir, key, args.items, args.cpu_pairs)


if __name__ == "__main__":
    main()

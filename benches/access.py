#!/usr/bin/env python3
"""Measures what checking an API key costs a call of PredictRatings.

    cargo build --release && benches/access.py

Needs valgrind, h2load (Debian: nghttp2-client), PostgreSQL's programs and two cores. Sends the same calls with a key,
without one and without one again to a server that accepts both, in rounds whose order rotates. Measures each twice: the
instructions of the server, which repeat to .1 % whatever else the machine does; and its CPU time, which includes the
kernel and what an instruction costs, but is noisy and therefore takes many rounds.
"""

import argparse
import math
import os
import re
import statistics
import subprocess

from support import (
    COMPUTED, PREDICT_RATINGS, SERVER_CORE, USER, CpuTimeMeter, InstructionMeter, Server, framed, h2load_command, header,
    in_folder, ratios, row, sample, text,
)

# The items that are sold most often.
ITEMS = ["85123A", "22423", "85099B", "47566", "20725", "84879", "22720", "22197", "21212", "22383",
         "20727", "22457", "23203", "22386", "22469", "21931", "22411", "22086", "22961", "20728"]

# Calls with and without a key are accepted, every limit of a key is counted and none is reached. Answers are computed.
SETTINGS = [*COMPUTED, "server.allow_unauthenticated=true", "access.requests_per_second=1000000",
            "access.burst=1000000", "live.refresh_interval_ms=3600000"]

CONNECTIONS, STREAMS = 4, 16


def write_message(folder, n_items):
    """Writes PredictRatings of `n_items` and returns the path."""
    path = os.path.join(folder, f"request-{n_items}")
    with open(path, "wb") as file:
        file.write(framed(text(1, USER) + b"".join(text(2, item) for item in ITEMS[:n_items])))
    return path


def load(server, message, key, calls):
    command = h2load_command(server, PREDICT_RATINGS, message, STREAMS, CONNECTIONS, key)
    output = subprocess.run([*command, "-n", str(calls)], check=True, capture_output=True, text=True).stdout
    answered = re.search(r"(\d+) succeeded.*\n(?:.*\n)*?.*status codes: (\d+) 2xx", output)
    if not answered or {int(answered.group(1)), int(answered.group(2))} != {calls}:
        raise SystemExit(output)


def measure_rounds(server, meter, message, key, rounds, calls):
    """Returns what a call took with a key, without one, and without one again, [rounds] each.

    The third shows the noise of the method.
    """
    for given in (None, key):
        load(server, message, given, max(calls // 2, CONNECTIONS))
    meter.take()
    with_key, without_key, again = [], [], []
    for number in range(rounds):
        order = [(None, without_key), (key, with_key), (None, again)]
        # Each of the three comes first equally often.
        for given, taken in order[number % 3:] + order[:number % 3]:
            load(server, message, given, calls)
            taken.append(meter.take() / calls)
    return with_key, without_key, again


def median_interval(values):
    """Returns the 95 % interval of the median. It follows from the ranks, so the noise may have any distribution."""
    ordered, n = sorted(values), len(values)
    reach = 0.98 * math.sqrt(n)
    return ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach))]


def count_instructions(program, folder, data_dir, key, sizes, rounds):
    print(f"Instructions of a call, {rounds} rounds, {CONNECTIONS} connections of {STREAMS} streams:\n")
    header("items", "without a key", "with a key", "ratio", "all ratios", "without / without")
    with Server(program, in_folder(data_dir), *SETTINGS, under=InstructionMeter.under(folder)) as server:
        server.until_loaded()
        meter = InstructionMeter(server, folder)
        for n_items in sizes:
            calls = 2_000 if n_items < 10 else 1_000
            message = write_message(folder, n_items)
            with_key, without_key, again = measure_rounds(server, meter, message, key, rounds, calls)
            ratio, noise = ratios(with_key, without_key), ratios(again, without_key)
            row(n_items, f"{statistics.median(without_key):,.0f}", f"{statistics.median(with_key):,.0f}",
                f"{statistics.median(ratio):.4f}", f"{min(ratio):.4f} to {max(ratio):.4f}",
                f"{min(noise):.4f} to {max(noise):.4f}")


def measure_cpu_time(program, folder, data_dir, key, sizes, rounds):
    print(f"\nCPU time of a call, user and kernel, {rounds} rounds:\n")
    header("items", "without a key, µs", "ratio, median", "95 % of the median", "without / without")
    with Server(program, in_folder(data_dir), *SETTINGS, under=["taskset", "-c", SERVER_CORE]) as server:
        meter = CpuTimeMeter(server)
        for n_items in sizes:
            calls = 6_000 if n_items < 10 else 2_000
            message = write_message(folder, n_items)
            with_key, without_key, again = measure_rounds(server, meter, message, key, rounds, calls)
            ratio, noise = ratios(with_key, without_key), ratios(again, without_key)
            low, high = median_interval(ratio)
            noise_low, noise_high = median_interval(noise)
            row(n_items, f"{statistics.median(without_key) * 1e6:.1f}", f"{statistics.median(ratio):.4f}",
                f"{low:.4f} to {high:.4f}", f"{statistics.median(noise):.4f} ({noise_low:.4f} to {noise_high:.4f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="?", default="target/release/likemind")
    parser.add_argument("--items", type=int, nargs="+", default=[1, 5, 20], choices=range(1, len(ITEMS) + 1))
    parser.add_argument("--pairs", type=int, default=5, help="rounds under callgrind")
    parser.add_argument("--cpu-pairs", type=int, default=150, help="rounds of CPU time; 0 for none")
    args = parser.parse_args()
    program = os.path.abspath(args.program)
    with sample(program) as (folder, data_dir, key):
        count_instructions(program, folder, data_dir, key, args.items, args.pairs)
        if args.cpu_pairs:
            measure_cpu_time(program, folder, data_dir, key, args.items, args.cpu_pairs)


if __name__ == "__main__":
    main()

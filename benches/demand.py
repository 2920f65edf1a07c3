#!/usr/bin/env python3
"""Measures what ForecastDemand costs, against the least that a call can cost.

    cargo build --release --bins --benches && benches/demand.py

The least is a Recommend of benches/baseline.rs with a constant answer. Server and baseline have one core, their client
(benches/load.rs) the other; each round asks both, and ratios are taken within a round. Runs on the sample in a temporary folder, or
in a data folder that has been trained. benches/demand.rs measures how long a fit takes.
"""

import argparse
import os
import statistics
import tempfile
from contextlib import contextmanager

from support import (
    RECOMMEND, SERVER_CORE, SETTINGS, Baseline, Client, Database, Messages, Server, header, in_folder, newest_bench, number,
    ratios, row, sample, spread, text,
)

FORECAST_DEMAND = "/likemind.v1.DemandService/ForecastDemand"
HORIZON_WEEKS = 8
MESSAGES = 5_000
# Items of a call: a page of a product, and a list of them.
N_ITEMS = [1, 20]


def forecast_messages(messages, n_items):
    """Writes messages about items that are drawn as often as they are bought."""
    def body():
        items = b"".join(text(1, item) for item in messages.draw_items(n_items))
        length = bytes([len(items)]) if len(items) < 128 else bytes([len(items) & 127 | 128, len(items) >> 7])
        return b"\x0a" + length + items + number(4, HORIZON_WEEKS)
    return messages.write(f"forecast-{n_items}", (body() for _ in range(MESSAGES)))


@contextmanager
def trained(folder):
    """Yields a working folder and the trained data folder `folder`."""
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as work:
        yield work, folder, None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default="target/release", help="where likemind and the benches were built")
    parser.add_argument("--folder", help="a data folder that has been trained; without it the sample is imported and trained")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2_000, help="calls of a round")
    args = parser.parse_args()

    program = os.path.abspath(os.path.join(args.programs, "likemind"))
    client = Client(newest_bench(args.programs, "load"))
    under = ["taskset", "-c", SERVER_CORE]
    with trained(args.folder) if args.folder else sample(program) as (folder, data_dir, _), \
            Server(program, in_folder(data_dir), *SETTINGS, under=under) as server:
        server.until_loaded()
        messages = Messages(folder, Database(data_dir))
        print(f"{len(messages.items):,} items, {HORIZON_WEEKS} weeks\n")
        with Baseline(newest_bench(args.programs, "baseline"), messages, under) as least:
            measured = [("baseline", least, RECOMMEND, messages.recommend(MESSAGES))]
            measured += [(f"ForecastDemand of {n}", server, FORECAST_DEMAND, forecast_messages(messages, n)) for n in N_ITEMS]
            rates = {name: [] for name, *_ in measured}
            for _ in range(args.rounds + 1):
                for name, asked, method, file in measured:
                    run = client.load(asked, method, file, "--calls", args.calls, "--streams", 16)
                    rates[name].append(run["per_second"])
            header("call", "1/s", "÷ baseline")
            for name, taken in rates.items():
                # The first round warms up.
                row(name, f"{statistics.median(taken[1:]):,.0f}", spread(ratios(taken[1:], rates["baseline"][1:])))


if __name__ == "__main__":
    main()

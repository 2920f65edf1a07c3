#!/usr/bin/env python3
"""Measures where the time of `likemind train` goes, from PostgreSQL to the activated snapshot.

    cargo build --release && benches/train.py [--size movielens-20m] [--runs 3] [--scale 1]
    benches/train.py --against /path/of/an/older/likemind      # CPU seconds and memory, with --tune and without, as ratios

Needs PostgreSQL's programs. Imports ratings of `likemind synth` into a private database, trains on them several times and
prints medians. Beside them stands the time that psql needs to read the same ratings.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

from support import header, import_synthetic, in_database, likemind, postgres, ratios, row, spread, sql, timed


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="movielens-20m")
    parser.add_argument("--scale", default="1")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--program", default="target/release/likemind")
    parser.add_argument("--against", help="an older program, on a database of its own")
    return parser.parse_args()


def train(program, url, *flags):
    """Returns ms by phase, the kernel paths by phase, other facts of the log, seconds in all, the peak memory in MB, and CPU
    seconds."""
    command = [program, "train", "--json", in_database(url), "--set-config=rating.min=0.5",
               "--set-config=telemetry.log_format=json", "--set-config=trainer.lease_ms=120000",
               "--force", "measured whatever the gate says", *flags]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    phases, paths, facts = {}, {}, {}
    for line in process.stderr:
        record = json.loads(line)
        fields = record.get("fields", record)
        if "took_ms" in fields:
            phases[fields["phase"]] = fields["took_ms"]
        if "path" in fields:
            paths[fields["phase"]] = fields["path"]
        facts |= {name: fields[name] for name in ("encoding_ms", "size_bytes", "ratings") if name in fields}
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    cpu = usage.ru_utime + usage.ru_stime
    return phases, paths, facts, time.monotonic() - began, usage.ru_maxrss / 1024, cpu


def read_with_psql(url):
    """Returns seconds."""
    return timed(sql, url, "\\copy (SELECT user_id, item_id, value, rated_at FROM ratings) TO /dev/null")[0]


def report(runs, reads):
    """`runs`: what `train` returned; `reads`: seconds of `read_with_psql`."""
    facts, paths = runs[-1][2], runs[-1][1]
    ratings = facts["ratings"]
    print(f"{ratings:,} ratings, snapshot of {facts['size_bytes'] / 1e6:,.0f} MB, "
          f"peak memory {max(run[4] for run in runs):,.0f} MB\n")
    header("phase", "s, median", "all runs", "share")
    whole = statistics.median(run[3] for run in runs)

    def phase_row(name, seconds):
        median = statistics.median(seconds)
        row(name, f"{median:.2f}", " ".join(f"{one:.1f}" for one in seconds), f"{median / whole:.0%}")

    for phase in runs[0][0]:
        phase_row(f"{phase}: {paths[phase]}" if phase in paths else phase, [run[0][phase] / 1000 for run in runs])
    phase_row("encoding, a part of writing", [run[2]["encoding_ms"] / 1000 for run in runs])
    phase_row("all", [run[3] for run in runs])
    own = [read / (run[0]["reading"] / 1000) for read, run in zip(reads, runs)]
    print(f"\nReading reaches {spread(own)} times the rows a second of psql's \\copy of the ratings, "
          f"{ratings / statistics.median(reads):,.0f}.")


def prepare(program, url, options):
    likemind(program, in_database(url), "migrate")
    seconds, _ = timed(import_synthetic, program, in_database(url), options.size, options.scale)
    print(f"# imported in {seconds:.0f} s", flush=True)
    sql(url, "VACUUM ANALYZE")


def compare(program, older, options):
    """Trains with both programs in turns and prints CPU seconds and peak memory, ours as ratios to the older program's."""
    with postgres() as (_, url), postgres() as (_, older_url):
        prepare(program, url, options)
        prepare(older, older_url, options)
        variants = {"older": (older, older_url), "with --tune": (program, url, "--tune"), "settings reused": (program, url)}
        taken = {name: [] for name in variants}
        for _ in range(options.runs):
            for name, variant in variants.items():
                taken[name].append(train(*variant))
        header("train", "CPU s", "÷ older", "peak, MB", "÷ older")
        for name, runs in taken.items():
            cpu, peak = ([run[at] for run in runs] for at in (5, 4))
            older_cpu, older_peak = ([run[at] for run in taken["older"]] for at in (5, 4))
            row(name, f"{statistics.median(cpu):.1f}", spread(ratios(cpu, older_cpu)),
                f"{statistics.median(peak):,.0f}", spread(ratios(peak, older_peak)))


def main():
    options = arguments()
    program = os.path.abspath(options.program)
    if options.against:
        compare(program, os.path.abspath(options.against), options)
        return
    with postgres() as (_, url):
        prepare(program, url, options)
        runs, reads = [], []
        for number in range(options.runs):
            reads.append(read_with_psql(url))
            runs.append(train(program, url))
            print(f"# run {number + 1}: {runs[-1][3]:.1f} s", flush=True)
        report(runs, reads)


if __name__ == "__main__":
    main()

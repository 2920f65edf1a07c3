#!/usr/bin/env python3
"""Where the time of `likemind train` goes, from PostgreSQL to the activated snapshot.

    cargo build --release && benches/train.py [--size movielens-20m] [--runs 3] [--scale 1]

Needs PostgreSQL's programs. Imports the synthetic ratings of `likemind synth` into a private database, then trains several
times; what is shown are medians. Beside it, what psql needs to read the same ratings.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

from targets import postgres, sql


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="movielens-20m")
    parser.add_argument("--scale", default="1")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--program", default="target/release/likemind")
    return parser.parse_args()


def load(options, url):
    """Seconds."""
    began = time.monotonic()
    synth = subprocess.Popen([options.program, "synth", "--size", options.size, "--scale", options.scale],
                             stdout=subprocess.PIPE)
    subprocess.run([options.program, "import", "ratings", "-", "--map", "value=rating,rated_at=timestamp",
                    "--time-format", "unix", "--set-config=rating.min=0.5", f"--set-config=database.url={url}"],
                   check=True, stdin=synth.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert synth.wait() == 0
    return time.monotonic() - began


def train(options, url):
    """Milliseconds by phase, how similarities were computed, encoding, bytes, seconds in all, peak memory in MB."""
    command = [options.program, "train", "--json", f"--set-config=database.url={url}", "--set-config=rating.min=0.5",
               "--set-config=telemetry.log_format=json", "--set-config=trainer.lease_ms=120000",
               "--force", "measured whatever the gate says"]
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
    return phases, paths, facts, time.monotonic() - began, usage.ru_maxrss / 1024


def psql_reads(url):
    began = time.monotonic()
    sql(url, "\\copy (SELECT user_id, item_id, value, rated_at FROM ratings) TO /dev/null")
    return time.monotonic() - began


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        os.chmod(folder, 0o755)
        database = os.path.join(folder, "postgres")
        os.mkdir(database)
        os.chmod(database, 0o777)
        with postgres(database) as url:
            subprocess.run([options.program, "migrate", f"--set-config=database.url={url}"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            print(f"# imported in {load(options, url):.0f} s", flush=True)
            sql(url, "VACUUM ANALYZE")
            runs, reads = [], []
            for run in range(options.runs):
                reads.append(psql_reads(url))
                runs.append(train(options, url))
                print(f"# run {run + 1}: {runs[-1][3]:.1f} s", flush=True)
            facts, paths = runs[-1][2], runs[-1][1]
            ratings = facts["ratings"]
            print(f"{ratings:,} ratings, snapshot of {facts['size_bytes'] / 1e6:,.0f} MB, "
                  f"peak memory {max(run[4] for run in runs):,.0f} MB\n")
            print("| phase | s, median | all runs | share |\n|---|---|---|---|")
            whole = statistics.median(run[3] for run in runs)

            def row(name, seconds):
                median = statistics.median(seconds)
                shown = " ".join(f"{one:.1f}" for one in seconds)
                print(f"| {name} | {median:.2f} | {shown} | {median / whole:.0%} |")

            for phase in runs[0][0]:
                row(f"{phase}: {paths[phase]}" if phase in paths else phase, [run[0][phase] / 1000 for run in runs])
            row("of writing: encoding", [run[2]["encoding_ms"] / 1000 for run in runs])
            row("all", [run[3] for run in runs])
            own = [read / (run[0]["reading"] / 1000) for read, run in zip(reads, runs)]
            print(f"\nReading at {statistics.median(own):.2f} × ({min(own):.2f} to {max(own):.2f}) the rows a second of "
                  f"psql's \\copy of the ratings, {ratings / statistics.median(reads):,.0f}.")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How fast ratings are imported, against what PostgreSQL itself takes for the same rows.

    cargo build --release && benches/import.py [--ratings 5000000] [--rounds 3] [--shuffled]

Needs PostgreSQL's programs (psql among them). In a private database of its own, round by round:

- into an empty table, against `\\copy` of the same rows into the same empty table, and into a bare one of the same columns
  and primary key;
- the same file again, and one in which every other rating is newer, against INSERT … SELECT FROM UNNEST … ON CONFLICT DO
  UPDATE of the same rows in batches of 10,000, on a server that has them already.

What it is compared with gets its keys ready-made as integers, and neither looks up ids nor feeds `changes`; but for `\\copy`
into the same table it has no second index and checks no references. Users have a lognormal number of ratings, items differ
in popularity; the seed is fixed.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import tempfile
import time

from targets import postgres, sql

ITEMS = 26_744
START = 1_420_070_400


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ratings", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shuffled", action="store_true", help="lines in any order, not user by user")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--program", default="target/release/likemind")
    return parser.parse_args()


def generate(folder, n_ratings, shuffled):
    """`first.csv` and `second.csv` for the import, the same rows with integer keys in `*.keys.csv`."""
    rng = random.Random(1)
    rows, user = [], 0
    while len(rows) < n_ratings:
        user += 1
        n_items = min(int(rng.lognormvariate(4.2, 1.2)) + 1, ITEMS // 4, n_ratings - len(rows))
        items = {int(ITEMS * rng.random() ** 3) + 1 for _ in range(n_items)}
        rows.extend((user, item, rng.randrange(2, 11), START + rng.randrange(100_000_000)) for item in sorted(items))
    if shuffled:
        rng.shuffle(rows)
    # External ids do not sort like keys, and keys are given as users appear.
    user_keys, item_keys = {}, {}
    for name, later in (("first", 0), ("second", 1)):
        with open(f"{folder}/{name}.csv", "w") as lines, open(f"{folder}/{name}.keys.csv", "w") as keys:
            lines.write("user_id,item_id,value,rated_at\n")
            for position, (user, item, half_stars, at) in enumerate(rows):
                if later and position % 2:
                    half_stars, at = half_stars % 9 + 2, at + 1
                user_key = user_keys.setdefault(user, len(user_keys) + 1)
                item_key = item_keys.setdefault(item, len(item_keys) + 1)
                when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
                lines.write(f"customer-{user:07},sku-{item:06},{half_stars / 2},{when}\n")
                keys.write(f"{user_key},{item_key},{half_stars / 2},{when}\n")
    return len(rows)


def timed(action, *args):
    started = time.monotonic()
    result = action(*args)
    return time.monotonic() - started, result


def run_import(options, url, file):
    """Summary and peak memory in MB."""
    command = [options.program, "import", "ratings", file, "--json", f"--connections={options.connections}",
               f"--set-config=database.url={url}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    summary = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    return summary, usage.ru_maxrss / 1024


EMPTY = ("SET client_min_messages = warning; SET session_replication_role = replica; "
         "TRUNCATE ratings, changes, users, items CASCADE")


def copy_into_ratings(url, file):
    """Into the table of the import, with the users and items there that it refers to; all is gone afterwards."""
    sql(url, f"""{EMPTY};
        SET session_replication_role = origin;
        INSERT INTO users (id, external_id) SELECT id, 'u' || id FROM first_users;
        INSERT INTO items (id, external_id) SELECT id, 'i' || id FROM first_items""")
    sql(url, "CHECKPOINT")
    seconds = timed(sql, url, f"\\copy ratings (user_id, item_id, value, rated_at) FROM '{file}' (FORMAT csv)")[0]
    sql(url, EMPTY)
    return seconds


def copy_reference(url, file):
    sql(url, "SET client_min_messages = warning; DROP TABLE IF EXISTS reference")
    sql(url, "CREATE TABLE reference (user_id bigint, item_id bigint, value real, rated_at timestamptz NOT NULL, "
             "PRIMARY KEY (user_id, item_id))")
    sql(url, "CHECKPOINT")
    return timed(sql, url, f"\\copy reference FROM '{file}' (FORMAT csv)")[0]


def stage(url, name, file):
    """The rows as arrays of 10,000 in the database, so that only the statement itself is timed."""
    sql(url, f"CREATE TABLE {name} (n bigint GENERATED ALWAYS AS IDENTITY, user_id bigint, item_id bigint, value real, "
             "rated_at timestamptz)")
    sql(url, f"\\copy {name} (user_id, item_id, value, rated_at) FROM '{file}' (FORMAT csv)")
    sql(url, f"""
        ANALYZE {name};
        CREATE TABLE {name}_batches AS
        SELECT (n - 1) / 10000 AS batch, array_agg(user_id ORDER BY user_id, item_id) AS user_ids,
               array_agg(item_id ORDER BY user_id, item_id) AS item_ids,
               array_agg(value ORDER BY user_id, item_id) AS value_list,
               array_agg(rated_at ORDER BY user_id, item_id) AS times
        FROM {name} GROUP BY 1;
        CREATE TABLE {name}_users AS SELECT DISTINCT user_id AS id FROM {name};
        CREATE TABLE {name}_items AS SELECT DISTINCT item_id AS id FROM {name};
        DROP TABLE {name}""")


def upsert_reference(url, name):
    sql(url, f"""
        CREATE OR REPLACE PROCEDURE upsert() LANGUAGE plpgsql AS $$
        DECLARE one record;
        BEGIN
            FOR one IN SELECT batch FROM {name}_batches ORDER BY batch LOOP
                INSERT INTO reference
                SELECT pairs.* FROM {name}_batches, UNNEST(user_ids, item_ids, value_list, times) AS pairs
                WHERE batch = one.batch
                ON CONFLICT (user_id, item_id) DO UPDATE SET value = excluded.value, rated_at = excluded.rated_at
                WHERE reference.rated_at <= excluded.rated_at
                  AND (reference.value, reference.rated_at) IS DISTINCT FROM (excluded.value, excluded.rated_at);
                COMMIT;
            END LOOP;
        END $$""")
    sql(url, "CHECKPOINT")
    return timed(sql, url, "CALL upsert()")[0]


def main():
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        os.chmod(folder, 0o777)
        # In a process of its own: what a child of a large process takes at the most counts from the large one's size.
        with multiprocessing.Pool(1) as pool:
            n_ratings = pool.apply(generate, (folder, options.ratings, options.shuffled))
        database = os.path.join(folder, "postgres")
        os.mkdir(database)
        with postgres(database) as url:
            subprocess.run([options.program, "migrate", f"--set-config=database.url={url}"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for name in ("first", "second"):
                stage(url, name, f"{folder}/{name}.keys.csv")
            steps = (("into an empty table", "first", copy_reference, f"{folder}/first.keys.csv", n_ratings),
                     ("the same again", "first", upsert_reference, "first", 0),
                     ("half of them newer", "second", upsert_reference, "second", n_ratings // 2))
            rates, peaks, into_same = {step[0]: [] for step in steps}, [], []
            for round_ in range(options.rounds):
                into_same.append(n_ratings / copy_into_ratings(url, f"{folder}/first.keys.csv"))
                for step, file, reference, argument, stored in steps:
                    reference_seconds = reference(url, argument)
                    sql(url, "CHECKPOINT")
                    seconds, (summary, peak) = timed(run_import, options, url, f"{folder}/{file}.csv")
                    assert summary["read"] == n_ratings and summary["stored"] == stored, summary
                    rates[step].append((n_ratings / reference_seconds, n_ratings / seconds))
                    peaks.append(peak)
                    print(f"# round {round_ + 1}, {step}: {n_ratings / reference_seconds:,.0f} and "
                          f"{n_ratings / seconds:,.0f} a second, {peak:.0f} MB", flush=True)
            print(f"{n_ratings:,} ratings, {options.rounds} rounds, at most {max(peaks):.0f} MB\n")
            print("| | reference, rows/s | import, rows/s | ratio | to `\\copy` |\n|---|---|---|---|---|")
            copies = [copy for copy, _ in rates["into an empty table"]]
            ratios = sorted(own / copy for (_, own), copy in zip(rates["into an empty table"], into_same))
            print(f"| into an empty table, as `\\copy` into it | {statistics.median(into_same):,.0f} | "
                  f"{statistics.median(own for _, own in rates['into an empty table']):,.0f} | "
                  f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | |")
            for step, pairs in rates.items():
                ratios = sorted(own / reference for reference, own in pairs)
                to_copy = statistics.median(own / copy for (_, own), copy in zip(pairs, copies))
                print(f"| {step} | {statistics.median(pair[0] for pair in pairs):,.0f} | "
                      f"{statistics.median(pair[1] for pair in pairs):,.0f} | {statistics.median(ratios):.2f} "
                      f"({ratios[0]:.2f} to {ratios[-1]:.2f}) | {to_copy:.2f} |")


if __name__ == "__main__":
    main()

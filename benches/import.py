#!/usr/bin/env python3
"""Measures how fast ratings are imported, against what PostgreSQL itself takes for the same rows.

    cargo build --release && benches/import.py [--ratings 5000000] [--rounds 3] [--shuffled]

Needs PostgreSQL's programs (psql among them). Each round, in a private database, imports:

- a file into an empty table, compared with `\\copy` of the same rows into the same empty table, and into a bare one of the
  same columns and primary key;
- the same file again, and then a file in which every other rating is newer, compared with INSERT … SELECT FROM UNNEST …
  ON CONFLICT DO UPDATE of the same rows in batches of 10,000, which the server already has.

These references get ready-made integer keys: they neither look up ids nor feed `changes`. Except for `\\copy` into the same
table they have no second index and check no references. Users have a lognormal number of ratings, items differ in
popularity; the seed is fixed.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import time

from support import header, in_database, likemind, postgres, ratios, row, spread, sql, timed

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
    """Writes `first.csv` and `second.csv` for the import, and the same rows with integer keys to `*.keys.csv`."""
    rng = random.Random(1)
    rows, user = [], 0
    while len(rows) < n_ratings:
        user += 1
        n_items = min(int(rng.lognormvariate(4.2, 1.2)) + 1, ITEMS // 4, n_ratings - len(rows))
        items = {int(ITEMS * rng.random() ** 3) + 1 for _ in range(n_items)}
        rows.extend((user, item, rng.randrange(2, 11), START + rng.randrange(100_000_000)) for item in sorted(items))
    if shuffled:
        rng.shuffle(rows)
    # Keys are given as users and items appear, so external ids do not sort like keys.
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


def run_import(options, url, file):
    """Returns the summary and the peak memory in MB."""
    command = [options.program, "import", "ratings", file, "--json", f"--connections={options.connections}",
               in_database(url)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    summary = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    return summary, usage.ru_maxrss / 1024


EMPTY = ("SET client_min_messages = warning; SET session_replication_role = replica; "
         "TRUNCATE ratings, changes, users, items CASCADE")


def copy_into_ratings(url, file):
    """Returns the seconds of COPY into the table of the import, which holds the users and items; empties all tables."""
    sql(url, f"""{EMPTY};
        SET session_replication_role = origin;
        INSERT INTO users (id, external_id) SELECT id, 'u' || id FROM first_users;
        INSERT INTO items (id, external_id) SELECT id, 'i' || id FROM first_items""")
    sql(url, "CHECKPOINT")
    seconds = timed(sql, url, f"\\copy ratings (user_id, item_id, value, rated_at) FROM '{file}' (FORMAT csv)")[0]
    sql(url, EMPTY)
    return seconds


def copy_into_bare_table(url, file):
    """Returns the seconds of COPY into the table `reference`, which it makes."""
    sql(url, "SET client_min_messages = warning; DROP TABLE IF EXISTS reference")
    sql(url, "CREATE TABLE reference (user_id bigint, item_id bigint, value real, rated_at timestamptz NOT NULL, "
             "PRIMARY KEY (user_id, item_id))")
    sql(url, "CHECKPOINT")
    return timed(sql, url, f"\\copy reference FROM '{file}' (FORMAT csv)")[0]


def stage(url, name, file):
    """Puts the rows into the database as arrays of 10,000, so that only the upsert itself is timed."""
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


def upsert_into_bare_table(url, name):
    """Returns the seconds of upserting the staged rows into the table `reference`."""
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


def measure_rounds(options, url, folder, n_ratings):
    """Returns pairs of (reference, import) in rows a second by step, the rows a second of COPY into the table of the import,
    and the peak memory of the import in MB."""
    steps = (("into an empty table, to `\\copy` into a bare one", "first", copy_into_bare_table, f"{folder}/first.keys.csv",
              n_ratings),
             ("the same again, to the upsert", "first", upsert_into_bare_table, "first", 0),
             ("half of them newer, to the upsert", "second", upsert_into_bare_table, "second", n_ratings // 2))
    rates, peaks, into_same = {step[0]: [] for step in steps}, [], []
    for number in range(options.rounds):
        into_same.append(n_ratings / copy_into_ratings(url, f"{folder}/first.keys.csv"))
        for step, file, reference, argument, stored in steps:
            reference_seconds = reference(url, argument)
            sql(url, "CHECKPOINT")
            seconds, (summary, peak) = timed(run_import, options, url, f"{folder}/{file}.csv")
            assert summary["read"] == n_ratings and summary["stored"] == stored, summary
            rates[step].append((n_ratings / reference_seconds, n_ratings / seconds))
            peaks.append(peak)
            print(f"# round {number + 1}, {step}: {n_ratings / reference_seconds:,.0f} and "
                  f"{n_ratings / seconds:,.0f} a second, {peak:.0f} MB", flush=True)
    return rates, into_same, max(peaks)


def report(rates, into_same):
    def step_row(step, references, imports):
        row(step, f"{statistics.median(references):,.0f}", f"{statistics.median(imports):,.0f}",
            spread(ratios(imports, references)))

    header("", "reference, rows/s", "import, rows/s", "ratio")
    _, first_imports = zip(*next(iter(rates.values())))
    step_row("into an empty table, to `\\copy` into the same", into_same, first_imports)
    for step, pairs in rates.items():
        step_row(step, *zip(*pairs))


def main():
    options = arguments()
    program = os.path.abspath(options.program)
    with postgres() as (folder, url):
        # This runs in a process of its own: the peak memory of a child counts from the size of the process that starts it.
        with multiprocessing.Pool(1) as pool:
            n_ratings = pool.apply(generate, (folder, options.ratings, options.shuffled))
        likemind(program, in_database(url), "migrate")
        for name in ("first", "second"):
            stage(url, name, f"{folder}/{name}.keys.csv")
        rates, into_same, peak_mb = measure_rounds(options, url, folder, n_ratings)
        print(f"{n_ratings:,} ratings, {options.rounds} rounds, at most {peak_mb:.0f} MB\n")
        report(rates, into_same)


if __name__ == "__main__":
    main()

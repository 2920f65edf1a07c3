#!/usr/bin/env python3
"""Measures the time and the memory that StreamCouponTargets takes for a million users.

    cargo build --release && benches/targets.py [--users 1000000]

Needs PostgreSQL's programs (psql among them). Makes users, items and purchases in a private database, trains on them and
lists the targets of one coupon. Prints the time to the first row, the thousandth and the last, and the server's memory
before and at its peak. Making the data takes some minutes; the seed is fixed.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

from support import Server, in_database, likemind, postgres, sql

METHOD = "CouponService/StreamCouponTargets"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--purchases-per-user", type=int, default=10)
    parser.add_argument("--covered", type=int, default=100, help="items that the coupon covers")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--program", default="target/release/likemind")
    return parser.parse_args()


def fill(url, options):
    """Makes purchases. Every user has one of 50 tastes and buys items of that taste, the popular ones more often."""
    tastes = 50
    sql(url, f"""
        SELECT setseed(.5);
        SET session_replication_role = replica;
        INSERT INTO users (id, external_id)
        SELECT n, 'user-' || lpad(n::text, 8, '0') FROM generate_series(1, {options.users}) AS n;
        INSERT INTO items (id, external_id, title)
        SELECT n, 'item-' || lpad(n::text, 6, '0'), 'Item ' || n FROM generate_series(1, {options.items}) AS n;
        INSERT INTO purchases (order_id, user_id, item_id, line_number, quantity, line_total_minor, currency_code,
            purchased_at)
        SELECT 'order-' || user_id || '-' || number, user_id,
               1 + (user_id % {tastes}) + {tastes} * floor({options.items} / {tastes} * power(random(), 2))::bigint,
               1, 1, 100, 'GBP', timestamptz '2025-01-01' + random() * interval '300 days'
        FROM generate_series(1, {options.users}) AS user_id,
             generate_series(1, {options.purchases_per_user}) AS number;
        INSERT INTO campaigns (id, external_id, currency_code, audience, holdout_basis_points, holdout_salt)
        VALUES (1, 'campaign', 'GBP', 'all', 1000, '\\x00112233445566778899aabbccddeeff');
        INSERT INTO campaign_states (campaign_id, state, starts_at, ends_at)
        VALUES (1, 'active', now() - interval '1 day', now() + interval '1 year');
        INSERT INTO coupons (id, external_id, campaign_id, discount, amount_minor, per_user_cap, reservation_ttl_seconds)
        VALUES (1, 'coupon', 1, 'amount', 100, 1, 900);
        INSERT INTO coupon_items SELECT 1, id FROM items WHERE id <= {options.covered};
        INSERT INTO coupon_counters (coupon_id) VALUES (1);
        INSERT INTO user_coupon_counters (user_id, coupon_id, cap, reserved, redeemed)
        SELECT id, 1, 1, 0, 1 FROM users WHERE id % 100 = 0;
        INSERT INTO consents (user_id, purpose, is_granted, decided_at)
        SELECT id, 'marketing', false, now() FROM users WHERE id % 50 = 1;
        UPDATE coupon_book SET revision = revision + 1""")
    sql(url, "VACUUM ANALYZE")


def list_targets(program, server, **request):
    """Returns the seconds from the start of a client to the first row, the thousandth and the end; and the number of rows."""
    command = [program, "call", METHOD, json.dumps({"coupon_id": "coupon", **request}),
               "--address", f"http://{server.address}"]
    started = time.monotonic()
    client = subprocess.Popen(command, stdout=subprocess.PIPE)
    times, rows = {}, 0
    for line in client.stdout:
        if b'"userId"' in line or b'"user_id"' in line:
            rows += 1
            if rows in (1, 1_000):
                times[rows] = time.monotonic() - started
    times["all"] = time.monotonic() - started
    if client.wait() != 0:
        raise SystemExit("the call failed")
    return times, rows


def show_seconds(name, values):
    values = [value for value in values if value is not None]
    if values:
        print(f"  {name:<22} {statistics.median(values):8.3f} s ({min(values):.3f} to {max(values):.3f})")


def measure(program, server, options):
    before = server.memory_mb()
    server.forget_peak()
    first = [list_targets(program, server, limit=1_000, preview=True)[0] for _ in range(options.runs)]
    print(f"the best 1,000 of {options.users:,} users, {options.runs} runs:")
    show_seconds("first row", [times.get(1) for times in first])
    show_seconds("thousandth row", [times.get(1_000) for times in first])
    print(f"  memory before / peak   {before:8.0f} MB / {server.memory_mb('VmHWM'):.0f} MB")
    server.forget_peak()
    for preview in (True, False):
        times, rows = list_targets(program, server, preview=preview)
        print(f"all {rows:,} rows, {'nobody' if preview else 'everybody'} logged as offered:")
        show_seconds("first row", [times.get(1)])
        show_seconds("all", [times["all"]])
    print(f"  memory before / peak   {before:8.0f} MB / {server.memory_mb('VmHWM'):.0f} MB")


def main():
    options = arguments()
    program = os.path.abspath(options.program)
    with postgres() as (_, url):
        likemind(program, in_database(url), "migrate")
        began = time.monotonic()
        fill(url, options)
        print(f"data made in {time.monotonic() - began:.0f} s", flush=True)
        began = time.monotonic()
        # Evaluation and gate are not measured here.
        likemind(program, in_database(url), "train", "--set-config=gate.min_users=100000000",
                 "--set-config=evaluation.max_users=1000", "--set-config=trainer.lease_ms=600000")
        print(f"trained in {time.monotonic() - began:.0f} s", flush=True)
        with Server(program, in_database(url)) as server:
            server.until_loaded()
            measure(program, server, options)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How long StreamCouponTargets takes for a million users, and what memory.

    cargo build --release && benches/targets.py [--users 1000000] [--program target/release/likemind]

Needs PostgreSQL's programs (psql among them). Makes users, items and purchases in a private database of its own, trains
on them, and lists the targets of one coupon: the time to the first row, the thousandth and the last, and the server's
memory before and at the most. The data takes some minutes; the seed is fixed.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager

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


@contextmanager
def postgres(folder):
    """A PostgreSQL that is gone afterwards, and does not wait for disks; its URL."""
    versions = "/usr/lib/postgresql"
    newest = max(os.listdir(versions), key=float)
    bin_folder = os.path.join(versions, newest, "bin")
    as_user = []
    if os.getuid() == 0:
        subprocess.run(["chown", "postgres", folder], check=True)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = os.path.join(folder, "data")

    def run(*command):
        subprocess.run([*as_user, *command], check=True, cwd="/", stdout=subprocess.DEVNULL)

    run(f"{bin_folder}/initdb", "-D", data, "--auth=trust", "-U", "postgres", "--locale=C.UTF-8", "-E", "UTF8")
    settings = {
        "listen_addresses": "''",
        "unix_socket_directories": folder,
        "fsync": "off",
        "shared_buffers": "1GB",
        "max_wal_size": "8GB",
        "maintenance_work_mem": "512MB",
    }
    options = " ".join(f"-c {key}={value}" for key, value in settings.items())
    run(f"{bin_folder}/pg_ctl", "-D", data, "-w", "-l", os.path.join(folder, "log"), "-o", options, "start")
    try:
        yield f"postgres:///postgres?host={folder}&user=postgres"
    finally:
        run(f"{bin_folder}/pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def sql(url, statements):
    subprocess.run(["psql", url, "-q", "-v", "ON_ERROR_STOP=1", "-c", statements], check=True, stdout=subprocess.DEVNULL)


def fill(url, options):
    """Purchases of items that differ in popularity, within one of 50 tastes each, so that neighbors mean something."""
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


class Server:
    def __init__(self, program, environment):
        command = [program, "serve", "--listen=127.0.0.1:0", "--set-config=telemetry.metrics=false"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.address, version = None, None
        for line in self.process.stderr:
            found = re.search(r"serving on (127\.0\.0\.1:\d+)", line)
            self.address = f"http://{found.group(1)}" if found else self.address
            version = version or re.search(r"serving snapshot", line)
            if self.address and version:
                return
        raise SystemExit("the server did not start")

    def memory_mb(self, name):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(rf"{name}:\s+(\d+) kB", file.read()).group(1)) / 1024

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
            file.write("5")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def listing(program, server, environment, **request):
    """Seconds from the start of a client until the header, the first row, the thousandth and the end; and the rows."""
    command = [program, "call", METHOD, json.dumps({"coupon_id": "coupon", **request}), "--address", server.address]
    started = time.monotonic()
    client = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
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


def measure(program, server, environment, options):
    def show(name, values):
        values = [value for value in values if value is not None]
        if values:
            print(f"  {name:<22} {statistics.median(values):8.3f} s ({min(values):.3f} to {max(values):.3f})")

    before = server.memory_mb("VmRSS")
    server.forget_peak()
    first = [listing(program, server, environment, limit=1_000, preview=True)[0] for _ in range(options.runs)]
    print(f"the best 1,000 of {options.users:,} users, {options.runs} runs:")
    show("first row", [times.get(1) for times in first])
    show("thousandth row", [times.get(1_000) for times in first])
    print(f"  memory before / peak   {before:8.0f} MB / {server.memory_mb('VmHWM'):.0f} MB")
    server.forget_peak()
    for preview in (True, False):
        times, rows = listing(program, server, environment, preview=preview)
        print(f"all {rows:,} rows, {'nobody' if preview else 'everybody'} logged as offered:")
        show("first row", [times.get(1)])
        show("all", [times["all"]])
    print(f"  memory before / peak   {before:8.0f} MB / {server.memory_mb('VmHWM'):.0f} MB")


def main():
    options = arguments()
    program = os.path.abspath(options.program)
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        os.chmod(folder, 0o755)
        with postgres(folder) as url:
            environment = {**os.environ, "LIKEMIND__DATABASE__URL": url}
            subprocess.run([program, "migrate"], check=True, env=environment)
            began = time.monotonic()
            fill(url, options)
            print(f"data made in {time.monotonic() - began:.0f} s")
            began = time.monotonic()
            # The gate is not what this is about.
            train = [program, "train", "--set-config=gate.min_users=100000000", "--set-config=evaluation.max_users=1000",
                     "--set-config=trainer.lease_ms=600000"]
            trained = subprocess.run(train, env=environment, capture_output=True, text=True)
            if trained.returncode != 0:
                raise SystemExit(trained.stderr)
            print(f"trained in {time.monotonic() - began:.0f} s")
            server = Server(program, environment)
            try:
                measure(program, server, environment, options)
            finally:
                server.stop()


if __name__ == "__main__":
    main()

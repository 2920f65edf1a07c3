#!/usr/bin/env python3
"""Measures how many CheckEligibility calls a second are answered, against the query that each of them runs.

    cargo build --release --bins --benches && benches/eligibility.py

Runs on the sample. Needs PostgreSQL's programs (pgbench among them) and two cores, which server, database and client
share. Each round first lets pgbench run the query of src/store/coupons/eligibility.rs, then sends the calls.
"""

import argparse
import os
import re
import statistics

from support import (
    CONNECTIONS, SETTINGS, Client, Database, Messages, Server, in_folder, newest_bench, ratios, sample, spread,
)

CHECK_ELIGIBILITY = "/likemind.v1.CouponService/CheckEligibility"
SOURCE = os.path.join(os.path.dirname(__file__), "..", "src", "store", "coupons", "eligibility.rs")
ACTIVE_COUPONS = """
SELECT external_id FROM coupons JOIN campaign_states USING (campaign_id) WHERE state = 'active' LIMIT 2
"""


def query():
    """Returns the query of CheckEligibility from the source, as a script of pgbench."""
    with open(SOURCE) as file:
        (found,) = re.findall(r'r#"(SELECT .*?)"#', file.read(), re.DOTALL)
    for parameter, name in (("$1", ":user"), ("$2", ":days"), ("$3", ":coupons")):
        found = found.replace(parameter, name)
    return re.sub(r'"(\w+)[!?].*?"', r"\1", found) + ";\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", default="target/release", help="where likemind and the benches were built")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    args = parser.parse_args()
    program = os.path.abspath(os.path.join(args.programs, "likemind"))
    client = Client(newest_bench(args.programs, "load"))
    with sample(program) as (folder, data_dir, key), \
            Server(program, in_folder(data_dir), *SETTINGS, f"database.max_connections={CONNECTIONS}") as server:
        database = Database(data_dir)
        messages = Messages(folder, database)
        coupons = database.sql(ACTIVE_COUPONS)
        path = os.path.join(folder, "eligibility.sql")
        with open(path, "w") as file:
            file.write(query())
        values = {"user": messages.users[0], "days": "7", "coupons": "{" + ",".join(coupons) + "}"}
        defines = [f"--define={name}={value}" for name, value in values.items()]
        # The server's connections have this setting too.
        environment = {**os.environ, "PGOPTIONS": "-c jit=off"}
        check = messages.check_eligibility(coupons)
        load = ("--connections", 4, "--streams", args.callers // 4, "--seconds", args.seconds)
        client.load(server, CHECK_ELIGIBILITY, check, *load, key=key, pinned=False)
        calls, queries = [], []
        for _ in range(args.rounds):
            queries.append(database.pgbench(path, CONNECTIONS, args.seconds, *defines, env=environment))
            calls.append(client.load(server, CHECK_ELIGIBILITY, check, *load, key=key, pinned=False)["per_second"])
    print(f"CheckEligibility of {len(coupons)} coupons, {args.callers} callers, {args.rounds} rounds: pgbench "
          f"{statistics.median(queries):,.0f}/s, calls {statistics.median(calls):,.0f}/s, "
          f"ratio {spread(ratios(calls, queries))}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures how many redemptions a second one coupon takes, against what the database can do at most.

    cargo build --release && benches/redemptions.py

Needs grpcio, PostgreSQL's programs (pgbench among them) and two cores. A redemption is ReserveCoupon and then
ConfirmRedemption: two transactions that change the rows of the coupon and of its campaign, so redemptions of one coupon
run one after the other. The limit is what pgbench reaches with such a transaction alone: the guarded update of one row
and its commit. Each round runs pgbench on one row, then redemptions of one coupon, then redemptions of as many coupons as
there are callers, where nobody waits for anybody.
"""

import argparse
import asyncio
import os
import random
import statistics
import time

import grpc

from support import Database, Server, header, in_folder, nested, number, quantile_ms, ratios, row, sample, spread, text

RESERVE = "/likemind.v1.CouponService/ReserveCoupon"
CONFIRM = "/likemind.v1.CouponService/ConfirmRedemption"
CHANNELS = 4
# Every limit of a key is counted and none is reached.
SETTINGS = ["access.requests_per_second=1000000", "access.burst=1000000"]
# Guards compare with a limit that is never reached, so they do as much work as with a real one.
LIMIT = 10 ** 15

SCHEMA = f"""
INSERT INTO campaigns (external_id, currency_code, audience, holdout_salt)
SELECT 'bench-' || n, 'GBP', 'all', decode(md5(n::text), 'hex') FROM generate_series(0, :coupons) AS n;
INSERT INTO campaign_states (campaign_id, state, starts_at, ends_at, limit_minor)
SELECT id, 'active', now() - interval '1 day', now() + interval '1 day', {LIMIT} FROM campaigns
WHERE external_id LIKE 'bench-%';
INSERT INTO coupons (external_id, campaign_id, discount, amount_minor, covers_all, per_user_cap, reservation_ttl_seconds)
SELECT external_id, id, 'amount', 100, true, 1000000, 900 FROM campaigns WHERE external_id LIKE 'bench-%';
INSERT INTO coupon_counters (coupon_id, total_cap) SELECT id, {LIMIT} FROM coupons WHERE external_id LIKE 'bench-%';
UPDATE coupon_book SET revision = revision + 1;
CREATE TABLE bench_budget (LIKE campaign_states INCLUDING ALL);
INSERT INTO bench_budget SELECT * FROM campaign_states
WHERE campaign_id = (SELECT id FROM campaigns WHERE external_id = 'bench-0');
"""

GUARDED_UPDATE = """
UPDATE bench_budget SET reserved_minor = reserved_minor + 1
WHERE state IN ('scheduled', 'active') AND starts_at <= clock_timestamp() AND clock_timestamp() < ends_at
  AND (limit_minor IS NULL OR reserved_minor + spent_minor + 1 <= limit_minor);
"""

BALANCE = """
SELECT count(*) FROM coupon_counters
JOIN coupons ON coupons.id = coupon_id JOIN campaign_states USING (campaign_id)
JOIN (SELECT coupon_id, sum(reserved) AS reserved, sum(redeemed) AS redeemed, sum(reserved_minor) AS reserved_minor,
             sum(spent_minor) AS spent_minor FROM coupon_ledger GROUP BY coupon_id) AS ledger USING (coupon_id)
WHERE (coupon_counters.reserved, coupon_counters.redeemed, campaign_states.reserved_minor, campaign_states.spent_minor)
   <> (ledger.reserved, ledger.redeemed, ledger.reserved_minor, ledger.spent_minor)
"""


def updates_a_second(database, folder, callers, seconds):
    script = os.path.join(folder, "guarded.sql")
    with open(script, "w") as file:
        file.write(GUARDED_UPDATE)
    rate = database.pgbench(script, callers, seconds)
    assert database.sql("SELECT reserved_minor > 0 FROM bench_budget") == ["t"], "nothing was updated"
    return rate


CART = nested(4, text(1, "GBP"), nested(2, text(1, "85123A"), number(2, 1), number(3, 1_000)))


def id_of(answer):
    """Returns the id in an answer: the first field of the message in its only field."""
    at = 1
    while answer[at] & 128:
        at += 1
    length = answer[at + 2]
    assert answer[at + 1] == 10
    return answer[at + 3:at + 3 + length].decode()


class Shoppers:
    def __init__(self, address, key, users):
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
        self.metadata = (("authorization", f"Bearer {key}"),)
        self.users = users
        self.run = 0

    async def redeem(self, channel, request, user, coupon):
        call = channel.unary_unary(RESERVE)
        body = text(1, request + "r") + text(2, user) + text(3, coupon) + CART
        reservation = id_of(await call(body, metadata=self.metadata))
        call = channel.unary_unary(CONFIRM)
        await call(text(1, request + "c") + text(2, reservation), metadata=self.metadata)

    async def redemptions(self, coupons, callers, seconds):
        """Returns redemptions a second, and the seconds that each took. Caller n redeems coupon n modulo `coupons`."""
        self.run += 1
        took = []
        began = time.perf_counter()
        end = began + seconds

        async def caller(n):
            source = random.Random(n)
            turn = 0
            while (now := time.perf_counter()) < end:
                turn += 1
                request = f"{self.run}-{n}-{turn}"
                await self.redeem(self.channels[n % CHANNELS], request, source.choice(self.users), f"bench-{n % coupons}")
                took.append(time.perf_counter() - now)

        await asyncio.gather(*(caller(n) for n in range(callers)))
        return len(took) / (time.perf_counter() - began), took

    async def close(self):
        for channel in self.channels:
            await channel.close()


async def measure(address, key, database, folder, callers, args):
    users = database.sql("SELECT external_id FROM users ORDER BY id LIMIT 4000")
    shoppers = Shoppers(address, key, users)
    await shoppers.redemptions(callers, callers, 1)
    most, hot, apart, took = [], [], [], []
    for _ in range(args.rounds):
        most.append(await asyncio.to_thread(updates_a_second, database, folder, callers, args.seconds))
        rate, times = await shoppers.redemptions(1, callers, args.seconds)
        hot.append(rate)
        took += times
        rate, _ = await shoppers.redemptions(callers, callers, args.seconds)
        apart.append(rate)
    await shoppers.close()
    row(callers, f"{statistics.median(most):,.0f}", f"{statistics.median(hot):,.0f}",
        spread(ratios([2 * rate for rate in hot], most)), quantile_ms(took, .5), quantile_ms(took, .99),
        f"{statistics.median(apart):,.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="?", default="target/release/likemind")
    parser.add_argument("--seconds", type=int, default=10, help="of each run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 16, 64])
    args = parser.parse_args()
    program = os.path.abspath(args.program)
    header("callers", "updates, 1/s", "redemptions of one coupon, 1/s", "2 × redemptions ÷ updates", "p50, ms", "p99, ms",
           "redemptions of as many coupons, 1/s")
    with sample(program) as (folder, data_dir, key), Server(program, in_folder(data_dir), *SETTINGS) as server:
        database = Database(data_dir)
        database.sql(SCHEMA, "-v", f"coupons={max(args.callers)}")
        # Servers look for new definitions once a second.
        time.sleep(2)
        for callers in args.callers:
            asyncio.run(measure(server.address, key, database, folder, callers, args))
        assert database.sql(BALANCE) == ["0"], "the ledger does not sum to the counters"


if __name__ == "__main__":
    main()

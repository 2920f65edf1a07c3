#!/usr/bin/env python3
"""What becomes of accepted calls when more come than can be answered.

    cargo build --release && benches/overload.py

Needs grpcio, PostgreSQL's programs and two cores: server and database on one, this client on the other. First as many
calls as get answered (closed loop, no limit reached); then calls at 1, 2 and 5 times that rate, at random times and
whether or not those before are answered (open loop). A call that is refused is not tried again. Latencies count from
the moment when a call was due, so that a client that falls behind shows as latency and not as less load.
"""

import argparse
import asyncio
import os
import random
import resource
import time
from dataclasses import dataclass, field

import grpc

from server import LIST_PURCHASES, RECOMMEND, USER, Server, number, sample, text

LOADS = (1, 2, 5)
# Of a closed loop: enough to keep one core busy, fewer than any limit below.
CALLERS = 16
CHANNELS = 8
# Longer than anything may take; a call that ends by it is a failure.
DEADLINE_S = 60

# What asks the database, and what goes to the pool for heavy work: each about 1 ms or more, so that refusing is far
# cheaper than answering and this client, one core of Python, can offer five times too many.
CALLS = {
    "ListPurchases": (LIST_PURCHASES, text(1, USER) + number(3, 500)),
    "Recommend": (RECOMMEND, text(1, USER) + number(3, 200) + number(8, 1)),
}
LIMITS = {
    # 128 that need the database, 512 of a key.
    "defaults": [],
    "64": ["server.max_concurrent_requests=64"],
}


@dataclass
class Outcomes:
    """Seconds from when a call was due to its end."""

    accepted: list = field(default_factory=list)
    refused: list = field(default_factory=list)
    failed: dict = field(default_factory=dict)
    lateness: list = field(default_factory=list)


class Client:
    def __init__(self, address, method, request, key):
        # One connection would hold what is too much back: it has at most 1,024 calls under way.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self.channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
        self.calls = [channel.unary_unary(method) for channel in self.channels]
        self.request = request
        self.metadata = (("authorization", f"Bearer {key}"),)
        self.turn = 0

    async def call(self, due, outcomes):
        self.turn += 1
        stub = self.calls[self.turn % CHANNELS]
        outcomes.lateness.append(time.perf_counter() - due)
        try:
            await stub(self.request, metadata=self.metadata, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            took = time.perf_counter() - due
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                name = error.code().name
                outcomes.failed[name] = outcomes.failed.get(name, 0) + 1
                return
            details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
            assert b"google.rpc.RetryInfo" in details, error
            outcomes.refused.append(took)
        else:
            outcomes.accepted.append(time.perf_counter() - due)

    async def capacity(self, seconds):
        """Answers a second."""
        outcomes = Outcomes()
        end = time.perf_counter() + seconds

        async def caller():
            while (now := time.perf_counter()) < end:
                await self.call(now, outcomes)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        assert not outcomes.refused and not outcomes.failed, outcomes.failed
        return len(outcomes.accepted) / (time.perf_counter() - began)

    async def offer(self, rate, seconds, source):
        """What becomes of `rate` calls a second, at the times of a Poisson process."""
        outcomes = Outcomes()
        under_way = set()
        began = time.perf_counter()
        due = began
        while due < began + seconds:
            due += source.expovariate(rate)
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.call(due, outcomes))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        took = time.perf_counter() - began
        at_end = len(outcomes.accepted)
        await asyncio.gather(*under_way)
        return outcomes, at_end / took

    async def close(self):
        for channel in self.channels:
            await channel.close()


def quantile(values, share):
    """In ms."""
    if not values:
        return "–"
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3:,.0f}"


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(address, name, key, limit, seconds):
    method, request = CALLS[name]
    client = Client(address, method, request, key)
    source = random.Random(1)
    await client.capacity(2)
    capacity = await client.capacity(seconds / 2)
    for load in LOADS:
        cpu, began = cpu_seconds(), time.perf_counter()
        outcomes, rate = await client.offer(load * capacity, seconds, source)
        busy = (cpu_seconds() - cpu) / (time.perf_counter() - began)
        n = len(outcomes.accepted) + len(outcomes.refused) + sum(outcomes.failed.values())
        failed = ", ".join(f"{count} {code}" for code, count in outcomes.failed.items()) or "0"
        print(f"| {name} | {limit} | {load} × {capacity:,.0f} | {rate:,.0f} | {len(outcomes.refused) / n:.1%} "
              f"| {failed} | {quantile(outcomes.accepted, .5)} | {quantile(outcomes.accepted, .99)} "
              f"| {quantile(outcomes.accepted, 1)} | {quantile(outcomes.refused, .99)} "
              f"| {quantile(outcomes.lateness, .99)} | {busy:.0%} |", flush=True)
    await client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="?", default="target/release/likemind")
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    args = parser.parse_args()
    program = os.path.abspath(args.program)
    os.sched_setaffinity(0, {1})
    # ms, but for shares and rates; the last two columns say whether the client kept up.
    print("| call | limit | offered, 1/s | accepted, 1/s | refused | failed | p50 | p99 | longest | p99 of refused "
          "| client late, p99 | client busy |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    with sample(program) as (_, data_dir, key):
        for limit, settings in LIMITS.items():
            for name in CALLS:
                with Server(program, data_dir, *settings, under=["taskset", "-c", "0"]) as server:
                    asyncio.run(measure(server.address, name, key, limit, args.seconds))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures what becomes of accepted calls when more calls come than can be answered.

    cargo build --release && benches/overload.py

Needs grpcio, PostgreSQL's programs and two cores: server and database use one, this client the other. First measures the
capacity with callers that wait for their answers (closed loop, no limit is reached). Then sends 1, 2 and 5 times as many
calls a second, at random times, whether or not earlier calls are answered (open loop). A refused call is not sent again.
Latencies count from the moment when a call was due, so a client that falls behind shows as latency, not as less load.
"""

import argparse
import asyncio
import os
import random
import resource
import time
from dataclasses import dataclass, field

import grpc

from support import (
    CLIENT_CORE, LIST_PURCHASES, RECOMMEND, SERVER_CORE, USER, Server, header, in_folder, number, quantile_ms, row, sample,
    text,
)

LOADS = (1, 2, 5)
# Callers of the closed loop: enough to keep one core busy, fewer than any limit below.
CALLERS = 16
CHANNELS = 8
# Longer than anything may take: a call that reaches this deadline has failed.
DEADLINE_S = 60

# A call that asks the database, and a call that goes to the CPU pool. Each takes about 1 ms or more, so refusing is far
# cheaper than answering, and this client, one core of Python, can send five times too many.
CALLS = {
    "ListPurchases": (LIST_PURCHASES, text(1, USER) + number(3, 500)),
    "Recommend": (RECOMMEND, text(1, USER) + number(3, 200) + number(8, 1)),
}
LIMITS = {
    # 128 calls that need the database, 512 calls of one key.
    "default": [],
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
        # One connection would hold calls back: it has at most 1,024 of them under way.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self.channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
        self.calls = [channel.unary_unary(method) for channel in self.channels]
        self.request = request
        self.metadata = (("authorization", f"Bearer {key}"),)
        self.n_calls = 0

    async def call(self, due, outcomes):
        self.n_calls += 1
        stub = self.calls[self.n_calls % CHANNELS]
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
        """Returns the answers a second to callers that wait for them."""
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
        """Sends `rate` calls a second at the times of a Poisson process; returns outcomes and accepted calls a second."""
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
        row(name, limit, f"{load} × {capacity:,.0f}", f"{rate:,.0f}", f"{len(outcomes.refused) / n:.1%}", failed,
            quantile_ms(outcomes.accepted, .5), quantile_ms(outcomes.accepted, .99), quantile_ms(outcomes.accepted, 1),
            quantile_ms(outcomes.refused, .99), quantile_ms(outcomes.lateness, .99), f"{busy:.0%}")
    await client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="?", default="target/release/likemind")
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    args = parser.parse_args()
    program = os.path.abspath(args.program)
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    print("Times are in ms. The last two columns show whether the client kept up.\n")
    header("call", "limit", "offered, 1/s", "accepted, 1/s", "refused", "failed", "p50", "p99", "longest",
           "p99 of refused", "client late, p99", "client busy")
    with sample(program) as (_, data_dir, key):
        for limit, settings in LIMITS.items():
            for name in CALLS:
                with Server(program, in_folder(data_dir), *settings, under=["taskset", "-c", SERVER_CORE]) as server:
                    asyncio.run(measure(server.address, name, key, limit, args.seconds))


if __name__ == "__main__":
    main()

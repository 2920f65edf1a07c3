#!/usr/bin/env python3
"""What asking for a key costs.

    cargo build --release && benches/access.py

Needs h2load (Debian: nghttp2-client) and PostgreSQL's programs. Starts `likemind` on the sample in a folder of its own;
server on one core, h2load on the other. Pairs of runs take turns, so that what else the machine does falls on both.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile

PROGRAM = os.path.abspath("target/release/likemind") if len(sys.argv) < 2 else os.path.abspath(sys.argv[1])
PAIRS = 7
REQUESTS = 20_000
METHOD = "/likemind.v1.RecommendationService/PredictRatings"


def likemind(data_dir, *args):
    command = [PROGRAM, *args, "--data-dir", data_dir]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def message(data_dir):
    """PredictRatings of 20 items, framed as gRPC frames it."""

    def text(field, value):
        value = value.encode()
        return bytes([field << 3 | 2, len(value)]) + value

    items = ["85123A", "22423", "85099B", "47566", "20725", "84879", "22720", "22197", "21212", "22383",
             "20727", "22457", "23203", "22386", "22469", "21931", "22411", "22086", "22961", "20728"]
    body = text(1, "17841") + b"".join(text(2, item) for item in items)
    path = os.path.join(data_dir, "request")
    with open(path, "wb") as file:
        file.write(b"\0" + len(body).to_bytes(4, "big") + body)
    return path


class Server:
    def __init__(self, data_dir, *settings):
        flags = [f"--set-config={setting}" for setting in settings]
        command = ["taskset", "-c", "0", PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir,
                   "--set-config=telemetry.metrics=false", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            found = re.search(r"serving on (127\.0\.0\.1:\d+)", line)
            if found:
                self.address = found.group(1)
                return
        raise SystemExit("the server did not start")

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, request, key, requests, connections, streams):
        """Requests a second and CPU seconds a request."""
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        if key:
            headers += ["-H", f"authorization: Bearer {key}"]
        before = self.cpu_seconds()
        command = ["taskset", "-c", "1", "h2load", "-n", str(requests), "-c", str(connections), "-m", str(streams),
                   "-d", request, *headers, f"http://{self.address}{METHOD}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rate = float(re.search(r"([\d.]+) req/s", output).group(1))
        return rate, (self.cpu_seconds() - before) / requests

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def overhead(data_dir, request, key):
    server = Server(data_dir, "server.allow_unauthenticated=true", "access.max_concurrent_requests=0")
    for given in (None, key):
        server.load(request, given, REQUESTS, 8, 64)
    cpu, rates = [], []
    for pair in range(PAIRS):
        order = (None, key) if pair % 2 == 0 else (key, None)
        got = {given: server.load(request, given, REQUESTS, 8, 64) for given in order}
        cpu.append(got[key][1] / got[None][1])
        rates.append(got[key][0] / got[None][0])
    server.stop()
    print(f"with a key / without, {PAIRS} pairs of {REQUESTS} PredictRatings of 20 items, 8 × 64 streams:")
    print(f"  server CPU a call   {spread(cpu)}")
    print(f"  requests a second   {spread(rates)}")


def main():
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        os.chmod(folder, 0o755)
        data_dir = os.path.join(folder, "data")
        likemind(data_dir, "quickstart", "--exit", "--listen", "127.0.0.1:0", f"--set-config=telemetry.metrics=false")
        key = json.loads(likemind(data_dir, "keys", "create", "--role", "service", "--json"))["key"]
        request = message(folder)
        overhead(data_dir, request, key)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures what clients that do not behave cost a server: memory, and the time of others.

    cargo build --release && tests/faults/clients.py target/release/likemind

Needs PostgreSQL's programs. Each case gets a server of its own, prints the peak of its memory before and after, and what a
client that does behave notices meanwhile. Compare the figures of two versions of the program: they depend on the machine.
"""

import argparse
import gzip
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
MAX_FRAME = 16384
STATUS = "likemind.v1.ModelService/GetServingStatus"
HEALTH = "grpc.health.v1.Health/Check"
WATCH = "grpc.health.v1.Health/Watch"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def text(value):
    assert len(value) < 127
    return bytes([len(value)]) + value.encode()


def headers(stream, rpc, is_compressed=False):
    """Returns the frame that begins a call: POST, http, :path, :authority, content-type and grpc-encoding."""
    block = bytes([0x83, 0x86, 4]) + text("/" + rpc) + bytes([1]) + text("localhost")
    block += bytes([0x0F, 0x10]) + text("application/grpc")
    if is_compressed:
        block += bytes([0]) + text("grpc-encoding") + text("gzip")
    return frame(HEADERS, END_HEADERS, stream, block)


def call(stream, rpc, message=b"", is_compressed=False):
    framed = bytes([is_compressed]) + struct.pack(">I", len(message)) + message
    parts = [framed[at:at + MAX_FRAME] for at in range(0, len(framed), MAX_FRAME)]
    frames = [frame(DATA, END_STREAM if part is parts[-1] else 0, stream, part) for part in parts]
    return headers(stream, rpc, is_compressed) + b"".join(frames)


class Connection:
    def __init__(self, port, window=None):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = b"" if window is None else struct.pack(">HI", 4, window)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
        self.received = b""

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        """Returns kind, flags and stream of the next frame; None at the end."""
        try:
            while len(self.received) < 9 or len(self.received) < 9 + int.from_bytes(self.received[:3], "big"):
                more = self.socket.recv(1 << 16)
                if not more:
                    return None
                self.received += more
        except OSError:
            return None
        length, kind, flags = int.from_bytes(self.received[:3], "big"), self.received[3], self.received[4]
        stream = int.from_bytes(self.received[5:9], "big")
        self.received = self.received[9 + length:]
        return kind, flags, stream

    def wait_for_end(self, stream):
        """Reads until `stream` ends; returns whether it did."""
        while (read := self.read()) is not None:
            kind, flags, of = read
            if of == stream and (kind == RST_STREAM or kind in (DATA, HEADERS) and flags & END_STREAM):
                return True
        return False


class Server:
    def __init__(self, program, folder, *settings, files=None):
        command = [program, "serve", "--listen=127.0.0.1:0", f"--data-dir={folder}",
                   "--set-config=telemetry.metrics=false", *(f"--set-config={setting}" for setting in settings)]

        def limit():
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=limit)
        for line in self.process.stderr:
            if found := re.search(r"serving on 127.0.0.1:(\d+)", line):
                self.port = int(found.group(1))
                break
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        Connection(self.port).send(call(1, HEALTH))
        time.sleep(0.5)

    def memory_mb(self, name):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(rf"{name}:\s+(\d+)", status.read()).group(1)) / 1024

    def peak_mb(self):
        return self.memory_mb("VmHWM")

    def stop(self):
        """Returns how long it takes to stop."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        return time.monotonic() - started


class Bystander:
    """Calls a server all the time and keeps how long each call took."""

    def __init__(self, server):
        self.times, self.is_over = [], False
        self.thread = threading.Thread(target=self.run, args=(server,))
        self.thread.start()

    def run(self, server):
        connection, stream = Connection(server.port), 1
        while not self.is_over:
            started = time.monotonic()
            connection.send(call(stream, STATUS))
            if not connection.wait_for_end(stream):
                break
            self.times.append(time.monotonic() - started)
            stream += 2
            time.sleep(0.005)

    def p99_ms(self):
        self.is_over = True
        self.thread.join()
        return sorted(self.times)[int(len(self.times) * 0.99)] * 1000


def bomb(field, entries):
    return gzip.compress(bytes([field << 3 | 2, 0]) * entries, 9)


def entries_of_nothing(start):
    """Eight compressed requests of 2,090,000 empty entries at once; then four clients that send such ones to PredictRatings."""
    server = start()
    before, small = server.peak_mb(), bomb(1, 2_090_000)
    connections = [Connection(server.port) for _ in range(8)]
    started = time.monotonic()
    for connection in connections:
        connection.send(call(1, "likemind.v1.PurchaseService/RecordPurchases", small, True))
    for connection in connections:
        connection.wait_for_end(1)
    print(f"  RecordPurchases, {len(small)} bytes each: peak {before:.0f} -> {server.peak_mb():.0f} MB, "
          f"{time.monotonic() - started:.2f} s")
    server.stop()
    server = start()
    bystander, calls = Bystander(server), [0]
    time.sleep(3)
    alone = bystander.p99_ms()
    bystander, ends = Bystander(server), time.monotonic() + 5
    # As many entries as fit into the largest message of either version.
    small = bomb(2, 130_000)

    def attack():
        connection, stream = Connection(server.port), 1
        while time.monotonic() < ends:
            connection.send(call(stream, "likemind.v1.RecommendationService/PredictRatings", small, True))
            if not connection.wait_for_end(stream):
                return
            calls[0] += 1
            stream += 2

    attackers = [threading.Thread(target=attack) for _ in range(4)]
    for attacker in attackers:
        attacker.start()
    for attacker in attackers:
        attacker.join()
    print(f"  PredictRatings, {calls[0]} calls of {len(small)} bytes in 5 s: p99 of others {alone:.1f} -> "
          f"{bystander.p99_ms():.1f} ms, peak {server.peak_mb():.0f} MB")
    server.stop()


def unread_answers(start):
    """2,000 calls whose answers of 57 kB nobody takes, with a window of 0 and of 1."""
    for window in 0, 1:
        server = start()
        items = b""
        for number in range(80):
            title = b"x" * 700
            item = b"\n" + text(f"i{number}") + b"\x12" + b"\xbc\x05" + title
            items += b"\n" + struct.pack("BB", len(item) & 0x7F | 0x80, len(item) >> 7) + item
        fill = Connection(server.port)
        fill.send(call(1, "likemind.v1.CatalogService/UpsertItems", items))
        assert fill.wait_for_end(1)
        before = server.peak_mb()
        connections = [Connection(server.port, window) for _ in range(2)]
        for number in range(1000):
            for connection in connections:
                connection.send(call(1 + 2 * number, "likemind.v1.CatalogService/ListItems", b"\x08\xe8\x07"))
            if number % 50 == 49:
                time.sleep(0.2)
        time.sleep(3)
        print(f"  window {window}: peak {before:.0f} -> {server.peak_mb():.0f} MB, "
              f"now {server.memory_mb('VmRSS'):.0f} MB")
        server.stop()


def streams_without_a_key(start):
    """60,000 streams of Health/Watch over 60 connections."""
    server = start()
    before, connections = server.peak_mb(), []
    for _ in range(60):
        connection = Connection(server.port)
        connection.send(b"".join(call(1 + 2 * number, WATCH) for number in range(1000)))
        connections.append(connection)
    time.sleep(5)
    print(f"  peak {before:.0f} -> {server.peak_mb():.0f} MB")
    server.stop()


def silent_connections(start):
    """1,100 connections that say nothing, to a server that may open 1,024 files."""
    server = start(files=1024)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(1100)]
    started, answered = time.monotonic(), threading.Event()

    def probe():
        connection = Connection(server.port)
        connection.send(call(1, HEALTH))
        if connection.wait_for_end(1):
            answered.set()

    threading.Thread(target=probe, daemon=True).start()
    is_answered = answered.wait(15)
    waited = f"after {time.monotonic() - started:.3f} s" if is_answered else "not within 15 s"
    print(f"  a probe is answered {waited}; the server stops in {server.stop():.1f} s")
    del silent


def cancelled_calls(start):
    """8,000 calls that are given up at once, over one connection."""
    server = start()
    connection, before = Connection(server.port), server.peak_mb()
    cancel = struct.pack(">I", 8)
    for begin in range(0, 8000, 500):
        streams = range(1 + 2 * begin, 1 + 2 * (begin + 500), 2)
        try:
            connection.send(b"".join(headers(stream, STATUS) + frame(RST_STREAM, 0, stream, cancel) for stream in streams))
        except OSError:
            break
        time.sleep(0.05)
    is_closed = False
    connection.socket.settimeout(3)
    while (read := connection.read()) is not None:
        is_closed |= read[0] == GOAWAY
    print(f"  the connection is {'closed' if is_closed else 'kept'}; peak {before:.0f} -> {server.peak_mb():.0f} MB")
    server.stop()


CASES = [entries_of_nothing, unread_answers, streams_without_a_key, silent_connections, cancelled_calls]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("case", nargs="*", help=", ".join(case.__name__ for case in CASES))
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    folder = tempfile.mkdtemp(prefix="likemind-faults.", dir="/tmp")
    os.chmod(folder, 0o755)
    try:
        for case in CASES:
            if not arguments.case or case.__name__ in arguments.case:
                print(f"{case.__name__}: {case.__doc__}", flush=True)
                case(lambda *settings, **options: Server(arguments.program, folder, *settings, **options))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

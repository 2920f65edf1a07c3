"""A server on the sample, for the measurements beside this file."""

import glob
import json
import os
import re
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress

PREDICT_RATINGS = "/likemind.v1.RecommendationService/PredictRatings"
RECOMMEND = "/likemind.v1.RecommendationService/Recommend"
LIST_PURCHASES = "/likemind.v1.PurchaseService/ListPurchases"

# Who bought most in the sample: of all users the most work.
USER = "17841"


def likemind(program, data_dir, *args):
    command = [program, *args, "--data-dir", data_dir]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def sample(program):
    """A folder with the sample in `data`, trained, and a key of the role `service` for it."""
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        # PostgreSQL does not run as root, and has to reach its folder.
        os.chmod(folder, 0o755)
        data_dir = os.path.join(folder, "data")
        likemind(program, data_dir, "quickstart", "--exit", "--listen", "127.0.0.1:0",
                 "--set-config=telemetry.metrics=false")
        key = json.loads(likemind(program, data_dir, "keys", "create", "--role", "service", "--json"))["key"]
        yield folder, data_dir, key


class Server:
    def __init__(self, program, data_dir, *settings, under=()):
        flags = [f"--set-config={setting}" for setting in ("telemetry.metrics=false", *settings)]
        command = [*under, program, "serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir, *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.is_loaded = False
        for line in self.process.stderr:
            self.is_loaded |= "serving snapshot" in line
            found = re.search(r"serving on (127\.0\.0\.1:\d+)", line)
            if found:
                self.address = found.group(1)
                return
        raise SystemExit("the server did not start")

    def until_loaded(self):
        """One that takes long to load its snapshot, as under valgrind, begins to serve without."""
        self.is_loaded = self.is_loaded or any("serving snapshot" in line for line in self.process.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()


class Database:
    """The private PostgreSQL of a running server."""

    def __init__(self, data_dir):
        (pid_file,) = glob.glob(os.path.join(data_dir, "**", "postmaster.pid"), recursive=True)
        with open(pid_file) as file:
            lines = file.read().splitlines()
        self.pid = int(lines[0])
        self.flags = ["-h", lines[4], "-p", lines[3], "-U", "postgres"]
        self.name = "likemind"

    def processes(self):
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True).stdout
        return self.pid, *map(int, children.split())

    def step_behind(self):
        """Leaves its core to whoever else wants it, from now on: where a database has a machine of its own, the server
        does not share one with it. Connections to come inherit it."""
        for pid in self.processes():
            # One that has ended meanwhile needs nothing.
            with suppress(ProcessLookupError):
                os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))

    def use_all_cores(self):
        """Also those that the server which has started it may not use. Connections to come inherit it."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(pid, range(os.cpu_count()))

    def sql(self, statements, *flags):
        command = ["psql", *self.flags, "-d", self.name, "-v", "ON_ERROR_STOP=1", "-qtA", *flags]
        return subprocess.run(command, check=True, capture_output=True, text=True, input=statements).stdout.splitlines()


def text(field, value):
    """A field of a message."""
    value = value.encode()
    assert len(value) < 128
    return bytes([field << 3 | 2, len(value)]) + value


def number(field, value):
    """A field of a message."""
    encoded = bytearray([field << 3])
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes(encoded + bytes([value]))

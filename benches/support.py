"""Helpers of the benchmark suites beside this file: databases, servers, messages, clients and meters."""

import glob
import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress

PREDICT_RATINGS = "/likemind.v1.RecommendationService/PredictRatings"
RECOMMEND = "/likemind.v1.RecommendationService/Recommend"
LIST_PURCHASES = "/likemind.v1.PurchaseService/ListPurchases"

# The customer of the sample with the most purchases: a call for this user takes the most work.
USER = "17841"

# Servers and the programs that they are compared with run on one core, their clients on the other.
SERVER_CORE, CLIENT_CORE = "0", "1"

# Connections to the database, of a server as of pgbench.
CONNECTIONS = 16

# Messages of the log that the suites wait for.
LISTENING = r"serving on (127\.0\.0\.1:\d+)"
LOADED = r"serving snapshot \d+"
LOADED_IN_MS = r"serving snapshot.*took_ms=(\d+)"

# Calls are answered with or without a key, no limit is reached, and nothing runs beside the calls.
SETTINGS = ["server.allow_unauthenticated=true", "access.requests_per_second=1000000", "access.burst=1000000",
            "access.max_concurrent_requests=0", "server.max_concurrent_requests=4096",
            "live.refresh_interval_ms=3600000", "rating.min=0.5", "telemetry.metrics=true",
            "telemetry.metrics_listen=127.0.0.1:0"]

# No answer comes from the cache.
COMPUTED = ["server.answer_cache_bytes=0"]

ANSI = re.compile(r"\x1b\[[0-9;]*m")


# Programs

class Process:
    """A program whose log can be waited for and whose memory can be read. Ends with the `with` block."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()

    def until(self, pattern):
        """Returns the first match of `pattern` in the log; None if the program ends without one."""
        for line in self.process.stderr:
            found = re.search(pattern, ANSI.sub("", line))
            if found:
                return found
        return None

    def memory_mb(self, field="VmRSS"):
        """Returns `field` of /proc/PID/status in MB: VmRSS is the memory now, VmHWM the peak."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(rf"{field}:\s+(\d+)", file.read()).group(1)) / 1024

    def forget_peak(self):
        """Lets VmHWM begin anew."""
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
            file.write("5")


class Server(Process):
    """`likemind serve` on a free port.

    `at`: the flag that says where the data are, see `in_folder` and `in_database`.
    `under`: a command that runs the server, such as `taskset -c 0`.
    """

    def __init__(self, program, at, *settings, under=()):
        flags = [f"--set-config={setting}" for setting in ("telemetry.metrics=false", *settings)]
        super().__init__([*under, program, "serve", "--listen", "127.0.0.1:0", at, *flags])
        self.is_loaded = False
        found = self.until(f"{LISTENING}|{LOADED}")
        while found and not found.group(1):
            self.is_loaded = True
            found = self.until(f"{LISTENING}|{LOADED}")
        if not found:
            raise SystemExit("the server did not start")
        self.address = found.group(1)

    def until_loaded(self):
        """Waits for the snapshot: a server whose snapshot takes long to load, as under valgrind, listens before."""
        if not self.is_loaded and not self.until(LOADED):
            raise SystemExit("the server ended before it had loaded its snapshot")
        self.is_loaded = True


class Baseline(Process):
    """The server of baseline.rs, whose answers have ids and titles as long as those of `messages` on average."""

    def __init__(self, program, messages, under=()):
        super().__init__([*under, program, str(messages.item_bytes), str(messages.title_bytes)])
        found = self.until(r"serving on (\S+)")
        if not found:
            raise SystemExit("the baseline did not start")
        self.address = found.group(1)

    def end(self):
        self.process.kill()
        self.process.communicate()


def in_folder(data_dir):
    return f"--data-dir={data_dir}"


def in_database(url):
    return f"--database-url={url}"


def likemind(program, at, *args):
    """Runs a command of `program` on the data at `at` and returns what it prints."""
    return subprocess.run([program, *args, at], check=True, capture_output=True, text=True).stdout


def newest_bench(programs, name):
    """Returns the path of the Rust bench `name` that was built last. `programs`: target/release."""
    found = [path for path in glob.glob(os.path.join(programs, "deps", f"{name}-*")) if "." not in os.path.basename(path)]
    if not found:
        raise SystemExit(f"the bench {name} has not been built: cargo build --release --bins --benches")
    return os.path.abspath(max(found, key=os.path.getmtime))


# Data

@contextmanager
def sample(program):
    """Yields a working folder, a data folder with the trained sample in it, and a key of the role `service`."""
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        # PostgreSQL does not run as root, and its user has to reach the folder.
        os.chmod(folder, 0o755)
        data_dir = os.path.join(folder, "data")
        likemind(program, in_folder(data_dir), "quickstart", "--exit", "--listen", "127.0.0.1:0",
                 "--set-config=telemetry.metrics=false")
        yield folder, data_dir, service_key(program, data_dir)


@contextmanager
def synthetic(program, size, data_dir, scale=1):
    """Yields the same as `sample` for ratings of `likemind synth`: `size` and `scale` are its options.

    The ratings are kept in `data_dir`; they are made and trained on only if that folder does not exist.
    """
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        if not os.path.exists(data_dir):
            likemind(program, in_folder(data_dir), "migrate")
            import_synthetic(program, in_folder(data_dir), size, scale)
            likemind(program, in_folder(data_dir), "train", "--force", "to measure with", "--set-config=rating.min=0.5")
        yield folder, data_dir, service_key(program, data_dir)


def import_synthetic(program, at, size="movielens-20m", scale=1):
    """Imports the ratings of `likemind synth` into a migrated database."""
    synth = subprocess.Popen([program, "synth", "--size", size, "--scale", str(scale)], stdout=subprocess.PIPE)
    subprocess.run([program, "import", "ratings", "-", "--map", "value=rating,rated_at=timestamp", "--time-format", "unix",
                    "--set-config=rating.min=0.5", at],
                   check=True, stdin=synth.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if synth.wait() != 0:
        raise SystemExit("likemind synth failed")


def service_key(program, data_dir):
    return json.loads(likemind(program, in_folder(data_dir), "keys", "create", "--role", "service", "--json"))["key"]


# PostgreSQL

@contextmanager
def postgres():
    """Yields a folder and the URL of a PostgreSQL in it that does not wait for disks. Both are deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="likemind-bench.") as folder:
        # PostgreSQL writes its sockets there, as a user of its own.
        os.chmod(folder, 0o777)
        versions = "/usr/lib/postgresql"
        bin_folder = os.path.join(versions, max(os.listdir(versions), key=float), "bin")
        as_user = []
        if os.getuid() == 0:
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = os.path.join(folder, "postgres")

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
        run(f"{bin_folder}/pg_ctl", "-D", data, "-w", "-l", os.path.join(folder, "postgres.log"), "-o", options, "start")
        try:
            yield folder, f"postgres:///postgres?host={folder}&user=postgres"
        finally:
            run(f"{bin_folder}/pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def sql(url, statements):
    """Runs `statements`, or one command of psql, and returns the rows that they print."""
    command = ["psql", url, "-qtA", "-v", "ON_ERROR_STOP=1", "-c", statements]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


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

    def run_on_idle_time(self):
        """From now on the database gets only what others leave of its core, as if it had a machine of its own.

        Connections that are opened later inherit this.
        """
        for pid in self.processes():
            # A process that has ended meanwhile needs nothing.
            with suppress(ProcessLookupError):
                os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))

    def sql(self, statements, *flags):
        command = ["psql", *self.flags, "-d", self.name, "-v", "ON_ERROR_STOP=1", "-qtA", *flags]
        return subprocess.run(command, check=True, capture_output=True, text=True, input=statements).stdout.splitlines()

    def pgbench(self, script, clients, seconds, *flags, **options):
        """Runs the file `script` again and again and returns its transactions a second."""
        command = ["pgbench", "-n", "-M", "prepared", "-f", script, "-c", str(clients), "-T", str(max(1, round(seconds))),
                   *flags, *self.flags, self.name]
        output = subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout
        return float(re.search(r"tps = ([\d.]+)", output).group(1))


# Messages

def text(field, value):
    """Encodes a string field of a message."""
    value = value.encode()
    assert len(value) < 128
    return bytes([field << 3 | 2, len(value)]) + value


def number(field, value):
    """Encodes an integer field of a message."""
    encoded = bytearray([field << 3])
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes(encoded + bytes([value]))


def nested(field, *parts):
    """Encodes a field of a message that is a message itself."""
    body = b"".join(parts)
    assert len(body) < 128
    return bytes([field << 3 | 2, len(body)]) + body


def framed(body):
    """Returns the message `body` as gRPC sends it."""
    return b"\0" + len(body).to_bytes(4, "big") + body


ITEMS_BY_POPULARITY = """
SELECT external_id, length(coalesce(title, '')), n FROM items
JOIN (SELECT item_id, count(*) AS n FROM (SELECT item_id FROM ratings UNION ALL SELECT item_id FROM purchases) AS events
      GROUP BY item_id) AS popular ON item_id = id
ORDER BY n DESC, external_id LIMIT 3000
"""
USERS_WITH_HISTORY = """
SELECT external_id FROM users
WHERE EXISTS (SELECT FROM ratings WHERE user_id = users.id) OR EXISTS (SELECT FROM purchases WHERE user_id = users.id)
ORDER BY external_id
"""


class Messages:
    """Writes files of messages about users and items that are drawn from a database.

    Users are drawn by Zipf's law (exponent 1) over a seeded shuffle, items as often as they are rated or bought.
    """

    PREDICTED_ITEMS, LIMIT = 20, 20

    def __init__(self, folder, database, seed=1):
        self.folder = folder
        self.source = random.Random(seed)
        self.users = database.sql(USERS_WITH_HISTORY)
        self.source.shuffle(self.users)
        self.user_weights = list(itertools.accumulate(1 / rank for rank in range(1, len(self.users) + 1)))
        rows = [row.split("|") for row in database.sql(ITEMS_BY_POPULARITY)]
        self.items = [row[0] for row in rows]
        self.item_weights = list(itertools.accumulate(int(row[2]) for row in rows))
        self.item_bytes = round(statistics.mean(len(item) for item in self.items))
        self.title_bytes = round(statistics.mean(int(row[1]) for row in rows))

    def draw_users(self, n):
        return self.source.choices(self.users, cum_weights=self.user_weights, k=n)

    def draw_items(self, n):
        drawn = {}
        while len(drawn) < n:
            drawn.update(dict.fromkeys(self.source.choices(self.items, cum_weights=self.item_weights, k=n)))
        return list(drawn)[:n]

    def write(self, name, bodies):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            for body in bodies:
                file.write(framed(body))
        return path

    def predict(self, n=20_000):
        return self.write(f"predict-{n}", (
            text(1, user) + b"".join(text(2, item) for item in self.draw_items(self.PREDICTED_ITEMS))
            for user in self.draw_users(n)))

    def recommend(self, n=500_000):
        return self.write("recommend", (text(1, user) + number(3, self.LIMIT) for user in self.draw_users(n)))

    def check_eligibility(self, coupons, n=10_000):
        body = b"".join(text(2, coupon) for coupon in coupons)
        return self.write("check", (text(1, user) + body for user in self.draw_users(n)))


# Clients and meters

class Client:
    """load.rs, which sends the messages of a file in turn."""

    def __init__(self, program):
        self.program = program

    def load(self, server, method, messages, *flags, key=None, pinned=True):
        """Returns what load.rs prints: calls, per_second, p50_us, p99_us."""
        command = ["taskset", "-c", CLIENT_CORE] if pinned else []
        command += [self.program, server.address, method, messages, *(str(flag) for flag in flags)]
        if key:
            command += ["--key", key]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(output)


def h2load_command(server, method, message, streams, connections, key=None):
    """Returns a command that sends one framed message again and again; how long or how often, the caller adds.

    h2load never lets a server keep `authorization` in its table of headers: the key comes in full with every call.
    """
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    if key:
        headers += ["-H", f"authorization: Bearer {key}"]
    return ["taskset", "-c", CLIENT_CORE, "h2load", "-c", str(connections), "-m", str(streams), "-d", message, *headers,
            f"http://{server.address}{method}"]


class InstructionMeter:
    """Counts the instructions of a server that runs under callgrind."""

    def __init__(self, server, folder):
        self.pid = server.process.pid
        self.folder = folder
        self.n_readings = 0

    @staticmethod
    def under(folder):
        """The command that a server has to run under."""
        return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind"]

    def take(self):
        """Returns the number since the last reading."""
        subprocess.run(["callgrind_control", "--dump", str(self.pid)], check=True, capture_output=True)
        self.n_readings += 1
        path = os.path.join(self.folder, f"callgrind.{self.n_readings}")
        with open(path) as file:
            total = re.search(r"^(?:totals|summary): (\d+)", file.read(), re.MULTILINE)
        return int(total.group(1))


class CpuTimeMeter:
    """Measures the CPU time of a server's threads, including those that have ended."""

    def __init__(self, server):
        # Source: clock_getcpuclockid(3), as glibc computes it.
        self.clock = ~server.process.pid << 3 | 2
        self.before = 0.0
        self.take()

    def take(self):
        """Returns the seconds since the last reading."""
        now = time.clock_gettime(self.clock)
        took, self.before = now - self.before, now
        return took


# Figures

def spread(values, digits=2):
    """Formats the median with the minimum and the maximum."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratios(numerators, denominators):
    """Returns the ratios of values that were measured in the same round."""
    return [numerator / denominator for numerator, denominator in zip(numerators, denominators)]


def quantile_ms(seconds, share):
    """Formats a quantile of `seconds` in ms."""
    if not seconds:
        return "–"
    ordered = sorted(seconds)
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3:,.0f}"


def header(*columns):
    """Prints the head of a table in Markdown."""
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def row(*cells):
    """Prints a row of a table in Markdown."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def timed(action, *args):
    """Returns the seconds that `action` took, and its result."""
    started = time.monotonic()
    result = action(*args)
    return time.monotonic() - started, result

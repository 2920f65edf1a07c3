#!/usr/bin/env python3
"""Measures the training kernel against similaripy, in turns on the same synthetic ratings.

    benches/similarity.py [--pairs 5] [--sides items users] [--size movielens-20m] [--scale 1] [--real]

Makes a virtual environment with similaripy 0.7.0 in target/similarity-venv unless it exists. Every run is a process of its
own that reads the ratings and then computes the 50 best neighbors of every row on 2 threads. Only the computation is
timed; the peak is that of the resident memory of the whole process while it computes. The lists of 500 rows are checked
against sums in f64. Prints the median with minimum and maximum.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time

from support import header, ratios, row, spread

NEIGHBORS = 50
THREADS = 2
CHECKED_ROWS = 500
PACKAGES = ["similaripy==0.7.0", "numpy", "scipy"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="runs of each; 0 to check ours only")
    parser.add_argument("--sides", nargs="+", choices=["items", "users"], default=["items", "users"])
    parser.add_argument("--size", choices=["movielens-1m", "movielens-20m"], default="movielens-20m")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--real", action="store_true", help="values that lie on no grid")
    parser.add_argument("--folder", default="target/similarity", help="for ratings and lists")
    return parser.parse_args()


def our_program():
    """Builds benches/similarity.rs and returns its path."""
    command = ["cargo", "bench", "--bench", "similarity", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    messages = [json.loads(line) for line in lines]
    programs = [message["executable"] for message in messages if message.get("target", {}).get("name") == "similarity"]
    return programs[-1]


def python_with_peer():
    folder = os.path.abspath("target/similarity-venv")
    python = os.path.join(folder, "bin/python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def read(file, n_numbers, kinds):
    """Returns the integers at the front of a file, then arrays. `kinds`: their types, and their lengths by the integers."""
    import numpy

    with open(file, "rb") as source:
        numbers = [int(number) for number in numpy.fromfile(source, "<u8", n_numbers)]
        return numbers, [numpy.fromfile(source, kind, length(numbers)) for kind, length in kinds]


def read_matrix(file, side):
    import scipy.sparse

    (n_rows, n_columns, _), (offsets, columns, values) = read(
        file, 3, [("<u8", lambda n: n[0] + 1), ("<u4", lambda n: n[2]), ("<f4", lambda n: n[2])]
    )
    by_user = scipy.sparse.csr_matrix((values, columns.astype("i4"), offsets.astype("i4")), (n_rows, n_columns))
    return by_user if side == "users" else by_user.T.tocsr()


def run_peer(file, side):
    """Times similaripy, in a process of its own."""
    import similaripy

    matrix = read_matrix(file, side)
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
    start = time.perf_counter()
    similaripy.cosine(matrix, k=NEIGHBORS, num_threads=THREADS, verbose=False, format_output="csr")
    seconds = time.perf_counter() - start
    with open("/proc/self/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": seconds, "peak_bytes": int(peak.split()[1]) * 1024}))


def check(file, side, lists):
    """Compares lists with similarities that are summed in f64, in a process of its own."""
    import numpy

    matrix = read_matrix(file, side).astype("f8")
    _, (offsets, neighbors, similarities) = read(
        lists, 2, [("<u8", lambda n: n[0] + 1), ("<u4", lambda n: n[1]), ("<f4", lambda n: n[1])]
    )
    norms = numpy.sqrt(matrix.multiply(matrix).sum(axis=1).A1)
    norms[norms == 0] = 1
    rows = random.Random(1).sample(range(matrix.shape[0]), min(CHECKED_ROWS, matrix.shape[0]))
    worst = 0.0
    for index in rows:
        expected = (matrix @ matrix[index].toarray().ravel()) / norms / norms[index]
        expected[index] = 0
        found = slice(int(offsets[index]), int(offsets[index + 1]))
        best = numpy.sort(expected)[::-1][:NEIGHBORS]
        best = best[best > 0]
        assert len(similarities[found]) == len(best), f"row {index} has {len(similarities[found])} neighbors, not {len(best)}"
        assert len(set(neighbors[found])) == len(best), f"row {index} has a neighbor twice"
        if len(best):
            of_listed = abs(expected[neighbors[found]] - similarities[found]).max()
            of_best = abs(best - similarities[found]).max()
            worst = max(worst, of_listed, of_best)
    assert worst < 1e-6, f"a similarity is off by {worst}"
    print(json.dumps({"rows": len(rows), "worst": float(worst)}))


def child(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(output.splitlines()[-1])


def measure_side(args, program, python, file, side):
    lists = os.path.join(args.folder, f"lists-{side}.bin")
    ours, peers = [], []

    def run_ours():
        options = ["--side", side, "--threads", str(THREADS), "--neighbors", str(NEIGHBORS), "--lists", lists]
        ours.append(child(program, "run", file, *options))

    for pair in range(max(args.pairs, 1)):
        if pair % 2 == 0:
            run_ours()
        if args.pairs > 0:
            peers.append(child(python, __file__, "run-peer", file, side))
        if pair % 2 == 1:
            run_ours()
    checked = child(python, __file__, "check", file, side, lists)
    our_seconds, peer_seconds = ([run["seconds"] for run in runs] for runs in (ours, peers))
    our_peak, peer_peak = (max((run["peak_bytes"] for run in runs), default=0) / 1e9 for runs in (ours, peers))
    row(side,
        spread(peer_seconds, 1) if peers else "–", spread(our_seconds, 2),
        spread(ratios(peer_seconds, our_seconds), 1) if peers else "–",
        f"{peer_peak:.2f}" if peers else "–", f"{our_peak:.2f}",
        ours[-1]["path"], f"{checked['worst']:.1e}")


def main():
    args = arguments()
    os.makedirs(args.folder, exist_ok=True)
    program, python = our_program(), python_with_peer()
    file = os.path.join(args.folder, f"{args.size}-{args.scale}{'-real' if args.real else ''}.bin")
    if not os.path.exists(file):
        real = ["--real"] if args.real else []
        subprocess.run([program, "write", file, "--size", args.size, "--scale", str(args.scale), *real], check=True)
    header("side", "similaripy, s", "ours, s", "ratio", "peak GB", "peak GB, ours", "products",
           f"largest error in {CHECKED_ROWS} rows")
    for side in args.sides:
        measure_side(args, program, python, file, side)


if __name__ == "__main__":
    match sys.argv[1:2]:
        case ["run-peer"]:
            run_peer(*sys.argv[2:])
        case ["check"]:
            check(*sys.argv[2:])
        case _:
            main()

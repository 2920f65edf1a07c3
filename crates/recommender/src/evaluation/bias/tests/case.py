#!/usr/bin/env python3
"""Computes the bias report of a small random shop in plain Python and prints input and figures as JSON.

An independent implementation of docs/formulas.md, "Bias", which shares no code with the program; `tests.rs` compares the
two. To write the case again:

    crates/recommender/src/evaluation/bias/tests/case.py > crates/recommender/src/evaluation/bias/tests/case.json
"""

import json
import math
import random
from collections import Counter

TOP, MIN_GROUP = 10, 5
ITEMS, USERS = 40, 60
CATEGORIES, MERCHANTS = ["cups", "plates", "tea"], ["m1", "m2", "m3", "m4"]


def shop(draw):
    """A shop with popular and rare items, unlisted ones, and ones without a category or a merchant."""
    popularity = [1 / (item + 1) for item in range(ITEMS)]
    draw.shuffle(popularity)
    histories, lists, relevant = [], [], []
    for user in range(USERS):
        history = set()
        while len(history) < 1 + user % 9:
            history.add(draw.choices(range(ITEMS), popularity)[0])
        histories.append(sorted(history))
    listed = [draw.random() < 0.85 for _ in range(ITEMS)]
    for user in range(USERS):
        candidates = [item for item in range(ITEMS) if listed[item] and item not in histories[user]]
        scored = sorted(candidates, key=lambda item: -popularity[item] * draw.uniform(0.2, 1))
        lists.append(scored[:20])
        relevant.append(sorted(draw.sample(candidates, draw.randint(1, 5))))
    users = [sum(item in history for history in histories) for item in range(ITEMS)]
    orders = [count + draw.randint(0, 3) if count else 0 for count in users]
    age = [draw.choices(["young", "middle", "old", "ancient", None], [20, 20, 15, 1, 4])[0] for _ in range(USERS)]
    return {
        "listed": listed,
        "category": [draw.choice(CATEGORIES + [None]) for _ in range(ITEMS)],
        "merchant": [draw.choice(MERCHANTS + [None]) for _ in range(ITEMS)],
        "users": users,
        "orders": orders,
        "histories": histories,
        "lists": lists,
        "relevant": relevant,
        "personal": [draw.random() < 0.8 for _ in range(USERS)],
        "age": age,
    }


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def ndcg(shown, relevant):
    gain = sum(1 / math.log2(rank + 1) for rank, item in enumerate(shown[:TOP], 1) if item in relevant)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(TOP, len(relevant)) + 1))


def gini(counts):
    """Half of the mean absolute difference over the mean, scaled so that one item alone gives 1."""
    n, total = len(counts), sum(counts)
    differences = sum(abs(a - b) for a in counts for b in counts)
    return differences / (2 * n * total) * n / (n - 1)


def head(users, wanted):
    """The most popular items, as many as `wanted` says of the list so far."""
    chosen = []
    for item in sorted(range(ITEMS), key=lambda item: (-users[item], item)):
        if not wanted(chosen):
            break
        chosen.append(item)
    return set(chosen)


def percentile(values, value):
    return (sum(other < value for other in values) + sum(other == value for other in values) / 2) / len(values)


def divergence(history, shown, category):
    def shares(items):
        counts = Counter(category[item] for item in items if category[item])
        total = sum(counts.values())
        return {name: count / total for name, count in counts.items()} if total else {}

    p, q = shares(history), shares(shown)
    return sum(share * math.log(share / (0.99 * q.get(name, 0) + 0.01 * share)) for name, share in p.items())


def figures(case):
    users = case["users"]
    shown = [items[:TOP] for items in case["lists"]]
    counts = Counter(item for items in shown for item in items)
    listed = [item for item in range(ITEMS) if case["listed"][item]]
    places = sum(counts.values())
    tail = set(range(ITEMS)) - head(users, lambda chosen: sum(users[item] for item in chosen) < 0.8 * sum(users))
    ndcgs = [ndcg(items, relevant) for items, relevant in zip(case["lists"], case["relevant"])]
    hits = [bool(set(items) & set(relevant)) for items, relevant in zip(shown, case["relevant"])]

    popular = head(users, lambda chosen: len(chosen) < math.ceil(ITEMS / 5))
    shares = [mean(item in popular for item in history) for history in case["histories"]]
    ranks = [percentile(shares, share) for share in shares]
    tastes = ["niche" if rank < 0.2 else "mainstream" if rank > 0.8 else "mixed" for rank in ranks]
    by_taste = []
    for taste in ("niche", "mixed", "mainstream"):
        members = [user for user in range(USERS) if tastes[user] == taste]
        if len(members) >= MIN_GROUP:
            before = mean(mean(users[item] for item in case["histories"][user]) for user in members)
            after = mean(mean(users[item] for item in shown[user]) for user in members)
            by_taste.append([taste, len(members), before, after, (after - before) / before, mean(ndcgs[user] for user in members)])

    lengths = [len(history) for history in case["histories"]]
    quartiles = [int(4 * percentile(lengths, length)) + 1 for length in lengths]
    by_activity = []
    for quartile in range(1, 5):
        members = [user for user in range(USERS) if quartiles[user] == quartile]
        if len(members) >= MIN_GROUP:
            by_activity.append([quartile, len(members), mean(ndcgs[user] for user in members)])

    category = case["category"]
    divergences = [divergence(history, items, category) for history, items in zip(case["histories"], shown)
                   if any(category[item] for item in history)]

    merchants, merchant = [], case["merchant"]
    owned = [item for item in range(ITEMS) if merchant[item]]
    for name in MERCHANTS:
        own = [item for item in owned if merchant[item] == name]
        exposed = sum(counts[item] for item in own) / sum(counts[item] for item in owned)
        offered = sum(case["listed"][item] for item in own) / sum(case["listed"][item] for item in owned)
        sold = sum(case["orders"][item] for item in own) / sum(case["orders"][item] for item in owned)
        merchants.append([name, exposed, offered, sold, exposed / offered, exposed / sold])

    groups = {}
    for user, value in enumerate(case["age"]):
        if value:
            groups.setdefault(value, []).append(user)
    groups = {value: members for value, members in sorted(groups.items()) if len(members) >= MIN_GROUP}
    by_value = [[value, len(members), mean(ndcgs[user] for user in members), mean(hits[user] for user in members),
                 mean(case["personal"][user] for user in members)] for value, members in groups.items()]
    return {
        "ndcg": mean(ndcgs),
        "hit_rate": mean(hits),
        "gini": gini([counts[item] for item in listed]),
        "coverage": mean(counts[item] > 0 for item in listed),
        "mean_popularity": sum(counts[item] * users[item] for item in counts) / places,
        "long_tail": [len(tail), sum(counts[item] for item in tail) / places,
                      sum(users[item] for item in tail) / sum(users)],
        "popularity_groups": by_taste,
        "activity_quartiles": by_activity,
        "calibration": [len(divergences), mean(divergences)],
        "merchants": merchants,
        "age": by_value,
        "hidden_users": USERS - sum(len(members) for members in groups.values()),
        "ratios": [ratio(by_value, column) for column in (2, 3, 4)],
        "intervals": [interval(groups, by_value, column, values)
                      for column, values in ((2, ndcgs), (3, hits), (4, case["personal"]))],
    }


def extremes(by_value, column):
    return min(by_value, key=lambda row: row[column]), max(by_value, key=lambda row: row[column])


def ratio(by_value, column):
    least, most = extremes(by_value, column)
    return [least[0], most[0], least[column] / most[column]]


def interval(groups, by_value, column, values, samples=20_000):
    """The percentile bootstrap interval, from another source of random numbers."""
    draw = random.Random(7)
    least, most = (([float(values[user]) for user in groups[row[0]]]) for row in extremes(by_value, column))
    ratios = []
    for _ in range(samples):
        over = mean(draw.choices(most, k=len(most)))
        if over:
            ratios.append(mean(draw.choices(least, k=len(least))) / over)
    ratios.sort()
    return [ratios[int(share * (len(ratios) - 1))] for share in (0.025, 0.975)]


def main():
    case = shop(random.Random(24))
    json.dump({"top": TOP, "min_group": MIN_GROUP, "shop": case, "figures": figures(case)}, fp := open(1, "w", closefd=False))
    fp.write("\n")


if __name__ == "__main__":
    main()

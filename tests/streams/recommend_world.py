"""Orders, and what follows from them by the definitions alone: nothing is shared with the code under test."""

import math
from collections import defaultdict

from schemas.catalogue import topic
from schemas.codec import Encoder

NOW_MS = 1_500_000_000_000
DAY_MS = 86_400_000
TOPICS = {1: "orders", 2: "inventory", 3: "dealers"}
ENCODE = {name: Encoder(name, number).encode for number, name in TOPICS.items()}
HALF_LIFE_MS = 28 * DAY_MS


def schema(number):
    return topic(TOPICS[number]).schema


class Message:
    """A Kafka message, as far as a view looks at one."""

    def __init__(self, name, offset, record, partition=0):
        self._place = name, partition, offset
        self._value = record if record is None or isinstance(record, bytes) else ENCODE[name](record)

    def topic(self):
        return self._place[0]

    def partition(self):
        return self._place[1]

    def offset(self):
        return self._place[2]

    def value(self):
        return self._value

    def timestamp(self):
        return 1, NOW_MS


def line(order, number, dealer, product, at_ms=NOW_MS, category="TOOLS"):
    return {
        "event_id": f"{order}-{number}", "order_id": order, "line": number, "dealer_id": dealer,
        "customer_id": None, "product_id": product, "category": category, "brand": None, "quantity": 1,
        "amount": 1.0, "discount": 0.0, "currency": "USD", "channel": "store", "event_time": at_ms,
    }  # fmt: skip


def level(number, dealer, product, on_hand, at_ms=NOW_MS):
    return {
        "event_id": f"i{number}", "dealer_id": dealer, "product_id": product, "on_hand": on_hand,
        "event_time": at_ms,
    }  # fmt: skip


def dealer(identity, region, at_ms=NOW_MS - 9 * DAY_MS):
    return {"dealer_id": identity, "name": identity, "region": region, "event_time": at_ms}


def messages(name, records, start=0):
    return [Message(name, start + i, record) for i, record in enumerate(records)]


class Truth:
    """Counts of a list of lines, each as of `now_ms`, from nested loops over all of them."""

    def __init__(self, lines, now_ms, regions=()):
        self.orders, self.uptake = defaultdict(float), defaultdict(float)
        self.together = defaultdict(lambda: defaultdict(float))
        self.in_region = defaultdict(lambda: defaultdict(float))
        self.last, self.category = defaultdict(dict), {}
        regions, seen, baskets = dict(regions), set(), defaultdict(list)
        for each in lines:
            who, what, order = each["dealer_id"], each["product_id"], each["order_id"]
            self.category[what] = each["category"]
            if (who, order, what) in seen:
                continue
            seen.add((who, order, what))
            weight = 2 ** -((now_ms - each["event_time"]) / HALF_LIFE_MS)
            self.orders[what] += weight
            self.in_region[regions.get(who)][what] += weight
            if what not in self.last[who]:
                self.uptake[what] += weight
            for other in baskets[who, order]:
                self.together[what][other] += weight
                self.together[other][what] += weight
            baskets[who, order].append(what)
            self.last[who][what] = max(each["event_time"], self.last[who].get(what, 0))

    def ranked(self, who):
        """Products that a dealer does not have, with their scores, by the formula, the best first."""
        scores = {}
        for what in self.orders:
            if what in self.last[who]:
                continue
            cosines = sum(
                count / math.sqrt((self.orders[own] + 5) * (self.orders[what] + 5))
                for own, count in self.together[what].items()
                if own in self.last[who]
            )
            scores[what] = math.sqrt(cosines) * self.uptake[what]
        return sorted(((s, p) for p, s in scores.items() if s > 0), reverse=True)

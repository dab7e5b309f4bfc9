"""Job J as a user of a Python engine would write it: the state of one user, event by event.

It makes the decisions of bench/jobs/j.toml, as bench/src/baseline does: events in the order of the file, duplicates passed over, 24 hourly
panes, and a look at every hour and midnight at which time alone can change the score.
"""

import math
import os
from datetime import datetime, timedelta, timezone

import orjson

HOUR = 3_600_000_000
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)
KINDS = {"error_encountered": 0, "user_login": 1, "support_ticket_created": 2, "payment_failed": 3, "feature_used": 4}
SCORED = 4
# The last event time of all: the end of the input, up to which silence goes on.
END = int(os.environ.get("J_END", "0"))


def micros(text):
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


def parse(line):
    event = orjson.loads(line)
    duration = (event.get("properties") or {}).get("duration", 0)
    return event["user_id"], (event["event_id"], micros(event["timestamp"]), KINDS.get(event["event_type"]), duration)


class User:
    __slots__ = ("events", "duration", "clock", "hour", "above", "counts", "hours", "recent", "before", "recent_hour")

    def __init__(self):
        self.events, self.duration, self.clock, self.hour, self.above = 0, 0.0, None, 0, False
        self.counts, self.hours = [0] * 5, {}
        self.recent, self.before, self.recent_hour = set(), set(), 0

    def apply(self, event, rows):
        event_id, time, kind, duration = event
        hour = time // HOUR
        if hour > self.recent_hour:
            self.before, self.recent, self.recent_hour = self.recent, set(), hour
        if event_id in self.recent or event_id in self.before:
            return
        self.recent.add(event_id)
        if self.clock is None:
            self.clock, self.hour = time, hour
        self.wait(time, rows)
        self.hour = max(self.hour, hour)
        self.clock = max(self.clock, time)
        self.events += 1
        self.duration += duration
        if kind is not None:
            self.counts[kind] += 1
            self.hours.setdefault(hour, [0] * 5)[kind] += 1
        self.evaluate(self.clock, rows)

    def wait(self, until, rows):
        last = until // HOUR
        while self.hour < last:
            following = self.hour + 1 if any(self.counts) else (self.hour // 24 + 1) * 24
            if following > last:
                break
            left = self.hours.pop(following - 24, None)
            self.hour = following
            if left is not None:
                self.counts = [count - gone for count, gone in zip(self.counts, left)]
            if (left is not None and any(left[:SCORED])) or following % 24 == 0:
                self.evaluate(following * HOUR, rows)

    def evaluate(self, now, rows):
        errors, logins, tickets, failures, _ = self.counts
        days = (now - self.clock) / DAY
        weighed = -2.0 + 0.25 * days + 0.5 * errors - 0.3 * logins + 0.8 * tickets + failures
        risk = 1.0 / (1.0 + math.exp(-weighed))
        above = risk > 0.7
        if above and not self.above:
            rows.append((now, risk, self.events, self.duration, list(self.counts)))
        self.above = above


def row(user, decision):
    now, risk, events, duration, (errors, logins, tickets, failures, features) = decision
    time = EPOCH + timedelta(microseconds=now)
    return orjson.dumps(
        {
            "user_id": user,
            "event_time": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if time.microsecond else "%Y-%m-%dT%H:%M:%SZ"),
            "risk": risk,
            "events_total": events,
            "duration_total": duration,
            "errors_24h": errors,
            "logins_24h": logins,
            "features_24h": features,
            "tickets_24h": tickets,
            "payment_failures_24h": failures,
        }
    ).decode()

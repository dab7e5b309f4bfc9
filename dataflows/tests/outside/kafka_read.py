"""Reads the topics of a job as a stranger: with `read_committed`, and knowing of them what docs/kafka-sinks.md says.

Standard input is JSON: `brokers`, the topics `decisions`, `profiles`, `dead_letters`, and `events`, from which dead letters come. Prints what
was counted.
"""

import collections
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

SECONDS_MAX = 120

asked = json.load(sys.stdin)


def read(topic):
    """All messages, in the order of each partition."""
    settings = {"bootstrap.servers": asked["brokers"], "group.id": "stranger", "isolation.level": "read_committed"}
    consumer = Consumer({**settings, "enable.auto.commit": False, "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, timeout=SECONDS_MAX).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    messages, ended, deadline = [], 0, time.monotonic() + SECONDS_MAX
    while ended < len(partitions):
        assert time.monotonic() < deadline, f"the end of {topic} is not reached: {len(messages)} messages"
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error() is None:
            messages.append(message)
        elif message.error().code() == KafkaError._PARTITION_EOF:
            ended += 1
    consumer.close()
    return messages


def headers(message):
    return {name: value.decode() for name, value in message.headers() or []}


def decisions():
    messages = read(asked["decisions"])
    rows = [json.loads(message.value()) for message in messages]
    for message, row in zip(messages, rows):
        assert message.key().decode() == headers(message)["decision_id"] == row["decision_id"]
    by_trigger = collections.Counter(row["trigger"] for row in rows)
    return {"ids": [row["decision_id"] for row in rows], "by_trigger": by_trigger}


def profiles():
    messages = read(asked["profiles"])
    table, digest, tombstones = {}, 0, 0
    for message in messages:
        if message.value() is None:
            assert headers(message)["row_id"] == "removed"
            tombstones += 1
            table.pop(message.key(), None)
            continue
        row = json.loads(message.value())
        assert json.loads(message.key()) == [row["app_id"], row["user_id"]]
        digest += int(headers(message)["row_id"], 16)
        table[message.key()] = row
    return {
        "rows": len(messages) - tombstones,
        "tombstones": tombstones,
        "users": len(table),
        "final": sum(row["final"] for row in table.values()),
        "by_stage": collections.Counter(row["lifecycle_stage"] for row in table.values()),
        "digest": f"{digest % 2**128:032x}",
    }


def dead_letters():
    records = {(message.partition(), message.offset()): message.value() for message in read(asked["events"])}
    messages = read(asked["dead_letters"])
    places = set()
    for message in messages:
        told = headers(message)
        assert told["__connect.errors.topic"] == asked["events"]
        assert told["__connect.errors.exception.message"], told
        place = int(told["__connect.errors.partition"]), int(told["__connect.errors.offset"])
        # A record without a value is told as the text of it.
        record = b"null" if records[place] is None else records[place]
        assert message.value() == record, (place, message.value(), record)
        places.add(place)
    reasons = collections.Counter(headers(message)["__connect.errors.exception.class.name"] for message in messages)
    return {"rows": len(messages), "places": len(places), "records": len(records), "by_reason": reasons}


json.dump({"decisions": decisions(), "profiles": profiles(), "dead_letters": dead_letters()}, sys.stdout)

"""Watches a topic of decisions with `read_committed`, for as long as standard input is open.

Its first line is JSON: `brokers`, `topic`. To every further line it answers with the ids that it has seen so far, in their order, as soon as it
has seen all that is committed.
"""

import json
import select
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

SECONDS_MAX = 120

asked = json.loads(sys.stdin.readline())
settings = {"bootstrap.servers": asked["brokers"], "group.id": "watch", "isolation.level": "read_committed"}
consumer = Consumer({**settings, "enable.auto.commit": False, "enable.partition.eof": True})
found = consumer.list_topics(asked["topic"], timeout=SECONDS_MAX).topics[asked["topic"]].partitions
partitions = [TopicPartition(asked["topic"], partition, OFFSET_BEGINNING) for partition in found]
consumer.assign(partitions)
# Where each partition was at its end, and where it ends.
seen, reached, ends, deadline = [], {}, None, None
print("watching", flush=True)
while True:
    message = consumer.poll(0.02)
    if message is not None and message.error() is None:
        seen.append(message.key().decode())
    elif message is not None and message.error().code() == KafkaError._PARTITION_EOF:
        reached[message.partition()] = message.offset()
    if ends is None and select.select([sys.stdin], [], [], 0)[0]:
        if not sys.stdin.readline():
            break
        ends = {at.partition: consumer.get_watermark_offsets(at, timeout=SECONDS_MAX)[1] for at in partitions}
        deadline = time.monotonic() + SECONDS_MAX
    if ends is not None and all(reached.get(partition, 0) >= end for partition, end in ends.items()):
        print(json.dumps(seen), flush=True)
        ends = None
    assert ends is None or time.monotonic() < deadline, f"the ends are not reached: {reached} of {ends}"

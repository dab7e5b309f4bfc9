"""Writes events into a topic as any client does: keyed by user, each with the time at which it was received.

Standard input is JSON: `brokers`, `topic`, `files` of events as NDJSON, and, for Avro messages of Confluent's own serializer, the URL of a
`registry`. Between the events go records that are none. Prints how many records were written, and of which kind.
"""

import datetime
import json
import sys

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

TEXT, SCALAR = ["null", "string"], ["null", "boolean", "long", "double", "string"]
MAP = ["null", {"type": "map", "values": SCALAR}]
FIELDS = {
    "event_id": TEXT,
    "app_id": "string",
    "user_id": "string",
    "session_id": TEXT,
    "event_type": "string",
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
    "properties": MAP,
    "context": MAP,
    "metadata": MAP,
}
SCHEMA = {"type": "record", "name": "Event", "namespace": "shop.events"}
SCHEMA["fields"] = [{"name": name, "type": kind} for name, kind in FIELDS.items()]

# Every so many events one that is none, in turn: no text, broken off, without a value, a number, of a schema that nobody knows.
STRANGE_EVERY = 500
STRANGE = [b"\xff\xfe{\x00", b'{"event_id":"evt_', None, b"17", b"\x00\x7f\xff\xff\xff\x02a"]

LINE_BYTES_MAX = 900_000


def finite(text):
    number = float(text)
    if number - number != 0:
        raise ValueError(text)
    return number


def parsed(line):
    try:
        event = json.loads(line, parse_float=finite, parse_constant=finite)
        return event if isinstance(event, dict) else {}
    except ValueError:
        return {}


def received(event):
    at = (event.get("metadata") or {}).get("received_at")
    return datetime.datetime.fromisoformat(at) if at else None


def events(files):
    """Lines, keys and times of receipt; what has none stands where it stood in its file."""
    for path in files:
        last = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        with open(path, "rb") as file:
            for line in file.read().split(b"\n"):
                event = parsed(line)
                last = received(event) or last
                key = event.get("user_id")
                # One that is too long for any topic is the broker's to refuse.
                if 0 < len(line) < LINE_BYTES_MAX:
                    yield last, key if isinstance(key, str) else "none", line


def framed(line, serializer, context):
    """The Avro message of an event; a line that is none stays as it is."""
    event = parsed(line)
    try:
        value = {name: event.get(name) for name in FIELDS}
        value["timestamp"] = datetime.datetime.fromisoformat(value["timestamp"])
        return serializer(value, context) if value["timestamp"].tzinfo else line
    except (KeyError, TypeError, ValueError):
        return line


asked = json.load(sys.stdin)
encode = lambda line: line
if "registry" in asked:
    registry = SchemaRegistryClient({"url": asked["registry"]})
    serializer = AvroSerializer(registry, json.dumps(SCHEMA), lambda value, _: value)
    context = SerializationContext(asked["topic"], MessageField.VALUE)
    encode = lambda line: framed(line, serializer, context)

refused = []
producer = Producer({"bootstrap.servers": asked["brokers"], "enable.idempotence": True, "linger.ms": 20})
written = {"records": 0, "strange": 0, "encoded": 0}


def write(key, value, at):
    while True:
        try:
            producer.produce(
                asked["topic"], key=key, value=value, timestamp=int(at.timestamp() * 1000),
                on_delivery=lambda error, _: refused.append(str(error)) if error else None,
            )
            break
        except BufferError:
            producer.poll(0.1)
    producer.poll(0)
    written["records"] += 1


for number, (at, key, line) in enumerate(sorted(events(asked["files"]), key=lambda event: event[0])):
    value = encode(line)
    written["encoded"] += value is not line
    write(key, value, at)
    if number % STRANGE_EVERY == 0:
        write(key, STRANGE[number // STRANGE_EVERY % len(STRANGE)], at)
        written["strange"] += 1
assert producer.flush(120) == 0, "the broker takes no records"
assert not refused, refused[:3]
json.dump(written, sys.stdout)

"""Job J in Pathway: the lines of a file, a stateful reducer by user. The reducer is given rows in no order, so they carry their place."""

import copy
import os

import pathway as pw

import j


class Event(pw.Schema):
    event_id: str
    user_id: str
    event_type: str
    timestamp: str
    duration: float


events = pw.io.jsonlines.read(
    os.environ["J_INPUT"], schema=Event, mode="static", json_field_paths={"duration": "/properties/duration"}
)


@pw.reducers.stateful_many
def step(state, rows):
    # A state that was given away may be asked for again: what is changed is a copy.
    user, decided = (j.User(), []) if state is None else copy.deepcopy(state.value)
    # Pathway has no order of lines: that of event times is the nearest to it.
    for (timestamp, event_id, event_type, duration), count in sorted(rows, key=lambda row: j.micros(row[0][0])):
        for _ in range(count):
            user.apply((event_id, j.micros(timestamp), j.KINDS.get(event_type), duration), decided)
    return pw.PyObjectWrapper((user, decided))


users = events.groupby(events.user_id).reduce(
    events.user_id, state=step(events.timestamp, events.event_id, events.event_type, events.duration)
)
states = {}


def changed(key, row, time, is_addition):
    if is_addition:
        states[row["user_id"]] = row["state"].value


pw.io.subscribe(users, changed)
pw.run(monitoring_level=pw.MonitoringLevel.NONE)
with open(os.environ["J_OUTPUT"], "w") as out:
    for user_id, (user, decided) in states.items():
        user.wait(j.END, decided)
        for decision in decided:
            out.write(j.row(user_id, decision) + "\n")

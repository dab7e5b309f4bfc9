"""Job J in Bytewax: a file source, a stateful operator by user, a file of decisions. `python -m bytewax.run bytewax_j`"""

import os
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.files import FileSink, FileSource
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic

import j


class Logic(StatefulBatchLogic):
    def __init__(self, _state):
        self.user = j.User()

    def on_batch(self, values):
        rows = []
        for event in values:
            self.user.apply(event, rows)
        return rows, False

    def on_eof(self):
        rows = []
        self.user.wait(j.END, rows)
        return rows, True

    def snapshot(self):
        return None


flow = Dataflow("j")
lines = op.input("lines", flow, FileSource(Path(os.environ["J_INPUT"]), batch_size=1000))
events = op.map("parse", lines, j.parse)
decisions = op.stateful_batch("user", events, Logic)
rows = op.map("row", decisions, lambda decision: (decision[0], j.row(*decision)))
op.output("file", rows, FileSink(Path(os.environ["J_OUTPUT"])))

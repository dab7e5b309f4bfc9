//! Control: what the workers of all processes tell one another about starts, cuts, commits and stops.
//!
//! A small dataflow beside the job's own carries messages from any worker to any other, over the same channels as records. Worker 0
//! coordinates: it says what is restored, gathers the acknowledgements of a cut, and announces what is committed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use serde::{Deserialize, Serialize};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        InputHandle,
        operators::{Exchange, Input, Inspect},
    },
    worker::Worker,
};
use whisperer_schemas::{Digest, Micros, checkpoint::FileFacts};

use super::erasures::Erasing;

/// What is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// To all: what the run starts from.
    Start(Start),
    /// To the coordinator: a worker's part of a cut is durable.
    Ack(Box<Ack>),
    /// To all: a checkpoint is committed.
    Committed(Committed),
    /// To the coordinator: a worker has published what waited for a checkpoint.
    Published {
        /// The worker.
        worker: usize,
        /// The checkpoint.
        number: u64,
    },
    /// To the coordinator: someone wants the job to stop.
    StopRequest,
    /// To all: the job stops after the first cut at or after this epoch.
    Stop {
        /// The epoch.
        epoch: u64,
        /// Whether it starts again then.
        again: bool,
    },
}

/// What a run starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) generation: u64,
    /// The number of the manifest that claims its turn.
    pub(super) claim: u64,
    /// What names the run in its files: the same in every generation.
    pub(super) run: String,
    /// The number of the checkpoint, if there is one.
    pub(super) restored: Option<u64>,
    /// Whether that checkpoint is the end of a bounded input, so that only its outputs are to be put in order.
    pub(super) finished: bool,
    /// Whether outputs that are out already may come again.
    pub(super) repeats: bool,
    /// Event time before which decisions are not news.
    pub(super) deliver_from: Option<Micros>,
    /// The epoch that a live run begins at, by the clock of the process that coordinates; 0 for a bounded one.
    pub(super) from: u64,
    /// What is to be forgotten.
    pub(super) erasing: Erasing,
}

impl Start {
    /// Whether nothing is left but to put outputs in order.
    pub(super) fn is_done(&self) -> bool {
        self.finished && self.erasing.applies.is_empty() && !self.erasing.clears
    }
}

/// A checkpoint that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committed {
    pub(super) number: u64,
    pub(super) epoch: u64,
    /// Whether the run ends with it.
    pub(super) last: bool,
    /// Whether it then starts again, for an erasure.
    pub(super) again: bool,
    /// Whether everything that was there when the run began has been read by all readers.
    pub(super) caught_up: bool,
}

/// A worker's part of a cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ack {
    pub(super) epoch: u64,
    pub(super) worker: usize,
    /// Its delta.
    pub(super) file: FileFacts,
    /// When its cut was taken, on its own clock.
    pub(super) taken: Micros,
    /// The next offsets of the partitions that it reads.
    pub(super) positions: BTreeMap<u32, u64>,
    /// The clocks of all partitions: every worker has the same.
    pub(super) clocks: BTreeMap<u32, Micros>,
    /// The global watermark, once there is one.
    pub(super) watermark: Option<Micros>,
    pub(super) ended: Vec<u32>,
    /// Staged files as JSON, by lake.
    pub(super) staged: BTreeMap<String, Vec<String>>,
    /// What its sinks need to go on.
    pub(super) sinks: BTreeMap<String, String>,
    pub(super) digests: BTreeMap<String, Digest>,
    pub(super) counts: BTreeMap<String, u64>,
    /// Whether this is the end of a bounded input.
    pub(super) last: bool,
    /// Whether its reader has read everything that was there when the run began.
    pub(super) caught_up: bool,
    /// Whether its delta holds rows that are in no file of their table.
    pub(super) holds_rows: bool,
    /// The cut after which there are such rows in its deltas; none where all are in files.
    pub(super) rows_after: Option<u64>,
}

type Envelope = (u64, Vec<u8>);

/// One worker's end of the control channel.
pub(super) struct Control {
    input: InputHandle<u64, CapacityContainerBuilder<Vec<Envelope>>>,
    inbox: Rc<RefCell<VecDeque<Message>>>,
    time: u64,
    peers: usize,
}

impl Control {
    /// Builds the channel; every worker does so before it builds anything else.
    pub(super) fn new(worker: &mut Worker) -> Control {
        let mut input = InputHandle::new();
        let inbox: Rc<RefCell<VecDeque<Message>>> = Rc::default();
        let arrived = inbox.clone();
        worker.dataflow::<u64, _, _>(|scope| {
            scope.input_from(&mut input).exchange(|(to, _): &Envelope| *to).inspect(move |envelope: &Envelope| {
                let message = serde_json::from_slice(&envelope.1).expect("a worker of the same build has written it");
                arrived.borrow_mut().push_back(message);
            });
        });
        Control { input, inbox, time: 0, peers: worker.peers() }
    }

    /// Sends a message to one worker, this one included.
    pub(super) fn send(&mut self, to: usize, message: &Message) {
        self.push(to, message);
        self.flush();
    }

    /// Sends a message to all workers, this one included.
    pub(super) fn broadcast(&mut self, message: &Message) {
        (0..self.peers).for_each(|to| self.push(to, message));
        self.flush();
    }

    /// The next message that has come.
    pub(super) fn take(&self) -> Option<Message> {
        self.inbox.borrow_mut().pop_front()
    }

    fn push(&mut self, to: usize, message: &Message) {
        let bytes = serde_json::to_vec(message).expect("messages are plain data with text keys");
        self.input.send((to as u64, bytes));
    }

    /// Only an advance of the time empties the buffers of an exchange.
    fn flush(&mut self) {
        self.time += 1;
        self.input.advance_to(self.time);
    }
}

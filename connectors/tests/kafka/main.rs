//! The Kafka source against librdkafka's mock cluster and, where `WHISPERER_KAFKA` names one, a real broker.

#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod brokers;
mod faults;
mod idle;
mod opening;
mod partitions;
mod reading;
mod run;
mod transactions;

//! The binary `whisperer-bench`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use whisperer_bench::{child, instructions, latency, peers, state, throughput, views};

/// As in the binary that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What an event costs: benchmarks of Whisperer.
#[derive(Debug, Parser)]
#[command(name = "whisperer-bench", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Events/s, CPU per event and memory, from NDJSON to decisions, beside a program written by hand.
    Throughput(throughput::Options),
    /// Milliseconds from an event to its decision, and what checkpoints cost, through a Kafka broker.
    Latency(latency::Options),
    /// Instructions per event, counted by valgrind, and whether they grow.
    Instructions(instructions::Options),
    /// Job J in other engines, on the same file in the same run.
    Peers(peers::Options),
    /// States that do not fit into memory, and how fast those that do come back.
    State(state::Options),
    /// What views cost: throughput and memory with more and more of them.
    Views(views::Options),
}

fn main() -> ExitCode {
    if let Some(program) = child::asked_for() {
        return child::run(program);
    }
    let broken = match Arguments::parse().verb {
        Verb::Throughput(options) => throughput::run(&options),
        Verb::Latency(options) => latency::run(&options),
        Verb::Instructions(options) => instructions::run(&options),
        Verb::Peers(options) => peers::run(&options),
        Verb::State(options) => state::run(&options),
        Verb::Views(options) => views::run(&options),
    };
    match broken {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            broken.iter().for_each(|floor| eprintln!("error: {floor}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! Property tests with a seed that a failure shows: `WHISPERER_TEST_SEED` sets it, `WHISPERER_TEST_CASES` how many cases are tried.

use std::{env, fmt::Debug};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

const SEED: u64 = 20_260_101;

/// Tries `cases` values of a strategy; a failure is shrunk and shown with its seed and as `show` writes it.
pub fn check<S: Strategy>(
    cases: u32,
    strategy: &S,
    show: impl Fn(&S::Value) -> String,
    test: impl Fn(&S::Value) -> Result<(), String>,
) where
    S::Value: Debug,
{
    let seed = number("WHISPERER_TEST_SEED").unwrap_or(SEED);
    let cases = number("WHISPERER_TEST_CASES").map_or(cases, |cases| cases as u32);
    let config = Config { cases, max_shrink_iters: 2_000, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(strategy, |value| test(&value).map_err(TestCaseError::fail));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, minimal)) => {
            panic!("WHISPERER_TEST_SEED={seed}\n{reason}\nminimal case:\n{}", show(&minimal))
        }
        Err(TestError::Abort(reason)) => panic!("WHISPERER_TEST_SEED={seed}: given up: {reason}"),
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

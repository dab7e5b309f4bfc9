//! Logs and traces: where what happens in the life of a job is told. Nothing is told of single records.
//!
//! ```text
//! tracing ─┬─▶ stderr: text on a terminal, JSON elsewhere                     level: --log, WHISPERER_LOG, [telemetry] log
//!          └─▶ OTLP over HTTP: the spans of `traces`, and nothing else        [telemetry] otlp
//! ```

use std::io::{IsTerminal, stderr};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, registry::LookupSpan};

use super::{OperationsError, traces};

/// The environment variable that sets what is logged: a level, or directives such as `whisperer_sinks=debug,warn`.
const VARIABLE: &str = "WHISPERER_LOG";

/// What is told, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// `--log`: a level or directives; goes before the environment.
    pub flag: Option<String>,
    /// `[telemetry] log`: a level; goes after the environment.
    pub job: Option<String>,
    /// `[telemetry] otlp`: the collector's base URL.
    pub otlp: Option<String>,
    /// What traces call the service.
    pub service: String,
}

/// Logs and traces at work; dropping it sends the last spans on their way.
#[must_use]
#[derive(Debug)]
pub struct Telemetry {
    _traces: Option<traces::Exporting>,
}

/// Starts to tell, for the rest of the process's life.
///
/// # Errors
/// Directives that cannot be read, a collector's URL that is none, a build without traces.
pub fn start(telling: &Telling) -> Result<Telemetry, OperationsError> {
    let (subscriber, telemetry) = subscriber(telling)?;
    let set = tracing::subscriber::set_global_default(subscriber);
    set.map_err(|error| OperationsError::Telemetry { what: "logs", detail: error.to_string() })?;
    Ok(telemetry)
}

type Told = Box<dyn Subscriber + Send + Sync>;

fn subscriber(telling: &Telling) -> Result<(Told, Telemetry), OperationsError> {
    let filter = filter(telling)?;
    let registry = tracing_subscriber::registry();
    let (spans, exporting) = match &telling.otlp {
        Some(otlp) => {
            let (layer, exporting) = traces::exporting(otlp, &telling.service)?;
            (Some(layer), Some(exporting))
        }
        None => (None, None),
    };
    let subscriber = registry.with(spans).with(to_stderr().with_filter(filter));
    Ok((Box::new(subscriber), Telemetry { _traces: exporting }))
}

fn to_stderr<S: Subscriber + for<'s> LookupSpan<'s>>() -> Box<dyn Layer<S> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(stderr);
    if stderr().is_terminal() { layer.with_target(false).boxed() } else { layer.json().boxed() }
}

fn filter(telling: &Telling) -> Result<EnvFilter, OperationsError> {
    let environment = std::env::var(VARIABLE).ok().filter(|directives| !directives.is_empty());
    let (from, directives) = choose(telling, environment);
    let explain = |error: &dyn std::fmt::Display| OperationsError::Telemetry {
        what: "logs",
        detail: format!("{from} says \"{directives}\": {error}; a level is error, warn, info, debug or trace"),
    };
    let filter = EnvFilter::try_new(&directives).map_err(|error| explain(&error))?;
    // Without a collector nobody wants the spans of `traces`: they are not even made then.
    let off = format!("{}=off", traces::TARGET).parse().expect("a target and a level are a directive");
    Ok(filter.add_directive(off))
}

/// Who says what is logged, and what.
fn choose(telling: &Telling, environment: Option<String>) -> (&'static str, String) {
    if let Some(directives) = &telling.flag {
        return ("--log", directives.clone());
    }
    if let Some(directives) = environment {
        return (VARIABLE, directives);
    }
    ("[telemetry] log", telling.job.clone().unwrap_or_else(|| "info".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_goes_before_the_environment_before_the_job() {
        // Goal: whoever stands nearest to this run decides what is logged.
        let all = Telling { flag: Some("trace".into()), job: Some("warn".into()), ..Telling::default() };
        let no_flag = Telling { flag: None, ..all.clone() };
        let debug = Some("debug".to_owned());
        assert_eq!(choose(&all, debug.clone()), ("--log", "trace".to_owned()));
        assert_eq!(choose(&no_flag, debug), (VARIABLE, "debug".to_owned()));
        assert_eq!(choose(&no_flag, None).1, "warn");
        assert_eq!(choose(&Telling::default(), None).1, "info");
    }

    #[test]
    fn a_wrong_level_is_an_error() {
        // Goal: a level that is none is not taken for silence.
        let telling = Telling { flag: Some("whisperer=loud".into()), ..Telling::default() };
        let error = filter(&telling).expect_err("no level");
        assert!(error.to_string().contains("--log says \"whisperer=loud\""), "{error}");
    }
}

//! The HTTP server: `/livez`, `/readyz`, `/metrics`, and whatever else is mounted beside them.
//!
//! One thread with a runtime of its own serves all requests, so that none can take a core from a worker for long.

use std::{
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Health, Metrics, OperationsError, Watchdog, metrics};

/// How long requests that are on their way may take when the server stops.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// What the routes answer from.
#[derive(Clone, Debug)]
pub struct Served {
    /// `/metrics`
    pub metrics: Arc<Metrics>,
    /// `/readyz`
    pub health: Arc<Health>,
    /// `/livez`
    pub watchdog: Arc<Watchdog>,
}

/// The routes of every job.
pub fn router(served: Served) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(served)
}

/// A server at work until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `router` at `listen`, `HOST:PORT`; port 0 takes a free one.
    ///
    /// # Errors
    /// Where the address does not exist or its port is taken.
    pub fn start(listen: &str, router: Router) -> Result<Server, OperationsError> {
        let (listener, address) =
            bind(listen).map_err(|source| OperationsError::Listen { address: listen.into(), source })?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("http".to_owned());
        let thread = thread.spawn(move || serve(listener, router, stopped));
        let thread = thread.map_err(|source| OperationsError::Listen { address: listen.into(), source })?;
        tracing::info!(%address, "the HTTP server listens");
        Ok(Server { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    /// Takes no more requests and ends those that are on their way, in bounded time.
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A server that has ended already is what is wanted.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Bound here and not by the runtime, so that a port that is taken is told before the job starts.
fn bind(listen: &str) -> std::io::Result<(TcpListener, SocketAddr)> {
    let addresses: Vec<SocketAddr> = listen.to_socket_addrs()?.collect();
    let listener = TcpListener::bind(&addresses[..])?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn serve(listener: TcpListener, router: Router, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return tracing::error!("the HTTP server cannot be started: no runtime") };
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (last, mut asked) = tokio::sync::watch::channel(false);
        let graceful = async move {
            // A sender that is gone asks for the same.
            let _ = stopped.await;
            let _ = last.send(true);
        };
        let server = axum::serve(listener, router).with_graceful_shutdown(graceful).into_future();
        tokio::select! {
            served = server => served,
            () = async {
                let _ = asked.wait_for(|asked| *asked).await;
                tokio::time::sleep(LAST_REQUESTS).await;
            } => Ok(()),
        }
    });
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP server came down");
    }
    runtime.shutdown_timeout(LAST_REQUESTS);
}

async fn livez(State(served): State<Served>) -> Response {
    match served.watchdog.alive() {
        Ok(()) => Json(json!({ "alive": true })).into_response(),
        Err(hang) => {
            let silent_ms = hang.silent.as_millis() as u64;
            let why = json!({ "alive": false, "worker": hang.worker, "silent_ms": silent_ms });
            (StatusCode::SERVICE_UNAVAILABLE, Json(why)).into_response()
        }
    }
}

async fn readyz(State(served): State<Served>) -> Response {
    match served.health.ready() {
        Ok(()) => Json(json!({ "ready": true })).into_response(),
        Err(why) => {
            let why = json!({ "ready": false, "detail": why.to_string(), "why": why });
            (StatusCode::SERVICE_UNAVAILABLE, Json(why)).into_response()
        }
    }
}

async fn show_metrics(State(served): State<Served>) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], served.metrics.text()).into_response()
}

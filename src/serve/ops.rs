//! `/metrics` (OpenMetrics), `/healthz` and `/readyz`, for machines. No number, name or digit is in them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use consent::{Direction, GateState, Reason};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use storage::{Entry, Outcome, Stamped};
use tokio::net::TcpListener;

/// Everything that the outside may ask of the running service's state.
#[derive(Debug)]
pub(super) struct Ops {
    registry: Registry,
    pub(super) calls_active: Gauge,
    calls: Family<CallLabels, Counter>,
    decisions: Family<DecisionLabels, Counter>,
    pub(super) recordings_active: Gauge,
    pub(super) recording_failures: Counter,
    pub(super) dispatch_failures: Counter,
    pub(super) recordings_stored: Counter,
    pub(super) store_failures: Counter,
    pub(super) sip_messages_in: Counter,
    pub(super) sip_messages_out: Counter,
    pub(super) sip_dropped: Counter,
    pub(super) media_refused: Counter,
    pub(super) journal_refused: Counter,
    pub(super) journal_lag: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// Whether the last delivery to the database succeeded.
    pub(super) database_reachable: AtomicBool,
    /// Whether the journal's disk takes entries.
    pub(super) journal_writable: AtomicBool,
    /// Whether calls are still taken.
    pub(super) draining: AtomicBool,
    /// Entries that wait for the database.
    pub(super) undelivered: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    direction: Word,
    outcome: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    gate: Word,
    reason: Word,
}

/// A word of the contract, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Word(String);

impl Word {
    fn of(value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(serde_json::Value::String(word)) => Self(word),
            _ => Self("unknown".to_owned()),
        }
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(&self.0)
    }
}

impl Ops {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("earmark");
        let mut ops = Self {
            registry: Registry::default(),
            calls_active: Gauge::default(),
            calls: Family::default(),
            decisions: Family::default(),
            recordings_active: Gauge::default(),
            recording_failures: Counter::default(),
            dispatch_failures: Counter::default(),
            recordings_stored: Counter::default(),
            store_failures: Counter::default(),
            sip_messages_in: Counter::default(),
            sip_messages_out: Counter::default(),
            sip_dropped: Counter::default(),
            media_refused: Counter::default(),
            journal_refused: Counter::default(),
            journal_lag: Gauge::default(),
            database_reachable: AtomicBool::new(true),
            journal_writable: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            undelivered: AtomicU64::new(0),
        };
        registry.register("calls_active", "Calls whose record is open", ops.calls_active.clone());
        registry.register("calls", "Calls ended, by direction and outcome", ops.calls.clone());
        registry.register("consent_decisions", "Decisions about the gate", ops.decisions.clone());
        registry.register("recordings_active", "Recordings being made", ops.recordings_active.clone());
        registry.register("recording_failures", "Recordings that failed", ops.recording_failures.clone());
        registry.register(
            "dispatch_recording_failures",
            "Recordings that failed on dispatch lines; alert on more than 0",
            ops.dispatch_failures.clone(),
        );
        registry.register("recordings_stored", "Recordings sealed and stored", ops.recordings_stored.clone());
        registry.register(
            "store_failures",
            "Attempts to store a recording that failed",
            ops.store_failures.clone(),
        );
        registry.register(
            "sip_messages_in",
            "SIP messages from peers since the start",
            ops.sip_messages_in.clone(),
        );
        registry.register(
            "sip_messages_out",
            "SIP messages to peers since the start",
            ops.sip_messages_out.clone(),
        );
        registry.register(
            "sip_dropped",
            "Datagrams and messages dropped since the start",
            ops.sip_dropped.clone(),
        );
        registry.register("rtp_refused", "Media packets refused in ended calls", ops.media_refused.clone());
        registry.register(
            "journal_refused",
            "Entries that a full journal refused",
            ops.journal_refused.clone(),
        );
        registry.register(
            "journal_undelivered",
            "Entries that wait for the database",
            ops.journal_lag.clone(),
        );
        ops.registry = registry;
        ops
    }

    /// Sets a counter to what its owner has counted.
    pub(super) fn counted(counter: &Counter, total: u64) {
        counter.inner().store(total, std::sync::atomic::Ordering::Relaxed);
    }

    /// Counts what an entry says.
    pub(super) fn count(&self, stamped: &Stamped, direction: Option<Direction>) {
        match &stamped.entry {
            Entry::CallEnded(ended) => self.count_call(direction, ended.outcome),
            Entry::Decided { decision, .. } => self.count_decision(decision.gate, decision.reason),
            Entry::RecordingFailed { .. } => {
                self.recording_failures.inc();
            }
            Entry::RecordingStored(_) => {
                self.recordings_stored.inc();
            }
            _ => {}
        }
    }

    fn count_call(&self, direction: Option<Direction>, outcome: Outcome) {
        let labels = CallLabels { direction: Word::of(direction), outcome: Word::of(outcome) };
        self.calls.get_or_create(&labels).inc();
    }

    fn count_decision(&self, gate: GateState, reason: Reason) {
        self.decisions
            .get_or_create(&DecisionLabels { gate: Word::of(gate), reason: Word::of(reason) })
            .inc();
    }
}

/// What `/readyz` says.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// What is away or failing while calls go on.
    degraded: Vec<&'static str>,
    undelivered_entries: u64,
}

/// Binds and serves; returns the address bound.
pub(super) async fn start(listen: SocketAddr, ops: Arc<Ops>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(ops);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the ops listener ended");
        }
    });
    Ok(address)
}

async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    use std::sync::atomic::Ordering::Relaxed;
    ops.journal_lag.set(i64::try_from(ops.undelivered.load(Relaxed)).unwrap_or(i64::MAX));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &ops.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn readyz(State(ops): State<Arc<Ops>>) -> Response {
    use std::sync::atomic::Ordering::Relaxed;
    let mut degraded = Vec::new();
    if !ops.database_reachable.load(Relaxed) {
        degraded.push("database");
    }
    if !ops.journal_writable.load(Relaxed) {
        degraded.push("journal");
    }
    let ready = !ops.draining.load(Relaxed);
    let body = Readiness { ready, degraded, undelivered_entries: ops.undelivered.load(Relaxed) };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = serde_json::to_string(&body).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(text);
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

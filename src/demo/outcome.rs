//! What became of a call, as the gateway's own commands tell it, against what must become of it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::check::{self, Measured};
use super::gateway::Gateway;
use super::scenario::{Expected, Placed, Seen};

/// How long a record and its sealed recordings may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// How long before the transfer a recording may end: the look-back that a revocation wipes is 1 s, and what
/// is not yet written goes with it.
const WIPED_AT_MOST_S: f64 = 2.5;

/// How much after the PBX announced the transfer a recording may end: the re-INVITE's way to the gateway.
const ON_ITS_WAY_S: f64 = 0.1;

/// The exported dispatch recording in the demonstration's folder.
pub(super) const EXPORTED: &str = "dispatch.wav";

/// A call with its record.
pub(super) struct Told {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) line: &'static str,
    pub(super) id: String,
    pub(super) started_at: Option<jiff::Timestamp>,
    pub(super) outcome: String,
    pub(super) basis: Option<String>,
    pub(super) decisions: Vec<Value>,
    pub(super) recordings: Vec<Value>,
    pub(super) notes: Vec<String>,
    pub(super) faults: Vec<String>,
    measured: Option<Measured>,
    expected: Expected,
}

impl Told {
    /// Asks the gateway about a call that is over.
    pub(super) async fn of(placed: Placed, gateway: &Gateway, dir: &Path) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let wants_audio = placed.expected.basis.is_some();
        let (id, call, recordings) = settled(&placed.sip_call_id, wants_audio, gateway, deadline)
            .await
            .with_context(|| format!("the record of \"{}\"", placed.title))?;
        let explained = gateway.ask(&["explain", &id]).await?;
        let decisions = explained.get("decisions").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut told = Self {
            name: placed.name,
            title: placed.title,
            line: placed.line,
            id,
            started_at: time(&call, "started_at"),
            outcome: text(&call, "recording_outcome").unwrap_or_default(),
            basis: text(&call, "basis"),
            decisions,
            recordings,
            notes: Vec::new(),
            faults: Vec::new(),
            measured: None,
            expected: placed.expected,
        };
        told.judge_record(&call);
        match placed.seen {
            Seen::Nothing => {}
            Seen::Media(media) => told.judge_media(&media, gateway, dir).await?,
            Seen::Transfer(at) => told.judge_transfer(at)?,
        }
        Ok(told)
    }

    pub(super) fn as_expected(&self) -> bool {
        self.faults.is_empty()
    }

    /// How much was stored, for the table.
    pub(super) fn stored(&self) -> String {
        let total: f64 =
            self.recordings.iter().filter_map(|recording| recording["duration_s"].as_f64()).sum();
        if self.recordings.is_empty() { "nothing".to_owned() } else { format!("{total:.1} s") }
    }

    /// For `demo.json`.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "call_id": self.id,
            "line": self.line,
            "recording_outcome": self.outcome,
            "basis": self.basis,
            "expected": { "recording_outcome": self.expected.outcome, "basis": self.expected.basis },
            "recordings": self.recordings.iter().map(|recording| &recording["id"]).collect::<Vec<_>>(),
            "decisions": self.decisions,
            "measured": self.measured,
            "faults": self.faults,
        })
    }

    fn judge_record(&mut self, call: &Value) {
        let Expected { outcome, basis } = self.expected;
        if self.outcome != outcome {
            self.faults.push(format!("the outcome is \"{}\", not \"{outcome}\"", self.outcome));
        }
        if self.basis.as_deref() != basis {
            let found = self.basis.as_deref().unwrap_or("none");
            self.faults.push(format!("the basis is {found}, not {}", basis.unwrap_or("none")));
        }
        if text(call, "outcome").as_deref() != Some("answered") {
            self.faults.push("the call is not recorded as answered".to_owned());
        }
        if self.decisions.is_empty() {
            self.faults.push("no decision explains it".to_owned());
        }
        match (basis, self.recordings.len()) {
            (Some(_), 1) | (None, 0) => {}
            (Some(_), count) => self.faults.push(format!("it has {count} recordings, not one")),
            (None, count) => self.faults.push(format!("it has {count} recordings and must have none")),
        }
    }

    /// Exports the recording and compares it with what was said.
    async fn judge_media(
        &mut self,
        media: &super::scenario::Media,
        gateway: &Gateway,
        dir: &Path,
    ) -> anyhow::Result<()> {
        let Some(recording) = self.recordings.first() else { return Ok(()) };
        let id = text(recording, "id").context("the recording has no id")?;
        let wav = dir.join(EXPORTED);
        if wav.exists() {
            std::fs::remove_file(&wav).context("cannot remove the former export")?;
        }
        let out = wav.to_str().context("the folder's name is not UTF-8")?;
        gateway.ask(&["recordings", "export", &id, "--out", out, "--format", "wav"]).await?;
        let measured = check::measure(&wav, recording, media)?;
        self.faults.extend(measured.faults());
        self.notes.push(measured.sentence());
        self.measured = Some(measured);
        Ok(())
    }

    /// The recording ends where the new party came on the line.
    fn judge_transfer(&mut self, at: SystemTime) -> anyhow::Result<()> {
        let Some(ended) = self.recordings.first().and_then(|recording| time(recording, "ended_at")) else {
            return Ok(());
        };
        let after_s = (ended.as_millisecond() - check::timestamp(at)?.as_millisecond()) as f64 / 1_000.0;
        if !(-WIPED_AT_MOST_S..=ON_ITS_WAY_S).contains(&after_s) {
            self.faults.push(format!("the recording ends {after_s:+.1} s from the transfer"));
        }
        self.notes.push(format!("The recording ends {:.1} s before the transfer.", -after_s));
        Ok(())
    }
}

/// The call's id and record once it is closed, and its recordings once they are sealed. When the time is
/// up, what there is.
async fn settled(
    sip_call_id: &str,
    wants_audio: bool,
    gateway: &Gateway,
    deadline: Instant,
) -> anyhow::Result<(String, Value, Vec<Value>)> {
    let mut id = None;
    loop {
        let late = Instant::now() >= deadline;
        if id.is_none() {
            id = find_call(&gateway.ask(&["calls", "list"]).await?, sip_call_id);
        }
        if let Some(id) = &id {
            let call = gateway.ask(&["calls", "show", id]).await?;
            let mut recordings = Vec::new();
            for recording in call.get("recordings").and_then(Value::as_array).into_iter().flatten() {
                let recording = recording.as_str().context("a recording's id is not text")?;
                recordings.push(gateway.ask(&["recordings", "show", recording]).await?);
            }
            let closed = call.get("ended_at").is_some_and(|at| !at.is_null());
            let sealed = recordings.iter().all(|recording| recording["state"] == "sealed");
            let enough = !wants_audio || !recordings.is_empty();
            if late || (closed && sealed && enough) {
                return Ok((id.clone(), call, recordings));
            }
        }
        anyhow::ensure!(!late, "it did not appear within {} s", PATIENCE.as_secs());
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn find_call(calls: &Value, sip_call_id: &str) -> Option<String> {
    let call = calls.as_array()?.iter().find(|call| {
        let ids = call.get("sip_call_ids").and_then(Value::as_array);
        ids.is_some_and(|ids| ids.iter().any(|id| id == sip_call_id))
    })?;
    text(call, "id")
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_owned)
}

fn time(value: &Value, key: &str) -> Option<jiff::Timestamp> {
    value.get(key)?.as_str()?.parse().ok()
}

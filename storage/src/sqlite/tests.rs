#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::task::Poll;

use consent::{CallId, LineClass, Wall};
use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection};

use super::*;
use crate::audit::{AuditFault, GENESIS};
use crate::fold::Calls;
use crate::journal::{Found, JournalId, JournalPosition};
use crate::samples::{self, at, call, consent_call, dispatch_call, ladder, recording, rung};
use crate::{Attestation, Entry, IdentityVerdict, Stamped, Verstat};

mod batches;

const JOURNAL: JournalId = JournalId(7);

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&url(&dir)).await.unwrap();
        Self { dir, store }
    }

    async fn with(entries: &[Stamped]) -> Self {
        let bench = Self::new().await;
        bench.store.deliver(&numbered(entries)).await.unwrap();
        bench
    }

    /// Past the store, as somebody with the file would.
    async fn sql(&self, statements: &'static str) {
        let mut connection = SqliteConnection::connect(&url(&self.dir)).await.unwrap();
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

fn url(dir: &tempfile::TempDir) -> String {
    format!("sqlite:{}", dir.path().join("data/earmark.db").display())
}

fn numbered(entries: &[Stamped]) -> Vec<(JournalPosition, Stamped)> {
    let seqs = 1..;
    seqs.zip(entries)
        .map(|(seq, stamped)| (JournalPosition { journal: JOURNAL, seq }, stamped.clone()))
        .collect()
}

/// Everything in the database, in order, but for the time of delivery.
async fn dump(store: &Store) -> Vec<String> {
    const STATEMENTS: [&str; 15] = [
        "SELECT json_array(id, verstat, attestation, foreign_caller_id, started_at, ringing_at, answered_at, ended_at, outcome, recording_outcome, basis) FROM call ORDER BY id",
        "SELECT json_array(call_id, position, sip_call_id) FROM call_leg ORDER BY 1",
        "SELECT json_array(call_id, linked) FROM call_link ORDER BY 1",
        "SELECT json_array(call_id, leg, packets) FROM call_media ORDER BY 1",
        "SELECT json_array(call_id, leg, ordinal, identity, joined_at, left_at, consent, consent_method, consent_at) FROM party ORDER BY 1",
        "SELECT json_array(call_id, at, meaning, retention) FROM consent_signal ORDER BY call_id, id",
        "SELECT json_array(call_id, at, gate, reason, parties, evidence, retention) FROM decision ORDER BY call_id, id",
        "SELECT json_array(call_id, opened_at, shut_at, basis, clause) FROM gate_interval ORDER BY call_id, id",
        "SELECT json_array(call_id, at, leg, state) FROM recorded_elsewhere ORDER BY call_id, id",
        "SELECT json_array(id, state, line, rule_version, sha256) FROM recording ORDER BY id",
        "SELECT json_array(call_id, left_out, retention) FROM ladder ORDER BY 1",
        "SELECT json_array(call_id, part, rungs) FROM ladder_part ORDER BY call_id, part",
        "SELECT json_array(seq, action, hex(hash)) FROM audit ORDER BY seq",
        "SELECT json_array(journal, seq) FROM delivery",
        "SELECT json_array(seq, call_id, why) FROM unplaced ORDER BY seq",
    ];
    let mut lines = Vec::new();
    for statement in STATEMENTS {
        let rows = sqlx::query(statement).fetch_all(&store.pool).await.unwrap();
        lines.extend(rows.iter().map(|row| row.get::<String, _>(0)));
    }
    lines
}

async fn unplaced(store: &Store) -> Vec<(i64, String)> {
    let rows =
        sqlx::query("SELECT seq, why FROM unplaced ORDER BY seq").fetch_all(&store.pool).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn audit_entry(n: i64) -> Stamped {
    let entry = Entry::Audit {
        actor: "gateway".into(),
        action: "service.start".into(),
        object: None,
        detail: Some(format!("{n}")),
    };
    at(n, entry)
}

fn day() -> Vec<Stamped> {
    let mut entries = consent_call(1);
    entries.extend(dispatch_call(2));
    entries.push(at(7_000, samples::ladder(2, &[samples::rung(0, "INVITE sip:<callee>", 0)], 0)));
    entries.push(audit_entry(1));
    entries.extend(dispatch_call(3));
    entries.push(audit_entry(2));
    entries
}

/// Polls a future so often and drops it then: a crash at whatever it was doing.
async fn crash_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(|context| {
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled >= polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn every_entry_is_placed_once_wherever_a_crash_comes_between() {
    let entries = numbered(&day());
    let expected = dump(&Bench::with(&day()).await.store).await;
    let (mut cut, mut whole) = (0, 0);
    for polls in (1..100).step_by(3) {
        let bench = Bench::new().await;
        for batch in entries.chunks(9) {
            match crash_after(polls, bench.store.deliver(batch)).await {
                Some(result) => whole += usize::from(result.is_ok()),
                None => {
                    cut += 1;
                    break;
                }
            }
        }
        bench.store.close().await;
        // The next process begins at the journal's beginning, with other batches.
        let store = Store::open(&url(&bench.dir)).await.unwrap();
        for batch in entries.chunks(4) {
            store.deliver(batch).await.unwrap();
        }
        assert_eq!(dump(&store).await, expected, "after a crash at poll {polls}");
        assert!(store.audit_verify().await.unwrap().intact());
    }
    assert!(cut > 5 && whole > 5, "crashes came early and late: {cut}, {whole}");
}

#[tokio::test]
async fn another_journal_is_not_taken_for_the_one_delivered_and_a_shortened_one_is_told() {
    let bench = Bench::with(&dispatch_call(1)).await;
    let done = bench.store.delivered(JOURNAL).await.unwrap();
    assert_eq!(done, dispatch_call(1).len() as u64);
    let other = JournalId(8);
    assert_eq!(bench.store.delivered(other).await.unwrap(), 0);
    let batch: Vec<_> = (1..)
        .zip(dispatch_call(2))
        .map(|(seq, stamped)| (JournalPosition { journal: other, seq }, stamped))
        .collect();
    assert_eq!(bench.store.deliver(&batch).await.unwrap().repeated, 0);
    assert!(bench.store.call(call(2)).await.unwrap().is_some());

    bench.store.rewind(JOURNAL, done, Wall(1)).await.unwrap();
    assert!(bench.store.audit(&AuditFilter::default()).await.unwrap().is_empty(), "nothing is short");
    bench.store.rewind(JOURNAL, done - 2, Wall(1)).await.unwrap();
    assert_eq!(bench.store.delivered(JOURNAL).await.unwrap(), done - 2);
    assert_eq!(bench.store.audit(&AuditFilter::default()).await.unwrap()[0].action, "journal.shortened");
}

#[tokio::test]
async fn what_fits_nowhere_is_kept_and_stops_nothing() {
    let mut entries = dispatch_call(1);
    entries.insert(1, at(1, Entry::CallRinging { call: call(50) }));
    entries.push(dispatch_call(1)[0].clone());
    entries.push(dispatch_call(1).pop().unwrap());
    let mut other = samples::stored(1, 1);
    other.sha256 = "cd".repeat(32);
    entries.push(at(9_000, Entry::RecordingStored(Box::new(other))));
    let mut unsealed = samples::stored(2, 1);
    unsealed.wrapped_key = "no key".into();
    entries.push(at(9_000, Entry::RecordingStored(Box::new(unsealed))));
    entries.push(at(9_100, Entry::RecordingStored(Box::new(samples::stored(1, 1)))));
    let bench = Bench::with(&entries).await;
    let seqs = entries.len() as i64;
    assert_eq!(
        unplaced(&bench.store).await,
        [
            (2, "call-unknown".to_owned()),
            (seqs - 4, "refused-by-schema".to_owned()),
            (seqs - 3, "refused-by-schema".to_owned()),
            (seqs - 2, "refused-by-schema".to_owned()),
            (seqs - 1, "refused-by-schema".to_owned()),
        ]
    );
    assert_eq!(bench.store.unplaced().await.unwrap(), 5);
    let calls = bench.store.calls(&CallFilter::default()).await.unwrap();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].recordings, [recording(1)]);
    let kept = bench.store.recording(recording(1)).await.unwrap().unwrap();
    assert_eq!(kept.recording.sha256.as_deref(), Some("ab".repeat(32).as_str()), "the first seal holds");
}

#[tokio::test]
async fn what_was_verified_of_a_caller_is_kept() {
    let bench = Bench::with(&dispatch_call(1)).await;
    let row = bench.store.call(call(1)).await.unwrap().unwrap();
    let verdict = IdentityVerdict { verstat: Verstat::Passed, attestation: Some(Attestation::A) };
    assert_eq!((row.identity_verdict, row.foreign_caller_id), (Some(verdict), false));
}

#[tokio::test]
async fn what_the_journal_lost_or_cannot_read_is_in_the_record() {
    let bench = Bench::new().await;
    let position = JournalPosition { journal: JOURNAL, seq: 1 };
    let batch = [
        Found::Unreadable { position, payload: r#"{"at":1,"entry":{"kind":"later"}}"#.into() },
        Found::Lost { journal: JOURNAL, from_seq: 2, to_seq: 4, file: 1 },
    ];
    let delivered = bench.store.deliver_found(&batch, Wall(5)).await.unwrap();
    assert_eq!((delivered.unplaced, delivered.lost), (1, 3));
    assert_eq!(unplaced(&bench.store).await, [(1, "entry-unknown".to_owned())]);
    let rows = bench.store.audit(&AuditFilter::default()).await.unwrap();
    assert_eq!(
        (rows[0].action.as_str(), rows[0].detail.as_deref()),
        ("journal.lost", Some("entries 2 to 4, before or in file 1"))
    );
    assert_eq!(bench.store.delivered(JOURNAL).await.unwrap(), 4);
    assert_eq!(bench.store.deliver_found(&batch, Wall(6)).await.unwrap().repeated, 2);
    assert_eq!(bench.store.audit(&AuditFilter::default()).await.unwrap().len(), 1);
}

/// The database and the pure fold of the same entries say the same, after every entry.
#[tokio::test]
async fn the_database_agrees_with_the_fold() {
    for entries in [consent_call(1), dispatch_call(1)] {
        let bench = Bench::new().await;
        let mut calls = Calls::default();
        for entry in numbered(&entries) {
            calls.apply(&entry.1).unwrap();
            bench.store.deliver(&[entry]).await.unwrap();
            let folded = calls.get(call(1)).unwrap();
            let row = bench.store.call(call(1)).await.unwrap().unwrap();
            let utc = |at: Wall| crate::Utc(at).to_string();
            assert_eq!(row.started_at, utc(folded.started_at));
            assert_eq!(row.ringing_at, folded.ringing_at.map(utc));
            assert_eq!(row.answered_at, folded.answered_at.map(utc));
            assert_eq!(row.ended_at, folded.ended.as_ref().map(|(at, _)| utc(*at)));
            assert_eq!(row.recording_outcome, folded.ended.as_ref().map(|(_, end)| end.recording_outcome));
            assert_eq!(row.sip_call_ids, folded.sip_call_ids);
            assert_eq!(row.recordings, folded.recordings.keys().copied().collect::<Vec<_>>());
            let parties: Vec<_> = folded
                .parties
                .iter()
                .map(|party| {
                    (
                        Role::of(party.leg),
                        party.identity.clone(),
                        utc(party.joined_at),
                        party.left_at.map(utc),
                        party.consent.state,
                        party.consent.method,
                        party.consent.at.map(utc),
                    )
                })
                .collect();
            let rows: Vec<_> = row
                .parties
                .into_iter()
                .map(|party| {
                    (
                        party.role,
                        party.identity,
                        party.joined_at,
                        party.left_at,
                        party.consent.state,
                        party.consent.method,
                        party.consent.at,
                    )
                })
                .collect();
            assert_eq!(rows, parties);
            let explanation = bench.store.explain(call(1)).await.unwrap().unwrap();
            assert_eq!(explanation.decisions.len(), folded.decisions.len());
        }
    }
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn holds(value: &Value, contract: &str) {
    let names = names(value);
    for field in contract.split_whitespace() {
        assert!(names.contains(field), "{field} is missing in {names:?}");
    }
}

#[tokio::test]
async fn a_call_prints_with_the_names_and_forms_of_the_contract() {
    let bench = Bench::with(&consent_call(1)).await;
    let printed = serde_json::to_value(bench.store.call(call(1)).await.unwrap().unwrap()).unwrap();
    holds(
        &printed,
        "id node line line_class direction from to started_at ringing_at answered_at ended_at outcome final_status \
         ended_by emergency transfers media recording_outcome basis parties recordings linked_calls privacy sip_call_ids",
    );
    let given = json!({"state": "given", "method": "telephone-event", "at": "2026-11-22T18:00:03.123Z"});
    let withdrawn = json!({"state": "withdrawn", "method": "info", "at": "2026-11-22T18:00:09.123Z"});
    assert_eq!(
        printed,
        json!({
            "id": "019a0000-0000-7000-8000-000000000001", "node": "gw1", "line": "+18607427331", "line_class": "consent",
            "direction": "inbound", "from": "+18605550123", "to": "+18607427331",
            "started_at": "2026-11-22T18:00:00.123Z", "ringing_at": null, "answered_at": "2026-11-22T18:00:01.123Z",
            "ended_at": "2026-11-22T18:00:12.123Z", "outcome": "answered", "final_status": 200, "ended_by": "caller",
            "end_cause": null,
            "emergency": false, "identity_verdict": null, "foreign_caller_id": false, "transfers": 0,
            "media": {
                "a": {"codec": "PCMU", "packets": 200, "lost": 1, "jitter_ms": 0.25, "mos": 4.25},
                "b": {"codec": null, "packets": 0, "lost": 0, "jitter_ms": 0.0, "mos": null},
            },
            "recording_outcome": "withdrawn", "basis": "all-party-consent",
            "parties": [
                {"role": "caller", "ordinal": 0, "identity": "+18605550123", "joined_at": "2026-11-22T18:00:00.123Z",
                 "left_at": "2026-11-22T18:00:12.123Z", "consent": given},
                {"role": "callee", "ordinal": 0, "identity": "+18607427310", "joined_at": "2026-11-22T18:00:01.123Z",
                 "left_at": "2026-11-22T18:00:12.123Z", "consent": withdrawn},
            ],
            "recordings": [], "linked_calls": ["019a0000-0000-7000-8000-000000000384"], "privacy": false,
            "recorded_elsewhere": [{"role": "callee", "state": "on", "at": "2026-11-22T18:00:02.623Z"}],
            "sip_call_ids": ["a1@caller"], "retention": "RT-CDR",
        })
    );
}

#[tokio::test]
async fn an_explanation_prints_with_the_names_of_the_contract_and_when_the_gate_was_open() {
    let bench = Bench::with(&consent_call(1)).await;
    let printed = serde_json::to_value(bench.store.explain(call(1)).await.unwrap().unwrap()).unwrap();
    holds(&printed, "call_id decisions");
    let decisions = printed["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 3);
    holds(&decisions[1], "at gate basis clause rule_version reason parties evidence otherwise");
    assert_eq!(decisions[1]["gate"], "open");
    assert_eq!(decisions[1]["basis"], "all-party-consent");
    assert_eq!(decisions[1]["rule_version"], 1);
    assert_eq!(decisions[1]["parties"][1]["consent"], "given");
    assert_eq!(decisions[1]["evidence"][0]["at"], "2026-11-22T18:00:04.123Z");
    assert_eq!(decisions[2]["gate"], "shut");
    assert_eq!(decisions[2]["basis"], Value::Null);
    assert_eq!(
        printed["intervals"],
        json!([{"opened_at": "2026-11-22T18:00:04.123Z", "shut_at": "2026-11-22T18:00:09.123Z",
                "basis": "all-party-consent", "clause": "POL-DISPATCH", "rule_version": 1}])
    );
    assert_eq!(
        printed["wiped"],
        json!([{"at": "2026-11-22T18:00:09.623Z", "held_ms": 1000, "reason": "withdrawn"}])
    );
    assert!(bench.store.explain(call(2)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_recording_prints_with_the_names_and_forms_of_the_contract() {
    let bench = Bench::with(&dispatch_call(1)[..6]).await;
    let open =
        serde_json::to_value(bench.store.recordings(&RecordingFilter::default()).await.unwrap()).unwrap();
    assert_eq!(
        (&open[0]["state"], &open[0]["duration_s"], &open[0]["rule_version"]),
        (&json!("open"), &Value::Null, &json!(1))
    );

    let bench = Bench::with(&dispatch_call(1)).await;
    let details = bench.store.recording(recording(1)).await.unwrap().unwrap();
    assert_eq!(details.object, Some(format!("2026/11/{}.earmark", recording(1))));
    assert_eq!(details.wrapped_key, [0x00, 0xff]);
    let printed = serde_json::to_value(details.recording).unwrap();
    assert_eq!(
        printed,
        json!({
            "id": "019b0000-0000-7000-8000-000000000001", "call_id": "019a0000-0000-7000-8000-000000000001",
            "line": "+18607427331", "started_at": "2026-11-22T18:00:01.123Z", "ended_at": "2026-11-22T18:00:05.123Z",
            "duration_s": 4.0, "basis": "dispatch-line", "rule_version": 1, "channels": ["caller", "dispatch"],
            "codec": "opus", "bytes": 4711, "sha256": "ab".repeat(32), "retention": "RT-DISP-ROUTINE",
            "retain_until": null, "holds": [], "state": "sealed", "quarantine": [],
            "intervals": [{"from_s": 0.0, "to_s": 4.0, "basis": "dispatch-line", "clause": "c", "rule_version": 1, "phase": "answered"}],
            "gaps": [{"from_s": 1.0, "to_s": 1.5, "cause": "loss", "leg": "b"}], "failed_at": null,
        })
    );
}

#[tokio::test]
async fn calls_are_listed_latest_first_and_by_page_line_and_time() {
    let mut entries = Vec::new();
    for n in 1..=5 {
        entries.push(at(n as i64 * 1_000, samples::started(n, LineClass::Never)));
    }
    let bench = Bench::with(&entries).await;
    let list = async |filter: CallFilter| -> Vec<CallId> {
        bench.store.calls(&filter).await.unwrap().iter().map(|call| call.id).collect()
    };
    assert_eq!(list(CallFilter::default()).await, [5, 4, 3, 2, 1].map(call));
    assert_eq!(list(CallFilter { limit: 2, ..CallFilter::default() }).await, [5, 4].map(call));
    assert_eq!(
        list(CallFilter { limit: 2, before: Some(call(4)), ..CallFilter::default() }).await,
        [3, 2].map(call)
    );
    let since = Some(Wall(samples::START.0 + 2_000_000));
    let until = Some(Wall(samples::START.0 + 4_000_000));
    assert_eq!(list(CallFilter { since, until, ..CallFilter::default() }).await, [3, 2].map(call));
    assert!(list(CallFilter { line: Some("+18607427330".into()), ..CallFilter::default() }).await.is_empty());
    assert_eq!(
        list(CallFilter { line: Some("+18607427331".into()), ..CallFilter::default() }).await.len(),
        5
    );
    let going_on = bench.store.call(call(1)).await.unwrap().unwrap();
    assert_eq!((going_on.outcome, going_on.recording_outcome), (crate::Outcome::InProgress, None));
}

#[tokio::test]
async fn who_asked_for_privacy_is_named_nowhere() {
    let Entry::CallStarted(mut started) = samples::started(1, LineClass::Consent) else { panic!() };
    started.privacy = true;
    let bench = Bench::with(&[at(0, Entry::CallStarted(started))]).await;
    let printed = serde_json::to_string(&bench.store.call(call(1)).await.unwrap().unwrap()).unwrap();
    assert!(!printed.contains("5550123"));
}

#[tokio::test]
async fn nothing_is_stored_without_a_retention_tag_of_its_form() {
    let bench = Bench::with(&dispatch_call(1)).await;
    for table in ["call", "recording", "decision", "gate_interval"] {
        for tag in
            ["NULL", "''", "'RT'", "'rt-cdr'", "'RT CDR'", "'RT_CDR'", "'RT-000000000000000000000000000000'"]
        {
            let statement = format!("UPDATE {table} SET retention = {tag}");
            let result = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&bench.store.pool).await;
            assert!(result.is_err(), "{table} took {tag}");
        }
    }
}

#[tokio::test]
async fn a_sealed_recording_is_neither_changed_nor_deleted() {
    let bench = Bench::with(&dispatch_call(1)).await;
    for statement in [
        "UPDATE recording SET sha256 = 'x'",
        "UPDATE recording SET intervals = '[]'",
        "DELETE FROM recording",
    ] {
        assert!(sqlx::query(statement).execute(&bench.store.pool).await.is_err(), "{statement}");
    }
}

#[tokio::test]
async fn the_database_and_its_log_are_their_owners_alone() {
    let bench = Bench::with(&day()).await;
    let folder = bench.dir.path().join("data");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let mut seen = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
        seen += 1;
    }
    assert!(seen >= 3, "database, write-ahead log and head");
    let row = sqlx::query("PRAGMA journal_mode").fetch_one(&bench.store.pool).await.unwrap();
    assert_eq!(row.get::<String, _>(0), "wal");
    for (pragma, expected) in [
        ("PRAGMA synchronous", 2i64),
        ("PRAGMA foreign_keys", 1),
        ("PRAGMA trusted_schema", 0),
        ("PRAGMA secure_delete", 1),
    ] {
        let row = sqlx::query(pragma).fetch_one(&bench.store.pool).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), expected, "{pragma}");
    }
}

async fn five_rows() -> Bench {
    let bench = Bench::new().await;
    for n in 1..=5 {
        bench
            .store
            .audit_append("console", "recording.export", Some(format!("r{n}")), None, Wall(n))
            .await
            .unwrap();
    }
    assert!(bench.store.audit_verify().await.unwrap().intact());
    bench.sql("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_deleted;").await;
    bench
}

async fn fault(bench: &Bench) -> Option<AuditFault> {
    bench.store.audit_verify().await.unwrap().fault
}

#[tokio::test]
async fn an_edited_deleted_swapped_truncated_or_reinserted_row_is_named() {
    let bench = five_rows().await;
    bench.sql("UPDATE audit SET object = 'r9' WHERE seq = 3").await;
    assert_eq!(fault(&bench).await, Some(AuditFault::Altered { seq: 3 }));

    let bench = five_rows().await;
    bench.sql("DELETE FROM audit WHERE seq = 2").await;
    assert_eq!(fault(&bench).await, Some(AuditFault::Missing { seq: 2 }));

    let bench = five_rows().await;
    bench.sql("DELETE FROM audit WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 5").await;
    assert_eq!(fault(&bench).await, Some(AuditFault::Altered { seq: 2 }));

    let bench = five_rows().await;
    bench.sql("UPDATE audit SET seq = 99 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 99").await;
    assert_eq!(fault(&bench).await, Some(AuditFault::Altered { seq: 2 }));

    let bench = five_rows().await;
    bench.sql("DELETE FROM audit WHERE seq > 3").await;
    assert_eq!(fault(&bench).await, Some(AuditFault::Truncated { count: 3, head: 5 }));
    // Rows appended after the cut hide it from the chain, but not from the head file, which stays.
    for n in 4..=6 {
        bench.store.audit_append("console", "recording.export", None, None, Wall(n)).await.unwrap();
    }
    assert_eq!(fault(&bench).await, Some(AuditFault::Rewritten { seq: 5 }));

    let bench = five_rows().await;
    bench
        .sql(
            "CREATE TABLE kept AS SELECT * FROM audit WHERE seq = 4; DELETE FROM audit WHERE seq >= 4;
               INSERT INTO audit SELECT * FROM kept",
        )
        .await;
    assert_eq!(fault(&bench).await, Some(AuditFault::Truncated { count: 4, head: 5 }));
}

#[tokio::test]
async fn a_log_computed_anew_or_without_its_head_is_told() {
    let bench = five_rows().await;
    let mut previous = GENESIS;
    for seq in 1..=5 {
        let entry = crate::audit::AuditEntry {
            seq,
            at: Wall(seq as i64),
            actor: "nobody".into(),
            action: "recording.export".into(),
            object: None,
            detail: None,
        };
        let hash = entry.hash(&previous);
        sqlx::query(
            "UPDATE audit SET actor = 'nobody', object = NULL, previous = $1, hash = $2 WHERE seq = $3",
        )
        .bind(previous.0.to_vec())
        .bind(hash.0.to_vec())
        .bind(seq as i64)
        .execute(&bench.store.pool)
        .await
        .unwrap();
        previous = hash;
    }
    assert_eq!(fault(&bench).await, Some(AuditFault::Rewritten { seq: 5 }));
    fs::remove_file(bench.dir.path().join("data/earmark.db.audit-head")).unwrap();
    assert_eq!(fault(&bench).await, Some(AuditFault::NoHead));
    bench.store.audit_append("console", "recording.export", None, None, Wall(6)).await.unwrap();
    assert_eq!(fault(&bench).await, Some(AuditFault::NoHead), "an append does not make up for it");
}

#[tokio::test]
async fn the_log_refuses_changes_and_two_processes_share_its_chain() {
    let bench = Bench::new().await;
    let other = Store::open(&url(&bench.dir)).await.unwrap();
    let deliver = async {
        for n in 1..=20u64 {
            let position = JournalPosition { journal: JOURNAL, seq: n };
            bench.store.deliver(&[(position, audit_entry(n as i64))]).await.unwrap();
        }
    };
    let append = async {
        for n in 1..=20 {
            other.audit_append("console", "recording.verify", None, None, Wall(n)).await.unwrap();
        }
    };
    tokio::join!(deliver, append);
    let report = bench.store.audit_verify().await.unwrap();
    assert_eq!((report.count, report.fault), (40, None));
    for statement in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"] {
        assert!(sqlx::query(statement).execute(&bench.store.pool).await.is_err());
    }
}

#[tokio::test]
async fn a_ladder_comes_in_parts_and_a_rung_that_comes_again_counts_its_repeats() {
    let rung = samples::rung;
    let mut entries = dispatch_call(1);
    let (invite, trying) = (rung(0, "INVITE sip:<callee>", 0), rung(1, "100 Trying", 0));
    entries.push(at(3_000, samples::ladder(1, &[invite.clone(), trying], 0)));
    let again = [rung(1, "100 Trying", 2), rung(2, "486 Busy Here", 0)];
    entries.push(at(7_000, samples::ladder(1, &again, 4)));
    let bench = Bench::with(&entries).await;
    let ladder = bench.store.ladder(call(1)).await.unwrap().unwrap();
    assert_eq!(ladder.rungs, [&[invite][..], &again].concat());
    assert_eq!((ladder.call_id, ladder.left_out), (call(1), 4));
    let tag: String =
        sqlx::query_scalar("SELECT retention FROM ladder").fetch_one(&bench.store.pool).await.unwrap();
    assert_eq!(tag, "RT-CDR", "the call's own");
}

#[tokio::test]
async fn a_ladder_of_an_earlier_schema_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let connecting = options(&url(&dir)).unwrap().create_if_missing(true);
    make_private(connecting.get_filename()).unwrap();
    let mut connection = SqliteConnection::connect_with(&connecting).await.unwrap();
    sqlx::migrate!().run_to(5, &mut connection).await.unwrap();
    let earlier = "INSERT INTO call (id, node, line_class, retention, direction, privacy, emergency, started_at, outcome)
         VALUES ('019a0000-0000-7000-8000-000000000001', 'gw1', 'never', 'RT-CDR', 'inbound', 0, 0, 0, 'in-progress');
         INSERT INTO ladder VALUES ('019a0000-0000-7000-8000-000000000001', 4, 'RT-CDR');
         INSERT INTO rung VALUES
             ('019a0000-0000-7000-8000-000000000001', 1, 10, 'b', 'carrier', 1, '100 Trying', 'INVITE', 1, 2),
             ('019a0000-0000-7000-8000-000000000001', 0, 0, 'a', 'carrier', 0, 'INVITE pbx', 'INVITE', 1, 0)";
    sqlx::raw_sql(earlier).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let bench = Bench { store: Store::open(&url(&dir)).await.unwrap(), dir };
    let more = at(7_000, ladder(1, &[rung(2, "200 OK", 0)], 5));
    bench.store.deliver(&numbered(&[more])).await.unwrap();
    let kept = bench.store.ladder(call(1)).await.unwrap().unwrap();
    assert_eq!(kept.rungs, [rung(0, "INVITE pbx", 0), rung(1, "100 Trying", 2), rung(2, "200 OK", 0)]);
    assert_eq!(kept.left_out, 5);
}

#[tokio::test]
async fn a_ladder_of_no_known_call_is_let_go() {
    let entries = [at(0, samples::ladder(5, &[samples::rung(0, "INVITE sip:<callee>", 0)], 0))];
    let bench = Bench::with(&entries).await;
    assert_eq!(bench.store.ladder(call(5)).await.unwrap(), None);
    assert_eq!(unplaced(&bench.store).await, []);
}

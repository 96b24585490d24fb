//! Questions about calls.

use consent::{CallId, Evidence, Leg, PartyConsent, PartyState, Reason, RuleVersion, SignalSource, Wall};
use serde::Deserialize;

use super::rows::{
    CallFilter, CallRow, ConsentRow, DecisionRow, ElsewhereRow, EvidenceRow, Explanation, GateInterval,
    LegMediaRow, MediaRow, PartyDecided, PartyRow, PreambleWiped, Role,
};
use super::{Store, StoreError, json, unsigned, value};
use crate::{ElsewhereState, IdentityVerdict, Utc};

/// A row of the statement below: what hangs on the call comes with it as JSON.
struct Joined {
    id: String,
    node: String,
    line: Option<String>,
    line_class: String,
    retention: String,
    direction: String,
    caller: Option<String>,
    callee: Option<String>,
    privacy: bool,
    emergency: bool,
    verstat: Option<String>,
    attestation: Option<String>,
    foreign_caller_id: bool,
    started_at: i64,
    ringing_at: Option<i64>,
    answered_at: Option<i64>,
    ended_at: Option<i64>,
    outcome: String,
    final_status: Option<i64>,
    ended_by: Option<String>,
    end_cause: Option<String>,
    recording_outcome: Option<String>,
    basis: Option<String>,
    parties: String,
    media: String,
    recordings: String,
    linked_calls: String,
    recorded_elsewhere: String,
    sip_call_ids: String,
}

/// Calls, with everything that hangs on each. A macro because the statement must be a literal for sqlx to
/// check it, and two questions share it.
macro_rules! joined {
    ($rest:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Joined,
            r#"SELECT c.id, c.node, c.line, c.line_class, c.retention, c.direction, c.caller, c.callee,
                      c.privacy AS "privacy!: bool", c.emergency AS "emergency!: bool", c.verstat, c.attestation,
                      c.foreign_caller_id AS "foreign_caller_id!: bool", c.started_at, c.ringing_at,
                      c.answered_at, c.ended_at, c.outcome, c.final_status, c.ended_by, c.end_cause,
                      c.recording_outcome, c.basis,
                      (SELECT json_group_array(json_object(
                                  'leg', leg, 'ordinal', ordinal, 'identity', identity, 'joined_at', joined_at,
                                  'left_at', left_at, 'consent', consent, 'method', consent_method, 'at', consent_at)
                              ORDER BY joined_at, leg, ordinal)
                       FROM party WHERE call_id = c.id) AS "parties!: String",
                      (SELECT json_group_array(json_object(
                                  'leg', leg, 'codec', codec, 'packets', packets, 'lost', lost,
                                  'jitter_ms', jitter_ms, 'mos', mos) ORDER BY leg)
                       FROM call_media WHERE call_id = c.id) AS "media!: String",
                      (SELECT json_group_array(id ORDER BY started_at, id)
                       FROM recording WHERE call_id = c.id) AS "recordings!: String",
                      (SELECT json_group_array(linked ORDER BY linked)
                       FROM call_link WHERE call_id = c.id) AS "linked_calls!: String",
                      (SELECT json_group_array(json_object('leg', leg, 'state', state, 'at', at) ORDER BY id)
                       FROM recorded_elsewhere WHERE call_id = c.id) AS "recorded_elsewhere!: String",
                      (SELECT json_group_array(sip_call_id ORDER BY position)
                       FROM call_leg WHERE call_id = c.id) AS "sip_call_ids!: String"
               FROM call c "# + $rest,
            $($argument),*
        )
    };
}

impl Store {
    /// Call records, the latest first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn calls(&self, filter: &CallFilter) -> Result<Vec<CallRow>, StoreError> {
        let (limit, before) = (i64::from(filter.limit), filter.before.map(|call| call.to_string()));
        let (since, until) = (filter.since.map(|at| at.0), filter.until.map(|at| at.0));
        let rows = joined!(
            r#"WHERE ($1 IS NULL OR c.line = $1)
                 AND ($2 IS NULL OR c.started_at >= $2)
                 AND ($3 IS NULL OR c.started_at < $3)
                 AND ($4 IS NULL OR (c.started_at, c.id) < (SELECT p.started_at, p.id FROM call p WHERE p.id = $4))
               ORDER BY c.started_at DESC, c.id DESC LIMIT $5"#,
            filter.line,
            since,
            until,
            before,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(call_row).collect()
    }

    /// One call's record; `None` if there is none.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn call(&self, call: CallId) -> Result<Option<CallRow>, StoreError> {
        let id = call.to_string();
        let row = joined!("WHERE c.id = $1", id).fetch_optional(&self.pool).await?;
        row.map(call_row).transpose()
    }

    /// Why a call was, or was not, recorded; `None` if there is no such call.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn explain(&self, call: CallId) -> Result<Option<Explanation>, StoreError> {
        let id = call.to_string();
        let known =
            sqlx::query_scalar!("SELECT id FROM call WHERE id = $1", id).fetch_optional(&self.pool).await?;
        if known.is_none() {
            return Ok(None);
        }
        Ok(Some(Explanation {
            call_id: call,
            decisions: self.decisions(&id).await?,
            intervals: self.gate_intervals(&id).await?,
            wiped: self.wiped(&id).await?,
        }))
    }

    async fn decisions(&self, call: &str) -> Result<Vec<DecisionRow>, StoreError> {
        let rows = sqlx::query!(
            "SELECT at, gate, basis, clause, rule_version, reason, parties, evidence, otherwise
             FROM decision WHERE call_id = $1 ORDER BY id",
            call
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter().map(|row| {
            let parties: Vec<PartyState> = json("party", &row.parties)?;
            let evidence: Vec<Evidence> = json("evidence", &row.evidence)?;
            let reason: Reason = value("reason", row.reason)?;
            Ok(DecisionRow {
                at: utc(row.at),
                gate: value("state of the gate", row.gate)?,
                basis: row.basis.map(|basis| value("basis", basis)).transpose()?,
                clause: row.clause,
                rule_version: rule_version(row.rule_version),
                reason,
                sentence: reason.sentence(),
                parties: parties.into_iter().map(party_decided).collect(),
                evidence: evidence.into_iter().map(evidence_row).collect(),
                otherwise: row.otherwise,
            })
        });
        rows.collect()
    }

    async fn gate_intervals(&self, call: &str) -> Result<Vec<GateInterval>, StoreError> {
        let rows = sqlx::query!(
            "SELECT opened_at, shut_at, basis, clause, rule_version FROM gate_interval WHERE call_id = $1 ORDER BY id",
            call
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter().map(|row| {
            Ok(GateInterval {
                opened_at: utc(row.opened_at),
                shut_at: row.shut_at.map(utc),
                basis: value("basis", row.basis)?,
                clause: row.clause,
                rule_version: rule_version(row.rule_version),
            })
        });
        rows.collect()
    }

    async fn wiped(&self, call: &str) -> Result<Vec<PreambleWiped>, StoreError> {
        let rows = sqlx::query!(
            "SELECT at, held_ms, reason FROM preamble_wiped WHERE call_id = $1 ORDER BY id",
            call
        )
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter().map(|row| {
            Ok(PreambleWiped {
                at: utc(row.at),
                held_ms: u32::try_from(row.held_ms).unwrap_or(u32::MAX),
                reason: value("reason", row.reason)?,
            })
        });
        rows.collect()
    }
}

pub(super) fn utc(us: i64) -> String {
    Utc(Wall(us)).to_string()
}

pub(super) fn rule_version(version: i64) -> RuleVersion {
    RuleVersion(u32::try_from(version).unwrap_or(u32::MAX))
}

fn call_row(row: Joined) -> Result<CallRow, StoreError> {
    let mut parties: Vec<JoinedParty> = json("party", &row.parties)?;
    // Whoever asked for privacy is named nowhere in the record (RFC 3323).
    for party in parties.iter_mut().filter(|party| row.privacy && party.leg == Leg::A && party.ordinal == 0) {
        party.identity = None;
    }
    let elsewhere: Vec<JoinedElsewhere> = json("recording elsewhere", &row.recorded_elsewhere)?;
    Ok(CallRow {
        id: value("id", row.id)?,
        node: row.node,
        line: row.line,
        line_class: value("line class", row.line_class)?,
        direction: value("direction", row.direction)?,
        from: row.caller.filter(|_| !row.privacy),
        to: row.callee,
        started_at: utc(row.started_at),
        ringing_at: row.ringing_at.map(utc),
        answered_at: row.answered_at.map(utc),
        ended_at: row.ended_at.map(utc),
        outcome: value("outcome", row.outcome)?,
        final_status: row.final_status.and_then(|status| u16::try_from(status).ok()),
        ended_by: row.ended_by,
        end_cause: row.end_cause.map(|cause| value("cause of the end", cause)).transpose()?,
        emergency: row.emergency,
        identity_verdict: verdict(row.verstat, row.attestation)?,
        foreign_caller_id: row.foreign_caller_id,
        transfers: parties.iter().filter(|party| party.ordinal > 0).count() as u64,
        media: media(&row.media)?,
        recording_outcome: row
            .recording_outcome
            .map(|outcome| value("recording outcome", outcome))
            .transpose()?,
        basis: row.basis.map(|basis| value("basis", basis)).transpose()?,
        parties: parties.into_iter().map(PartyRow::from).collect(),
        recordings: json("recording id", &row.recordings)?,
        linked_calls: json("call id", &row.linked_calls)?,
        recorded_elsewhere: elsewhere.into_iter().map(ElsewhereRow::from).collect(),
        privacy: row.privacy,
        sip_call_ids: json("Call-ID", &row.sip_call_ids)?,
        retention: value("retention tag", row.retention)?,
    })
}

fn verdict(
    verstat: Option<String>,
    attestation: Option<String>,
) -> Result<Option<IdentityVerdict>, StoreError> {
    let Some(verstat) = verstat else { return Ok(None) };
    let attestation = attestation.map(|letter| value("attestation", letter)).transpose()?;
    Ok(Some(IdentityVerdict { verstat: value("verification", verstat)?, attestation }))
}

/// A party as the statement gives it.
#[derive(Deserialize)]
struct JoinedParty {
    leg: Leg,
    ordinal: u32,
    identity: Option<String>,
    joined_at: i64,
    left_at: Option<i64>,
    consent: PartyConsent,
    method: Option<SignalSource>,
    at: Option<i64>,
}

impl From<JoinedParty> for PartyRow {
    fn from(party: JoinedParty) -> Self {
        Self {
            role: Role::of(party.leg),
            ordinal: party.ordinal,
            identity: party.identity,
            joined_at: utc(party.joined_at),
            left_at: party.left_at.map(utc),
            consent: ConsentRow { state: party.consent, method: party.method, at: party.at.map(utc) },
        }
    }
}

/// What a far end said of its own recording, as the statement gives it.
#[derive(Deserialize)]
struct JoinedElsewhere {
    leg: Leg,
    state: ElsewhereState,
    at: i64,
}

impl From<JoinedElsewhere> for ElsewhereRow {
    fn from(said: JoinedElsewhere) -> Self {
        Self { role: Role::of(said.leg), state: said.state, at: utc(said.at) }
    }
}

/// A leg's media as the statement gives it.
#[derive(Deserialize)]
struct JoinedMedia {
    leg: Leg,
    codec: Option<String>,
    packets: i64,
    lost: i64,
    jitter_ms: f64,
    mos: Option<f64>,
}

fn media(text: &str) -> Result<MediaRow, StoreError> {
    let mut row = MediaRow::default();
    for media in json::<Vec<JoinedMedia>>("media", text)? {
        let of_leg = LegMediaRow {
            codec: media.codec,
            packets: unsigned(media.packets),
            lost: unsigned(media.lost),
            jitter_ms: media.jitter_ms,
            mos: media.mos,
        };
        match media.leg {
            Leg::A => row.a = of_leg,
            Leg::B => row.b = of_leg,
        }
    }
    Ok(row)
}

fn party_decided(party: PartyState) -> PartyDecided {
    PartyDecided { role: Role::of(party.leg), leg: party.leg, ordinal: party.ordinal, consent: party.consent }
}

fn evidence_row(evidence: Evidence) -> EvidenceRow {
    EvidenceRow { at: Utc(evidence.at).to_string(), leg: evidence.leg, what: evidence.what }
}

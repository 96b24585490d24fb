//! Whether what was done in a step of the conformance run was signalled, as far as the records tell.
//!
//! | step | what must be in the records of its calls, at the peer's ends |
//! |---|---|
//! | a plain call | sound from both ends; nobody who came |
//! | hold | two offers of the peer's after the answer, both accepted, 2 s apart or more; nobody who came |
//! | transfer, conference, supervisor, park | a party that came after the answer and stayed 2 s or more |
//!
//! Offers that a plain call has already are not counted. A call through a peer that is not verified has its gate
//! shut from the start, and then the record says of an offer that it came, not whether it holds; where the gate was
//! open, or the parties were being asked, it says that too, and it counts. Somebody who came although nobody did
//! makes a step unclear: then what came in another step proves nothing.

use consent::{Leg, Reason};
use jiff::Timestamp;
use serde::Serialize;
use storage::{CallRow, DecisionRow, LadderRow, PartyRow, Role, Rung};

use super::step::{Shows, Step};

/// Apart by less, two offers are one event, such as media that is led another way.
const HOLD_MS: u32 = 2_000;
/// Whoever is announced later before the end was kept back until it did not matter any more.
const STAY_S: f64 = 2.0;

/// A call of a step, as the records have it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) call: CallRow,
    pub(super) ladder: Option<LadderRow>,
    pub(super) decisions: Vec<DecisionRow>,
}

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// What was done was signalled.
    Seen,
    /// It was done, and not signalled.
    Hidden,
    /// The records do not tell.
    Unclear,
    /// There was no call to judge.
    NoCall,
}

/// A verdict and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) saw: String,
}

impl Judgement {
    pub(super) fn new(verdict: Verdict, saw: impl Into<String>) -> Self {
        Self { verdict, saw: saw.into() }
    }
}

/// Judges the calls of a step. `usual` is how many offers a plain call of this peer has after the answer.
pub(super) fn judge(step: Step, peer: &str, calls: &[Kept], usual: usize) -> Judgement {
    if calls.iter().all(|kept| kept.ladder.is_none()) {
        return Judgement::new(
            Verdict::Unclear,
            "the call's SIP messages were not kept, because journal or database were behind",
        );
    }
    let came: Vec<Newcomer> = calls.iter().flat_map(|kept| newcomers(kept, peer)).collect();
    match step.shows() {
        Shows::Newcomer => judge_newcomer(&came, calls, peer),
        Shows::Nothing | Shows::Hold if !came.is_empty() => {
            let saw = format!("{}, although nobody did", listed(&came));
            Judgement::new(Verdict::Unclear, saw)
        }
        Shows::Nothing => judge_plain(calls),
        Shows::Hold => judge_hold(calls, peer, usual),
    }
}

/// How many offers of the peer's a call had after its answer.
pub(super) fn offers_of(calls: &[Kept], peer: &str) -> usize {
    calls.iter().map(|kept| offers(kept, peer).len()).max().unwrap_or(0)
}

fn judge_plain(calls: &[Kept]) -> Judgement {
    let silent = |kept: &&Kept| kept.call.media.a.packets == 0 || kept.call.media.b.packets == 0;
    if calls.iter().any(|kept| silent(&kept)) {
        return Judgement::new(Verdict::Unclear, "from one end of the call no sound came through Earmark");
    }
    Judgement::new(Verdict::Seen, "two parties from the answer to the end, and sound from both")
}

fn judge_newcomer(came: &[Newcomer], calls: &[Kept], peer: &str) -> Judgement {
    if came.iter().any(|newcomer| newcomer.stayed_s >= STAY_S) {
        return Judgement::new(Verdict::Seen, listed(came));
    }
    if !came.is_empty() {
        return Judgement::new(Verdict::Hidden, format!("{}: only as the call ended", listed(came)));
    }
    let offers = offers_of(calls, peer);
    Judgement::new(Verdict::Hidden, format!("nobody came at any end of {peer}'s; {}", counted(offers)))
}

fn judge_hold(calls: &[Kept], peer: &str, usual: usize) -> Judgement {
    let held = calls.iter().flat_map(|kept| holds(kept, peer)).next();
    let best = calls.iter().map(|kept| (kept, offers(kept, peer))).max_by_key(|(_, offers)| offers.len());
    let Some((kept, offers)) = best else { return Judgement::new(Verdict::NoCall, "no call") };
    let (Some(first), Some(last)) = (offers.get(usual), offers.last()) else {
        return Judgement::new(Verdict::Hidden, format!("no hold; {}", counted(offers.len())));
    };
    let apart_ms = last.after_ms.saturating_sub(first.after_ms);
    if offers.len() < usual + 2 || apart_ms < HOLD_MS {
        let half =
            if held.is_some() { "a hold, and nothing that ended it" } else { "no hold that was ended" };
        return Judgement::new(Verdict::Hidden, format!("{half}; {}", counted(offers.len())));
    }
    let apart_s = f64::from(apart_ms) / 1_000.0;
    match held {
        Some(_) => Judgement::new(Verdict::Seen, format!("a hold, and its end {apart_s:.1} s later")),
        None if is_watched(kept, first) => {
            Judgement::new(Verdict::Hidden, format!("{}, none of which was a hold", counted(offers.len())))
        }
        None => Judgement::new(
            Verdict::Seen,
            format!(
                "two new descriptions of {peer}'s, {apart_s:.1} s apart (that they hold and resume, the record \
                 of a call that nothing is kept of does not say)"
            ),
        ),
    }
}

/// Whether the machine of the call would have said that this offer holds.
fn is_watched(kept: &Kept, offer: &Rung) -> bool {
    let Some(began) = instant(&kept.call.started_at) else { return false };
    let offered = began + jiff::SignedDuration::from_millis(offer.after_ms.into());
    let before = |decision: &&DecisionRow| instant(&decision.at).is_some_and(|at| at < offered);
    let last = kept.decisions.iter().rfind(before);
    last.is_some_and(|decision| matches!(decision.reason, Reason::AllAgreed | Reason::Asking))
}

/// The decisions by which the gate shut because the peer's end held the call.
fn holds<'a>(kept: &'a Kept, peer: &'a str) -> impl Iterator<Item = &'a DecisionRow> {
    let legs = legs(kept, peer);
    kept.decisions.iter().filter(move |decision| {
        let evidence = decision.evidence.iter().filter_map(|evidence| evidence.leg);
        decision.reason == Reason::Held && evidence.into_iter().any(|leg| legs.contains(&leg))
    })
}

/// Somebody who came to an end of the peer's.
#[derive(Clone, Debug)]
struct Newcomer {
    role: Role,
    after_s: f64,
    stayed_s: f64,
}

fn newcomers(kept: &Kept, peer: &str) -> Vec<Newcomer> {
    let legs = legs(kept, peer);
    let answered = kept.call.answered_at.as_deref().and_then(instant);
    let ended = kept.call.ended_at.as_deref().and_then(instant);
    let (Some(answered), Some(ended)) = (answered, ended) else { return Vec::new() };
    let came = |party: &PartyRow| {
        let there = party.ordinal > 0 && legs.iter().any(|leg| Role::of(*leg) == party.role);
        let joined = instant(&party.joined_at).filter(|joined| there && *joined > answered)?;
        let left = party.left_at.as_deref().and_then(instant).unwrap_or(ended);
        let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
        let (after_s, stayed_s) = (seconds(answered, joined), seconds(joined, left));
        Some(Newcomer { role: party.role, after_s, stayed_s })
    };
    kept.call.parties.iter().filter_map(came).collect()
}

fn listed(came: &[Newcomer]) -> String {
    let one = |newcomer: &Newcomer| {
        let end = match newcomer.role {
            Role::Caller => "caller",
            Role::Callee => "callee",
        };
        let Newcomer { after_s, stayed_s, .. } = newcomer;
        format!("somebody came at the {end}'s end {after_s:.1} s after the answer and stayed {stayed_s:.1} s")
    };
    came.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn counted(offers: usize) -> String {
    match offers {
        0 => "no new description after the answer".to_owned(),
        1 => "one new description after the answer".to_owned(),
        more => format!("{more} new descriptions after the answer"),
    }
}

/// The legs at whose far end the peer is or was.
fn legs(kept: &Kept, peer: &str) -> Vec<Leg> {
    let rungs = kept.ladder.iter().flat_map(|ladder| &ladder.rungs);
    let of_peer: Vec<Leg> = rungs.filter(|rung| rung.peer == peer).map(|rung| rung.leg).collect();
    Leg::BOTH.into_iter().filter(|leg| of_peer.contains(leg)).collect()
}

/// The re-INVITEs and UPDATEs with an offer that came from the peer after the answer and were accepted, of the leg
/// that has most. A re-INVITE without a description asks for an offer (RFC 3261 §14.1), and the answer is in its ACK.
fn offers<'a>(kept: &'a Kept, peer: &str) -> Vec<&'a Rung> {
    let Some(ladder) = &kept.ladder else { return Vec::new() };
    let of_leg = |leg: Leg| -> Vec<&'a Rung> {
        let rungs: Vec<&Rung> =
            ladder.rungs.iter().filter(|rung| rung.leg == leg && rung.peer == peer).collect();
        let is_final = |rung: &Rung, method: &str| rung.method == method && rung.message.starts_with('2');
        let Some(answered) = rungs.iter().position(|rung| is_final(rung, "INVITE")) else {
            return Vec::new();
        };
        let after = rungs.iter().enumerate().skip(answered + 1);
        let accepted = after.filter(|(at, rung)| {
            let asks = rung.method == "INVITE" || (rung.method == "UPDATE" && rung.sdp);
            let request = rung.message.starts_with(rung.method.as_str());
            let mut later = rungs.iter().skip(at + 1);
            !rung.sent && asks && request && later.any(|later| later.sent && is_final(later, &rung.method))
        });
        accepted.map(|(_, rung)| *rung).collect()
    };
    Leg::BOTH.map(of_leg).into_iter().max_by_key(Vec::len).unwrap_or_default()
}

fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use consent::{CallId, Direction, GateState, LineClass, PartyConsent, RetentionTag, RuleVersion};
    use storage::{ConsentRow, EvidenceRow, LegMediaRow, MediaRow, Outcome};

    use super::*;

    /// Method and seconds after the answer.
    type Offers = &'static [(&'static str, f64)];

    /// Seconds after the answer, which is 1 s after the INVITE.
    fn at(after_s: f64) -> String {
        let answered: Timestamp = "2026-11-22T18:00:01.000Z".parse().unwrap();
        let at = answered + jiff::SignedDuration::from_secs_f64(after_s);
        at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    }

    fn party(role: Role, ordinal: u32, joined_s: f64) -> PartyRow {
        let consent = ConsentRow { state: PartyConsent::NotAsked, method: None, at: None };
        let (joined_at, left_at) = (at(joined_s), Some(at(20.0)));
        PartyRow { role, ordinal, identity: None, joined_at, left_at, consent }
    }

    /// A call of 20 s from the carrier to the PBX; each offer of the PBX's is accepted.
    fn kept(offers: &[(&str, f64)]) -> Kept {
        let mut rungs = Vec::new();
        let mut rung = |after_s: f64, leg, sent, message: &str, method: &str| {
            let after_ms = (after_s * 1_000.0) as u32;
            let peer = if leg == Leg::A { "carrier" } else { "pbx" };
            let position = u16::try_from(rungs.len()).unwrap();
            let (message, method, peer) = (message.to_owned(), method.to_owned(), peer.to_owned());
            rungs.push(Rung { position, after_ms, leg, peer, sent, message, method, sdp: true, repeats: 0 });
        };
        rung(0.0, Leg::A, false, "INVITE sip:<callee>", "INVITE");
        rung(0.0, Leg::B, true, "INVITE sip:<callee>", "INVITE");
        rung(1.0, Leg::B, false, "200 OK", "INVITE");
        rung(1.0, Leg::A, true, "200 OK", "INVITE");
        for (method, after_s) in offers {
            rung(1.0 + after_s, Leg::B, false, &format!("{method} sip:<caller>"), method);
            rung(1.1 + after_s, Leg::B, true, "200 OK", method);
        }
        let heard = LegMediaRow { packets: 500, ..LegMediaRow::default() };
        let call = CallRow {
            id: CallId(1),
            node: "gw1".to_owned(),
            line: None,
            line_class: LineClass::Never,
            direction: Direction::Inbound,
            from: None,
            to: None,
            started_at: at(-1.0),
            ringing_at: None,
            answered_at: Some(at(0.0)),
            ended_at: Some(at(20.0)),
            outcome: Outcome::Answered,
            final_status: Some(200),
            ended_by: None,
            end_cause: None,
            emergency: false,
            identity_verdict: None,
            foreign_caller_id: false,
            transfers: 0,
            media: MediaRow { a: heard.clone(), b: heard },
            recording_outcome: None,
            basis: None,
            parties: vec![party(Role::Caller, 0, -1.0), party(Role::Callee, 0, 0.0)],
            recordings: Vec::new(),
            linked_calls: Vec::new(),
            recorded_elsewhere: Vec::new(),
            privacy: false,
            sip_call_ids: Vec::new(),
            retention: RetentionTag::try_from("RT-CDR".to_owned()).unwrap(),
        };
        let ladder = Some(LadderRow { call_id: call.id, rungs, left_out: 0 });
        Kept { call, ladder, decisions: Vec::new() }
    }

    fn joined(role: Role, joined_s: f64) -> Kept {
        let mut kept = kept(&[]);
        kept.call.parties.push(party(role, 1, joined_s));
        kept
    }

    fn decided(mut kept: Kept, decisions: &[(Reason, f64)]) -> Kept {
        kept.decisions = decisions.iter().map(|&(reason, after_s)| decision(reason, after_s)).collect();
        kept
    }

    fn decision(reason: Reason, after_s: f64) -> DecisionRow {
        DecisionRow {
            at: at(after_s),
            gate: GateState::Shut,
            basis: None,
            clause: String::new(),
            rule_version: RuleVersion(1),
            reason,
            sentence: reason.sentence(),
            parties: Vec::new(),
            evidence: vec![EvidenceRow { at: at(after_s), leg: Some(Leg::B), what: String::new() }],
            otherwise: String::new(),
        }
    }

    fn verdict(step: Step, kept: Kept, usual: usize) -> Verdict {
        judge(step, "pbx", &[kept], usual).verdict
    }

    #[test]
    fn a_hold_is_two_accepted_offers_apart_beyond_those_of_a_plain_call() {
        let cases: [(Offers, usize, Verdict); 7] = [
            (&[], 0, Verdict::Hidden),
            (&[("INVITE", 5.0)], 0, Verdict::Hidden),
            (&[("INVITE", 5.0), ("INVITE", 10.0)], 0, Verdict::Seen),
            (&[("UPDATE", 5.0), ("UPDATE", 10.0)], 0, Verdict::Seen),
            (&[("INVITE", 5.0), ("INVITE", 5.5)], 0, Verdict::Hidden),
            (&[("INVITE", 0.1), ("INVITE", 10.0)], 1, Verdict::Hidden),
            (&[("INVITE", 0.1), ("INVITE", 5.0), ("INVITE", 10.0)], 1, Verdict::Seen),
        ];
        for (offers, usual, expected) in cases {
            assert_eq!(verdict(Step::Hold, kept(offers), usual), expected, "{offers:?}");
        }
    }

    #[test]
    fn where_the_call_was_asked_or_kept_its_record_says_what_an_offer_was() {
        let offers = [("INVITE", 5.0), ("INVITE", 10.0)];
        let open = decided(kept(&offers), &[(Reason::AllAgreed, 3.0)]);
        assert_eq!(verdict(Step::Hold, open, 0), Verdict::Hidden, "offers that did not hold");
        let held = decided(kept(&offers), &[(Reason::AllAgreed, 3.0), (Reason::Held, 5.0)]);
        let judged = judge(Step::Hold, "pbx", &[held], 0);
        assert_eq!((judged.verdict, judged.saw.as_str()), (Verdict::Seen, "a hold, and its end 5.0 s later"));
        let shut = decided(kept(&offers), &[(Reason::PartiesHidden, 0.0)]);
        assert_eq!(verdict(Step::Hold, shut, 0), Verdict::Seen);
        let half = decided(kept(&offers[..1]), &[(Reason::AllAgreed, 3.0), (Reason::Held, 5.0)]);
        assert_eq!(verdict(Step::Hold, half, 0), Verdict::Hidden);
    }

    #[test]
    fn a_newcomer_counts_at_the_peers_end_and_in_time() {
        for step in Step::ALL.into_iter().filter(|step| step.shows() == Shows::Newcomer) {
            let cases = [
                (joined(Role::Callee, 5.0), Verdict::Seen),
                (joined(Role::Caller, 5.0), Verdict::Hidden),
                (joined(Role::Callee, 19.0), Verdict::Hidden),
                (joined(Role::Callee, -0.5), Verdict::Hidden),
                (kept(&[("INVITE", 5.0), ("INVITE", 10.0)]), Verdict::Hidden),
            ];
            for (kept, expected) in cases {
                assert_eq!(verdict(step, kept.clone(), 0), expected, "{step:?} {:?}", kept.call.parties);
            }
        }
    }

    #[test]
    fn any_call_of_a_step_may_show_the_newcomer() {
        let calls = [kept(&[]), joined(Role::Callee, 5.0)];
        assert_eq!(judge(Step::AttendedTransfer, "pbx", &calls, 0).verdict, Verdict::Seen);
    }

    #[test]
    fn somebody_who_comes_although_nobody_did_makes_a_step_unclear() {
        for step in [Step::Call, Step::Hold] {
            assert_eq!(verdict(step, joined(Role::Callee, 5.0), 0), Verdict::Unclear);
        }
        assert_eq!(verdict(Step::Call, kept(&[]), 0), Verdict::Seen);
    }

    #[test]
    fn without_sound_or_messages_nothing_is_judged() {
        let mut silent = kept(&[]);
        silent.call.media.b.packets = 0;
        assert_eq!(verdict(Step::Call, silent, 0), Verdict::Unclear);
        let mut unkept = joined(Role::Callee, 5.0);
        unkept.ladder = None;
        assert_eq!(verdict(Step::BlindTransfer, unkept, 0), Verdict::Unclear);
    }

    #[test]
    fn an_offer_that_was_refused_is_none() {
        let mut refused = kept(&[("INVITE", 5.0), ("INVITE", 10.0)]);
        let last = refused.ladder.as_mut().unwrap().rungs.last_mut().unwrap();
        last.message = "488 Not Acceptable Here".to_owned();
        assert_eq!(verdict(Step::Hold, refused.clone(), 0), Verdict::Hidden);
        assert_eq!(offers_of(&[refused], "pbx"), 1);
    }
}

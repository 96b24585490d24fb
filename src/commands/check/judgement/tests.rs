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
    rung(21.0, Leg::A, false, "BYE sip:<callee>", "BYE");
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

/// Another call, of which everything was so many seconds later.
fn later(mut kept: Kept, id: u128, after_s: i64) -> Kept {
    let by = |at: &str| {
        let at: Timestamp = at.parse().unwrap();
        (at + jiff::SignedDuration::from_secs(after_s)).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    };
    let call = &mut kept.call;
    call.id = CallId(id);
    call.started_at = by(&call.started_at);
    call.answered_at = call.answered_at.as_deref().map(by);
    call.ended_at = call.ended_at.as_deref().map(by);
    for party in &mut call.parties {
        party.joined_at = by(&party.joined_at);
        party.left_at = party.left_at.as_deref().map(by);
    }
    kept
}

fn rungs(kept: &mut Kept) -> &mut Vec<Rung> {
    &mut kept.ladder.as_mut().unwrap().rungs
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
    assert!(!judged.by_offers);
    let shut = decided(kept(&offers), &[(Reason::PartiesHidden, 0.0)]);
    let judged = judge(Step::Hold, "pbx", &[shut], 0);
    assert_eq!((judged.verdict, judged.by_offers), (Verdict::Seen, true));
    let opened = decided(kept(&offers), &[(Reason::PartiesHidden, 0.0), (Reason::AllAgreed, 7.0)]);
    assert_eq!(verdict(Step::Hold, opened, 0), Verdict::Hidden, "the second offer did not hold");
    let half = decided(kept(&offers[..1]), &[(Reason::AllAgreed, 3.0), (Reason::Held, 5.0)]);
    assert_eq!(verdict(Step::Hold, half, 0), Verdict::Hidden);
}

#[test]
fn a_newcomer_counts_at_the_peers_end_and_in_time() {
    for step in Step::ALL.into_iter().filter(|step| step.shows() == Shows::Newcomer) {
        let cases = [
            (joined(Role::Callee, 5.0), Verdict::Seen),
            (joined(Role::Caller, 5.0), Verdict::Hidden),
            (joined(Role::Callee, 11.9), Verdict::Seen),
            (joined(Role::Callee, 12.1), Verdict::Hidden),
            (joined(Role::Callee, -0.5), Verdict::Hidden),
            (kept(&[("INVITE", 5.0), ("INVITE", 10.0)]), Verdict::Hidden),
        ];
        for (kept, expected) in cases {
            assert_eq!(verdict(step, kept.clone(), 0), expected, "{step:?} {:?}", kept.call.parties);
        }
    }
}

#[test]
fn whoever_comes_last_is_the_one_that_counts() {
    let mut late = joined(Role::Callee, 3.0);
    late.call.parties.push(party(Role::Callee, 2, 17.0));
    let judged = judge(Step::Park, "pbx", &[late], 0);
    assert_eq!(judged.verdict, Verdict::Hidden);
    assert!(judged.saw.contains("only 3.0 s before the end"), "{}", judged.saw);
    let mut gone = joined(Role::Callee, 3.0);
    gone.call.parties.last_mut().unwrap().left_at = Some(at(8.0));
    assert_eq!(verdict(Step::Conference, gone, 0), Verdict::Hidden);
}

#[test]
fn where_a_parked_call_waits_is_not_who_fetches_it() {
    let mut orbit = joined(Role::Callee, 3.0);
    let end = Some(at(45.0));
    orbit.call.ended_at.clone_from(&end);
    orbit.call.parties.iter_mut().for_each(|party| party.left_at.clone_from(&end));
    rungs(&mut orbit).last_mut().unwrap().after_ms = 46_000;
    let judged = judge(Step::Park, "pbx", std::slice::from_ref(&orbit), 0);
    assert_eq!(judged.verdict, Verdict::Unclear);
    assert!(judged.saw.contains("before the call was fetched"), "{}", judged.saw);
    orbit.call.parties.push(PartyRow { left_at: end, ..party(Role::Callee, 2, 34.0) });
    assert_eq!(verdict(Step::Park, orbit, 0), Verdict::Seen);
}

#[test]
fn the_call_with_the_outside_that_goes_on_must_show_the_newcomer() {
    let mut within = joined(Role::Callee, 5.0);
    rungs(&mut within).iter_mut().for_each(|rung| "pbx".clone_into(&mut rung.peer));
    let within = later(within, 2, 0);
    let judged = |calls: &[Kept]| judge(Step::AttendedTransfer, "pbx", calls, 0).verdict;
    assert_eq!(judged(&[kept(&[]), within.clone()]), Verdict::Hidden);
    assert_eq!(judged(&[joined(Role::Callee, 5.0), within.clone()]), Verdict::Seen);
    assert_eq!(judged(&[within]), Verdict::Unclear, "A is behind the peer too");
    let mut taken_over = later(joined(Role::Callee, 5.0), 3, 10);
    taken_over.call.linked_calls.push(CallId(1));
    assert_eq!(judged(&[kept(&[]), taken_over.clone()]), Verdict::Seen);
    assert_eq!(judged(&[joined(Role::Callee, 5.0), later(taken_over, 3, -5)]), Verdict::Seen);
    let mut hidden = later(kept(&[]), 3, 10);
    hidden.call.linked_calls.push(CallId(1));
    assert_eq!(judged(&[joined(Role::Callee, 5.0), hidden]), Verdict::Hidden);
}

#[test]
fn two_calls_with_the_outside_at_once_are_not_told_apart() {
    let other = later(joined(Role::Callee, 5.0), 2, 10);
    for step in Step::ALL {
        let judged = judge(step, "pbx", &[joined(Role::Callee, 5.0), other.clone()], 0);
        assert_eq!(judged.verdict, Verdict::Unclear, "{step:?}");
        assert!(judged.saw.contains("several calls"), "{}", judged.saw);
    }
}

#[test]
fn a_peer_that_was_only_tried_has_no_end_of_the_call() {
    let mut tried = kept(&[]);
    let rungs = rungs(&mut tried);
    "carrier".clone_into(&mut rungs[2].peer);
    let refusal = Rung { message: "503 Service Unavailable".to_owned(), ..rungs[2].clone() };
    rungs.insert(2, Rung { peer: "pbx".to_owned(), ..refusal });
    let ladder = tried.ladder.unwrap();
    assert_eq!((legs(&ladder, "pbx"), legs(&ladder, "carrier")), (vec![], Leg::BOTH.to_vec()));
}

#[test]
fn messages_that_are_not_all_kept_prove_nothing() {
    let honest = kept(&[("INVITE", 5.0), ("INVITE", 10.0)]);
    let mut half = honest.clone();
    rungs(&mut half).truncate(6);
    assert_eq!(verdict(Step::Hold, half.clone(), 0), Verdict::Unclear);
    let bye = rungs(&mut honest.clone()).pop().unwrap();
    rungs(&mut half).push(Rung { after_ms: 8_000, ..bye });
    assert_eq!(verdict(Step::Hold, half, 0), Verdict::Unclear, "that BYE did not end the call");
    let mut many = joined(Role::Callee, 5.0);
    many.ladder.as_mut().unwrap().left_out = 1;
    assert_eq!(verdict(Step::Conference, many, 0), Verdict::Unclear);
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
    let last = rungs(&mut refused).iter_mut().rfind(|rung| rung.message == "200 OK").unwrap();
    last.message = "488 Not Acceptable Here".to_owned();
    assert_eq!(verdict(Step::Hold, refused.clone(), 0), Verdict::Hidden);
    assert_eq!(offers_of(&[refused], "pbx"), 1);
}

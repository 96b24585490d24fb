#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use consent::{
    Basis, CallId, E164, EpochCounter, Leg, Line, LineClass, Mono, Now, Numbering, Permit, PermitId,
    RecordingId, RecordingOutcome, RuleSet, RuleVersion, Settings, Side, Wall,
};
use recorder::Command as Media;
use sip_gateway::{
    Change, Command as Sip, End, EndedBy, Event, Identity, Offer, PeerId, Replacement, Target,
};
use storage::{Attestation, CallEnded, CallStarted, Entry, IdentityVerdict, Verstat};

use super::{Hub, Output};

mod awareness;
mod expiry;
mod parties;

const CALL: CallId = CallId(7);
const DISPATCH: &str = "+18607427331";
const NEVER: &str = "+18607427399";
const UNION_NUMBER: &str = "+18605550199";

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000), wall: Wall(1_000_000 + ms as i64 * 1_000) }
}

fn line(number: &str, class: LineClass) -> Line {
    Line {
        number: E164::try_from(number.to_owned()).unwrap(),
        name: "line".to_owned(),
        class,
        ask: consent::Ask::EveryCall,
        retention: "RT-TEST".to_owned().try_into().unwrap(),
        aliases: Vec::new(),
        tone: None,
    }
}

fn hub() -> Hub {
    let lines = vec![
        line(DISPATCH, LineClass::Dispatch),
        line("+18607427310", LineClass::Consent),
        line(NEVER, LineClass::Never),
    ];
    let numbers = vec![(E164::try_from(UNION_NUMBER.to_owned()).unwrap(), consent::NumberClass::Union)];
    let numbering = Numbering::new("1".to_owned(), "860".to_owned(), "9".to_owned()).unwrap();
    let rules = RuleSet::new(RuleVersion(1), numbering, lines, numbers, Settings::default()).unwrap();
    Hub::new("gw1".to_owned(), Arc::new(rules))
}

fn offer(side: Side, request_user: &str) -> Offer {
    Offer {
        call: CALL,
        peer: PeerId(0),
        side,
        parties_signalled: true,
        emergency: false,
        excess: None,
        request_user: request_user.to_owned(),
        to_user: request_user.to_owned(),
        diverted_from: Vec::new(),
        caller: Identity {
            asserted: Vec::new(),
            from: "8605550100".to_owned(),
            trusted: side == Side::District,
            privacy: false,
        },
        verdict: None,
        sip_call_id: "a@host".to_owned(),
        media: None,
    }
}

/// A far end of a trusted peer's.
fn named(asserted: Option<&str>, from: &str) -> Identity {
    let asserted = asserted.map(str::to_owned).into_iter().collect();
    Identity { asserted, from: from.to_owned(), trusted: true, privacy: false }
}

fn drain(hub: &mut Hub) -> Vec<Output> {
    std::iter::from_fn(|| hub.poll_output()).collect()
}

fn proceeded(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Gateway(Sip::Proceed { .. })))
}

fn begun(outputs: Vec<Output>) -> Permit {
    let mut permits = outputs.into_iter().filter_map(|output| match output {
        Output::BeginRecording { permit, .. } => Some(permit),
        _ => None,
    });
    permits.next().unwrap()
}

/// What the relay stamps frames with.
fn shared_epoch(outputs: &[Output]) -> EpochCounter {
    let mut epochs = outputs.iter().filter_map(|output| match output {
        Output::Media(Media::Bind { epoch, .. }) => Some(epoch.clone()),
        _ => None,
    });
    epochs.next().unwrap()
}

fn started(outputs: &[Output]) -> &CallStarted {
    let mut entries = outputs.iter().filter_map(|output| match output {
        Output::Journal { stamped, .. } => match &stamped.entry {
            Entry::CallStarted(started) => Some(started),
            _ => None,
        },
        _ => None,
    });
    entries.next().unwrap()
}

fn ended(outputs: &[Output]) -> &CallEnded {
    let mut entries = outputs.iter().filter_map(|output| match output {
        Output::Journal { stamped, .. } => match &stamped.entry {
            Entry::CallEnded(ended) => Some(ended),
            _ => None,
        },
        _ => None,
    });
    entries.next().unwrap()
}

fn bound(hub: &mut Hub, now: Now) {
    let pair = ["127.0.0.1:20000".parse().unwrap(), "127.0.0.1:20002".parse().unwrap()];
    hub.on_media(now, recorder::Event::Bound { call: CALL, addresses: vec![pair] });
}

fn connect(hub: &mut Hub, offer: Offer) -> Vec<Output> {
    hub.on_gateway(at(0), Event::Offered(Box::new(offer)));
    bound(hub, at(0));
    hub.on_journalled(at(1), CALL);
    hub.on_gateway(at(5), Event::Answered { call: CALL });
    drain(hub)
}

fn hang_up(hub: &mut Hub, now: Now) {
    let end = End { by: Some(EndedBy::Caller), final_status: Some(200), cancelled: false, cause: None };
    hub.on_gateway(now, Event::Ended { call: CALL, end });
}

#[test]
fn the_invite_goes_on_once_ports_are_bound_and_the_journal_is_written() {
    let mut hub = hub();
    hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, "7427310"))));
    bound(&mut hub, at(1));
    assert!(!proceeded(&drain(&mut hub)));
    hub.on_journalled(at(2), CALL);
    assert!(proceeded(&drain(&mut hub)));
}

#[test]
fn a_journal_that_hangs_holds_a_call_for_20_ms_and_no_longer() {
    let mut hub = hub();
    hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, "7427310"))));
    bound(&mut hub, at(1));
    drain(&mut hub);
    assert_eq!(hub.poll_timeout(), Some(Mono(20_000)));
    hub.on_timeout(at(20));
    assert!(proceeded(&drain(&mut hub)));
}

#[test]
fn an_emergency_call_never_waits_for_the_journal_and_is_never_asked_nor_recorded() {
    let mut hub = hub();
    let offer = Offer {
        emergency: true,
        excess: Some(sip_gateway::Excess::Capacity),
        ..offer(Side::District, "911")
    };
    hub.on_gateway(at(0), Event::Offered(Box::new(offer)));
    bound(&mut hub, at(0));
    let outputs = drain(&mut hub);
    assert!(proceeded(&outputs));
    hub.on_gateway(at(5), Event::Answered { call: CALL });
    let outputs: Vec<_> = outputs.into_iter().chain(drain(&mut hub)).collect();
    assert!(!outputs.iter().any(|output| matches!(
        output,
        Output::BeginRecording { .. } | Output::Media(Media::Play { .. } | Media::StartPreamble { .. })
    )));
}

#[test]
fn emergency_calls_are_not_ended_with_the_rest() {
    for (emergency, user) in [(true, "911"), (false, "18605550100")] {
        let mut hub = hub();
        let offer = Offer { emergency, ..offer(Side::District, user) };
        hub.on_gateway(at(0), Event::Offered(Box::new(offer)));
        drain(&mut hub);
        hub.end_all("over");
        let outputs = drain(&mut hub);
        let ends = outputs.iter().any(|output| matches!(output, Output::Gateway(Sip::End { .. })));
        assert_eq!((ends, hub.has_emergency_call()), (!emergency, emergency));
    }
}

#[test]
fn a_call_is_not_ended_with_the_rest_while_an_emergency_service_is_called_for_it() {
    let diverted = |user: &str, emergency| {
        let target = Target { user: user.to_owned(), side: None, from: Side::District, emergency };
        Event::Diverted { call: CALL, leg: Leg::B, target }
    };
    let replaced = |user| Event::Changed { call: CALL, leg: Leg::B, change: replaced(user, true) };
    let rings = || diverted("911", true);
    for (events, goes_on) in [
        (vec![rings()], true),
        (vec![rings(), replaced("911")], true),
        (vec![diverted("7427355", false), rings()], true),
        // It was not reached, and somebody else is called or has come.
        (vec![rings(), diverted("7427355", false)], false),
        (vec![rings(), replaced("7427355")], false),
        (vec![rings(), Event::TransferFailed { call: CALL, leg: Leg::B }], false),
        (vec![rings(), Event::TransferFailed { call: CALL, leg: Leg::B }, rings()], true),
    ] {
        let mut hub = hub();
        connect(&mut hub, offer(Side::Public, "7427310"));
        let case = format!("{events:?}");
        for event in events {
            hub.on_gateway(at(9), event);
        }
        drain(&mut hub);
        hub.end_all("over");
        let ends = |output: &Output| matches!(output, Output::Gateway(Sip::End { .. }));
        let ended = drain(&mut hub).iter().any(ends);
        assert_eq!((ended, hub.has_emergency_call()), (!goes_on, goes_on), "{case}");
    }
}

#[test]
fn a_recorder_that_binds_nothing_does_not_stop_a_call() {
    let mut hub = hub();
    hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, DISPATCH))));
    hub.on_journalled(at(1), CALL);
    hub.on_timeout(at(100));
    assert!(proceeded(&drain(&mut hub)));
}

#[test]
fn at_the_limit_a_dispatch_call_goes_on_and_another_is_refused_with_a_record() {
    for (user, goes_on) in [(DISPATCH, true), ("7427310", false)] {
        let mut hub = hub();
        hub.on_gateway(
            at(0),
            Event::Offered(Box::new(Offer {
                excess: Some(sip_gateway::Excess::Capacity),
                ..offer(Side::Public, user)
            })),
        );
        bound(&mut hub, at(0));
        hub.on_journalled(at(1), CALL);
        let outputs = drain(&mut hub);
        assert_eq!(proceeded(&outputs), goes_on);
        assert_eq!(started(&outputs).call, CALL);
        if !goes_on {
            hang_up(&mut hub, at(2));
            hub.on_timeout(at(3));
            assert_eq!(ended(&drain(&mut hub)).call, CALL);
        }
    }
}

#[test]
fn each_limit_has_its_refusal() {
    use sip_gateway::Excess;
    for (excess, status, retry_after_s) in [
        (Excess::Capacity, 503, Some(10)),
        (Excess::Calls, 503, Some(10)),
        (Excess::Rate { retry_after_s: 7 }, 503, Some(7)),
        (Excess::Loop, 482, None),
    ] {
        let mut hub = hub();
        let offer = Offer { excess: Some(excess), ..offer(Side::District, "98605550123") };
        hub.on_gateway(at(0), Event::Offered(Box::new(offer)));
        let refused = drain(&mut hub).into_iter().find_map(|output| match output {
            Output::Gateway(Sip::Refuse { status, retry_after_s, .. }) => Some((status, retry_after_s)),
            _ => None,
        });
        assert_eq!(refused, Some((status, retry_after_s)));
    }
}

#[test]
fn the_core_is_told_of_dispatch_calls_as_the_hub_finds_them() {
    let mut lines = vec![
        line(DISPATCH, LineClass::Dispatch),
        line("+18607427320", LineClass::Union),
        line("+18607427310", LineClass::Consent),
    ];
    lines[0].aliases = vec!["+18607427330".parse().unwrap()];
    let numbering = Numbering::new("1", "860", "9").unwrap();
    let rules = RuleSet::new(RuleVersion(1), numbering, lines, Vec::new(), Settings::default()).unwrap();
    let rules = Arc::new(rules);
    let called = |side, user: &str| offer(side, user);
    let calling = |side, asserted: Option<&str>, from: &str| {
        let mut offer = offer(side, "98605550123");
        offer.caller.asserted = asserted.map(str::to_owned).into_iter().collect();
        offer.caller.from = from.to_owned();
        offer
    };
    let desk = |asserted: &[&str]| {
        let mut offer = calling(Side::District, None, "100");
        offer.caller.asserted = asserted.iter().map(|user| (*user).to_owned()).collect();
        offer
    };
    let untrusted = |offer: Offer| Offer { caller: Identity { trusted: false, ..offer.caller }, ..offer };
    let to = |user: &str, to: &str| Offer { to_user: to.to_owned(), ..offer(Side::District, user) };
    let forwarded =
        |user: &str| Offer { diverted_from: vec![DISPATCH.to_owned()], ..offer(Side::District, user) };
    let passed_on =
        |user: &str| Offer { diverted_from: vec![user.to_owned()], ..offer(Side::Public, DISPATCH) };
    let to_by_name = Offer { to_user: DISPATCH.to_owned(), ..offer(Side::Public, "7427399") };
    let diverted = Offer { diverted_from: vec![DISPATCH.to_owned()], ..offer(Side::District, "7427320") };
    for (offer, dispatch) in [
        (called(Side::Public, DISPATCH), true),
        (called(Side::Public, "860-742-7331"), true),
        (called(Side::Public, "7427331;phone-context=+1860"), true),
        (called(Side::Public, "7427330"), true),
        (called(Side::District, "918607427331"), true),
        (calling(Side::District, Some("8607427331"), "100"), true),
        (calling(Side::District, None, "7427331"), true),
        // What a telephone writes into From or To opens no dispatch basis, and bars all the same.
        (calling(Side::District, Some("7310"), "7427331"), false),
        (calling(Side::District, Some("7427320"), "7427331"), false),
        (calling(Side::District, Some("7427331"), "7427320"), false),
        (untrusted(calling(Side::District, None, "7427331")), false),
        (to("7427320", "7427331"), false),
        (to("7427330", "7427320"), false),
        (to("7427330", "7427310"), true),
        (to("7427310", "7427331"), false),
        // Of several identities that are asserted, any.
        (desk(&["desk1", "+18607427331"]), true),
        (desk(&["+18607427331", "7427320"]), false),
        (untrusted(desk(&["desk1", "+18607427331"])), false),
        // Forwarded to the outside it has left the line.
        (forwarded("98605550123"), false),
        (called(Side::Public, "7427331;phone-context=town-b.example"), false),
        (calling(Side::District, Some("7427331;phone-context=town-b.example"), "100"), false),
        (calling(Side::District, Some("7427331;phone-context=1203"), "100"), false),
        (calling(Side::District, Some("331;phone-context=+18607427"), "100"), true),
        (untrusted(called(Side::District, "7427331")), true),
        (forwarded("7427310"), true),
        (untrusted(forwarded("7427310")), false),
        // Of whom the carrier calls by our account, To is whom the gateway calls (`Offer::request_user`).
        (Offer { to_user: DISPATCH.to_owned(), ..untrusted(called(Side::Public, DISPATCH)) }, true),
        (calling(Side::Public, None, "7427331"), false),
        (called(Side::Public, "7427399"), false),
        (to_by_name, false),
        // A union line is above a dispatch line, whichever comes first.
        (diverted, false),
        // What a public peer says beside the Request-URI grants nothing, and bars no dispatch line.
        (Offer { diverted_from: vec![DISPATCH.to_owned()], ..offer(Side::Public, "7427399") }, false),
        (passed_on("7427310"), true),
        (passed_on("7427320"), true),
    ] {
        assert_eq!(super::is_dispatch(&offer, &rules), dispatch, "{offer:?}");
        let mut hub = Hub::new("gw1".to_owned(), Arc::clone(&rules));
        hub.on_gateway(
            at(0),
            Event::Offered(Box::new(Offer { excess: Some(sip_gateway::Excess::Capacity), ..offer })),
        );
        let refused = |output: &Output| matches!(output, Output::Gateway(Sip::Refuse { .. }));
        assert_eq!(drain(&mut hub).iter().any(refused), !dispatch);
    }
}

#[test]
fn a_call_to_the_outside_with_a_number_that_is_not_the_districts_is_marked() {
    let own: Vec<consent::NumberBlock> = vec!["+1860743*".parse().unwrap(), "+18605550177".parse().unwrap()];
    for (side, asserted, from, foreign) in [
        (Side::District, None, "7427310", false),
        (Side::District, Some("7427310"), "100", false),
        (Side::District, None, "8607430001", false),
        (Side::District, None, "18605550177", false),
        (Side::District, None, "anonymous", false),
        (Side::District, None, "8605550178", true),
        (Side::District, Some("7427310"), "8605550178", true),
        (Side::District, Some("8605550178"), "7427310", true),
        (Side::Public, None, "8605550178", false),
    ] {
        let mut hub = hub().with_own_numbers(own.as_slice().into());
        let mut offer = offer(side, if side == Side::District { "98605550123" } else { "7427310" });
        offer.caller = named(asserted, from);
        hub.on_gateway(at(0), Event::Offered(Box::new(offer)));
        assert_eq!(started(&drain(&mut hub)).foreign_caller_id, foreign, "{from}");
        assert_eq!(hub.foreign_caller_ids(), u64::from(foreign));
    }
    let mut hub = hub();
    let emergency = Offer { emergency: true, ..offer(Side::District, "911") };
    hub.on_gateway(at(0), Event::Offered(Box::new(emergency)));
    assert!(!started(&drain(&mut hub)).foreign_caller_id);
}

#[test]
fn what_was_verified_of_the_callers_number_is_in_the_record() {
    let mut hub = hub();
    let verdict = sip_gateway::Verdict {
        validation: sip_gateway::Validation::Failed,
        attestation: Some(sip_gateway::Attestation::Gateway),
    };
    hub.on_gateway(
        at(0),
        Event::Offered(Box::new(Offer { verdict: Some(verdict), ..offer(Side::Public, DISPATCH) })),
    );
    let known = started(&drain(&mut hub)).identity_verdict;
    let expected = IdentityVerdict { verstat: Verstat::Failed, attestation: Some(Attestation::C) };
    assert_eq!(known, Some(expected));
}

#[test]
fn the_epoch_is_raised_before_a_new_party_is_known_to_anybody() {
    let mut hub = hub();
    hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, "7427310"))));
    let epoch = shared_epoch(&drain(&mut hub));
    let before = epoch.current();
    let change = Change::NewParty {
        identity: Identity { from: "7427399".to_owned(), ..Identity::default() },
        called: None,
    };
    hub.on_gateway(at(9), Event::Changed { call: CALL, leg: Leg::B, change });
    assert!(epoch.current() > before);
}

#[test]
fn a_dispatch_recording_stops_when_the_call_leaves_the_line_and_goes_on_among_dispatch_lines() {
    for (user, stops) in [("7427399", true), (DISPATCH, false)] {
        let mut hub = hub();
        let outputs = connect(&mut hub, offer(Side::Public, DISPATCH));
        let epoch = shared_epoch(&outputs);
        let permit = begun(outputs);
        assert!(permit.covers(CALL, epoch.current()));
        let identity = named(Some(user), DISPATCH);
        hub.on_gateway(
            at(9),
            Event::Changed { call: CALL, leg: Leg::B, change: Change::NewParty { identity, called: None } },
        );
        assert_eq!(permit.covers(CALL, epoch.current()), !stops, "{user}: whatever is told to whom");
        let closed = drain(&mut hub)
            .iter()
            .any(|output| matches!(output, Output::Media(Media::CloseTap { permit: id, .. }) if *id == permit.id()));
        assert_eq!(closed, stops, "{user}");
    }
}

#[test]
fn a_transfer_to_an_emergency_service_that_failed_does_not_mark_the_next_newcomer() {
    let mut hub = hub();
    connect(&mut hub, offer(Side::Public, DISPATCH));
    let target = Target { user: "911".to_owned(), side: None, from: Side::District, emergency: true };
    hub.on_gateway(at(9), Event::Diverted { call: CALL, leg: Leg::B, target });
    hub.on_gateway(at(20), Event::Changed { call: CALL, leg: Leg::B, change: replaced(DISPATCH, true) });
    assert_eq!(decided(&drain(&mut hub)), []);
}

#[test]
fn a_dispatch_call_redirected_to_another_dispatch_line_in_the_end_is_stored() {
    let mut hub = hub();
    hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, DISPATCH))));
    for user in ["7427355", DISPATCH] {
        let target = Target { user: user.to_owned(), side: None, from: Side::Public, emergency: false };
        hub.on_gateway(at(5), Event::Diverted { call: CALL, leg: Leg::B, target });
    }
    hub.on_gateway(at(9), Event::Answered { call: CALL });
    let outputs = drain(&mut hub);
    let (on, left) = (consent::Reason::DispatchLine, consent::Reason::LeftLine);
    assert_eq!(decided(&outputs), [on, left, on]);
    let epoch = shared_epoch(&outputs);
    let permits: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::BeginRecording { permit, .. } => Some(permit.covers(CALL, epoch.current())),
            _ => None,
        })
        .collect();
    assert_eq!(permits, [false, true]);
}

/// A union party's number is nobody's to see, though its INVITE comes before the machine knows of it.
#[test]
fn whoever_is_barred_is_withheld_from_the_record_of_its_own_invite() {
    for (user, shown) in [(UNION_NUMBER, false), ("7427355", true)] {
        let mut hub = hub();
        connect(&mut hub, offer(Side::Public, "7427310"));
        let replacement = Replacement {
            call: CALL,
            leg: Leg::A,
            record: CallId(8),
            caller: named(Some("7427300"), user),
            side: Side::District,
            request_user: String::new(),
            sip_call_id: "pick@up".to_owned(),
        };
        hub.on_gateway(at(9), Event::Replacing(Box::new(replacement)));
        assert_eq!(started(&drain(&mut hub)).from.is_some(), shown, "{user}");
    }
}

#[test]
fn an_answered_dispatch_call_without_a_recording_is_failed_not_recorded() {
    let mut hub = hub();
    connect(&mut hub, offer(Side::Public, DISPATCH));
    hang_up(&mut hub, at(100));
    hub.on_media(at(101), recorder::Event::Statistics { call: CALL, legs: Default::default() });
    let outputs = drain(&mut hub);
    assert_eq!(ended(&outputs).recording_outcome, RecordingOutcome::Failed);
    assert_eq!(ended(&outputs).basis, None);
}

#[test]
fn a_record_is_closed_even_if_the_media_plane_never_answers() {
    let mut hub = hub();
    connect(&mut hub, offer(Side::Public, DISPATCH));
    hang_up(&mut hub, at(100));
    while let Some(due) = hub.poll_timeout() {
        hub.on_timeout(Now { mono: due, ..at(100) });
    }
    assert_eq!(ended(&drain(&mut hub)).call, CALL);
    assert_eq!(hub.calls(), 0);
}

#[test]
fn the_outside_prefix_stays_with_the_pbx() {
    for dialled in ["98605550123", "98605550123;phone-context=pbx.example.com"] {
        let outputs = connect(&mut hub(), offer(Side::District, dialled));
        let route = outputs.iter().find_map(|output| match output {
            Output::Gateway(Sip::Proceed { route, .. }) => Some(route.clone()),
            _ => None,
        });
        assert_eq!(route.unwrap().user.as_deref(), Some("8605550123"));
        assert_eq!(started(&outputs).to.as_deref(), Some("+18605550123"));
    }
}

/// What is judged is what is rung, by whomever leaves out the context.
#[test]
fn a_number_that_its_context_completes_is_dialled_whole() {
    use Side::{District, Public};
    for (from, user, sent) in [
        (Public, "331;phone-context=+18607427", Some("+18607427331")),
        (Public, "331;ext=5;Phone-Context=+1-860-7427;npdi", Some("+18607427331;ext=5;npdi")),
        (Public, "8607427331;phone-context=+44", Some("+448607427331")),
        (Public, "7427331;phone-context=pbx.example.com", None),
        (Public, "331;phone-context=+18607427;phone-context=+1860", None),
        (Public, "331;phone-context=+18607427x", None),
        (Public, "+18607427331;ext=5", None),
        (District, "8765550123;phone-context=+44", Some("+448765550123")),
        (District, "98605550123;phone-context=+1", Some("+18605550123")),
        (District, "411;phone-context=+1", None),
    ] {
        let side = if from == Public { District } else { Public };
        let outputs = connect(&mut hub(), offer(from, user));
        let route = outputs.into_iter().find_map(|output| match output {
            Output::Gateway(Sip::Proceed { route, .. }) => Some(route),
            _ => None,
        });
        let expected = sip_gateway::Route { side, user: sent.map(str::to_owned) };
        assert_eq!(route, Some(expected), "{user}");
    }
    let emergency = Offer { emergency: true, ..offer(District, "911;phone-context=+1") };
    let outputs = connect(&mut hub(), emergency);
    let untouched = |output: &Output| matches!(output, Output::Gateway(Sip::Proceed { route, .. }) if route.user.is_none());
    assert!(outputs.iter().any(untouched));
}

#[test]
fn privacy_withholds_the_caller() {
    let mut hub = hub();
    let mut private = offer(Side::Public, "7427310");
    private.caller.privacy = true;
    let outputs = connect(&mut hub, private);
    assert_eq!(started(&outputs).from, None);
    let told = outputs.iter().any(|output| match output {
        Output::Journal { stamped, .. } => {
            matches!(&stamped.entry, Entry::PartyJoined { leg: Leg::A, identity: Some(_), .. })
        }
        _ => false,
    });
    assert!(!told);
}

fn replaced(user: &str, parties_signalled: bool) -> Change {
    let identity = named(None, user);
    let emergency = user == "911";
    let side = if emergency { Side::Public } else { Side::District };
    Change::Replaced { identity, called: None, side, emergency, parties_signalled }
}

fn decided(outputs: &[Output]) -> Vec<consent::Reason> {
    let decisions = outputs.iter().filter_map(|output| match output {
        Output::Journal { stamped, .. } => match &stamped.entry {
            Entry::Decided { decision, .. } => Some(decision.reason),
            _ => None,
        },
        _ => None,
    });
    decisions.collect()
}

#[test]
fn a_transfer_asks_again_or_shuts_by_who_comes_and_through_which_peer() {
    use consent::Reason;
    for (user, signalled, reasons) in [
        ("7427355", true, vec![Reason::PartyChanged]),
        ("7427355", false, vec![Reason::PartyChanged, Reason::PartiesHidden]),
        (UNION_NUMBER, true, vec![Reason::Union]),
        (NEVER, true, vec![Reason::NeverLine]),
    ] {
        let mut hub = hub();
        connect(&mut hub, offer(Side::Public, "7427310"));
        let change = replaced(user, signalled);
        hub.on_gateway(at(9), Event::Changed { call: CALL, leg: Leg::B, change });
        assert_eq!(decided(&drain(&mut hub)), reasons, "{user}");
    }
}

#[test]
fn whom_a_transfer_calls_is_no_party_before_it_has_joined() {
    let mut hub = hub();
    connect(&mut hub, offer(Side::Public, "7427310"));
    let routed = Event::Routed {
        call: CALL,
        peer: PeerId(0),
        side: Side::District,
        sip_call_id: "c@gw".to_owned(),
        parties_signalled: false,
    };
    hub.on_gateway(at(9), routed);
    // Had it counted, the newcomer would not be asked.
    hub.on_gateway(at(10), Event::Changed { call: CALL, leg: Leg::B, change: replaced("7427355", true) });
    assert_eq!(decided(&drain(&mut hub)), [consent::Reason::PartyChanged]);
}

#[test]
fn where_somebody_named_is() {
    let cases = [
        // Who names, whom, the side of the host: to which side, as whom.
        (Side::District, "7355", Some(Side::District), Side::District, None),
        (Side::District, "98605550123", None, Side::Public, Some("8605550123")),
        (Side::District, "7427310", None, Side::District, None),
        (Side::Public, "7355", None, Side::District, None),
        (Side::District, "310;phone-context=+18607427", None, Side::District, Some("+18607427310")),
        (Side::District, "8765550123;phone-context=+44", None, Side::Public, Some("+448765550123")),
    ];
    for (from, user, named, side, dialled) in cases {
        let mut hub = hub();
        connect(&mut hub, offer(Side::Public, "7427310"));
        let target = Target { user: user.to_owned(), side: named, from, emergency: false };
        hub.on_gateway(at(9), Event::Diverted { call: CALL, leg: Leg::B, target });
        let route = drain(&mut hub).into_iter().find_map(|output| match output {
            Output::Gateway(Sip::Divert { route, .. }) => Some(route),
            _ => None,
        });
        let expected = sip_gateway::Route { side, user: dialled.map(str::to_owned) };
        assert_eq!(route, Some(expected), "{user}");
    }
}

#[test]
fn a_call_transferred_to_an_emergency_number_is_not_spoken_into_nor_stored() {
    let mut hub = hub();
    connect(&mut hub, offer(Side::Public, "7427310"));
    let target = Target { user: "911".to_owned(), side: None, from: Side::District, emergency: true };
    hub.on_gateway(at(9), Event::Diverted { call: CALL, leg: Leg::B, target });
    assert_eq!(decided(&drain(&mut hub)), [], "who is called is not there yet");
    hub.on_gateway(at(10), Event::Changed { call: CALL, leg: Leg::B, change: replaced("911", false) });
    assert!(hub.has_emergency_call());
    let outputs = drain(&mut hub);
    assert_eq!(decided(&outputs), [consent::Reason::Emergency]);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Media(Media::Play { .. }))));
}

#[test]
fn a_dispatch_call_that_is_redirected_off_its_line_is_no_longer_stored() {
    for (user, reasons) in [("7427355", vec![consent::Reason::LeftLine]), (DISPATCH, vec![])] {
        let mut hub = hub();
        hub.on_gateway(at(0), Event::Offered(Box::new(offer(Side::Public, DISPATCH))));
        bound(&mut hub, at(0));
        hub.on_journalled(at(1), CALL);
        drain(&mut hub);
        let target = Target {
            user: user.to_owned(),
            side: Some(Side::District),
            from: Side::Public,
            emergency: false,
        };
        hub.on_gateway(at(2), Event::Diverted { call: CALL, leg: Leg::B, target });
        assert_eq!(decided(&drain(&mut hub)), reasons);
        hub.on_gateway(at(5), Event::Answered { call: CALL });
        let outputs = drain(&mut hub);
        let callee = outputs.iter().find_map(|output| match output {
            Output::Journal { stamped, .. } => match &stamped.entry {
                Entry::PartyJoined { leg: Leg::B, identity, .. } => identity.clone(),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(
            callee.as_deref().map(|callee| callee.ends_with(user.trim_start_matches('+'))),
            Some(true)
        );
    }
}

#[test]
fn an_invite_that_replaces_a_party_has_a_record_of_its_own() {
    let mut hub = hub();
    connect(&mut hub, offer(Side::Public, "7427310"));
    let replacement = Replacement {
        call: CALL,
        leg: Leg::B,
        record: CallId(8),
        caller: Identity { from: "7427355".to_owned(), ..Identity::default() },
        side: Side::District,
        request_user: String::new(),
        sip_call_id: "pick@up".to_owned(),
    };
    let goes_on = |outputs: &[Output]| {
        let wanted =
            |output: &Output| matches!(output, Output::Gateway(Sip::Replace { record: CallId(8), .. }));
        outputs.iter().any(wanted)
    };
    hub.on_gateway(at(9), Event::Replacing(Box::new(replacement.clone())));
    let mut outputs = drain(&mut hub);
    let awaited = |output: &Output| matches!(output, Output::Journal { awaited_by: Some(CallId(8)), .. });
    assert!(outputs.iter().any(awaited) && !goes_on(&outputs));
    hub.on_journalled(at(10), CallId(8));
    assert!(goes_on(&drain(&mut hub)));
    hub.on_gateway(at(11), Event::ReplacementEnded { call: CALL, record: CallId(8), status: 200 });
    outputs.extend(drain(&mut hub));
    assert_eq!(started(&outputs).call, CallId(8));
    assert_eq!(ended(&outputs).final_status, Some(200));
    let linked = outputs.iter().any(|output| {
        matches!(output, Output::Journal { stamped, .. }
            if stamped.entry == Entry::CallsLinked { call: CALL, with: CallId(8) })
    });
    assert!(linked); // A journal that hangs holds it for no longer than a call.
    hub.on_gateway(at(30), Event::Replacing(Box::new(replacement)));
    drain(&mut hub);
    hub.on_timeout(at(49));
    assert!(!goes_on(&drain(&mut hub)));
    hub.on_timeout(at(50));
    assert!(goes_on(&drain(&mut hub)));
}

#[test]
fn a_leg_that_is_vacated_is_nobodys_until_who_comes_is_described() {
    let mut hub = hub();
    let began = connect(&mut hub, offer(Side::Public, "7427310"));
    let epoch = shared_epoch(&began);
    let before = epoch.current();
    hub.on_gateway(at(9), Event::Changed { call: CALL, leg: Leg::B, change: Change::Held });
    let identity = Identity { from: "7427355".to_owned(), ..Identity::default() };
    hub.on_gateway(at(9), Event::Vacated { call: CALL, leg: Leg::B, identity, side: Side::District });
    assert!(epoch.current() > before);
    let outputs = drain(&mut hub);
    let emptied = |output: &Output| {
        matches!(output, Output::Media(Media::Describe { leg: Leg::B, streams, change, .. })
            if streams.is_empty() && *change == recorder::SourceChange::Replaced)
    };
    assert!(outputs.iter().any(emptied), "{outputs:?}");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Media(Media::Play { .. }))));
}

#[test]
fn a_dispatch_line_whose_place_is_vacated_for_an_extension_is_left_at_once() {
    for (user, reasons) in [("7427355", vec![consent::Reason::LeftLine]), (DISPATCH, vec![])] {
        let mut hub = hub();
        connect(&mut hub, offer(Side::Public, DISPATCH));
        let identity = Identity { from: user.to_owned(), trusted: true, ..Identity::default() };
        hub.on_gateway(at(9), Event::Vacated { call: CALL, leg: Leg::B, identity, side: Side::District });
        assert_eq!(decided(&drain(&mut hub)), reasons, "{user}");
    }
}

/// As at the start of a call: whoever comes in the line's place may write the line into its From.
#[test]
fn a_dispatch_line_is_kept_by_whom_a_trusted_peer_names_and_not_by_what_a_telephone_writes() {
    let left = vec![consent::Reason::LeftLine];
    for (called, asserted, trusted, reasons) in [
        (None, Some("7427310"), true, left.clone()),
        (None, None, false, left),
        (None, None, true, vec![]),
        (None, Some(DISPATCH), true, vec![]),
        (Some(DISPATCH), Some("7427310"), true, vec![]),
        (Some(DISPATCH), None, false, vec![]),
    ] {
        let mut hub = hub();
        connect(&mut hub, offer(Side::Public, DISPATCH));
        let case = format!("{called:?} {asserted:?} {trusted}");
        let change = Change::Replaced {
            identity: Identity { trusted, ..named(asserted, "7427331") },
            called: called.map(str::to_owned),
            side: Side::District,
            emergency: false,
            parties_signalled: true,
        };
        hub.on_gateway(at(9), Event::Changed { call: CALL, leg: Leg::B, change });
        assert_eq!(decided(&drain(&mut hub)), reasons, "{case}");
    }
    // The same in the dialog of whoever was there.
    for (called, asserted, from, trusted, stays) in [
        (None, None, "7427331", true, true),
        (None, None, "7427331", false, false),
        (None, None, "7427310", true, false),
        (None, Some("7427310"), "7427331", true, false),
        (None, Some(DISPATCH), "7427310", true, true),
        (None, Some(DISPATCH), "7427310", false, false),
        (Some(DISPATCH), Some("331"), "7427331", true, true),
        (Some(DISPATCH), None, "7427331", false, true),
    ] {
        let mut hub = hub();
        connect(&mut hub, offer(Side::Public, DISPATCH));
        let identity = Identity { trusted, ..named(asserted, from) };
        let change = Change::NewParty { identity, called: called.map(str::to_owned) };
        hub.on_gateway(at(9), Event::Changed { call: CALL, leg: Leg::B, change });
        let reasons = if stays { vec![] } else { vec![consent::Reason::LeftLine] };
        assert_eq!(decided(&drain(&mut hub)), reasons, "{called:?} {asserted:?} {from} {trusted}");
    }
}

#[test]
fn a_recording_is_entered_on_its_lines_basis_if_a_permit_of_the_call_is_behind_it() {
    let mut hub = hub();
    let permit = begun(connect(&mut hub, offer(Side::Public, DISPATCH))).id();
    let recording = RecordingId(9);
    for (permit, expected) in [(PermitId(permit.0 + 1), None), (permit, Some(Basis::DispatchLine))] {
        let at_wall = at(6).wall;
        let begins = recorder::Event::RecordingStarted { call: CALL, permit, recording, at: at_wall };
        hub.on_media(at(6), begins);
        let entered = drain(&mut hub).into_iter().find_map(|output| match output {
            Output::Journal { stamped, .. } => match stamped.entry {
                Entry::RecordingStarted { basis, retention, .. } => Some((basis, retention.to_string())),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(entered, expected.map(|basis| (basis, "RT-TEST".to_owned())));
    }
}

#[test]
fn a_call_whose_media_failed_is_no_longer_recorded() {
    let mut hub = hub();
    connect(&mut hub, offer(Side::Public, DISPATCH));
    hub.on_media(at(6), recorder::Event::MediaFailed { call: CALL });
    assert_eq!(decided(&drain(&mut hub)), [consent::Reason::RecorderFailed]);
}

#[test]
fn a_ladder_is_entered_also_when_the_calls_record_is_closed() {
    let mut hub = hub();
    let rung = sip_gateway::Rung {
        position: 3,
        after_ms: 120,
        leg: Leg::B,
        peer: "carrier".to_owned(),
        sent: true,
        message: "BYE sip:<callee>".to_owned(),
        method: "BYE".to_owned(),
        sdp: false,
        repeats: 1,
    };
    hub.on_ladder(at(9), sip_gateway::Ladder { call: CALL, rungs: vec![rung], left_out: 7 });
    let outputs = drain(&mut hub);
    let [Output::Journal { stamped, awaited_by: None }] = &outputs[..] else { panic!("{outputs:?}") };
    let Entry::CallLadder(part) = &stamped.entry else { panic!("{stamped:?}") };
    assert_eq!((part.call, part.left_out, stamped.at), (CALL, 7, at(9).wall));
    let rung = &part.rungs[0];
    assert_eq!((rung.position, rung.after_ms, rung.leg, rung.repeats), (3, 120, Leg::B, 1));
    assert_eq!((rung.peer.as_str(), rung.message.as_str(), rung.sent), ("carrier", "BYE sip:<callee>", true));
    assert!(stamped.entry.may_be_shed());
}

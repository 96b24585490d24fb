//! A dispatch line is recorded from its first packet, on no other line's account, and through `kill -9`.

use std::time::Duration;

use jiff::Timestamp;

use crate::gateway::{CITIZEN, CONSENT, DISPATCH, Site, number, text};
use crate::phone::{Call, Phone};
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ, LADDER_S};

/// The notice that a call is recorded, in one language, and the turn-round before it.
const NOTICE_S: f64 = 3.0;

/// A call that is answered at once, both parties speaking their ladders.
pub(crate) fn talk(caller: &Phone, callee: &Phone, to: &str, from: &str) -> (Call, Call) {
    let outgoing = caller.call(to, from);
    outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
    let incoming = callee.incoming();
    incoming.media().say(&sound::ladder(LADDER_B_HZ, LADDER_S));
    incoming.answer();
    outgoing.answered();
    (outgoing, incoming)
}

fn for_a_while(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

#[test]
fn a_dispatch_call_is_recorded_one_channel_a_party() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    for_a_while(6.0);
    outgoing.bye();
    incoming.ended();
    let lasted = incoming.media().first_sent().elapsed().as_secs_f64();

    let call = site.closed_call();
    assert_eq!(call["outcome"], "answered");
    assert_eq!(call["direction"], "inbound");
    assert_eq!(call["line"], DISPATCH);
    assert_eq!(call["line_class"], "dispatch");
    assert_eq!(call["from"], CITIZEN);
    assert_eq!(call["ended_by"], "caller");
    assert_eq!(call["final_status"], 200);
    assert_eq!(call["recording_outcome"], "recorded");
    assert_eq!(call["basis"], "dispatch-line");
    assert!(number(&call["media"]["a"]["packets"]) > 250.0, "{}", call["media"]);

    let recording = site.sealed_recording(&call);
    assert_eq!(recording["retention"], "RT-DISP-ROUTINE");
    assert_eq!(recording["channels"].as_array().map(Vec::len), Some(2));
    assert!((number(&recording["duration_s"]) - lasted).abs() < 0.3, "{recording} of {lasted} s");
    let channels = site.export(&recording);
    for (channel, base) in channels.iter().zip([LADDER_A_HZ, LADDER_B_HZ]) {
        let found = sound::find_ladder(channel, base);
        assert!(found.breaks == 0 && found.off <= 2 && found.seconds() > 5.5, "{found:?}");
    }
    assert_eq!(sound::find_ladder(&channels[0], LADDER_B_HZ).on, 0, "each party on its own channel");

    let explained = site.json(&["explain", text(&call["id"])]);
    let decisions = explained["decisions"].as_array().expect("decisions");
    assert!(
        decisions.iter().any(|decision| decision["gate"] == "open" && decision["basis"] == "dispatch-line")
    );
    assert!(site.run(["recordings", "verify"]).status.success());
    assert!(site.run(["audit", "verify"]).status.success());
}

#[test]
fn only_the_line_itself_is_recorded_and_not_its_lookalikes() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    // Whom each of them rings, for a PBX that does not know what a context is.
    let dialled = [
        (DISPATCH, DISPATCH),
        ("+12037427331", "+12037427331"),
        ("+19597427331", "+19597427331"),
        ("+18607427330", "+18607427330"),
        ("331;phone-context=+18607427", DISPATCH),
        ("8607427331;phone-context=+44", "+448607427331"),
        ("7427331;phone-context=town-b.example", "7427331;phone-context=town-b.example"),
    ];
    let legs: Vec<_> = dialled.iter().map(|(to, _)| talk(&carrier, &pbx, to, CITIZEN)).collect();
    for_a_while(2.0);
    for ((outgoing, incoming), (_, rung)) in legs.iter().zip(dialled) {
        assert!(incoming.invite().uri().starts_with(&format!("sip:{rung}@")), "{}", incoming.invite().uri());
        outgoing.bye();
        incoming.ended();
    }
    for call in site.closed_calls(dialled.len()) {
        let recorded = call["line"] == DISPATCH;
        assert_eq!(call["recording_outcome"] == "recorded", recorded, "{call}");
        assert_eq!(call["basis"] == "dispatch-line", recorded, "{call}");
        if recorded {
            site.sealed_recording(&call);
        } else {
            assert_eq!(call["line"], serde_json::Value::Null, "{call}");
            assert_eq!(call["line_class"], "never", "{call}");
        }
    }
    assert_eq!(site.recordings().len(), 2);
}

#[test]
fn kill_9_costs_a_dispatch_recording_at_most_a_second() {
    let site = Site::new();
    let gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    for_a_while(6.0);
    let killed = gateway.kill();
    let _gateway = site.start();
    survived(&site, killed, 1.0);
    drop((outgoing, incoming));
}

#[test]
fn kill_9_costs_a_consent_recording_at_most_two_seconds() {
    let site = Site::new();
    let gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = carrier.call(CONSENT, CITIZEN);
    let incoming = pbx.incoming();
    incoming.answer();
    outgoing.answered();
    crate::consent_line::both_agree(&outgoing, &incoming);
    // What a party says while it is told that the call is recorded is mixed with the notice.
    for_a_while(NOTICE_S);
    outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
    incoming.media().say(&sound::ladder(LADDER_B_HZ, LADDER_S));
    for_a_while(8.0);
    let killed = gateway.kill();
    let _gateway = site.start();
    survived(&site, killed, 2.0);
    drop((outgoing, incoming));
}

/// After a crash and a restart: one call record, one sealed recording that holds all but the last `lost_s`
/// before the process was killed, and says where it breaks off.
fn survived(site: &Site, killed: Timestamp, lost_s: f64) {
    /// Two windows of the ladder's measure.
    const MEASURE_S: f64 = 0.1;
    let call = site.closed_call();
    let recording = site.sealed_recording(&call);
    let gaps = recording["gaps"].as_array().expect("gaps");
    assert!(gaps.iter().any(|gap| gap["cause"] == "crash"), "the gap is stated: {recording}");
    let started: Timestamp = text(&recording["started_at"]).parse().expect("a time");
    let lived_s = killed.duration_since(started).as_secs_f64();
    for (channel, base) in site.export(&recording).iter().zip([LADDER_A_HZ, LADDER_B_HZ]) {
        let found = sound::find_ladder(channel, base);
        let lost = lived_s - found.to_s;
        assert!(lost <= lost_s + MEASURE_S, "{lost} s lost: {found:?} of {lived_s} s");
        assert!(lost >= -MEASURE_S, "{lost} s lost: {found:?} of {lived_s} s");
        assert!(found.seconds() > 4.0, "{found:?}");
        // Beside all other tests a telephone can be late by more than the jitter buffer: that is loss, and
        // stated. What nothing states is the gateway's.
        let stated = |at_s: &f64| {
            gaps.iter().any(|gap| {
                number(&gap["from_s"]) <= at_s + 2.0 * MEASURE_S
                    && number(&gap["to_s"]) >= at_s - MEASURE_S
                    && gap["cause"] == "loss"
            })
        };
        let whole = found.breaks <= found.wounds_s.len() && found.wounds_s.iter().all(stated);
        assert!(whole, "what was kept is whole: {found:?}; {recording}");
    }
    assert!(site.run(["recordings", "verify"]).status.success());
    assert!(site.run(["audit", "verify"]).status.success());
}

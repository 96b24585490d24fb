//! Holds, glare, sessions that expire and forked answers (RFC 3261 §13.2.2.4, §14) through the built program: who is
//! a party, and what the gate does.

use std::time::Duration;

use crate::consent_line::both_agree;
use crate::gateway::{CITIZEN, CONSENT, DISPATCH, Site, text};
use crate::phone::{Call, Phone};
use crate::transfer::{assert_gate, intervals, parties};

/// A gate that is shut while one of two who have agreed holds the other.
const HELD_ONCE: [(&str, &str); 5] =
    [("shut", "asking"), ("open", "all-agreed"), ("shut", "held"), ("open", "all-agreed"), ("shut", "ended")];

/// A consent line's call on which both have agreed.
fn agreed(site: &Site) -> (Phone, Phone, Call, Call) {
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = carrier.call(CONSENT, CITIZEN);
    let office = pbx.incoming();
    office.answer();
    outgoing.answered();
    both_agree(&outgoing, &office);
    std::thread::sleep(Duration::from_secs(3));
    (carrier, pbx, outgoing, office)
}

#[test]
fn hold_and_resume() {
    let site = Site::new();
    let _gateway = site.start();
    let (_carrier, _pbx, outgoing, office) = agreed(&site);
    office.hold();
    std::thread::sleep(Duration::from_secs(1));
    office.resume();
    std::thread::sleep(Duration::from_secs(1));
    outgoing.bye();
    office.ended();

    let call = site.closed_call();
    assert_eq!(parties(&call), [("caller", CITIZEN), ("callee", CONSENT)]);
    assert_gate(&site, &call, &HELD_ONCE);
    assert_eq!(intervals(&site, &call), 2);
}

#[test]
fn glare() {
    let site = Site::new();
    let _gateway = site.start();
    let (_carrier, _pbx, outgoing, office) = agreed(&site);
    // The office wants to hold while the other's hold has reached it and is not answered yet.
    office.withhold();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| outgoing.hold());
        office.offered();
        assert_eq!(office.try_hold(), 491);
        office.agree();
        held.join().expect("the first hold is answered");
    });
    // And again, once the other is through: one hold on each side.
    office.hold();
    outgoing.resume();
    std::thread::sleep(Duration::from_millis(500));
    office.resume();
    std::thread::sleep(Duration::from_secs(1));
    outgoing.bye();
    office.ended();

    let call = site.closed_call();
    assert_eq!(parties(&call), [("caller", CITIZEN), ("callee", CONSENT)]);
    // The refused hold is in no interval of the gate, which stays shut until the last of the two is over.
    assert_gate(&site, &call, &HELD_ONCE);
    assert_eq!(intervals(&site, &call), 2);
}

/// The shortest session there is, of 90 s, refreshed by nobody: RFC 4028 §10.
#[test]
fn session_expiry() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = carrier.call(DISPATCH, CITIZEN);
    let officer = pbx.incoming();
    officer.answer_with(&[("Session-Expires", "90;refresher=uas")]);
    outgoing.answered();
    std::thread::sleep(Duration::from_secs(55));
    assert!(!officer.is_ended() && !outgoing.is_ended());
    officer.ended();
    outgoing.ended();

    let call = site.closed_call();
    assert_eq!((text(&call["ended_by"]), text(&call["end_cause"])), ("gateway", "session-expired"));
    assert_eq!(parties(&call), [("caller", CITIZEN), ("callee", DISPATCH)]);
    assert_gate(&site, &call, &[("open", "dispatch-line"), ("shut", "ended")]);
    assert_eq!(intervals(&site, &call), 1);
    assert!(crate::gateway::number(&site.sealed_recording(&call)["duration_s"]) > 55.0);
}

#[test]
fn forked_2xx() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = carrier.call(DISPATCH, CITIZEN);
    let officer = pbx.incoming();
    officer.ring();
    outgoing.progress(180);
    officer.answer();
    outgoing.answered();
    officer.answer_elsewhere();
    officer.hung_up_elsewhere();
    std::thread::sleep(Duration::from_secs(2));
    assert!(!officer.is_ended() && !outgoing.is_ended());
    outgoing.bye();
    officer.ended();

    let call = site.closed_call();
    assert_eq!(call["outcome"], "answered");
    assert_eq!(call["transfers"], 0);
    assert_eq!(parties(&call), [("caller", CITIZEN), ("callee", DISPATCH)]);
    assert_gate(&site, &call, &[("open", "dispatch-line"), ("shut", "ended")]);
    assert_eq!(intervals(&site, &call), 1);
    assert!(crate::gateway::number(&site.sealed_recording(&call)["duration_s"]) > 1.5);
}

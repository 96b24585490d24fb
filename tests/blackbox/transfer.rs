//! Transfers and redirections through the built program: who is a party when, and what the gate does.

use std::time::Duration;

use serde_json::Value;

use crate::consent_line::both_agree;
use crate::gateway::{CITIZEN, CONSENT, DISPATCH, NEVER, Site, eventually, text};

/// An extension of the PBX that is on no list.
const EXTENSION: &str = "+18607427355";

/// The gate after each decision and why, as `explain --json` tells it.
fn gate(site: &Site, call: &Value) -> Vec<(String, String)> {
    let explained = site.json(&["explain", text(&call["id"])]);
    let decisions = explained["decisions"].as_array().expect("decisions");
    let told = |decision: &Value| (text(&decision["gate"]).to_owned(), text(&decision["reason"]).to_owned());
    decisions.iter().map(told).collect()
}

#[track_caller]
pub(crate) fn assert_gate(site: &Site, call: &Value, expected: &[(&str, &str)]) {
    let told = gate(site, call);
    let told: Vec<(&str, &str)> = told.iter().map(|(gate, why)| (gate.as_str(), why.as_str())).collect();
    assert_eq!(told, expected);
}

/// The stretches of time during which the gate was open, all of them over.
pub(crate) fn intervals(site: &Site, call: &Value) -> usize {
    let explained = site.json(&["explain", text(&call["id"])]);
    let intervals = explained["intervals"].as_array().expect("intervals");
    for interval in intervals {
        assert!(text(&interval["opened_at"]) <= text(&interval["shut_at"]), "{interval}");
    }
    intervals.len()
}

/// Who was on the line, in order of joining; whether they left before the last one came is checked too.
pub(crate) fn parties(call: &Value) -> Vec<(&str, &str)> {
    let parties = call["parties"].as_array().expect("parties");
    for party in parties {
        let (joined, left) = (text(&party["joined_at"]), text(&party["left_at"]));
        assert!(joined <= left, "{party}");
    }
    parties.iter().map(|party| (text(&party["role"]), text(&party["identity"]))).collect()
}

#[test]
fn blind_transfer() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = carrier.call(CONSENT, CITIZEN);
    let office = pbx.incoming();
    office.answer();
    outgoing.answered();
    both_agree(&outgoing, &office);
    outgoing.media().say(&[8_000; 16_000]);
    std::thread::sleep(Duration::from_secs(3));
    // Silent again, so that the questions can be told from it.
    outgoing.media().say(&[0; 160]);

    office.hold();
    office.refer(&format!("<sip:{EXTENSION}@{}>", site.pbx()));
    let extension = pbx.incoming();
    assert!(extension.invite().header("Referred-By").is_some());
    extension.ring();
    office.told("SIP/2.0 180");
    extension.answer();
    office.told("SIP/2.0 200");
    office.bye();
    // Both are asked again; the newcomer says no, and nothing more is kept.
    both_agree_or_not(&outgoing, &extension);
    outgoing.bye();
    extension.ended();

    let call = site.closed_call();
    assert_eq!(call["recording_outcome"], "partly-recorded", "{call}");
    assert_eq!(call["transfers"], 1);
    assert_eq!(parties(&call), [("caller", CITIZEN), ("callee", CONSENT), ("callee", EXTENSION)]);
    let [_, left, joined] = call["parties"].as_array().expect("parties").as_slice() else { panic!("{call}") };
    assert_eq!(left["left_at"], joined["joined_at"]);
    assert_eq!(left["consent"]["state"], "given");
    assert_eq!(joined["consent"]["state"], "declined");
    assert_gate(
        &site,
        &call,
        &[
            ("shut", "asking"),
            ("open", "all-agreed"),
            ("shut", "held"),
            ("shut", "party-changed"),
            ("shut", "declined"),
        ],
    );
    assert_eq!(intervals(&site, &call), 1);
}

fn both_agree_or_not(outgoing: &crate::phone::Call, newcomer: &crate::phone::Call) {
    let since = newcomer.media().first_sent();
    for call in [outgoing, newcomer] {
        call.media().prompt(since, Duration::from_secs(40), &[]);
    }
    outgoing.media().press("1");
    newcomer.media().press("2");
    std::thread::sleep(Duration::from_secs(4));
}

#[test]
fn attended_transfer() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let first = carrier.call(DISPATCH, CITIZEN);
    let officer = pbx.incoming();
    officer.answer();
    first.answered();
    let second = carrier.call(NEVER, "+18605550177");
    let also = pbx.incoming();
    also.answer();
    second.answered();

    let named = also.replaced().replace('@', "%40").replace(';', "%3B").replace('=', "%3D");
    officer.refer(&format!("<sip:{}?Replaces={named}>", site.gateway()));
    officer.told("SIP/2.0 200");
    also.ended();
    officer.bye();
    // The two callers hear each other.
    second.media().say(&crate::sound::ladder(crate::sound::LADDER_A_HZ, crate::sound::LADDER_S));
    std::thread::sleep(Duration::from_secs(3));
    let heard = crate::sound::find_ladder(&first.media().heard(None), crate::sound::LADDER_A_HZ);
    assert!(heard.seconds() > 1.5, "{heard:?}");
    second.bye();
    first.ended();

    let calls = site.closed_calls(2);
    let of = |line: &str| calls.iter().find(|call| call["line"] == line).expect("a call of the line");
    let (joined, given) = (of(DISPATCH), of(NEVER));
    assert_eq!(joined["linked_calls"], serde_json::json!([given["id"]]));
    assert_eq!(given["linked_calls"], serde_json::json!([joined["id"]]));
    assert_eq!(joined["transfers"], 1);
    assert_eq!(parties(joined), [("caller", CITIZEN), ("callee", DISPATCH), ("callee", "+18605550177")]);
    assert_eq!(parties(given), [("caller", "+18605550177"), ("callee", NEVER)]);
    assert_gate(&site, joined, &[("open", "dispatch-line"), ("shut", "left-line")]);
    assert_gate(&site, given, &[("shut", "never-line")]);
    assert_eq!([intervals(&site, joined), intervals(&site, given)], [1, 0]);
}

/// The other party of a dispatch call is now the union's: taped at all times, and its number told nowhere.
#[test]
fn a_union_number_that_comes_to_a_dispatch_call_is_told_nowhere() {
    let union = "[[numbers]]\nnumber = \"+18605550199\"\nclass = \"union\"\n";
    let site = Site::with(|_, text| format!("{text}\n{union}"));
    let gateway = site.start_logging("trace");
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = pbx.call(DISPATCH, EXTENSION);
    let officer = pbx.incoming();
    officer.answer();
    outgoing.answered();
    outgoing.refer(&format!("<sip:98605550199@{}>", site.gateway()));
    let delegate = carrier.incoming();
    assert!(delegate.invite().start.contains("8605550199"));
    delegate.answer();
    outgoing.told("SIP/2.0 200");
    outgoing.bye();
    std::thread::sleep(Duration::from_secs(1));
    delegate.bye();
    officer.ended();

    let call = site.closed_call();
    let identities: Vec<&Value> =
        call["parties"].as_array().expect("parties").iter().map(|party| &party["identity"]).collect();
    assert_eq!(identities, [&Value::from(EXTENSION), &Value::from(DISPATCH), &Value::Null]);
    assert_eq!(call["recording_outcome"], "recorded");
    assert_gate(&site, &call, &[("open", "dispatch-line"), ("shut", "ended")]);
    site.sealed_recording(&call);
    let id = text(&call["id"]);
    for command in [
        &["calls", "list"][..],
        &["calls", "show", id],
        &["calls", "show", id, "--ladder"],
        &["explain", id],
        &["recordings", "list"],
    ] {
        for more in [&[][..], &["--json"]] {
            let printed = eventually("a ladder is told last", Duration::from_secs(15), || {
                let printed = site.run(command.iter().chain(more)).stdout;
                (!printed.is_empty()).then_some(printed)
            });
            assert!(!tells(&printed), "{command:?}: {}", String::from_utf8_lossy(&printed));
        }
    }
    assert_eq!(gateway.terminate(), Some(0));
    assert!(!tells(site.log().as_bytes()));
    for file in site.data_files() {
        assert!(!tells(&std::fs::read(&file).expect("a file")), "{}", file.display());
    }
}

/// Whether the union's number is in it, in whatever form.
fn tells(octets: &[u8]) -> bool {
    octets.windows(7).any(|window| window == b"5550199")
}

#[test]
fn redirection_302() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = carrier.call(DISPATCH, CITIZEN);
    pbx.incoming().redirect(&format!("<sip:{EXTENSION}@{}>", site.pbx()));
    let extension = pbx.incoming();
    assert!(extension.invite().header("Diversion").is_some());
    extension.answer();
    outgoing.answered();
    std::thread::sleep(Duration::from_secs(1));
    outgoing.bye();
    extension.ended();

    let call = site.closed_call();
    assert_eq!(parties(&call), [("caller", CITIZEN), ("callee", EXTENSION)]);
    assert_gate(&site, &call, &[("open", "dispatch-line"), ("shut", "left-line")]);
    assert_eq!(intervals(&site, &call), 1);
    assert!(site.recordings().iter().all(|recording| crate::gateway::number(&recording["duration_s"]) < 0.5));
}

#[test]
fn replaces() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let outgoing = carrier.call(DISPATCH, CITIZEN);
    let officer = pbx.incoming();
    officer.answer();
    outgoing.answered();
    std::thread::sleep(Duration::from_secs(1));
    // Another telephone of the dispatch line takes the call over.
    let colleague = pbx.invite(
        &crate::phone::Invite::new("line", DISPATCH)
            .header("Replaces", &officer.replaced())
            .header("Require", "replaces"),
    );
    colleague.answered();
    officer.ended();
    std::thread::sleep(Duration::from_secs(1));
    // And then one that is not.
    let outsider =
        pbx.invite(&crate::phone::Invite::new("line", EXTENSION).header("Replaces", &colleague.replaced()));
    outsider.answered();
    colleague.ended();
    std::thread::sleep(Duration::from_secs(1));
    outgoing.bye();
    outsider.ended();

    let calls = site.closed_calls(3);
    let call = calls.iter().find(|call| call["direction"] == "inbound").expect("the call");
    assert_eq!(call["linked_calls"].as_array().map(Vec::len), Some(2), "{call}");
    assert_eq!(call["transfers"], 2);
    assert_eq!(
        parties(call),
        [("caller", CITIZEN), ("callee", DISPATCH), ("callee", DISPATCH), ("callee", EXTENSION)]
    );
    for other in calls.iter().filter(|other| other["id"] != call["id"]) {
        assert_eq!(other["linked_calls"], serde_json::json!([call["id"]]));
        assert_eq!(other["outcome"], "answered");
    }
    assert_gate(&site, call, &[("open", "dispatch-line"), ("shut", "left-line")]);
    assert_eq!(intervals(&site, call), 1);
}

//! Telephones that know of recording (RFC 7866 §6.3, §7.1.2, §7.1.3), on a line that asks on every call.

use std::time::Duration;

use serde_json::{Value, json};

use crate::gateway::{CITIZEN, CONSENT, Site, text};
use crate::phone::{Call, Phone};
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ, LADDER_S};

/// A call between two such telephones, both of which want it recorded; these peers are trusted with that.
fn wanted(site: &Site) -> (Phone, Phone, Call, Call) {
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    carrier.becomes_aware("on");
    pbx.becomes_aware("on");
    let outgoing = carrier.call(CONSENT, CITIZEN);
    let incoming = pbx.incoming();
    incoming.answer();
    outgoing.answered();
    (carrier, pbx, outgoing, incoming)
}

fn trusting(peers: &str) -> Site {
    Site::with(|_, text| text.replace("attempts = 1", &format!("attempts = 1\ntrust_recordpref = [{peers}]")))
}

fn consents(call: &Value) -> Vec<Value> {
    let parties = call["parties"].as_array().expect("parties");
    parties.iter().map(|party| json!([party["consent"]["state"], party["consent"]["method"]])).collect()
}

#[test]
fn a_call_that_both_telephones_want_recorded_is_until_one_of_them_refuses() {
    let site = trusting(r#""pbx", "carrier""#);
    let _gateway = site.start();
    let (_carrier, _pbx, outgoing, incoming) = wanted(&site);
    for call in [&outgoing, &incoming] {
        call.told_of_recording("on");
    }
    outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
    incoming.media().say(&sound::ladder(LADDER_B_HZ, LADDER_S));
    std::thread::sleep(Duration::from_secs(6));
    incoming.wants("off");
    for call in [&outgoing, &incoming] {
        call.told_of_recording("off");
    }
    std::thread::sleep(Duration::from_secs(3));
    outgoing.bye();
    incoming.ended();

    let call = site.closed_call();
    assert_eq!(
        (&call["recording_outcome"], &call["basis"]),
        (&json!("withdrawn"), &json!("all-party-consent"))
    );
    let method = "record-preference";
    assert_eq!(consents(&call), [json!(["given", method]), json!(["withdrawn", method])], "{call}");
    let explained = site.json(&["explain", text(&call["id"])]);
    let decisions = explained["decisions"].as_array().expect("decisions");
    let gate: Vec<_> = decisions.iter().map(|decision| text(&decision["reason"])).collect();
    assert_eq!(gate, ["all-agreed", "withdrawn"], "nobody was asked: {explained}");
    let recording = site.sealed_recording(&call);
    for (channel, base) in site.export(&recording).iter().zip([LADDER_A_HZ, LADDER_B_HZ]) {
        let found = sound::find_ladder(channel, base);
        let kept = found.to_s - found.from_s;
        // The look-back of a second is wiped.
        assert!((3.0..=6.5).contains(&kept), "what was said before the refusal, and no more: {kept} s");
    }
}

#[test]
fn a_telephone_that_is_not_trusted_with_it_is_asked_for_its_party() {
    let site = trusting(r#""pbx""#);
    let _gateway = site.start();
    let (_carrier, _pbx, outgoing, incoming) = wanted(&site);
    outgoing.media().prompt(incoming.media().first_sent(), Duration::from_secs(40), &[]);
    assert_eq!(outgoing.words_on_recording(), ["off"], "not recorded before it agrees");
    outgoing.media().press("1");
    for call in [&outgoing, &incoming] {
        call.told_of_recording("on");
    }
    outgoing.bye();
    incoming.ended();
    let call = site.closed_call();
    let expected = [json!(["given", "telephone-event"]), json!(["given", "record-preference"])];
    assert_eq!(consents(&call), expected, "{call}");
}

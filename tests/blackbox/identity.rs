//! Identities and addresses between the sides: who is believed, what was verified, and that neither learns where
//! the other is.

use std::net::SocketAddr;

use crate::gateway::{CITIZEN, CONSENT, Site};
use crate::message::Message;
use crate::phone::{Call, Invite, Phone};

/// An INVITE that names its sender's address wherever PBXs and carriers do.
fn naming(invite: Invite, sender: SocketAddr) -> Invite {
    let ip = sender.ip();
    [
        ("Record-Route", format!("<sip:{sender};lr>")),
        (
            "P-Asserted-Identity",
            format!("<sip:{CITIZEN};verstat=TN-Validation-Passed-A@{sender};user=phone>"),
        ),
        ("Diversion", format!("<sip:{CONSENT}@{ip}>;reason=no-answer")),
        ("History-Info", format!("<sip:{CONSENT}@{ip}?Reason=SIP%3Bcause%3D302>;index=1")),
        ("Call-Info", format!("<http://{ip}/a.png>;purpose=icon")),
        ("P-Charging-Vector", format!("icid-value=1;orig-ioi={ip}")),
        ("Geolocation", format!("<https://{ip}/where>")),
        ("Warning", format!("399 {sender} \"seen\"")),
        ("Organization", format!("at {ip}")),
        ("User-Agent", format!("PBX ({ip})")),
        ("X-Node", format!("{sender}")),
    ]
    .into_iter()
    .fold(invite, |invite, (name, value)| invite.header(name, &value))
}

#[track_caller]
fn assert_hidden(message: &Message, address: SocketAddr) {
    let text = String::from_utf8_lossy(&message.to_bytes()).into_owned();
    assert!(!text.contains(&address.ip().to_string()), "{text}");
}

fn talked(caller: &Phone, callee: &Phone, invite: &Invite) -> (Call, Call) {
    let outgoing = caller.invite(invite);
    let incoming = callee.incoming();
    incoming.answer();
    outgoing.answered();
    (outgoing, incoming)
}

#[test]
fn neither_side_learns_where_the_other_is_and_only_the_trusted_are_believed() {
    let trusted = |site: &Site, text: String| {
        let carrier = format!("uri = \"sip:{}\"\n", site.carrier());
        assert_eq!(text.matches(&carrier).count(), 1);
        text.replace(&carrier, &format!("{carrier}trust_identity = true\n")).replace(
            "side = \"district\"\n",
            "side = \"district\"\nnumbers = [\"+1203555*\"]\ntrust_identity = false\n",
        )
    };
    let site = Site::with(trusted);
    let gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());

    let inbound = naming(Invite::new(CONSENT, CITIZEN), site.carrier());
    let (outgoing, incoming) = talked(&carrier, &pbx, &inbound);
    assert_hidden(&incoming.invite(), site.carrier());
    assert!(incoming.invite().header("P-Asserted-Identity").is_some_and(|value| value.contains("Passed-A")));
    outgoing.bye();
    incoming.ended();
    let record = site.closed_call();
    assert_eq!(record["identity_verdict"], serde_json::json!({"verstat": "passed", "attestation": "A"}));
    assert_eq!(record["foreign_caller_id"], false);

    for (records, from, foreign) in [(2, "+12035550111", false), (3, CONSENT, false), (4, CITIZEN, true)] {
        let (outgoing, incoming) =
            talked(&pbx, &carrier, &naming(Invite::new("+18605550188", from), site.pbx()));
        assert_hidden(&incoming.invite(), site.pbx());
        assert_eq!(incoming.invite().header("P-Asserted-Identity"), None, "the PBX is not trusted here");
        outgoing.bye();
        incoming.ended();
        let calls = site.closed_calls(records);
        let flagged = calls.iter().filter(|call| call["foreign_caller_id"] == true).count();
        assert_eq!(flagged, usize::from(foreign), "{from}");
        let mut outbound = calls.iter().filter(|call| call["direction"] == "outbound");
        assert!(outbound.all(|call| call["identity_verdict"].is_null()));
    }
    gateway.counted("earmark_foreign_caller_ids_total", 1);
}

//! Who looks for the cause of a fault: the ladder of a call, and a capture inspected.

use std::path::Path;
use std::time::Duration;

use crate::gateway::{Site, eventually, text};
use crate::stock_clients::{Running, sipp};

/// The committed captures.
fn capture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pcaps").join(name).display().to_string()
}

#[test]
fn a_call_between_stock_clients_has_its_ladder_and_no_number_is_in_it() {
    let site = Site::new();
    let _gateway = site.start();
    let uas = sipp(site.folder(), site.pbx(), &["-sn", "uas"]).spawn();
    let _uas = Running(uas.expect("sipp (Debian package sip-tester)"));
    let target = site.gateway().to_string();
    let call = ["-sn", "uac", &target, "-s", "+18607427331", "-m", "1", "-timeout", "30"];
    assert!(sipp(site.folder(), site.carrier(), &call).status().expect("sipp runs").success());
    let id = text(&site.closed_call()["id"]).to_owned();

    let ladder = eventually("the end of the ladder", Duration::from_secs(15), || {
        let ladder = site.run(["calls", "show", &id, "--ladder", "--json"]);
        let ladder: serde_json::Value = serde_json::from_slice(&ladder.stdout).ok()?;
        let byes = ladder["rungs"].as_array()?.iter().filter(|rung| rung["method"] == "BYE").count();
        (byes == 4).then_some(ladder)
    });
    assert_eq!((&ladder["call_id"], &ladder["left_out"]), (&id.as_str().into(), &0.into()));
    let rungs = ladder["rungs"].as_array().expect("rungs");
    let of = |leg: &str| -> Vec<(bool, &str)> {
        let of_leg = rungs.iter().filter(|rung| rung["leg"] == leg);
        of_leg.map(|rung| (rung["sent"] == true, text(&rung["message"]))).collect()
    };
    // Seen from the gateway: what it received of the caller, it sent to the callee.
    assert_eq!(
        of("a"),
        [
            (false, "INVITE sip:<line>"),
            (true, "100 Trying"),
            (true, "180 Ringing"),
            (true, "200 OK"),
            (false, "ACK sip:<gateway>"),
            (false, "BYE sip:<gateway>"),
            (true, "200 OK"),
        ]
        .map(|(sent, message)| (sent, shown_by_sipp(message)))
    );
    assert_eq!(
        of("b"),
        [
            (true, "INVITE sip:<line>"),
            (false, "180 Ringing"),
            (false, "200 OK"),
            (true, "ACK sip:<line>"),
            (true, "BYE sip:<line>"),
            (false, "200 OK"),
        ]
    );
    assert!(rungs.iter().all(|rung| rung["peer"] == if rung["leg"] == "a" { "carrier" } else { "pbx" }));

    let drawn = site.run(["calls", "show", &id, "--ladder"]);
    let drawn = String::from_utf8_lossy(&drawn.stdout).into_owned();
    let head: Vec<&str> = drawn.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(head, ["ms", "carrier", "earmark", "pbx"], "{drawn}");
    for shown in ["INVITE sip:<line> SDP", "100 Trying (INVITE)", "200 OK (BYE)"] {
        assert!(drawn.contains(shown), "{shown}: {drawn}");
    }
    for text in [&drawn, &ladder["rungs"].to_string()] {
        for number in ["7427331", "1860", "sipp", "127.0.", "\u{1b}"] {
            assert!(!text.contains(number), "{number}: {text}");
        }
    }
}

/// SIPp's stock scenario addresses what it sends in the dialog to the number dialled, not to our Contact.
fn shown_by_sipp(message: &str) -> &str {
    match message {
        "ACK sip:<gateway>" => "ACK sip:<line>",
        "BYE sip:<gateway>" => "BYE sip:<line>",
        other => other,
    }
}

#[test]
fn a_ladder_that_is_not_there_is_said_to_be_so() {
    let site = Site::new();
    let _gateway = site.start();
    let unknown = "01931b2e-0000-7000-8000-000000000000";
    assert_eq!(site.run(["calls", "show", unknown, "--ladder"]).status.code(), Some(1));
}

#[test]
fn a_capture_is_inspected_without_a_service() {
    let site = Site::new();
    let report = site.json(&["inspect", &capture("02_loss_05pct.pcap")]);
    let stream = &report["streams"][0];
    assert_eq!(
        (&stream["packets"], &stream["lost"], &stream["codec"]),
        (&480.into(), &20.into(), &"PCMU".into())
    );
    let shown = site.run(["inspect", &capture("07_ssrc_change_same_clock.pcap")]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.lines().filter(|line| line.contains(" PCMU ")).count(), 2, "{shown}");

    let refused = site.run(["inspect", &capture("README.md")]);
    assert_eq!(refused.status.code(), Some(2));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("README.md: it is no capture"), "{why}");
    assert!(refused.stdout.is_empty());
}

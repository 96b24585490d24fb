//! `earmark demo --once`: what the README promises, measured again from what it leaves in its folder.

use std::path::Path;

use serde_json::Value;

use crate::gateway::{Site, number, rows, text};
use crate::sound::{self, RATE};

/// Beginning, length, answer and speech may be off by so much.
const TOLERANCE_S: f64 = 0.1;
const LEAST_CORRELATION: f64 = 0.85;

#[test]
fn the_demonstration_shows_four_calls_and_its_dispatch_recording_is_faithful() {
    let site = Site::new();
    let folder = site.folder().join("demo");
    let output = site.run(["demo", "--once", "--dir", &folder.to_string_lossy()]);
    let (said, progress) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{progress}", output.status);
    for word in ["recorded", "refused", "partly-recorded", "dispatch-line", "all-party-consent"] {
        assert!(said.contains(word), "`{word}` is told: {said}");
    }
    let figures = std::fs::read_to_string(folder.join("demo.json")).expect("demo.json");
    let figures: Value = serde_json::from_str(&figures).expect("JSON");
    let expected = [
        ("dispatch", "recorded", Some("dispatch-line")),
        ("both-agree", "recorded", Some("all-party-consent")),
        ("one-declines", "refused", None),
        ("transferred", "partly-recorded", Some("all-party-consent")),
    ];
    let ask = |arguments: &[&str]| -> Value {
        let output = site
            .earmark(arguments.iter().chain(&["--json"]))
            .env("EARMARK_CONFIG", folder.join("earmark.toml"))
            .output()
            .expect("earmark runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    for (name, outcome, basis) in expected {
        let id = text(&call_named(&figures, name)["call_id"]);
        let call = ask(&["calls", "show", id]);
        assert_eq!(call["recording_outcome"], outcome, "{name}: {call}");
        assert_eq!(call["basis"].as_str(), basis, "{name}: {call}");
        let decisions = rows(ask(&["explain", id])["decisions"].clone());
        assert!(decisions.iter().all(|decision| !text(&decision["clause"]).is_empty()), "{name}: a clause");
    }
    let dispatch = call_named(&figures, "dispatch");
    let recording = ask(&["recordings", "show", text(&dispatch["recordings"][0])]);
    faithful(&folder, &dispatch["measured"], &recording);
}

fn call_named<'a>(figures: &'a Value, name: &str) -> &'a Value {
    let calls = figures["calls"].as_array().expect("calls");
    calls.iter().find(|call| call["name"] == name).unwrap_or_else(|| panic!("no call {name}: {figures}"))
}

/// The exported recording holds each party's speech on its channel where it was said, begins with the first
/// packet, lasts as long as the media did, and marks the answer.
fn faithful(folder: &Path, measured: &Value, recording: &Value) {
    let media_s = number(&measured["media_s"]);
    let near = |what: &str, found: f64, expected: f64| {
        assert!((found - expected).abs() <= TOLERANCE_S, "{what}: {found} s, not {expected} s");
    };
    let channels = sound::read_wav(&folder.join("dispatch.wav"));
    near("length", channels[0].len() as f64 / RATE as f64, media_s);
    near("stated length", number(&recording["duration_s"]), media_s);
    let micros =
        |value: &Value| text(value).parse::<jiff::Timestamp>().expect("a time").as_microsecond() as f64;
    near("beginning", micros(&recording["started_at"]) / 1e6, micros(&measured["first_rtp_at"]) / 1e6);
    let intervals = recording["intervals"].as_array().expect("intervals");
    let answered = intervals.iter().find(|interval| interval["phase"] == "answered").expect("the answer");
    near("answer", number(&answered["from_s"]), number(&measured["answered_after_s"]));
    assert_eq!(channels.len(), 2);
    for (party, channel) in channels.iter().enumerate() {
        let spoken = &measured["channels"][party];
        let played = sound::read_wav(&folder.join(text(&spoken["played"]))).swap_remove(0);
        let after = (number(&spoken["spoken_after_s"]) * RATE as f64) as i64;
        let off = (TOLERANCE_S * RATE as f64) as i64;
        let (at, fit) = sound::correlate(&played, channel, after - off..after + off);
        assert!(fit > LEAST_CORRELATION, "channel {party}: {fit} at {at}");
    }
}

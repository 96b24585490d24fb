//! `check --live`: whether a PBX signals what its telephones do, judged beside the running service.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::dispatch_line::talk;
use crate::gateway::{CITIZEN, Gateway, Site, eventually, rows};
use crate::media::Media;
use crate::phone::{Call, Invite, Phone};
use crate::sound;

/// Two extensions of the PBX that are on no list.
const B: &str = "+18607427355";
const C: &str = "+18607427356";

/// What anything may take in which people would talk: more than the 2 s that must lie between.
const A_WHILE: Duration = Duration::from_millis(2_500);
/// What anything may take in which C would talk: more than the 8 s that C must be there.
const A_TALK: Duration = Duration::from_millis(8_500);

/// The PBX is not verified yet.
fn site() -> Site {
    Site::with(|_, text| text.replacen("party_signals = \"verified\"\n", "", 1))
}

/// The service, once it has nothing to complain of.
fn serve(site: &Site) -> Gateway<'_> {
    let gateway = site.start();
    eventually("a start that is over", Duration::from_secs(10), || {
        gateway.get("/readyz").1.contains(r#""why":[]"#).then_some(())
    });
    gateway
}

/// Runs the conformance run beside the service, without a terminal.
fn start(site: &Site, more: &[&str]) -> Child {
    let mut command = site.earmark(["check", "--live", "--peer", "pbx", "--timeout-s", "60"]);
    let command = command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("earmark starts")
}

/// A call to B that is up.
fn up(carrier: &Phone, pbx: &Phone) -> (Call, Call) {
    let (outgoing, incoming) = talk(carrier, pbx, B, CITIZEN);
    std::thread::sleep(Duration::from_millis(500));
    (outgoing, incoming)
}

/// C talks with the outside, and then the outside hangs up.
fn over(outgoing: &Call, incoming: &Call, after: Duration) {
    std::thread::sleep(after);
    outgoing.bye();
    incoming.ended();
}

fn remarks(site: &Site) -> String {
    site.json(&["check"])["remarks"].to_string()
}

/// The audit log's rows of conformance runs: who, what, on which peer, and what was seen.
fn entered(site: &Site) -> Vec<(String, String, String, String)> {
    let rows = rows(site.json(&["audit", "list"])).into_iter();
    let of_run =
        rows.filter(|row| row["action"].as_str().is_some_and(|action| action.contains("conformance")));
    of_run
        .map(|row| ["actor", "action", "object", "detail"].map(|name| row[name].as_str().unwrap().to_owned()))
        .map(|[actor, action, object, detail]| (actor, action, object, detail))
        .collect()
}

#[test]
fn a_pbx_that_signals_passes_and_may_be_verified() {
    let site = site();
    let gateway = serve(&site);
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let run = start(&site, &["--json", "--without", "listen", "--without", "break-in", "--without", "park"]);
    std::thread::sleep(Duration::from_secs(1));

    let (outgoing, incoming) = up(&carrier, &pbx);
    over(&outgoing, &incoming, A_WHILE);

    let (outgoing, incoming) = up(&carrier, &pbx);
    incoming.hold();
    std::thread::sleep(A_WHILE);
    incoming.resume();
    outgoing.bye();
    incoming.ended();

    let (outgoing, incoming) = up(&carrier, &pbx);
    incoming.refer(&format!("<sip:{C}@{}>", site.pbx()));
    let third = pbx.incoming();
    third.answer();
    incoming.told("SIP/2.0 200");
    incoming.bye();
    over(&outgoing, &third, A_TALK);

    let (outgoing, incoming) = up(&carrier, &pbx);
    let third = pbx.invite(&Invite::new(B, C).header("Replaces", &incoming.replaced()));
    third.answered();
    incoming.ended();
    over(&outgoing, &third, A_TALK);

    let (outgoing, incoming) = up(&carrier, &pbx);
    incoming.becomes("<sip:conference@pbx.example.org>");
    over(&outgoing, &incoming, A_TALK);

    let output = run.wait_with_output().expect("the run ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let run = &report["conformance"];
    let steps: Vec<_> = run["steps"].as_array().expect("steps").iter().collect();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["call", "hold", "blind-transfer", "attended-transfer", "conference"]);
    assert!(steps.iter().all(|step| step["verdict"] == "seen" && step["ladders"] == json!([])), "{run}");
    assert_eq!((&run["passed"], &run["absent"]), (&json!(true), &json!(["listen", "break-in", "park"])));
    let follows = run["follows"].as_str().expect("what follows");
    for said in [
        "earmark.toml: peers[0].party_signals may be set to \"verified\"",
        "can do this: listen, break-in, park",
        "repeat --step hold on a consent line",
    ] {
        assert!(follows.contains(said), "{follows}");
    }
    assert!(told.contains("At B put the call on hold"), "it says what to do: {told}");
    assert_eq!((&report["live"]["ready"], &report["live"]["faults"]), (&json!(true), &json!([])));
    assert_eq!(report["live"]["peers"][0], json!({"name": "pbx", "up": true, "registered": null}));
    for text in [&told, &report["conformance"].to_string()] {
        assert!(!text.contains("742735") && !text.contains("5550123"), "no number is shown: {text}");
    }

    let [(actor, action, peer, detail)] = &entered(&site)[..] else { panic!("{:?}", entered(&site)) };
    assert_eq!(
        (actor.as_str(), action.as_str(), peer.as_str()),
        ("console", "peer.conformance-passed", "pbx")
    );
    assert!(
        detail.contains("hold seen") && detail.ends_with("listen absent; break-in absent; park absent"),
        "{detail}"
    );
    assert!(site.run(["audit", "verify"]).status.success());
    drop(gateway);

    // Once both are said to be verified, nothing is left to say: of a carrier no run is asked.
    site.configure(&site.usual());
    let remarks = remarks(&site);
    assert!(!remarks.contains("party_signals"), "{remarks}");
}

#[test]
fn a_pbx_that_hides_a_transfer_is_found_out() {
    let site = site();
    let _gateway = serve(&site);
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let run = start(&site, &["--step", "blind-transfer", "--telephone", B]);
    std::thread::sleep(Duration::from_secs(1));
    let (outgoing, incoming) = up(&carrier, &pbx);
    // The PBX leads C's voice into the call, and says nothing.
    incoming.media().mute(true);
    let (third, _threads) = Media::open(site.pbx().ip());
    third.connect(incoming.media().remote(), None);
    third.say(&sound::ladder(sound::LADDER_B_HZ, 2.0));
    over(&outgoing, &incoming, A_WHILE);

    let output = run.wait_with_output().expect("the run ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in [
        "hidden   nobody came at any end of pbx's; no new description after the answer",
        "INVITE sip:<callee> SDP",
        "the call was transferred, and pbx did not say so",
        "peers[0].party_signals must stay \"none\"",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("742735"), "numbers are masked: {said}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("must stay \"none\""));

    let [(_, action, _, detail)] = &entered(&site)[..] else { panic!("{:?}", entered(&site)) };
    assert_eq!(action, "peer.conformance-failed");
    assert!(detail.starts_with("blind-transfer hidden "), "{detail}");
    site.configure(&site.usual());
    let remarks = remarks(&site);
    assert!(remarks.contains("\\\"verified\\\", but pbx failed its conformance run at "), "{remarks}");
}

#[test]
fn what_cannot_be_judged_is_said_to_be_so() {
    let site = site();
    let usage = |more: &[&str]| {
        let output = site.run([&["check", "--live"], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = usage(&[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("ops.listen"), "{said}");
    let _gateway = serve(&site);
    assert_eq!(usage(&["--peer", "nobody"]).0, Some(2));
    let (code, said) = usage(&["--peer", "carrier"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("Ask carrier's operator in writing"), "{said}");
    assert_eq!(usage(&["--peer", "pbx", "--without", "hold"]).0, Some(2));
    assert_eq!(usage(&["--step", "hold"]).0, Some(2), "which peer?");
    assert_eq!(usage(&[]).0, Some(0));
    let (code, said) = usage(&["--peer", "pbx", "--step", "hold", "--timeout-s", "1"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no answered call of pbx ended within 1 s"), "{said}");
    assert_eq!(entered(&site)[0].1, "peer.conformance-incomplete");

    // Whoever breaks it off, or closes its terminal, is in the log too.
    for (signal, row) in [("-INT", 1), ("-TERM", 2), ("-HUP", 3)] {
        let run = start(&site, &[]);
        std::thread::sleep(Duration::from_secs(1));
        let sent = Command::new("kill").args([signal, &run.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        let output = run.wait_with_output().expect("the run ends");
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(entered(&site)[row].1, "peer.conformance-incomplete");
    }

    // Two calls at once, and nobody says which is meant.
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let run = start(&site, &["--step", "call"]);
    std::thread::sleep(Duration::from_secs(1));
    let calls = [up(&carrier, &pbx), up(&carrier, &pbx)];
    for (outgoing, incoming) in &calls {
        outgoing.bye();
        incoming.ended();
    }
    let output = run.wait_with_output().expect("the run ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("unclear  several calls at the same time; repeat it with --telephone"), "{said}");
}

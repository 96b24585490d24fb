//! What an operator sees: health, metrics, logs without persons, an orderly end.

use std::time::Duration;

use crate::dispatch_line::talk;
use crate::gateway::{CITIZEN, CONSENT, DISPATCH, Site, eventually};

#[test]
fn health_and_metrics_answer_and_count() {
    let site = Site::new();
    let gateway = site.start();
    assert_eq!(gateway.get("/healthz").0, 200);
    let well = r#"{"ready":true,"degraded":[],"why":[],"undelivered_entries":0}"#;
    eventually("a start that is over", Duration::from_secs(5), || {
        (gateway.get("/readyz") == (200, format!("{well}\n"))).then_some(())
    });
    assert_eq!(gateway.get("/no-such-page").0, 404);
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    outgoing.bye();
    incoming.ended();
    site.closed_call();
    let (status, metrics) = gateway.get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("# TYPE earmark_"), "{metrics}");
    let calls = |line: &&str| line.starts_with("earmark_calls") && !line.ends_with(" 0");
    assert!(metrics.lines().any(|line| calls(&line)), "the call is counted: {metrics}");
    gateway.counted("earmark_sip_calls_answered_total", 1);
    assert!(gateway.figure("earmark_sip_messages_in_total{kind=\"request\"}") >= 3);
    gateway.counted("earmark_media_free_port_pairs", 5_000);
}

#[test]
fn the_ready_line_names_every_listener() {
    let site = Site::new();
    let gateway = site.start();
    let address = site.gateway();
    assert!(gateway.ready.contains(&format!("sip=udp:{address},tcp:{address}")), "{}", gateway.ready);
    assert!(gateway.ready.contains(&format!("ops=http://{}:9090", address.ip())), "{}", gateway.ready);
}

#[test]
fn no_number_or_name_is_in_logs_or_metrics() {
    let site = Site::new();
    let gateway = site.start_logging("trace");
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    incoming.media().press("4711#");
    outgoing.bye();
    incoming.ended();
    let (outgoing, incoming) = talk(&carrier, &pbx, "front.desk", "mallory");
    outgoing.bye();
    incoming.ended();
    let rejected = pbx.call("7425555", CONSENT);
    carrier.incoming().reject(486, "Busy Here");
    assert_eq!(rejected.final_status(), 486);
    carrier
        .send_raw(b"INVITE sip:+18605559876@example.org SIP/2.0\r\nFrom: \"Eve Adams\" <sip:eve@x>\r\n\r\n");
    site.closed_calls(3);
    let (_, metrics) = gateway.get("/metrics");
    assert_eq!(gateway.terminate(), Some(0));
    let log = site.log();
    for step in ["offered", "answered", "ended"] {
        assert!(log.contains(step), "there is a log to look at: {log}");
    }
    for person in [
        "7427331",
        "5550123",
        "7427310",
        "7425555",
        "5559876",
        "digit=",
        "front.desk",
        "mallory",
        "Eve Adams",
        "sip:eve",
        "Police dispatch",
        "Superintendent",
    ] {
        for (name, text) in [("log", &log), ("metrics", &metrics)] {
            let line = text.lines().find(|line| line.contains(person));
            assert_eq!(line, None, "`{person}` in the {name}");
        }
    }
}

#[test]
fn sigterm_lets_a_call_end_and_takes_no_new_one() {
    let site = Site::with(|_, text| text.replace("drain_s = 30", "drain_s = 3"));
    let gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    let refused = std::thread::scope(|scope| {
        let end = scope.spawn(|| gateway.terminate());
        std::thread::sleep(Duration::from_millis(500));
        let refused = pbx.call("7425555", CONSENT).final_status();
        assert!(!outgoing.is_ended(), "the call goes on");
        outgoing.ended();
        incoming.ended();
        assert_eq!(end.join().ok().flatten(), Some(0));
        refused
    });
    assert_eq!(refused, 503);
    // What was refused at the door was never a call of ours.
    let call = site.closed_call();
    assert_eq!(call["outcome"], "answered");
    assert_eq!(call["ended_by"], "gateway");
    assert!(site.run(["recordings", "verify"]).status.success());
}

#[test]
fn cancel_busy_and_no_answer_are_told_apart() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let cancelled = carrier.call(DISPATCH, CITIZEN);
    let ringing = pbx.incoming();
    ringing.ring();
    cancelled.progress(180);
    cancelled.cancel();
    assert_eq!(cancelled.final_status(), 487);
    ringing.ended();
    for (status, reason) in [(486, "Busy Here"), (480, "Temporarily Unavailable"), (603, "Decline")] {
        let call = carrier.call(DISPATCH, CITIZEN);
        pbx.incoming().reject(status, reason);
        assert_eq!(call.final_status(), status);
    }
    let calls = site.closed_calls(4);
    let mut outcomes: Vec<_> = calls.iter().map(|call| (&call["final_status"], &call["outcome"])).collect();
    outcomes.sort_by_key(|(status, _)| status.as_u64());
    let expected = [(480, "no-answer"), (486, "busy"), (487, "cancelled"), (603, "rejected")];
    for ((status, outcome), expected) in outcomes.into_iter().zip(expected) {
        assert_eq!((status.as_u64(), outcome.as_str()), (Some(expected.0), Some(expected.1)));
    }
}

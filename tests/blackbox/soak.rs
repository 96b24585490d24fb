//! Many calls in a row: memory, descriptors and ports stay as they are.
//!
//! Two rounds. The second finds the memory that the first has left, and leaves the process as large as it found it;
//! between them everything of the first has run out. `cargo xtask soak` has more calls placed.

use std::time::Duration;

use crate::gateway::{Gateway, NEVER, Site, eventually};
use crate::stock_clients::{Running, last, sipp};

/// How many in both rounds together.
const CALLS_FROM: &str = "EARMARK_SOAK_CALLS";
const CALLS_A_SECOND: &str = "150";
/// The first round is half of them, but no more than this.
const LONGEST_FIRST: usize = 10_000;

/// Beyond what the first round leaves, in kilobytes and in parts of a hundred: two kilobytes a call are found, with
/// more calls much less.
const SPARE_KB: u64 = 2_000;
const SPARE_PERCENT: u64 = 4;

/// A round of calls, from the carrier to a line that is never recorded. SIPp may not fail one.
fn round(site: &Site, calls: usize, name: &str) {
    let (target, count, statistics) = (site.gateway().to_string(), calls.to_string(), format!("{name}.csv"));
    let call = ["-sn", "uac", &target, "-s", NEVER, "-m", &count, "-r", CALLS_A_SECOND, "-l", "2000"];
    let told = ["-trace_stat", "-fd", "1", "-stf", &statistics];
    let ended =
        sipp(site.folder(), site.carrier(), &[&call[..], &told].concat()).status().expect("sipp runs");
    let written = |file: &str| std::fs::read_to_string(site.folder().join(file)).unwrap_or_default();
    assert!(ended.success(), "{ended}: {}", written("uac.err"));
    assert_eq!(last(&written(&statistics), "FailedCall(C)"), "0");
}

/// Ports and descriptors are back with the end of the last call.
fn all_back(gateway: &Gateway<'_>, (ports, descriptors): (u64, usize)) {
    eventually("an end of all calls", Duration::from_secs(10), || {
        (gateway.figure("earmark_media_calls") == 0).then_some(())
    });
    assert_eq!(gateway.figure("earmark_media_free_port_pairs"), ports);
    // The database opens a file now and then; a socket left open by each call would be thousands.
    assert!(gateway.descriptors() <= descriptors + 8, "{} descriptors", gateway.descriptors());
}

#[test]
#[ignore = "alone on the machine: cargo xtask soak"]
fn soak() {
    let calls = std::env::var(CALLS_FROM).ok().and_then(|calls| calls.parse().ok());
    let calls: usize = calls.expect("EARMARK_SOAK_CALLS is a number of calls");
    let first = (calls / 2).min(LONGEST_FIRST);
    let site = Site::new();
    let mut gateway = site.start();
    let before = (gateway.figure("earmark_media_free_port_pairs"), gateway.descriptors());
    let uas = sipp(site.folder(), site.pbx(), &["-sn", "uas"]).spawn();
    let _uas = Running(uas.expect("sipp (Debian package sip-tester)"));

    round(&site, first, "first");
    let first_kb = gateway.resident_kb();
    all_back(&gateway, before);
    gateway.runs_out();
    round(&site, calls - first, "second");
    let second_kb = gateway.resident_kb();
    println!("{first} calls: {first_kb} kB resident; {calls} in all: {second_kb} kB");
    let most_kb = first_kb + SPARE_KB + first_kb * SPARE_PERCENT / 100;
    assert!(second_kb <= most_kb, "{first_kb} kB after {first} calls, {second_kb} kB after {calls}");
    all_back(&gateway, before);
    gateway.lives();
    let answered = "earmark_calls_total{direction=\"inbound\",outcome=\"answered\"}";
    assert_eq!(gateway.figure(answered), calls as u64);
    eventually("all records in the database", Duration::from_secs(60), || {
        (gateway.figure("earmark_journal_undelivered") == 0).then_some(())
    });
    assert_eq!(gateway.figure("earmark_records_lost_total"), 0);
}

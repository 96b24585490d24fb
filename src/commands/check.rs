//! `earmark check`: the configuration judged, and what each line would do; with `--live`, how the running service
//! and its peers stand, and whether a peer signals its parties.

mod conformance;
mod judgement;
mod standing;
mod step;
mod watch;

use std::fmt::Write;
use std::num::NonZeroU32;

use clap::Args;
use consent::{Ask, Line, LineClass, Side, Wall};
use serde::Serialize;
use sip_gateway::locate::Host;
use sip_gateway::{Peer, Transport};

use super::calls::{drawn, word};
use super::{Configured, Failure, Outcome, print_json, print_text};
use crate::config::Config;
use crate::wall_now;
use conformance::Conformance;
use standing::Standing;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Ask the running service how it and its peers stand.
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    options: conformance::Options,
}

/// Certificates are renewed in weeks, not in days, where a public authority or an office must be asked.
const EXPIRY_WARNING_DAYS: i64 = 30;

#[derive(Serialize)]
struct Report {
    lines: Vec<LineReport>,
    peers: Vec<PeerReport>,
    remarks: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conformance: Option<Conformance>,
}

/// What the running service says.
#[derive(Serialize)]
struct Live {
    #[serde(flatten)]
    standing: Standing,
    /// What is not as it should be.
    faults: Vec<String>,
}

#[derive(Serialize)]
struct LineReport {
    number: String,
    name: String,
    class: LineClass,
    does: &'static str,
}

#[derive(Serialize)]
struct PeerReport {
    name: String,
    side: Side,
    found: String,
    ping_s: Option<u32>,
    max_calls: Option<usize>,
    calls_per_minute: Option<u32>,
    /// Whether it may call everybody.
    refuses_destinations: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let config = Config::load(&arguments.configured.config)?;
    let mut remarks = config.remarks.clone();
    let expires_s = config.read_tls()?.map(|read| read.expires_s);
    remarks.extend(expires_s.and_then(|expires_s| expiry(expires_s, wall_now())));
    remarks.extend(config.try_passwords()?);
    let live = if arguments.live { Some(ask_service(&config, expires_s).await?) } else { None };
    let conformance = match &arguments.options.peer {
        Some(peer) => {
            let faults = live.as_ref().map_or(&[][..], |live| &live.faults);
            Some(conformance::run(&arguments.options, &config, peer, faults).await?)
        }
        None => None,
    };
    remarks.extend(conformance::remarks(&config).await);
    let hidden = config.gateway.peers.iter().any(|peer| peer.side == Side::Public && !peer.parties_signalled);
    let report = Report {
        lines: config.rules.lines().iter().map(|line| describe(line, hidden)).collect(),
        peers: config.gateway.peers.iter().map(describe_peer).collect(),
        remarks,
        live,
        conformance,
    };
    if arguments.configured.json {
        print_json(&report)?;
    } else {
        print_text(&for_people(&config, &report));
    }
    Ok(outcome(&report))
}

async fn ask_service(config: &Config, on_disk_s: Option<u64>) -> Result<Live, Failure> {
    let standing = Standing::ask(config).await?;
    let now_s = u64::try_from(wall_now().0 / 1_000_000).unwrap_or_default();
    let faults = standing.faults(on_disk_s, now_s);
    Ok(Live { standing, faults })
}

/// Where a peer's signals are judged, the answer is theirs.
fn outcome(report: &Report) -> Outcome {
    match (&report.conformance, &report.live) {
        (Some(run), _) if run.is_well() => Outcome::Done,
        (Some(run), _) => Outcome::No(run.follows.clone()),
        (None, Some(live)) if !live.faults.is_empty() => Outcome::No(live.faults.join("; ")),
        (None, _) => Outcome::Done,
    }
}

/// What there is to say of a certificate that ends soon.
fn expiry(expires_s: u64, now: Wall) -> Option<String> {
    let date = date(expires_s);
    let expires_s = i64::try_from(expires_s).unwrap_or(i64::MAX);
    let left_days = (expires_s - now.0.div_euclid(1_000_000)).div_euclid(86_400);
    match left_days {
        ..0 => {
            Some(format!("sip.tls.certificate: expired at {date}: peers refuse it; renew it and send SIGHUP"))
        }
        0..EXPIRY_WARNING_DAYS => Some(format!(
            "sip.tls.certificate: expires at {date}, in {left_days} days; renew it and send SIGHUP"
        )),
        EXPIRY_WARNING_DAYS.. => None,
    }
}

fn date(unix_s: u64) -> String {
    let end = i64::try_from(unix_s).ok().and_then(|end| jiff::Timestamp::from_second(end).ok());
    end.map_or_else(|| "?".to_owned(), |end| end.to_string())
}

fn describe(line: &Line, hidden: bool) -> LineReport {
    let does = match (line.class, line.ask) {
        (LineClass::Dispatch, _) => "records every call, from its first media on",
        (LineClass::Never, _) => "records nothing",
        (LineClass::Union, _) => "records nothing, and withholds the other party's number",
        (LineClass::Consent, _) if hidden => {
            "records nothing through a peer that does not signal its parties; otherwise after all have agreed"
        }
        (LineClass::Consent, Ask::EveryCall) => {
            "asks both parties on every call, and records once both have agreed"
        }
        (LineClass::Consent, Ask::OnRequest) => "asks when the district's party dials the request code",
        (LineClass::Consent, Ask::SignalledOnly) => {
            "never asks, and records once every party's telephone has asked for it (a=recordpref)"
        }
    };
    LineReport { number: line.number.as_str().to_owned(), name: line.name.clone(), class: line.class, does }
}

fn describe_peer(peer: &Peer) -> PeerReport {
    let Peer { name, side, place, ping_s, allowance, .. } = peer;
    let by = place.transport.map_or("", |transport| match transport {
        Transport::Udp => " by udp",
        Transport::Tcp => " by tcp",
        Transport::Tls => " by tls",
    });
    let found = match (&place.host, place.port) {
        (Host::Address(_), _) => match place.target() {
            Some(target) => format!("at {}:{}", target.transport.word(), target.address),
            None => String::new(),
        },
        (Host::Name(host), Some(port)) => format!("at port {port} of the addresses of {host}{by}"),
        (Host::Name(host), None) if place.transport.is_some() => {
            format!("by the SRV records of {host}{by}, else its addresses")
        }
        (Host::Name(host), None) => format!("by the NAPTR and SRV records of {host}, else its addresses"),
    };
    PeerReport {
        name: name.clone(),
        side: *side,
        found,
        ping_s: *ping_s,
        max_calls: allowance.max_calls,
        calls_per_minute: allowance.calls_per_minute.map(NonZeroU32::get),
        refuses_destinations: allowance.refused.is_some(),
    }
}

fn for_people(config: &Config, report: &Report) -> String {
    let mut text = String::from("The configuration is valid.\n\n");
    for line in &report.lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {}: {}", line.number, line.name, line.does);
    }
    let _ = writeln!(text, "any other number: logged, never recorded");
    let _ = writeln!(text);
    for peer in &report.peers {
        let PeerReport { name, side, found, ping_s, .. } = peer;
        let side = match side {
            Side::District => "district",
            Side::Public => "public",
        };
        let pings =
            ping_s.map_or_else(|| "not pinged".to_owned(), |seconds| format!("pinged each {seconds} s"));
        let _ = writeln!(text, "peer {name} ({side}): {found}; {pings}{}", allowance_of(peer));
    }
    let _ = writeln!(text, "{} listeners", config.gateway.listeners.len());
    for remark in &report.remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    text.extend(report.live.iter().map(live_for_people));
    text.extend(report.conformance.iter().map(conformance_for_people));
    text
}

fn live_for_people(live: &Live) -> String {
    let ready = if live.standing.ready { "takes calls" } else { "takes no calls" };
    let mut text = format!("\nThe service answers and {ready}.\n");
    for peer in &live.standing.peers {
        let up = match peer.up {
            Some(true) => "nothing speaks against it",
            Some(false) => "out of reach",
            None => "not known to the service: restart it to apply the configuration",
        };
        let registered = match peer.registered {
            Some(true) => "; registered",
            Some(false) => "; not registered",
            None => "",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "peer {}: {up}{registered}", peer.name);
    }
    if let Some(expires_s) = live.standing.certificate_expires_s {
        let _ = writeln!(text, "the certificate in force expires at {}", date(expires_s));
    }
    for fault in &live.faults {
        let _ = writeln!(text, "fault: {fault}");
    }
    text
}

fn conformance_for_people(run: &Conformance) -> String {
    let mut text = format!("\nWhat {} signals:\n", run.peer);
    for stepped in &run.steps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:18} {:8} {}", stepped.step.name(), word(&stepped.verdict), stepped.saw);
        for ladder in &stepped.ladders {
            let _ = writeln!(text, "\ncall {}\n{}", ladder.call_id, drawn(ladder));
        }
    }
    for step in &run.absent {
        let _ = writeln!(text, "{:18} absent   as stated", step.name());
    }
    let _ = writeln!(text, "{}.", run.follows);
    text
}

/// What bounds a peer's calls.
fn allowance_of(peer: &PeerReport) -> String {
    let at_once = peer.max_calls.map(|most| format!("; at most {most} calls at once"));
    let a_minute = peer.calls_per_minute.map(|most| format!("; at most {most} calls a minute"));
    let refusing = peer.refuses_destinations.then(|| "; may not call everybody".to_owned());
    at_once.into_iter().chain(a_minute).chain(refusing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_spoken_of_in_its_last_month() {
        const DAY_S: u64 = 86_400;
        let now = Wall(1_900_000_000_500_000);
        let said = |left_s: i64| expiry(1_900_000_000_u64.saturating_add_signed(left_s), now);
        assert_eq!(said(30 * DAY_S as i64), None);
        assert_eq!(expiry(u64::MAX, now), None);
        assert!(said(30 * DAY_S as i64 - 1).is_some_and(|text| text.contains("in 29 days")));
        assert!(said(0).is_some_and(|text| text.contains("in 0 days")));
        assert!(said(-1).is_some_and(|text| text.contains("expired at 2030-03-17T17:46:39Z")));
    }
}

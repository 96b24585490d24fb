//! `earmark check`: the configuration judged, and what each line would do.

use std::fmt::Write;

use consent::{Ask, Line, LineClass, Side};
use serde::Serialize;
use sip_gateway::locate::Host;
use sip_gateway::{Peer, Transport};

use super::{Configured, Failure, Outcome, print_json, print_text};
use crate::config::Config;

#[derive(Serialize)]
struct Report {
    lines: Vec<LineReport>,
    peers: Vec<PeerReport>,
    remarks: Vec<String>,
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
}

pub(super) fn run(configured: &Configured) -> Result<Outcome, Failure> {
    let config = Config::load(&configured.config)?;
    let hidden = config.gateway.peers.iter().any(|peer| peer.side == Side::Public && !peer.parties_signalled);
    let report = Report {
        lines: config.rules.lines().iter().map(|line| describe(line, hidden)).collect(),
        peers: config.gateway.peers.iter().map(describe_peer).collect(),
        remarks: config.remarks.clone(),
    };
    if configured.json {
        print_json(&report)?;
    } else {
        print_text(&for_people(&config, &report));
    }
    Ok(Outcome::Done)
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
            "never asks; signals of the parties are not acted on in this version"
        }
    };
    LineReport { number: line.number.as_str().to_owned(), name: line.name.clone(), class: line.class, does }
}

fn describe_peer(peer: &Peer) -> PeerReport {
    let Peer { name, side, place, ping_s, .. } = peer;
    let by = place.transport.map_or("", |transport| match transport {
        Transport::Udp => " by udp",
        Transport::Tcp => " by tcp",
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
    PeerReport { name: name.clone(), side: *side, found, ping_s: *ping_s }
}

fn for_people(config: &Config, report: &Report) -> String {
    let mut text = String::from("The configuration is valid.\n\n");
    for line in &report.lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {}: {}", line.number, line.name, line.does);
    }
    let _ = writeln!(text, "any other number: logged, never recorded");
    let _ = writeln!(text);
    for PeerReport { name, side, found, ping_s } in &report.peers {
        let side = match side {
            Side::District => "district",
            Side::Public => "public",
        };
        let pings =
            ping_s.map_or_else(|| "not pinged".to_owned(), |seconds| format!("pinged each {seconds} s"));
        let _ = writeln!(text, "peer {name} ({side}): {found}; {pings}");
    }
    let _ = writeln!(text, "{} listeners", config.gateway.listeners.len());
    for remark in &report.remarks {
        let _ = writeln!(text, "note: {remark}");
    }
    text
}

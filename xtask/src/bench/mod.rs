//! `cargo xtask bench`: what the release build costs, in CPU time of the whole process (user and system, from
//! /proc/PID/stat), per signalled call and per relayed packet, with and without recording. `bench signalling`
//! compares a signalled call with Kamailio's: see [`signalling`].
//!
//! The load comes from this process over loopback: one telephone that calls, one that answers, and a packet
//! every 20 ms from each party of each call. The kernel charges a packet's delivery on loopback to its
//! sender, so a relay's figure includes delivering what it sends on. Figures move by a quarter with whatever
//! else the machine does; compare only figures of one run of this command.

mod load;
mod process;
mod signalling;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::steps::{self, Failure};
use crate::{debian, tree};
use load::{Callee, Caller, Packets, Tally};
use process::{Cores, Program};

/// Calls a second while signalling is measured, and for how long.
const CALL_RATE: u32 = 50;
const SIGNALLING_S: u32 = 10;
/// Calls at once while media is measured, for how long, and how long they run before that.
const MEDIA_CALLS: u32 = 100;
const MEDIA_S: u64 = 10;
const WARM_UP: Duration = Duration::from_secs(2);
/// The gateway's two kinds of line; nothing of the second is recorded.
const RECORDED: &str = "+18607427331";
const UNRECORDED: &str = "+18607427399";

const GATEWAY: SocketAddr = address(1);
const CALLEE: SocketAddr = address(2);
const CALLER: SocketAddr = address(3);
const FLOODER: SocketAddr = address(4);
const SETTING: Setting<'_> = Setting { ports: "20000-29999", max_calls: 2_000 };

const fn address(host: u8) -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::new(127, 0, 77, host), 5060))
}

/// Builds, runs and prints; `signalling` compares with Kamailio; `--runs N` measures everything N times (3).
///
/// # Errors
/// Wrong usage or something missing (2); the daemon did not start, or calls failed (1).
pub(crate) fn bench(arguments: &[String]) -> Result<(), Failure> {
    let (compared, arguments) = match arguments.split_first() {
        Some((word, rest)) if word == "signalling" => (true, rest),
        _ => (false, arguments),
    };
    let runs = match arguments {
        [] => 3,
        [flag, count] if flag == "--runs" => count
            .parse()
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| Failure::usage("--runs wants a number"))?,
        _ => return Err(Failure::usage("usage: cargo xtask bench [signalling] [--runs N]")),
    };
    if compared {
        debian::install_to_compare()?;
    } else {
        debian::install_to_build()?;
    }
    steps::run(&mut steps::cargo(&[
        "build",
        "--release",
        "--locked",
        "--package",
        "earmark",
        "--bin",
        "earmark",
    ]))?;
    if compared { signalling::bench(runs) } else { costs(runs) }
}

fn costs(runs: u32) -> Result<(), Failure> {
    let mut figures = Figures::default();
    for run in 1..=runs {
        println!("run {run} of {runs}");
        let folder = fresh_folder()?;
        // A fresh process for each run: what an earlier run left behind is not measured.
        let daemon = Program::earmark(&folder, &configuration(&folder, &SETTING), Cores::All)?;
        figures.idle.push(idle(&daemon)?);
        figures.signalling.push(signalled(&daemon)?);
        figures.relayed.push(relaying(&daemon, UNRECORDED)?);
        figures.recorded.push(relaying(&daemon, RECORDED)?);
    }
    figures.print();
    Ok(())
}

#[derive(Default)]
struct Figures {
    idle: Vec<f64>,
    signalling: Vec<f64>,
    relayed: Vec<f64>,
    recorded: Vec<f64>,
}

impl Figures {
    fn print(&self) {
        println!("\n{:<44} {:>9} {:>9} {:>9}", "CPU, user and system, whole process", "min", "median", "max");
        let rows = [
            ("idle, % of a core", &self.idle),
            ("per signalled call, ms", &self.signalling),
            ("per relayed packet, not recorded, µs", &self.relayed),
            ("per relayed packet, recorded, µs", &self.recorded),
        ];
        for (name, values) in rows {
            let [min, median, max] = spread(values);
            println!("{name:<44} {min:>9.3} {median:>9.3} {max:>9.3}");
        }
        println!(
            "\n{CALL_RATE} calls/s for {SIGNALLING_S} s; {MEDIA_CALLS} calls of G.711 at 20 ms both ways for {MEDIA_S} s; \
             idle is not subtracted"
        );
    }
}

/// Smallest, middle and largest.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let last = sorted.len().saturating_sub(1);
    [at(0), f64::midpoint(at(last / 2), at(sorted.len() / 2)), at(last)]
}

fn idle(daemon: &Program) -> Result<f64, Failure> {
    let before = daemon.cpu()?;
    std::thread::sleep(WARM_UP);
    Ok(100.0 * (daemon.cpu()? - before) / WARM_UP.as_secs_f64())
}

/// CPU milliseconds for a call from INVITE to BYE, its media ports bound and its record written.
fn signalled(daemon: &Program) -> Result<f64, Failure> {
    let callee = Callee::start(CALLEE, Duration::ZERO)?;
    let mut caller = Caller::new(CALLER, GATEWAY)?;
    let before = daemon.cpu()?;
    let time = Duration::from_secs(SIGNALLING_S.into());
    caller.place(UNRECORDED, CALL_RATE, time, Duration::from_millis(500))?;
    caller.settle()?;
    let Tally { placed: calls, completed, .. } = caller.tally();
    // The last records are written a moment after the last BYE.
    std::thread::sleep(Duration::from_secs(1));
    let spent = daemon.cpu()? - before;
    callee.stop();
    if completed != calls {
        return Err(Failure::check(format!("{completed} of {calls} calls were completed")));
    }
    println!("  {completed} calls signalled, {:.1} % of a core", 100.0 * spent / f64::from(SIGNALLING_S));
    Ok(1_000.0 * spent / f64::from(completed))
}

/// CPU microseconds for a packet, from one party through the gateway to the other.
fn relaying(daemon: &Program, line: &str) -> Result<f64, Failure> {
    let callee = Callee::start(CALLEE, Duration::ZERO)?;
    let mut caller = Caller::new(CALLER, GATEWAY)?;
    caller.establish(line, MEDIA_CALLS, CALL_RATE)?;
    let packets = Packets::start(&caller.media(), &callee.media())?;
    std::thread::sleep(WARM_UP);
    let (before, sent_before, received_before) = (daemon.cpu()?, packets.sent(), packets.received());
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(MEDIA_S));
    let spent = daemon.cpu()? - before;
    let lasted = began.elapsed().as_secs_f64();
    let (sent, received) = (packets.sent() - sent_before, packets.received() - received_before);
    packets.stop();
    caller.hang_up()?;
    callee.stop();
    println!(
        "  {MEDIA_CALLS} calls to {}: {received} of {sent} packets relayed, {:.1} % of a core",
        if line == RECORDED { "a recorded line" } else { "a line never recorded" },
        100.0 * spent / lasted
    );
    // In flight at either end of the window: a packet of each party of each call.
    if received + 4 * u64::from(MEDIA_CALLS) < sent {
        println!("  LOST {} packets: the figure is of an overloaded machine", sent - received);
    }
    Ok(1e6 * spent / received.max(1) as f64)
}

fn fresh_folder() -> Result<PathBuf, Failure> {
    let folder = tree::target().join("bench");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .map_err(|error| Failure::check(format!("{}: {error}", folder.display())))?;
    }
    std::fs::create_dir_all(&folder)
        .map_err(|error| Failure::check(format!("{}: {error}", folder.display())))?;
    Ok(folder)
}

/// What the measurements want differently.
struct Setting<'a> {
    ports: &'a str,
    max_calls: u32,
}

fn configuration(folder: &std::path::Path, setting: &Setting<'_>) -> String {
    let data = folder.join("data");
    let (data, host) = (data.display(), GATEWAY.ip());
    let Setting { ports, max_calls } = setting;
    format!(
        r#"[node]
name = "bench"
data_dir = "{data}"
timezone = "America/New_York"

[sip]
listen = ["udp:{GATEWAY}"]
max_calls = {max_calls}

[media]
address = "{host}"
ports = "{ports}"

[numbering]
country = "1"
area_code = "860"
outside_prefix = "9"

[[peers]]
name = "pbx"
side = "district"
uri = "sip:{CALLEE}"
party_signals = "verified"

[[peers]]
name = "carrier"
side = "public"
uri = "sip:{CALLER}"
party_signals = "verified"

[[peers]]
name = "flooder"
side = "public"
uri = "sip:{FLOODER}"

[[lines]]
number = "{RECORDED}"
name = "Dispatch"
class = "dispatch"
retention = "RT-DISP-ROUTINE"

[[lines]]
number = "{UNRECORDED}"
name = "Nurse"
class = "never"
retention = "RT-NONE"

[consent]
tone = "off"

[storage]
database = "sqlite:{data}/earmark.db"
audio = "file:{data}/audio"
key_file = "{data}/keys/master.key"

[ops]
listen = "{host}:9090"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_of_sorted_values() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(&[4.0, 3.0, 1.0, 2.0]), [1.0, 2.5, 4.0]);
        assert_eq!(spread(&[7.0]), [7.0, 7.0, 7.0]);
    }
}

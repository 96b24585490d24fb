//! `cargo xtask bench signalling`: Earmark's signalled call beside Kamailio's, each in its turn on one core with
//! the load on another.
//!
//! | phase | load | measured |
//! |---|---|---|
//! | unloaded | 20 calls/s | post-dial delay and delay of the 200, from one telephone to the other |
//! | loaded | 500 calls/s, long enough for everything a call leaves behind to run out as fast as it comes in | CPU per call, failures, the same delays |
//! | overload (Earmark) | twice what one core would carry at that cost, for 10 s | calls in progress and their packets, what the others were told, memory |
//!
//! The two do not do the same. Kamailio is a proxy: it binds no media ports, decides nothing, keeps no dialogs of
//! its own, and its two accounting lines a call go to syslog (where no daemon listens, nowhere), never synced.
//! Earmark binds eight ports a call, journals some twelve entries, synced within 100 ms, and brings them to its
//! database.
//!
//! Delays are seen by the telephones' own clocks and so include two system calls of theirs and the time until
//! they are awake.

use std::time::{Duration, Instant};

use super::load::{Callee, Caller, Delay, Packets, Tally};
use super::process::{self, Cores, Program};
use super::{CALLEE, CALLER, FLOODER, GATEWAY, RECORDED, Setting, UNRECORDED, fresh_folder, spread};
use crate::steps::Failure;

/// Calls a second under load.
const RATE: u32 = 500;
/// A little more than 64*T1 and T4, for which a call's transactions outlive it (RFC 3261 §17).
const WARM_UP: Duration = Duration::from_secs(40);
const MEASURED: Duration = Duration::from_secs(10);
const UNLOADED_RATE: u32 = 20;
const UNLOADED: Duration = Duration::from_secs(15);
const HOLD: Duration = Duration::from_millis(500);
/// Between the callee's 180 and its 200, so that the one does not delay the other.
const RINGING: Duration = Duration::from_millis(20);
const OVERLOAD: Duration = Duration::from_secs(10);
/// Long enough that more calls are wanted at once than are taken.
const OVERLOAD_HOLD: Duration = Duration::from_secs(2);
/// Calls in progress when the overload comes, with media.
const KEPT: u32 = 50;
/// A call's resting ports included.
const PORTS: &str = "10000-59999";
const LOADED_SETTING: Setting<'_> = Setting { ports: PORTS, max_calls: 2_000 };

const MOST_RATIO: f64 = 1.2;
const MOST_POST_DIAL_MS: [f64; 2] = [1.0, 5.0];
const MOST_ANSWER_MS: f64 = 0.5;

/// What one peer showed in one run.
struct Shown {
    unloaded: Vec<Delay>,
    loaded: Vec<Delay>,
    cpu_ms: f64,
    tally: Tally,
}

/// Measures `runs` times and prints.
///
/// # Errors
/// A program did not start, or something required was not met (1).
pub(super) fn bench(runs: u32) -> Result<(), Failure> {
    let apart = process::leave_a_core()?;
    let (mut earmark, mut kamailio, mut overloads) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=runs {
        println!("run {run} of {runs}");
        let folder = fresh_folder()?;
        let program = Program::earmark(&folder, &super::configuration(&folder, &LOADED_SETTING), Cores::One)?;
        let shown = show("Earmark", &program)?;
        drop(program);
        let folder = fresh_folder()?;
        let relay = include_str!("kamailio.cfg")
            .replace("GATEWAY and CALLEE", "These")
            .replace("GATEWAY", &GATEWAY.to_string())
            .replace("CALLEE", &CALLEE.to_string());
        let program = Program::kamailio(&folder, &relay, Cores::One)?;
        kamailio.push(show("Kamailio", &program)?);
        drop(program);
        overloads.push(overload((2_000.0 / shown.cpu_ms) as u32)?);
        earmark.push(shown);
    }
    let mut verdict = Verdict::default();
    print_calls(&earmark, &kamailio, &mut verdict);
    print_overload(&overloads, &mut verdict);
    if !apart {
        println!(
            "\nThis machine has one core: program and load share it, and the delays are those of the load too."
        );
    }
    verdict.close()
}

fn show(name: &str, program: &Program) -> Result<Shown, Failure> {
    await_answers()?;
    let callee = Callee::start(CALLEE, RINGING)?;
    let mut caller = Caller::new(CALLER, GATEWAY)?;
    caller.place(UNRECORDED, UNLOADED_RATE, UNLOADED, HOLD)?;
    caller.settle()?;
    let unloaded = caller.delays(&callee);
    drop(caller);
    let mut caller = Caller::new(CALLER, GATEWAY)?;
    caller.place(UNRECORDED, RATE, WARM_UP, HOLD)?;
    let (before, from) = (program.cpu()?, caller.tally().completed);
    caller.place(UNRECORDED, RATE, MEASURED, HOLD)?;
    let (spent, completed) = (program.cpu()? - before, caller.tally().completed - from);
    caller.settle()?;
    let (tally, loaded) = (caller.tally(), caller.delays(&callee));
    callee.stop();
    let cpu_ms = 1_000.0 * spent / f64::from(completed);
    println!(
        "  {name}: {} of {} calls completed, {} requests repeated, {:.1} % of a core, {cpu_ms:.3} ms a call, {:.0} MB",
        tally.completed,
        tally.placed,
        tally.repeated,
        100.0 * spent / MEASURED.as_secs_f64(),
        program.memory_mb()?,
    );
    Ok(Shown { unloaded, loaded, cpu_ms, tally })
}

/// Waits until a first call goes through.
fn await_answers() -> Result<(), Failure> {
    let callee = Callee::start(CALLEE, Duration::ZERO)?;
    let mut caller = Caller::new(CALLER, GATEWAY)?;
    let began = Instant::now();
    while caller.tally().completed == 0 {
        if began.elapsed() > Duration::from_secs(15) {
            return Err(Failure::check("no first call goes through"));
        }
        caller.place(UNRECORDED, 1, Duration::from_millis(500), Duration::ZERO)?;
    }
    callee.stop();
    Ok(())
}

/// What became of calls in progress, and of the others, when twice the capacity came.
struct Overload {
    rate: u32,
    flood: Tally,
    kept: u32,
    packets: [u64; 2],
    memory_mb: [f64; 3],
}

fn overload(rate: u32) -> Result<Overload, Failure> {
    let folder = fresh_folder()?;
    let program = Program::earmark(&folder, &super::configuration(&folder, &LOADED_SETTING), Cores::One)?;
    let callee = Callee::start(CALLEE, RINGING)?;
    let mut kept = Caller::new(CALLER, GATEWAY)?;
    kept.establish(RECORDED, KEPT, UNLOADED_RATE)?;
    let packets = Packets::start(&kept.media(), &callee.media())?;
    let before = program.memory_mb()?;
    let flood = std::thread::spawn(move || flood(rate));
    let mut most = before;
    let mut looked = Instant::now();
    while !flood.is_finished() {
        kept.turn()?;
        if looked.elapsed() > Duration::from_millis(200) {
            looked = Instant::now();
            most = most.max(program.memory_mb()?);
        }
    }
    let flood = flood.join().map_err(|_| Failure::check("the flood panicked"))??;
    let (sent, received) = packets.stop();
    let in_progress = kept.in_progress() as u32;
    kept.hang_up()?;
    callee.stop();
    let kept = in_progress - kept.tally().cut;
    println!(
        "  overload: {rate} calls/s: {} of {} completed, {} shed, {} refused, {} unanswered, {} cut, {} repeated; \
         {kept} of {KEPT} calls kept",
        flood.completed, flood.placed, flood.shed, flood.refused, flood.unanswered, flood.cut, flood.repeated
    );
    Ok(Overload {
        rate,
        flood,
        kept,
        packets: [sent, received],
        memory_mb: [before, most, program.memory_mb()?],
    })
}

fn flood(rate: u32) -> Result<Tally, Failure> {
    let mut caller = Caller::new(FLOODER, GATEWAY)?;
    caller.place(UNRECORDED, rate, OVERLOAD, OVERLOAD_HOLD)?;
    caller.settle()?;
    Ok(caller.tally())
}

/// What was required and not met.
#[derive(Default)]
struct Verdict {
    unmet: Vec<String>,
}

impl Verdict {
    fn require(&mut self, what: &str, value: f64, most: f64) {
        if value > most {
            self.unmet.push(format!("{what}: {value:.3}, at most {most}"));
        }
    }

    fn close(self) -> Result<(), Failure> {
        if self.unmet.is_empty() {
            Ok(())
        } else {
            Err(Failure::check(format!("not met: {}", self.unmet.join("; "))))
        }
    }
}

fn print_calls(earmark: &[Shown], kamailio: &[Shown], verdict: &mut Verdict) {
    println!("\n{:<52} {:>9} {:>9} {:>9}", "of all runs", "min", "median", "max");
    let cpu = |shown: &[Shown]| shown.iter().map(|shown| shown.cpu_ms).collect::<Vec<_>>();
    row(&format!("Earmark, CPU ms per call at {RATE} calls/s"), &cpu(earmark));
    row("Kamailio, the same", &cpu(kamailio));
    let ratios: Vec<f64> =
        earmark.iter().zip(kamailio).map(|(own, other)| own.cpu_ms / other.cpu_ms).collect();
    let ratio = row("Earmark / Kamailio", &ratios);
    verdict.require("CPU per call / Kamailio's", ratio, MOST_RATIO);
    let failed: u32 = earmark.iter().map(|shown| shown.tally.failed()).sum();
    verdict.require("failed calls", f64::from(failed), 0.0);
    for (name, shown, required) in [("Earmark", earmark, true), ("Kamailio", kamailio, false)] {
        let all = |of: fn(&Shown) -> &Vec<Delay>, take: fn(&Delay) -> Duration, part: f64| {
            shown.iter().map(|shown| percentile(of(shown).iter().map(take), part)).collect::<Vec<f64>>()
        };
        let mut post_dial = Vec::new();
        for part in [0.5, 0.99] {
            let title = format!("{name}, post-dial delay, unloaded, p{:.0}, ms", part * 100.0);
            post_dial.push(row(&title, &all(|shown| &shown.unloaded, |delay| delay.post_dial, part)));
        }
        let title = format!("{name}, delay of the 200, unloaded, p50, ms");
        let answer = row(&title, &all(|shown| &shown.unloaded, |delay| delay.answer, 0.5));
        for part in [0.5, 0.99] {
            let title = format!("{name}, post-dial delay, {RATE} calls/s, p{:.0}, ms", part * 100.0);
            row(&title, &all(|shown| &shown.loaded, |delay| delay.post_dial, part));
        }
        if required {
            for (value, most) in post_dial.iter().zip(MOST_POST_DIAL_MS) {
                verdict.require("post-dial delay, ms", *value, most);
            }
            verdict.require("delay of the 200, ms", answer, MOST_ANSWER_MS);
        }
    }
}

fn print_overload(overloads: &[Overload], verdict: &mut Verdict) {
    let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    println!("\noverload for {} s, {KEPT} calls with media in progress", OVERLOAD.as_secs());
    let of = |take: &dyn Fn(&Overload) -> f64| overloads.iter().map(take).collect::<Vec<_>>();
    row("calls/s", &of(&|run| f64::from(run.rate)));
    row("answered and completed, %", &of(&|run| share(run.flood.completed.into(), run.flood.placed.into())));
    row("told 503 with Retry-After, %", &of(&|run| share(run.flood.shed.into(), run.flood.placed.into())));
    let others = row(
        "told anything else, nothing, or cut, %",
        &of(&|run| share((run.flood.failed() - run.flood.shed).into(), run.flood.placed.into())),
    );
    let lost = row(
        "packets of the calls in progress lost, %",
        &of(&|run| 100.0 - share(run.packets[1], run.packets[0])),
    );
    let kept = row("calls in progress kept", &of(&|run| f64::from(run.kept)));
    row("memory before, MB", &of(&|run| run.memory_mb[0]));
    row("memory at most, MB", &of(&|run| run.memory_mb[1]));
    verdict.require("calls lost in overload", f64::from(KEPT) - kept, 0.0);
    verdict.require("packets lost in overload, %", lost, 0.1);
    verdict.require("told neither yes nor 503 in overload, %", others, 0.0);
}

/// Prints a row; its median.
fn row(name: &str, values: &[f64]) -> f64 {
    let [min, median, max] = spread(values);
    println!("{name:<52} {min:>9.3} {median:>9.3} {max:>9.3}");
    median
}

/// In ms.
fn percentile(values: impl Iterator<Item = Duration>, part: f64) -> f64 {
    let mut sorted: Vec<Duration> = values.collect();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |value| value.as_secs_f64() * 1_000.0)
}

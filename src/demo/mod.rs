//! `earmark demo`: a gateway with a PBX, a carrier and four calls, on one machine, for anybody to look at.
//!
//! Everything is what a district would have: the configuration is a file, the gateway is `earmark serve`,
//! the parties are [telephones](phone) that speak SIP and RTP, and what became of the calls is asked with the
//! program's own commands. Only the addresses (loopback) and the people are invented. `demo.json` in the
//! folder has the calls' ids and what was measured.

mod check;
mod gateway;
pub mod mu_law;
mod outcome;
pub mod phone;
mod report;
mod scenario;
mod setup;
pub mod speech;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use gateway::Gateway;
use outcome::Told;
use scenario::Stage;
use setup::Setup;
use speech::Clip;

pub use setup::DirError;

/// The measured figures in the folder.
const FIGURES: &str = "demo.json";

/// How to run it.
#[derive(Clone, Debug)]
pub struct Options {
    /// End after the calls.
    pub once: bool,
    /// Where to set up. A folder of a former demonstration is used again and keeps its calls.
    pub dir: PathBuf,
}

/// Runs the demonstration; whether all came out as it must.
///
/// # Errors
/// The folder is not ours ([`DirError`]), the gateway does not start, a call cannot be placed, or it was
/// interrupted before the calls were over.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let interrupted = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(interrupted);
    let setup = Setup::prepare(&options.dir).await?;
    progress(&format!("starting the gateway; its log is {}", setup.dir.join("gateway.log").display()));
    let mut gateway = Gateway::start(&setup.dir, &setup.config).await?;
    // An interrupt from the terminal reaches the gateway too: whose end is seen first must not matter.
    let as_expected = tokio::select! {
        biased;
        () = &mut interrupted => bail!("interrupted before the calls were over"),
        played = play(&setup, &gateway) => played?,
    };
    if !options.once {
        say(&serving(&setup, &gateway))?;
        tokio::select! {
            biased;
            () = &mut interrupted => progress("stopping"),
            ended = gateway.ended() => bail!("the gateway ended by itself ({})", ended?),
        }
    }
    gateway.stop().await?;
    Ok(as_expected)
}

async fn play(setup: &Setup, gateway: &Gateway) -> anyhow::Result<bool> {
    write_played(&setup.dir)?;
    progress("placing four calls at once; this takes about 35 s");
    let placed = Stage::new(setup).play().await?;
    let mut told = Vec::new();
    for call in placed {
        told.push(Told::of(call, gateway, &setup.dir).await?);
    }
    write_figures(setup, gateway, &told)?;
    let style = report::Style { colour: io::stdout().is_terminal() };
    say(&report::calls(&told, style))?;
    Ok(told.iter().all(Told::as_expected))
}

fn serving(setup: &Setup, gateway: &Gateway) -> String {
    let config = setup.config.display();
    format!(
        "\nSIP      {} (PBX {}, carrier {})\n\
         Metrics  {}/metrics\n\
         Look     earmark calls list --config {config}\n\
         Listen   earmark recordings export ID --out FILE --config {config}\n\
         Serving until Ctrl-C.\n",
        setup.gateway,
        setup.pbx.local(),
        setup.carrier.local(),
        gateway.ops,
    )
}

/// The name of the file that holds what a clip's speaker said.
fn played_file(clip: Clip) -> String {
    format!("played-{}.wav", clip.name)
}

/// What is said on the dispatch line, as WAV, for whoever wants to compare.
fn write_played(dir: &Path) -> anyhow::Result<()> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    for clip in [speech::DISPATCH_CALLER, speech::DISPATCH_OFFICER, speech::OFFICE, speech::PARENT] {
        let path = dir.join(played_file(clip));
        let mut wav = hound::WavWriter::create(&path, spec)
            .with_context(|| format!("cannot write {}", path.display()))?;
        for &code in clip.mu_law {
            wav.write_sample(mu_law::to_linear(code))?;
        }
        wav.finalize()?;
    }
    Ok(())
}

fn write_figures(setup: &Setup, gateway: &Gateway, told: &[Told]) -> anyhow::Result<()> {
    let figures = json!({
        "config": setup.config,
        "sip": setup.gateway.to_string(),
        "ops": gateway.ops,
        "exported": outcome::EXPORTED,
        "calls": told.iter().map(Told::to_json).collect::<Vec<_>>(),
    });
    let path = setup.dir.join(FIGURES);
    let text = serde_json::to_string_pretty(&figures)?;
    fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// The product of the command, on stdout.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to stdout")
}

/// What is going on, on stderr.
fn progress(text: &str) {
    // Nobody may be reading it.
    let _ = writeln!(io::stderr().lock(), "demo: {text}");
}

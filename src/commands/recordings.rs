//! `earmark recordings`: what is kept, whether it is whole, and copies of it for people to hear.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use consent::{Gap, Interval, Leg, RecordingId};
use recorder::sealed::SealedReader;
use serde::Serialize;
use storage::{MasterKey, Objects, RecordingDetails, RecordingFilter, Store};

use super::calls::word;
use super::table::table;
use super::{Configured, Failure, Outcome, open, print_json, print_text};
use crate::config::{Config, KeySource};
use crate::wall_now;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The latest recordings, newest first.
    List(Configured),
    /// One recording.
    Show(One),
    /// Whether a recording, or every one, is whole and unchanged.
    Verify(Verify),
    /// Decrypts and verifies a recording, and writes a file that ordinary players open.
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The recording's id.
    id: RecordingId,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Only this recording.
    id: Option<RecordingId>,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The recording's id.
    id: RecordingId,
    /// The file to write; it must not exist yet.
    #[arg(long)]
    out: PathBuf,
    /// How to write it.
    #[arg(long, value_enum, default_value_t = Format::Opus)]
    format: Format,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Ogg Opus, as it is kept.
    Opus,
    /// PCM, 16 bit, 8 kHz.
    Wav,
    /// Not in this version.
    Flac,
}

#[derive(Serialize)]
struct Verdict {
    id: RecordingId,
    ok: bool,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Exported {
    id: RecordingId,
    out: PathBuf,
    format: &'static str,
    sha256: String,
}

/// What telephones sample at, and what recordings are decoded to, in Hz.
const SAMPLE_RATE: u32 = 8_000;

pub(super) async fn run(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::List(configured) => list(&configured).await,
        Command::Show(one) => show(&one).await,
        Command::Verify(verify) => run_verify(&verify).await,
        Command::Export(export) => run_export(&export).await,
    }
}

async fn list(configured: &Configured) -> Result<Outcome, Failure> {
    let (_, store) = open(configured).await?;
    let recordings = store.recordings(&RecordingFilter::default()).await?;
    if configured.json {
        print_json(&recordings)?;
        return Ok(Outcome::Done);
    }
    let rows: Vec<_> = recordings
        .iter()
        .map(|recording| {
            [
                recording.id.to_string(),
                recording.started_at.clone(),
                recording.duration_s.map(|seconds| format!("{seconds:.1} s")).unwrap_or_default(),
                recording.line.clone().unwrap_or_default(),
                word(&recording.basis),
                word(&recording.retention),
                word(&recording.state),
            ]
        })
        .collect();
    print_text(&table(["ID", "STARTED", "LENGTH", "LINE", "BASIS", "RETENTION", "STATE"], &rows));
    Ok(Outcome::Done)
}

async fn show(one: &One) -> Result<Outcome, Failure> {
    let (_, store) = open(&one.configured).await?;
    let Some(details) = store.recording(one.id).await? else {
        return Ok(Outcome::No(format!("there is no recording {}", one.id)));
    };
    if one.configured.json {
        print_json(&details.recording)?;
    } else {
        print_text(&for_people(&details));
    }
    Ok(Outcome::Done)
}

fn for_people(details: &RecordingDetails) -> String {
    let recording = &details.recording;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let value = if value.is_empty() { "-" } else { value };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:12} {value}");
    };
    line("recording", &recording.id.to_string());
    line("call", &recording.call_id.to_string());
    line("line", recording.line.as_deref().unwrap_or_default());
    line("started", &recording.started_at);
    line("length", &recording.duration_s.map(|seconds| format!("{seconds:.3} s")).unwrap_or_default());
    line("basis", &word(&recording.basis));
    line("channels", &recording.channels.join(", "));
    line("retention", &word(&recording.retention));
    line("state", &word(&recording.state));
    line("sha256", recording.sha256.as_deref().unwrap_or_default());
    for Interval { from_s, to_s, basis, clause, phase, .. } in &recording.intervals {
        let (basis, phase) = (word(basis), word(phase));
        line("interval", &format!("{from_s:.3} s to {to_s:.3} s  {basis} ({clause}), {phase}"));
    }
    for Gap { from_s, to_s, cause, leg } in &recording.gaps {
        let of = match leg {
            None => "both parties",
            Some(Leg::A) => "caller",
            Some(Leg::B) => "called party",
        };
        line("gap", &format!("{from_s:.3} s to {to_s:.3} s  {}, {of}", word(cause)));
    }
    text
}

async fn run_verify(verify: &Verify) -> Result<Outcome, Failure> {
    let (config, store) = open(&verify.configured).await?;
    let ids: Vec<_> = match verify.id {
        Some(id) => vec![id],
        None => store
            .recordings(&RecordingFilter::default())
            .await?
            .iter()
            .map(|recording| recording.id)
            .collect(),
    };
    let master = key(&config)?;
    let mut verdicts = Vec::with_capacity(ids.len());
    for id in ids {
        let problem = match store.recording(id).await? {
            None => Some("there is no such recording".to_owned()),
            Some(details) => audio(&config, &master, &details).err().map(|error| format!("{error:#}")),
        };
        verdicts.push(Verdict { id, ok: problem.is_none(), problem });
    }
    let bad = verdicts.iter().filter(|verdict| !verdict.ok).count();
    let detail = format!("{} verified, {bad} bad", verdicts.len());
    store
        .audit_append(
            "console",
            "recording.verify",
            verify.id.map(|id| id.to_string()),
            Some(detail),
            wall_now(),
        )
        .await?;
    if verify.configured.json {
        print_json(&verdicts)?;
    } else {
        for verdict in &verdicts {
            print_text(&match &verdict.problem {
                None => format!("{}  whole and unchanged\n", verdict.id),
                Some(problem) => format!("{}  BAD: {problem}\n", verdict.id),
            });
        }
        print_text(&format!("{} recordings, {bad} bad\n", verdicts.len()));
    }
    Ok(if bad == 0 { Outcome::Done } else { Outcome::No(format!("{bad} recordings do not verify")) })
}

async fn run_export(export: &Export) -> Result<Outcome, Failure> {
    if export.format == Format::Flac {
        return Err(Failure::Usage(
            "--format flac is not available in this version; use wav or opus".to_owned(),
        ));
    }
    let (config, store) = open(&export.configured).await?;
    let Some(details) = store.recording(export.id).await? else {
        return Ok(Outcome::No(format!("there is no recording {}", export.id)));
    };
    let ogg = audio(&config, &key(&config)?, &details)?;
    // Before the file is written: what is not in the log must not be outside.
    note_export(&store, export).await?;
    let out = new_file(&export.out)?;
    match export.format {
        Format::Wav => write_wav(out, &ogg)?,
        Format::Opus | Format::Flac => write_all(out, &ogg, &export.out)?,
    }
    let exported = Exported {
        id: export.id,
        out: export.out.clone(),
        format: if export.format == Format::Wav { "wav" } else { "opus" },
        sha256: storage::sha256_of_file(&export.out)
            .map_err(|source| io("reading back", &export.out, source))?,
    };
    if export.configured.json {
        print_json(&exported)?;
    } else {
        print_text(&format!("{} written, SHA-256 {}\n", exported.out.display(), exported.sha256));
    }
    Ok(Outcome::Done)
}

async fn note_export(store: &Store, export: &Export) -> Result<(), Failure> {
    let detail = format!("format {}", if export.format == Format::Wav { "wav" } else { "opus" });
    store
        .audit_append("console", "recording.export", Some(export.id.to_string()), Some(detail), wall_now())
        .await?;
    Ok(())
}

fn key(config: &Config) -> Result<MasterKey, Failure> {
    let key = match &config.storage.key {
        KeySource::File(path) => MasterKey::load(path),
        KeySource::Environment(name) => MasterKey::from_env(name),
    };
    key.map_err(|error| Failure::key(config, error))
}

/// The plaintext of a recording, its object's hash compared and every chunk verified on the way.
fn audio(config: &Config, master: &MasterKey, details: &RecordingDetails) -> anyhow::Result<Vec<u8>> {
    let objects = Objects::open(&config.storage.audio)?;
    let (Some(object), Some(sha256)) = (&details.object, &details.recording.sha256) else {
        anyhow::bail!("it is not sealed yet");
    };
    objects.verify(object, sha256)?;
    let secret = master.unwrap(details.recording.id, &details.wrapped_key)?;
    let reader = SealedReader::open(BufReader::new(objects.read(object)?), &secret)?;
    Ok(reader.read_to_end()?.ogg)
}

fn new_file(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|source| io("cannot create", path, source))
}

fn write_all(mut file: File, bytes: &[u8], path: &Path) -> Result<(), Failure> {
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|source| io("cannot write", path, source))
}

fn write_wav(file: File, ogg: &[u8]) -> Result<(), Failure> {
    let (_, channels) = recorder::ogg_opus::decode_pcm(ogg).map_err(anyhow::Error::from)?;
    let spec = hound::WavSpec {
        channels: u16::try_from(channels.len()).map_err(anyhow::Error::from)?,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer =
        hound::WavWriter::new(std::io::BufWriter::new(file), spec).map_err(anyhow::Error::from)?;
    let length = channels.iter().map(Vec::len).min().unwrap_or(0);
    for index in 0..length {
        for channel in &channels {
            writer.write_sample(channel[index]).map_err(anyhow::Error::from)?;
        }
    }
    writer.finalize().map_err(anyhow::Error::from)?;
    Ok(())
}

fn io(what: &str, path: &Path, source: std::io::Error) -> Failure {
    Failure::Io { what: format!("{what} {}", path.display()), source }
}

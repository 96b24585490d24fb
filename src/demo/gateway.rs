//! The gateway as an administrator runs it: `earmark serve` as a child process, and the program's other
//! commands to ask what became of the calls.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use tokio::sync::oneshot;

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How long an orderly end may take; then the process is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether the process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How much of the log is shown when the gateway did not start.
const LOG_LINES_SHOWN: usize = 10;

/// The running gateway. Killed when dropped; nothing that matters is lost by that.
pub(super) struct Gateway {
    child: Child,
    program: PathBuf,
    config: PathBuf,
    /// Address of metrics and health.
    pub(super) ops: String,
}

impl Gateway {
    /// Starts the service and waits for its `ready` line; its log goes to `gateway.log` in the folder.
    pub(super) async fn start(dir: &Path, config: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("where this program is")?;
        let log = dir.join("gateway.log");
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(&program)
            .args(["serve", "--config"])
            .arg(config)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .context("cannot start the gateway")?;
        let stdout = child.stdout.take();
        let mut gateway = Self { child, program, config: config.to_owned(), ops: String::new() };
        let line = ready_line(stdout.context("the gateway has no output")?);
        let Ok(Ok(line)) = tokio::time::timeout(START_PATIENCE, line).await else {
            bail!("the gateway did not start; the end of {}:\n{}", log.display(), end_of(&log));
        };
        gateway.ops =
            field(&line, "ops").context("the gateway's ready line names no ops address")?.to_owned();
        Ok(gateway)
    }

    /// Runs a command of the program with `--json` and returns what it printed.
    pub(super) async fn ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--json").arg("--config").arg(&self.config).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let shown = arguments.join(" ");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`earmark {shown}` ended with {}: {}", output.status, said.trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("`earmark {shown}` printed no JSON"))
    }

    /// Resolves when the process has ended by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// SIGTERM, and SIGKILL if that does not end it in time.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().is_ok_and(|status| status.success());
        if asked && tokio::time::timeout(STOP_PATIENCE, self.ended()).await.is_ok() {
            return Ok(());
        }
        self.child.kill().context("cannot end the gateway")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and that is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line that begins with `ready`. The rest of the output is read and dropped, so that the gateway
/// never waits for a reader.
fn ready_line(stdout: ChildStdout) -> oneshot::Receiver<String> {
    let (found, line) = oneshot::channel();
    let mut found = Some(found);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(found) = found.take_if(|_| line.starts_with("ready ")) {
                // Who gave up waiting does not need it.
                let _ = found.send(line);
            }
        }
    });
    line
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_else(|error| anyhow!(error).to_string());
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn the_ready_lines_fields_are_found() {
        let line = "ready sip=udp:127.0.0.1:5060,tcp:127.0.0.1:5060 ops=http://127.0.0.1:9090";
        assert_eq!(field(line, "ops"), Some("http://127.0.0.1:9090"));
        assert_eq!(field(line, "portal"), None);
    }
}

//! The built daemon in a folder and on addresses of its own, so that tests run side by side.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::phone::Phone;

/// The lines of every test's configuration.
pub(crate) const DISPATCH: &str = "+18607427331";
/// A line that asks on every call.
pub(crate) const CONSENT: &str = "+18607427310";
/// A line that is never recorded.
pub(crate) const NEVER: &str = "+18607427399";
/// Somebody outside.
pub(crate) const CITIZEN: &str = "+18605550123";

/// How long records may lag behind calls.
const RECORDS_LAG: Duration = Duration::from_secs(15);

/// 64*T1 after the last call (RFC 3261 §17.1.1.2), a call's own lingering, and the second between two tellings of
/// figures.
const ALL_OVER: Duration = Duration::from_secs(32 + 5 + 1 + 10);

/// Figures that are at 0 once everything of all calls has run out.
const LEFT: [&str; 6] = [
    "earmark_calls_active",
    "earmark_sip_transactions",
    "earmark_sip_dialogs",
    "earmark_sip_timers",
    "earmark_sip_calls_lingering",
    "earmark_media_calls",
];

static SITES: AtomicU8 = AtomicU8::new(1);

/// A folder with a configuration, and four loopback addresses: the gateway, the PBX, the carrier, a stranger.
pub(crate) struct Site {
    folder: TempDir,
    network: [u8; 2],
}

/// A running daemon; killed when dropped.
pub(crate) struct Gateway<'a> {
    site: &'a Site,
    child: Child,
    /// The line that it printed when it was ready.
    pub(crate) ready: String,
}

impl Site {
    /// A site with the usual configuration.
    pub(crate) fn new() -> Self {
        let network = [16 + (std::process::id() % 200) as u8, SITES.fetch_add(1, Ordering::Relaxed)];
        let site = Self { folder: TempDir::new().expect("a temporary folder"), network };
        site.configure(&site.usual());
        site
    }

    /// A site whose configuration is the usual one, changed.
    pub(crate) fn with(change: impl FnOnce(&Self, String) -> String) -> Self {
        let site = Self::new();
        site.configure(&change(&site, site.usual()));
        site
    }

    /// An address of this site.
    pub(crate) fn address(&self, host: u8) -> SocketAddr {
        let [a, b] = self.network;
        (Ipv4Addr::new(127, a, b, host), 5060).into()
    }

    pub(crate) fn gateway(&self) -> SocketAddr {
        self.address(1)
    }

    pub(crate) fn pbx(&self) -> SocketAddr {
        self.address(2)
    }

    pub(crate) fn carrier(&self) -> SocketAddr {
        self.address(3)
    }

    /// Somebody behind the carrier, whom the gateway never sees.
    pub(crate) fn street(&self) -> SocketAddr {
        self.address(4)
    }

    pub(crate) fn stranger(&self) -> SocketAddr {
        self.address(9)
    }

    /// A telephone at the district's end.
    pub(crate) fn pbx_phone(&self) -> Phone {
        Phone::new(self.pbx(), self.gateway())
    }

    /// A telephone at the public end.
    pub(crate) fn carrier_phone(&self) -> Phone {
        Phone::new(self.carrier(), self.gateway())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes what a program of this name reads from a file in the folder; the file's path.
    pub(crate) fn write_pem(&self, name: &str, kind: &str, text: &str) -> String {
        let path = self.folder().join(format!("{name}-{kind}.pem"));
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder().join("earmark.toml")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data().join("earmark.db")
    }

    /// Everything that the daemon wrote to its standard error, of all its lives.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.config_file(), text).expect("a configuration");
    }

    /// The contract's configuration with this site's addresses; no tone, so that recordings hold only what
    /// the test speaks.
    pub(crate) fn usual(&self) -> String {
        let data = self.data();
        let data = data.display();
        let (gateway, pbx, carrier) = (self.gateway(), self.pbx(), self.carrier());
        let host = gateway.ip();
        format!(
            r#"[node]
name = "gw1"
data_dir = "{data}"
timezone = "America/New_York"
drain_s = 30

[sip]
listen = ["udp:{gateway}", "tcp:{gateway}"]
max_calls = 2000

[media]
address = "{host}"
ports = "20000-29999"

[numbering]
country = "1"
area_code = "860"
outside_prefix = "9"
emergency = ["911", "9911", "933"]

[[peers]]
name = "pbx"
side = "district"
uri = "sip:{pbx};transport=udp"
allow = ["{}/32"]
party_signals = "verified"

[[peers]]
name = "carrier"
side = "public"
uri = "sip:{carrier}"
party_signals = "verified"

[[lines]]
number = "{DISPATCH}"
name = "Police dispatch 1"
class = "dispatch"
retention = "RT-DISP-ROUTINE"

[[lines]]
number = "{CONSENT}"
name = "Superintendent's office"
class = "consent"
ask = "every-call"
retention = "RT-CONSENT-REC"

[[lines]]
number = "{NEVER}"
name = "Nurse"
class = "never"
retention = "RT-NONE"

[consent]
languages = ["en"]
accept = "1"
decline = "2"
withdraw = "*80"
preamble = "memory"
preamble_memory_mb = 4
lookback_ms = 1000
answer_timeout_s = 5
attempts = 1
tone = "off"

[storage]
database = "sqlite:{data}/earmark.db"
audio = "file:{data}/audio"
key_file = "{data}/keys/master.key"

[portal]
listen = "{host}:8080"
public_url = "http://{host}:8080"

[ops]
listen = "{host}:9090"
"#,
            pbx.ip()
        )
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) fn start(&self) -> Gateway<'_> {
        self.start_logging("info")
    }

    /// The same, with the log's filter.
    pub(crate) fn start_logging(&self, filter: &str) -> Gateway<'_> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder().join("log"));
        let mut child = self
            .earmark(["serve"])
            .env("EARMARK_LOG", filter)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log file"))
            .spawn()
            .expect("earmark starts");
        let stdout = child.stdout.take().expect("a pipe");
        let (first_line, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            if let Some(Ok(line)) = lines.next() {
                // The test may have given up waiting.
                let _ = first_line.send(line);
            }
            // Whatever else it prints must not block it.
            lines.for_each(drop);
        });
        let mut gateway = Gateway { site: self, child, ready: String::new() };
        match ready.recv_timeout(Duration::from_secs(30)) {
            Ok(line) => gateway.ready = line,
            Err(_) => panic!("earmark is not ready: {:?}\n{}", gateway.child.try_wait(), self.log()),
        }
        assert!(gateway.ready.starts_with("ready sip=udp:"), "{}", gateway.ready);
        // Calls do not wait for the database, and neither does the ready line.
        eventually("the database", Duration::from_secs(5), || {
            self.run(["calls", "list", "--json"]).status.success().then_some(())
        });
        gateway
    }

    /// The program with this site's configuration.
    pub(crate) fn earmark<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_earmark"));
        command.args(arguments).env("EARMARK_CONFIG", self.config_file()).current_dir(self.folder());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.earmark(arguments).output().expect("earmark runs")
    }

    /// The one JSON document that a command prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments.iter().chain(&["--json"]));
        let diagnostics = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{diagnostics}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&output.stdout))
        })
    }

    /// All call records.
    pub(crate) fn calls(&self) -> Vec<Value> {
        rows(self.json(&["calls", "list"]))
    }

    /// All recordings.
    pub(crate) fn recordings(&self) -> Vec<Value> {
        rows(self.json(&["recordings", "list"]))
    }

    /// Waits until there are exactly `count` call records and all are closed.
    pub(crate) fn closed_calls(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} closed call records"), RECORDS_LAG, || {
            let calls = self.calls();
            assert!(calls.len() <= count, "{} call records instead of {count}", calls.len());
            let closed = calls.iter().all(|call| !call["ended_at"].is_null());
            (calls.len() == count && closed).then_some(calls)
        })
    }

    /// Waits until the only call is closed.
    pub(crate) fn closed_call(&self) -> Value {
        self.closed_calls(1).swap_remove(0)
    }

    /// Waits until a call's recording is sealed.
    pub(crate) fn sealed_recording(&self, call: &Value) -> Value {
        let id = text(&call["id"]).to_owned();
        eventually("a sealed recording", RECORDS_LAG, || {
            self.recordings()
                .into_iter()
                .find(|recording| recording["call_id"] == id.as_str() && recording["state"] == "sealed")
        })
    }

    /// Exports a recording and returns its channels.
    pub(crate) fn export(&self, recording: &Value) -> Vec<Vec<i16>> {
        let file = self.folder().join(format!("{}.wav", text(&recording["id"])));
        let out = file.to_string_lossy();
        let output =
            self.run(["recordings", "export", text(&recording["id"]), "--out", &out, "--format", "wav"]);
        assert!(output.status.success(), "export: {}", String::from_utf8_lossy(&output.stderr));
        crate::sound::read_wav(&file)
    }

    /// Every file below the data directory.
    pub(crate) fn data_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.data()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }
}

impl Gateway<'_> {
    /// `kill -9`; when it was.
    pub(crate) fn kill(mut self) -> jiff::Timestamp {
        self.child.kill().expect("a live process");
        let killed = jiff::Timestamp::now();
        self.child.wait().expect("a child");
        killed
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.signal("-TERM");
        eventually("an end after SIGTERM", Duration::from_secs(45), || self.child.try_wait().ok().flatten())
            .code()
    }

    /// Waits until nothing of any call is left, where none is under way.
    pub(crate) fn runs_out(&self) {
        eventually("an end of all transactions", ALL_OVER, || {
            (self.figure("earmark_sip_transactions") == 0).then_some(())
        });
        assert_eq!(LEFT.map(|name| (name, self.figure(name))), LEFT.map(|name| (name, 0)));
    }

    /// The memory that the daemon has in use (VmRSS of proc(5)).
    pub(crate) fn resident_kb(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).expect("a live process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// How many files and sockets the daemon has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a live process").count()
    }

    /// Asserts that the daemon still runs.
    pub(crate) fn lives(&mut self) {
        let ended = self.child.try_wait().expect("a child");
        assert!(ended.is_none(), "the daemon ended: {ended:?}\n{}", self.site.log());
    }

    /// What it has in memory (RSS).
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a live process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident size");
        let kib: u64 = line.trim_end_matches("kB").trim().parse().expect("a size");
        kib << 10
    }

    /// A figure of `/metrics`, named with its labels if it has any.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Waits until a figure that only grows is exactly `expected`.
    pub(crate) fn counted(&self, name: &str, expected: u64) {
        eventually(&format!("{name} to be {expected}"), Duration::from_secs(5), || {
            let figure = self.figure(name);
            assert!(figure <= expected, "{name} is {figure} instead of {expected}");
            (figure == expected).then_some(())
        });
    }

    /// GET from the operations port: status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let address = SocketAddr::new(self.site.gateway().ip(), 9_090);
        let mut stream = TcpStream::connect(address).expect("the operations port");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- ready line: {}\n--- log:\n{}", self.ready, self.site.log());
        }
    }
}

/// Waits on a condition, never on the clock.
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The elements of a JSON array.
pub(crate) fn rows(document: Value) -> Vec<Value> {
    match document {
        Value::Array(rows) => rows,
        other => panic!("not a list: {other}"),
    }
}

/// The string in a JSON field.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

/// The number in a JSON field.
pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

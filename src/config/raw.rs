//! The configuration file as written: the tables of `tests/contract.toml` and their optional keys, not yet judged.
//!
//! Every key that a table may have is here, so that an unknown one is refused by name.

use serde::Deserialize;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) node: Node,
    pub(super) sip: Sip,
    pub(super) media: Media,
    pub(super) numbering: Numbering,
    #[serde(default)]
    pub(super) peers: Vec<Peer>,
    #[serde(default)]
    pub(super) lines: Vec<Line>,
    #[serde(default)]
    pub(super) numbers: Vec<Number>,
    #[serde(default)]
    pub(super) consent: Consent,
    #[serde(default)]
    pub(super) storage: Storage,
    pub(super) portal: Option<Portal>,
    #[serde(default)]
    pub(super) ops: Ops,
    pub(super) mail: Option<toml::Value>,
    pub(super) webhooks: Option<toml::Value>,
    pub(super) notices: Option<toml::Value>,
    pub(super) calendar: Option<toml::Value>,
    pub(super) timestamp: Option<toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    #[serde(default = "node_name")]
    pub(super) name: String,
    #[serde(default = "data_dir")]
    pub(super) data_dir: String,
    #[serde(default = "timezone")]
    pub(super) timezone: String,
    #[serde(default = "drain_s")]
    pub(super) drain_s: u64,
}

fn node_name() -> String {
    "gw1".to_owned()
}

fn data_dir() -> String {
    "data".to_owned()
}

fn timezone() -> String {
    "America/New_York".to_owned()
}

const fn drain_s() -> u64 {
    30
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sip {
    pub(super) listen: Vec<String>,
    #[serde(default = "max_calls")]
    pub(super) max_calls: usize,
    pub(super) requests_per_s: Option<u32>,
    #[serde(default = "session_expires_s")]
    pub(super) session_expires_s: u32,
    #[serde(default = "min_se_s")]
    pub(super) min_se_s: u32,
    #[serde(default)]
    pub(super) dns: Vec<String>,
    #[serde(default)]
    pub(super) routes: Routes,
    pub(super) tls: Option<Tls>,
}

/// Names of peers, the first to be tried first.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Routes {
    pub(super) district: Vec<String>,
    pub(super) public: Vec<String>,
    pub(super) emergency: Vec<String>,
}

const fn max_calls() -> usize {
    2000
}

const fn session_expires_s() -> u32 {
    1800
}

const fn min_se_s() -> u32 {
    90
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: String,
    pub(super) private_key: String,
    pub(super) client_ca: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Media {
    pub(super) address: String,
    pub(super) ports: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Numbering {
    pub(super) country: String,
    pub(super) area_code: String,
    #[serde(default)]
    pub(super) outside_prefix: String,
    #[serde(default = "emergency")]
    pub(super) emergency: Vec<String>,
}

fn emergency() -> Vec<String> {
    ["911", "9911", "933"].map(str::to_owned).to_vec()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) side: String,
    pub(super) uri: String,
    pub(super) allow: Option<Vec<String>>,
    pub(super) party_signals: Option<String>,
    pub(super) allow_refer: Option<bool>,
    pub(super) trust_identity: Option<bool>,
    pub(super) redirects: Option<String>,
    pub(super) listen: Option<toml::Value>,
    pub(super) advertise: Option<toml::Value>,
    pub(super) media_address: Option<toml::Value>,
    pub(super) dial_format: Option<String>,
    #[serde(default)]
    pub(super) numbers: Vec<String>,
    pub(super) username: Option<String>,
    /// A path, or `credential:NAME`.
    pub(super) password_file: Option<String>,
    pub(super) realm: Option<String>,
    pub(super) challenge: Option<bool>,
    pub(super) digest_algorithms: Option<Vec<String>>,
    pub(super) register: Option<bool>,
    pub(super) register_expires_s: Option<u32>,
    pub(super) options_ping_s: Option<u64>,
    pub(super) srtp: Option<String>,
    pub(super) ca_file: Option<String>,
    pub(super) certificate_name: Option<String>,
    pub(super) max_calls: Option<usize>,
    pub(super) calls_per_minute: Option<u32>,
    #[serde(default)]
    pub(super) refuse_destinations: Vec<String>,
    #[serde(default)]
    pub(super) allow_destinations: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) number: String,
    pub(super) name: String,
    pub(super) class: String,
    pub(super) ask: Option<String>,
    pub(super) retention: Option<String>,
    #[serde(default)]
    pub(super) aliases: Vec<String>,
    /// For the notices of C.G.S. § 31-48d and the records officer: kept for later, acted on by nothing yet.
    #[serde(rename = "location")]
    pub(super) _location: Option<String>,
    #[serde(rename = "custodian")]
    pub(super) _custodian: Option<String>,
    pub(super) tone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Number {
    pub(super) number: String,
    pub(super) class: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Consent {
    pub(super) languages: Vec<String>,
    pub(super) accept: String,
    pub(super) decline: String,
    pub(super) request: String,
    pub(super) withdraw: String,
    pub(super) preamble: String,
    pub(super) preamble_memory_mb: usize,
    pub(super) lookback_ms: u64,
    pub(super) answer_timeout_s: u64,
    pub(super) attempts: u32,
    pub(super) tone: String,
    pub(super) trust_recordpref: Vec<String>,
    /// A folder with the district's own prompts (`question.en.wav`, …), in place of the built-in ones.
    pub(super) prompts: Option<String>,
}

impl Default for Consent {
    fn default() -> Self {
        Self {
            languages: vec!["en".to_owned(), "es".to_owned()],
            accept: "1".to_owned(),
            decline: "2".to_owned(),
            request: "*81".to_owned(),
            withdraw: "*80".to_owned(),
            preamble: "memory".to_owned(),
            preamble_memory_mb: 256,
            lookback_ms: 1000,
            answer_timeout_s: 10,
            attempts: 2,
            tone: "dispatch".to_owned(),
            trust_recordpref: Vec::new(),
            prompts: None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Storage {
    pub(super) database: Option<String>,
    pub(super) audio: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) second_writer: Option<String>,
    pub(super) union_numbers: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Portal {
    #[serde(rename = "listen")]
    pub(super) _listen: Option<String>,
    #[serde(rename = "public_url")]
    pub(super) _public_url: Option<String>,
    #[serde(rename = "behind_proxy")]
    pub(super) _behind_proxy: Option<bool>,
    #[serde(rename = "tls")]
    pub(super) _tls: Option<toml::Value>,
    #[serde(rename = "oidc")]
    pub(super) _oidc: Option<toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ops {
    pub(super) listen: String,
}

impl Default for Ops {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9090".to_owned() }
    }
}

//! The conformance run: whether a peer signals what its users do with calls, so that every party of a call can be
//! known (I1). Its administrator makes calls on the peer's own telephones while the service runs; each is judged by
//! its record. The outcome is in the audit log before it is told.
//!
//! | the steps | entered as | `party_signals` |
//! |---|---|---|
//! | all were seen, or stated to be absent | `peer.conformance-passed` | may be `"verified"` |
//! | one was hidden | `peer.conformance-failed` | must be `"none"` |
//! | anything else | `peer.conformance-incomplete` | as before |

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use consent::{CallId, Side};
use serde::Serialize;
use sip_gateway::Peer;
use storage::{AuditFilter, AuditRow, LadderRow, Store, StoreError, Utc};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::judgement::{Judgement, Kept, Verdict, judge, offers_of};
use super::step::Step;
use super::watch::{Found, Watch};
use crate::commands::Failure;
use crate::commands::calls::word;
use crate::config::Config;
use crate::wall_now;

const PASSED: &str = "peer.conformance-passed";
const FAILED: &str = "peer.conformance-failed";
const INCOMPLETE: &str = "peer.conformance-incomplete";

/// How often the records are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is said that nothing has happened.
const PROGRESS: Duration = Duration::from_secs(15);

/// What is asked of the run.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Judge whether this peer signals what its users do with calls; asks for calls on its telephones.
    #[arg(long, requires = "live", value_name = "NAME")]
    pub(super) peer: Option<String>,
    /// Only this step; may be given several times. Only a whole run counts.
    #[arg(long = "step", value_enum, requires = "peer", value_name = "STEP")]
    steps: Vec<Step>,
    /// State that the peer cannot do this at all (conference, listen, break-in, park).
    #[arg(long = "without", value_enum, requires = "peer", value_name = "STEP")]
    absent: Vec<Step>,
    /// Only calls with this telephone, by its number as call records show it: where others telephone meanwhile.
    #[arg(long, requires = "peer", value_name = "NUMBER")]
    telephone: Option<String>,
    /// How long a step may take.
    #[arg(long, default_value_t = 300, requires = "peer", value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout_s: u64,
}

/// How a run came out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Conformance {
    pub(super) peer: String,
    began_at: Utc,
    ended_at: Utc,
    pub(super) steps: Vec<Stepped>,
    /// What the administrator states that the peer cannot do.
    pub(super) absent: Vec<Step>,
    /// Whether every step was gone through or stated to be absent.
    whole: bool,
    /// Whether somebody broke it off.
    broken_off: bool,
    pub(super) passed: bool,
    /// What follows for the configuration.
    pub(super) follows: String,
}

/// How a step came out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Stepped {
    pub(super) step: Step,
    pub(super) verdict: Verdict,
    /// What Earmark saw.
    pub(super) saw: String,
    pub(super) call_ids: Vec<CallId>,
    /// The calls' SIP messages, unless all was seen.
    pub(super) ladders: Vec<LadderRow>,
    /// Whether it was seen by offers alone; `follows` says what to do then.
    #[serde(skip)]
    by_offers: bool,
}

impl Options {
    /// The steps to go through, in their order.
    fn steps(&self) -> Result<Vec<Step>, Failure> {
        if let Some(step) = self.absent.iter().find(|step| !step.may_be_absent()) {
            return Err(Failure::Usage(format!("--without {}: every PBX can do it", step.name())));
        }
        if let Some(step) = self.steps.iter().find(|step| self.absent.contains(step)) {
            return Err(Failure::Usage(format!(
                "--step {0} and --without {0}: give one of the two",
                step.name()
            )));
        }
        let wanted = |step: &Step| self.steps.is_empty() || self.steps.contains(step);
        Ok(Step::ALL.into_iter().filter(|step| wanted(step) && !self.absent.contains(step)).collect())
    }
}

/// Goes through the steps and enters the outcome in the audit log, also if somebody breaks it off. `faults` is what
/// else is amiss, to be known before anybody begins to telephone.
pub(super) async fn run(
    options: &Options,
    config: &Config,
    name: &str,
    faults: &[String],
) -> Result<Conformance, Failure> {
    let steps = options.steps()?;
    let found = config.gateway.peers.iter().enumerate().find(|(_, peer)| peer.name == name);
    let Some((index, peer)) = found else {
        let file = config.file.display();
        return Err(Failure::Usage(format!("--peer {name}: {file} has no peer of that name")));
    };
    if peer.side == Side::Public {
        return Err(Failure::Usage(format!(
            "--peer {name}: its side is \"public\", and the run asks for telephones of the district's behind the \
             peer and one that is not. Ask {name}'s operator in writing"
        )));
    }
    let store = Store::open_existing(&config.storage.database).await?;
    let began_at = Utc(wall_now());
    let mut run = Run {
        watch: Watch::new(&store, peer, config.rules.numbering(), options.telephone.as_deref()),
        peer,
        patience: Duration::from_secs(options.timeout_s),
        prompts: std::io::stdin().is_terminal(),
        usual: 0,
    };
    let mut conformance = Conformance {
        peer: name.to_owned(),
        began_at,
        ended_at: began_at,
        steps: Vec::new(),
        absent: Step::ALL.into_iter().filter(|step| options.absent.contains(step)).collect(),
        whole: false,
        broken_off: false,
        passed: false,
        follows: String::new(),
    };
    faults.iter().for_each(|fault| say(&format!("fault: {fault}")));
    run.introduce(&steps);
    let broken_off =
        broken_off().map_err(|source| Failure::Io { what: "catching signals".to_owned(), source })?;
    let gone = tokio::select! {
        biased;
        () = broken_off => {
            conformance.broken_off = true;
            Ok(())
        }
        gone = run.go(steps, &mut conformance) => gone,
    };
    conformance.broken_off |= gone.is_err();
    conformance.conclude(config, index, peer);
    let entered = conformance.enter(&store).await;
    if gone.is_err() || entered.is_err() {
        say(&conformance.follows);
    }
    gone?;
    entered?;
    Ok(conformance)
}

/// Resolves when somebody breaks the run off, or closes its terminal.
fn broken_off() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// A run under way.
struct Run<'a> {
    watch: Watch<'a>,
    peer: &'a Peer,
    patience: Duration,
    /// Whether somebody at a terminal says when each step begins.
    prompts: bool,
    /// How many offers a plain call of the peer's has after its answer.
    usual: usize,
}

impl Run<'_> {
    fn introduce(&self, steps: &[Step]) {
        let name = &self.peer.name;
        say(&format!(
            "Calls to make, one after the other: {}. A is a telephone that is not behind {name}, such as a mobile; \
             B and C are two behind {name}. B may as well call A.",
            steps.len()
        ));
    }

    /// Goes through the steps, until one has no call.
    async fn go(&mut self, steps: Vec<Step>, into: &mut Conformance) -> Result<(), Failure> {
        for step in steps {
            match self.step(step).await? {
                Some(stepped) => into.steps.push(stepped),
                None => into.absent.push(step),
            }
            if into.steps.last().is_some_and(|stepped| stepped.verdict == Verdict::NoCall) {
                break;
            }
        }
        Ok(())
    }

    /// Goes through one step; `None` if somebody states that the peer cannot do it.
    async fn step(&mut self, step: Step) -> Result<Option<Stepped>, Failure> {
        say(&format!("\n{}: {}", step.name(), step.instruction()));
        if self.prompts {
            let absent = if step.may_be_absent() { "; n and Enter if this PBX cannot do it" } else { "" };
            if ask(&format!("Enter to begin{absent}: ")).await? == "n" && step.may_be_absent() {
                return Ok(None);
            }
            self.watch.begin();
        }
        let (judgement, calls) = match self.wait().await? {
            Found::Nothing { going_on } => (self.in_vain(going_on), Vec::new()),
            Found::Crowd(calls) => {
                let saw = "several calls at the same time; repeat it with --telephone and the number of B";
                (Judgement::new(Verdict::Unclear, saw), calls)
            }
            Found::Calls(calls) => (judge(step, &self.peer.name, &calls, self.usual), calls),
        };
        if step == Step::Call {
            self.usual = offers_of(&calls, &self.peer.name);
        }
        say(&format!("{}: {}", word(&judgement.verdict), judgement.saw));
        Ok(Some(Stepped::new(step, judgement, &calls)))
    }

    fn in_vain(&self, going_on: usize) -> Judgement {
        let waited_s = self.patience.as_secs();
        let name = &self.peer.name;
        let saw = format!("no answered call of {name} ended within {waited_s} s ({going_on} still going on)");
        Judgement::new(Verdict::NoCall, saw)
    }

    /// Waits for the calls of a step.
    async fn wait(&mut self) -> Result<Found, StoreError> {
        let began = Instant::now();
        let mut said = (0, began);
        loop {
            let going_on = match self.watch.look().await? {
                Found::Nothing { going_on } => going_on,
                found => return Ok(found),
            };
            let left = self.patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(Found::Nothing { going_on });
            }
            if said.0 != going_on || said.1.elapsed() >= PROGRESS {
                say(&format!("... waiting, {} s left; calls going on: {going_on}", left.as_secs()));
                said = (going_on, Instant::now());
            }
            tokio::time::sleep(LOOK.min(left)).await;
        }
    }
}

impl Stepped {
    fn new(step: Step, judgement: Judgement, calls: &[Kept]) -> Self {
        let shown = judgement.verdict != Verdict::Seen;
        let ladders = calls.iter().filter(|_| shown).filter_map(|kept| kept.ladder.clone());
        Self {
            step,
            verdict: judgement.verdict,
            saw: judgement.saw,
            call_ids: calls.iter().map(|kept| kept.call.id).collect(),
            ladders: ladders.collect(),
            by_offers: judgement.by_offers,
        }
    }
}

impl Conformance {
    /// Says what follows for the configuration.
    fn conclude(&mut self, config: &Config, index: usize, peer: &Peer) {
        self.ended_at = Utc(wall_now());
        let gone_through = |step: &Step| {
            self.absent.contains(step) || self.steps.iter().any(|stepped| stepped.step == *step)
        };
        self.whole = Step::ALL.iter().all(gone_through);
        self.passed = self.whole && self.is_well();
        let place = format!("{}: peers[{index}].party_signals", config.file.display());
        let hidden: Vec<&str> = self.hidden().map(Step::done).collect();
        self.follows = if !hidden.is_empty() {
            let must = if peer.parties_signalled { "must be set back to" } else { "must stay" };
            format!(
                "{}, and {} did not say so: what nobody agreed to would be recorded. {place} {must} \"none\"",
                hidden.join(", "),
                self.peer
            )
        } else if self.passed {
            self.statement(&place)
        } else if !self.is_well() {
            format!("not every step was seen: {place} stays as it is; repeat the run")
        } else {
            format!("only a whole run counts, without --step: {place} stays as it is")
        };
        if self.steps.iter().any(|stepped| stepped.by_offers) {
            self.follows.push_str(
                ". That the new descriptions held, the record does not say: repeat --step hold on a consent line \
                 once the peer is verified",
            );
        }
    }

    fn statement(&self, place: &str) -> String {
        let absent: Vec<String> = self.absent.iter().map(|step| step.name()).collect();
        let lacks = if absent.is_empty() {
            String::new()
        } else {
            format!(", and that nobody there can do this: {}", absent.join(", "))
        };
        format!(
            "{place} may be set to \"verified\" (then restart the service). Whoever sets it states that {} signals \
             every hold, transfer, conference, listener and break-in, at every telephone behind it{lacks}. Repeat \
             the run whenever the PBX changes",
            self.peer
        )
    }

    fn hidden(&self) -> impl Iterator<Item = Step> {
        self.steps.iter().filter(|stepped| stepped.verdict == Verdict::Hidden).map(|stepped| stepped.step)
    }

    /// Whether everything that was gone through was seen.
    pub(super) fn is_well(&self) -> bool {
        !self.broken_off && self.steps.iter().all(|stepped| stepped.verdict == Verdict::Seen)
    }

    async fn enter(&self, store: &Store) -> Result<(), StoreError> {
        let action = match self.hidden().next() {
            Some(_) => FAILED,
            None if self.passed => PASSED,
            None => INCOMPLETE,
        };
        let stepped = self.steps.iter().map(|stepped| {
            let ids = stepped.call_ids.iter().map(|id| format!(" {id}")).collect::<String>();
            format!("{} {}{ids}", stepped.step.name(), word(&stepped.verdict))
        });
        let absent = self.absent.iter().map(|step| format!("{} absent", step.name()));
        let detail = stepped.chain(absent).collect::<Vec<_>>().join("; ");
        store.audit_append("console", action, Some(self.peer.clone()), Some(detail), wall_now()).await?;
        Ok(())
    }
}

/// What there is to say of PBXs that are said to signal their parties, if there is a database to tell by.
pub(super) async fn remarks(config: &Config) -> Vec<String> {
    let store = match Store::open_existing(&config.storage.database).await {
        Ok(store) => store,
        Err(StoreError::File { .. }) => return Vec::new(),
        Err(_) => return vec![unknown()],
    };
    let mut remarks = Vec::new();
    let judged = |peer: &Peer| peer.parties_signalled && peer.side == Side::District;
    for (index, peer) in config.gateway.peers.iter().enumerate().filter(|(_, peer)| judged(peer)) {
        match (last(&store, PASSED, peer).await, last(&store, FAILED, peer).await) {
            (Ok(passed), Ok(failed)) => remarks.extend(remark(index, peer, passed, failed)),
            _ => return vec![unknown()],
        }
    }
    remarks
}

fn unknown() -> String {
    "storage.database: it does not answer, so whether the PBXs with party_signals = \"verified\" have passed their \
     conformance run is not known"
        .to_owned()
}

async fn last(store: &Store, action: &str, peer: &Peer) -> Result<Option<AuditRow>, StoreError> {
    let (action, object) = (Some(action.to_owned()), Some(peer.name.clone()));
    let filter = AuditFilter { limit: 1, action, object, ..AuditFilter::default() };
    Ok(store.audit(&filter).await?.pop())
}

fn remark(index: usize, peer: &Peer, passed: Option<AuditRow>, failed: Option<AuditRow>) -> Option<String> {
    let found = match (passed, failed) {
        (Some(passed), Some(failed)) if failed.seq < passed.seq => return None,
        (Some(_), None) => return None,
        (_, Some(failed)) => format!("failed its conformance run at {}", failed.at),
        (None, None) => "has passed no conformance run".to_owned(),
    };
    let name = &peer.name;
    Some(format!(
        "peers[{index}].party_signals: \"verified\", but {name} {found}: run check --live --peer {name}, or set it to \
         \"none\""
    ))
}

/// What people are to know while the run goes on: stdout is for its outcome.
fn say(text: &str) {
    // A terminal that is gone must not end the run before its outcome is entered.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Asks somebody at the terminal.
async fn ask(prompt: &str) -> Result<String, Failure> {
    let _ = write!(std::io::stderr(), "{prompt}");
    let (read, line) = tokio::sync::oneshot::channel();
    // A thread of its own, which the end of the program does not wait for.
    std::thread::spawn(move || {
        let mut line = String::new();
        // Nobody waits any more if the run was broken off.
        let _ = read.send(std::io::stdin().lock().read_line(&mut line).map(|_| line));
    });
    let line = line.await.map_err(anyhow::Error::from)?;
    let line = line.map_err(|source| Failure::Io { what: "reading the terminal".to_owned(), source })?;
    Ok(line.trim().to_ascii_lowercase())
}

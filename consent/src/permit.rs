//! The permit: the only thing that opens the tap from a packet to a file, and only this crate makes one.

use serde::{Deserialize, Serialize};

use crate::{CallId, Epoch, RetentionTag, RuleVersion};

/// The two legal bases on which audio is stored. There is no third (docs/POLICY.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// An emergency dispatch line that the policy names: its sole exception.
    DispatchLine,
    /// Every party present has signalled consent.
    AllPartyConsent,
}

/// The n-th permit of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PermitId(pub u32);

/// Leave to store the frames of certain epochs of one call, on one basis. Not `Clone`: one gate holds it.
#[derive(Debug)]
pub struct Permit {
    call: CallId,
    id: PermitId,
    basis: Basis,
    clause: &'static str,
    rule_version: RuleVersion,
    retention: RetentionTag,
    first: Epoch,
    last: Epoch,
}

impl Permit {
    pub(crate) fn issue(
        call: CallId,
        id: PermitId,
        basis: Basis,
        rule_version: RuleVersion,
        retention: RetentionTag,
        first: Epoch,
        last: Epoch,
    ) -> Self {
        Self { call, id, basis, clause: basis.clause(), rule_version, retention, first, last }
    }

    /// Whether a frame of `call` stamped `epoch` may be stored under this permit.
    #[must_use]
    pub fn covers(&self, call: CallId, epoch: Epoch) -> bool {
        self.call == call && (self.first..=self.last).contains(&epoch)
    }

    /// The call it was issued for.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.call
    }

    /// Its number within the call.
    #[must_use]
    pub const fn id(&self) -> PermitId {
        self.id
    }

    /// The legal basis.
    #[must_use]
    pub const fn basis(&self) -> Basis {
        self.basis
    }

    /// The statute and policy clause behind the basis.
    #[must_use]
    pub const fn clause(&self) -> &'static str {
        self.clause
    }

    /// The version of the rules that decided.
    #[must_use]
    pub const fn rule_version(&self) -> RuleVersion {
        self.rule_version
    }

    /// The retention tag under which the audio is kept.
    #[must_use]
    pub const fn retention(&self) -> &RetentionTag {
        &self.retention
    }

    /// The first epoch covered (the preamble's, where there is one).
    #[must_use]
    pub const fn first(&self) -> Epoch {
        self.first
    }
}

impl Basis {
    /// The statute and the policy clause that the basis rests on.
    #[must_use]
    pub const fn clause(self) -> &'static str {
        match self {
            Self::DispatchLine => "CT-B2-SAFETY + POL-DISPATCH: C.G.S. § 52-570d(b)(2); policy cl. 8",
            Self::AllPartyConsent => "CT-A1-ONREC: C.G.S. § 52-570d(a)(1); policy cl. 8",
        }
    }
}

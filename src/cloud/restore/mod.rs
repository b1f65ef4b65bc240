//! Point-in-time recovery of a deployed stage: rehearsed on copies of its tables, and used after a loss. Enter it by
//! `Stage::restore`.
//!
//! The stage's own tables, with their names, stream, rights and alarms, stay the stage. What was lost is put back into
//! them from the copies: events are never changed, so a row that is missing is all that can have been lost.

/// Rows of a copy beside those of the stage.
#[cfg(feature = "aws")]
mod compare;
/// Which moment is restored, by what stands there already.
#[cfg(feature = "aws")]
mod moment;
/// The steps, in their order.
#[cfg(feature = "aws")]
mod steps;
/// A table's copy: restored, marked, given a stream, removed.
#[cfg(feature = "aws")]
mod table;

use jiff::{SignedDuration, Timestamp};
use kassa_bus::table::TableError;
use kassa_pipeline::check::Check;
use kassa_pipeline::rebuild::Rebuilt;
use serde::Serialize;

use super::StageError;
use crate::questions::QuestionError;

/// How a copy's name goes on after the table's.
pub const SUFFIX: &str = "-restored";

/// What is to be done with copies of a stage's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restore {
    /// As the tables were then, to the second; else as late as they can be had.
    pub at: Option<Timestamp>,
    pub then: Then,
}

/// And once they have been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Remove them, unless they were kept before.
    Remove,
    Keep,
    /// Keep them, and put back into the stage what it lacks.
    PutBack,
}

/// What is being done, for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Until AWS has made the tables, which may take hours; it does not say how far it is.
    Restoring,
    /// Of about so many events.
    Rebuilding(u64, u64),
    Checking(u64, u64),
    Comparing(u64, u64),
    PuttingBack(u64, u64),
    /// Until what was put back is in the stream.
    Waiting,
    Removing,
}

/// Called as it goes.
pub type Progress<'a> = &'a (dyn Fn(Step) + Sync);

/// What was restored, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// As the tables were then.
    pub at: Timestamp,
    pub tables: [String; 2],
    /// How long AWS took to make them; nothing for those that were there.
    pub restored_in: SignedDuration,
    /// Shards of the copy's own stream.
    pub shards: usize,
    /// Rows about another stream, which were cleared.
    pub positions: usize,
    pub rebuilt: Rebuilt,
    /// Of the copies.
    pub check: Check,
    pub compared: BesideStage,
    /// What was put back, if it was to be.
    pub put_back: Option<PutBack>,
    /// Whether the copies are there yet.
    pub kept: bool,
}

/// The copies beside the stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BesideStage {
    /// Events up to here are in both, if all is well: what was written later may have missed the copy.
    pub until: Timestamp,
    /// The stage's events up to then.
    pub stage_events: u64,
    /// The copy's.
    pub copy_events: u64,
    /// Events that the stage had then and the copy has not.
    pub missed_by_copy: u64,
    /// Rows of the copies that the stage lacks, a hundred of them by their keys.
    pub lost: Vec<String>,
    pub lost_events: u64,
    pub lost_shop_rows: u64,
    /// Events that are others in the stage, though none is ever changed; a hundred of them.
    pub changed: Vec<String>,
    pub changed_events: u64,
}

impl BesideStage {
    /// Whether each is what the other says.
    #[must_use]
    pub fn agree(&self) -> bool {
        self.missed_by_copy + self.lost_events + self.lost_shop_rows + self.changed_events == 0
    }
}

/// What was put back into the stage, and what its books say then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PutBack {
    pub events: u64,
    pub shop_rows: u64,
    pub rebuilt: Rebuilt,
    pub check: Check,
}

impl Restored {
    /// Whether nobody has to do anything.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let stage = match &self.put_back {
            None => self.compared.agree(),
            Some(put) => put.check.mismatches.is_empty() && self.compared.changed_events == 0,
        };
        self.check.mismatches.is_empty() && stage
    }
}

/// Why nothing was restored, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(
        "point-in-time recovery of the table {0} is off, so nothing of it can be restored; `npx serverless deploy` turns it \
         on, as does `aws dynamodb update-continuous-backups --table-name {0} --point-in-time-recovery-specification \
         PointInTimeRecoveryEnabled=true`"
    )]
    RecoveryOff(String),
    #[error("{table} can be had as it was from {earliest} to {latest}, and not at {at}")]
    OutOfReach { table: String, at: Timestamp, earliest: Timestamp, latest: Timestamp },
    #[error("no moment can be had of all tables alike: {0}")]
    NoMoment(String),
    #[error(
        "there is a table {copy} that was not restored from {table}; it stays as it is, and nothing can be restored while it \
         has that name"
    )]
    NameTaken { table: String, copy: String },
    #[error("{copy} is there, of {is}: ask for `--at {is}` to go on with it, or remove it with --discard")]
    OtherMoment { copy: String, is: Timestamp },
    #[error("the copies are of two moments, {0} and {1}; remove them with --discard")]
    TwoMoments(Timestamp, Timestamp),
    #[error("the stage's table {0} is not there; docs/runbook.md says what to do under \"After a loss\"")]
    Gone(String),
    #[error("the copy {0} is gone: somebody removed it")]
    CopyGone(String),
    #[error("AWS could not make the copy {copy}: its state is {state}; remove it with --discard")]
    Failed { copy: String, state: String },
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Question(#[from] QuestionError),
}

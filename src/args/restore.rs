use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use super::{DATA, Service};
use crate::cloud::StageName;

#[derive(Debug, Args)]
#[command(
    after_help = "On one machine, of a backup. Nothing is replaced: where a shop is, move it away first. The backup stays as it is. What \
was accepted after it was made is not in it; see that the shop it was made of is not opened again beside it.

On AWS, of a stage's own past. Copies of the tables events and shops are made as they were at one moment, as \
<table>-restored, with a stream of their own. Stock and turnover are made anew from the events, and checked as kassa \
check does. Then each event of the copy is looked for in the stage. Last, the copies are removed. The stage is only \
read. The exit code is 1 if anything does not agree.

AWS keeps every moment of the last 35 days but the last five minutes, and takes from some minutes to hours for a copy. \
Cut off, the same command goes on with what is there. A copy costs what its table costs to keep, and $0.15 a GB to \
make.

With --put-back the stage gets what it lacks of the copy: events, shops, keys' and tills' names, declared items. \
Nothing that it has is changed. Its stock and turnover are then made anew and checked. What is not covered, and the \
rights it needs, are in docs/runbook.md, \"After a loss\".

Examples:
  kassa restore /mnt/backup/2026-11-22 --data /srv/shop
  kassa restore --stage prod
  kassa restore --stage prod --json | jq '{at, restored_in, lost: .compared.lost_events}'
  kassa restore --stage prod --at 2026-11-22T12:00:00Z --keep
  kassa restore --stage prod --at 2026-11-22T12:00:00Z --put-back
  kassa restore --stage prod --discard"
)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FOLDER", required_unless_present = "stage")]
    pub from: Option<PathBuf>,
    /// The shop's folder, which is not there yet
    #[arg(long, default_value = DATA, value_name = "FOLDER", conflicts_with = "stage")]
    pub data: PathBuf,
    /// A deployed stage instead
    #[arg(long, conflicts_with = "from")]
    pub stage: Option<StageName>,
    #[command(flatten)]
    pub service: Service,
    /// As the tables were then, by RFC 3339 [default: the latest moment that AWS has]
    #[arg(long, value_name = "TIME", requires = "stage")]
    pub at: Option<Timestamp>,
    #[command(flatten)]
    pub after: After,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What becomes of the copies, if not that they are removed.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct After {
    /// Let the copies stay
    #[arg(long, requires = "stage")]
    pub keep: bool,
    /// Put back what the stage lacks, and let the copies stay
    #[arg(long, requires = "stage")]
    pub put_back: bool,
    /// Remove the copies that an earlier run left, and do nothing else
    #[arg(long, requires = "stage", conflicts_with = "at")]
    pub discard: bool,
}

use clap::{Args, Subcommand};

use super::AskArgs;
use crate::dead_letters::Why;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "A message that failed five times is put aside by its queue. What is in it is not shown: it may be a sale. On AWS they \
are kept for 14 days.

Examples:
  kassa dead-letters
  kassa dead-letters show --queue decrypt
  kassa dead-letters redrive --stage prod
  kassa dead-letters drop --queue bad-key-auditor --why \"a till from a trade fair\""
)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    pub command: Option<DeadLettersCommand>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Show how many messages each queue put aside
    List(ListArgs),
    /// Show a queue's: whose, since when, and why
    #[command(after_help = "Up to a thousand, the oldest first.

Examples:
  kassa dead-letters show --queue decrypt
  kassa dead-letters show --queue warehouse-webhook --stage prod --json")]
    Show(ShowArgs),
    /// Send them back into their queues, once what they failed at is mended
    #[command(
        after_help = "Repeats are harmless: a sale counts once. The shop must be open, or deployed. On AWS, SQS moves them itself \
(StartMessageMoveTask), which needs the right to do so. What project left on AWS is no message: kassa rebuild.

Examples:
  kassa dead-letters redrive
  kassa dead-letters redrive --queue warehouse-webhook --stage prod"
    )]
    Redrive(RedriveArgs),
    /// Put some away for good, and keep why as an event
    #[command(
        after_help = "Dropping a message of decrypt or process rejects its sale as dropped, if it came to no other end: kassa rejected \
lists it with why, and kassa retry puts it through after all. Any other leaves a note with its sale.

Examples:
  kassa dead-letters drop --queue decrypt --why \"garbled by the till of 2026-11-22, sold anew\"
  kassa dead-letters drop --queue warehouse-webhook --id ID --why \"booked by hand\" --stage prod"
    )]
    Drop(DropArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The queue, by whose it is, as decrypt
    #[arg(long)]
    pub queue: String,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// Only this queue's
    #[arg(long)]
    pub queue: Option<String>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct DropArgs {
    /// The queue, by whose it is, as decrypt
    #[arg(long)]
    pub queue: String,
    /// Only this one, as show names it
    #[arg(long)]
    pub id: Option<String>,
    /// Why, in a line: it is kept for good
    #[arg(long)]
    pub why: Why,
    #[command(flatten)]
    pub ask: AskArgs,
}

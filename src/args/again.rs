use clap::Args;
use kassa_bus::ShopId;
use kassa_bus::message::Reason;

use super::AskArgs;
use crate::dead_letters::Why;

#[derive(Debug, Args)]
#[command(
    after_help = "A sale is listed as long as it is not recorded, with the last reason it was rejected for. On AWS this reads the \
whole table of events, at $0.03 a million events.

Examples:
  kassa rejected
  kassa rejected --shop AMIS1 --reason wrong-key --stage prod --json"
)]
pub struct RejectedArgs {
    /// Only this shop
    #[arg(long)]
    pub shop: Option<ShopId>,
    /// Only what was rejected for this reason
    #[arg(long)]
    pub reason: Option<Reason>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Mend what they were rejected for first: enrol the till, apply shops.toml, deploy what reads them. A sale counts once \
however often it is put through. --dry-run opens each sale with the shop's key, shows what would be recorded and \
what stock and turnover would be, and changes nothing: what it prints are sales in plaintext.

--opened-with books sales that were sealed with another shop's key, as a till does that was set up with the wrong one: \
each is opened with that shop's key, and recorded with whose it was. What a till signed must name this shop and be signed \
by a till of it. What no till signed does not say whose it is: look at it first, with --dry-run; what came to that shop as \
well is rejected. Classic sales name no key: all that came with a wrong one are tried.

Puts them through and waits for what becomes of them. The exit code is 1 if one was rejected again, or is still on \
its way. The shop must be open, or deployed.

Examples:
  kassa retry --shop AMIS1 --dry-run
  kassa retry --shop AMIS1 --reason unknown-till
  kassa retry --shop AMIS1 --reason wrong-key --opened-with AMIS2
  kassa retry --shop AMIS1 --sale 019394e8-6c00-7000-8000-000000000001 --stage prod"
)]
pub struct RetryArgs {
    /// The shop
    #[arg(long)]
    pub shop: ShopId,
    /// Only what was rejected for this reason
    #[arg(long)]
    pub reason: Option<Reason>,
    /// Only this sale
    #[arg(long, value_name = "ID")]
    pub sale: Option<String>,
    /// Only what is sealed with this shop's key, and with that key
    #[arg(long, value_name = "SHOP")]
    pub opened_with: Option<ShopId>,
    /// Show what would become of them, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Seconds to wait for what becomes of them
    #[arg(long, default_value_t = 60)]
    pub patience: u64,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Such a sale needs no attention any more. It stays what it is, rejected, and kassa sale shows why it was given up. \
kassa retry --sale puts it through after all. The exit code is 1 if there was none to give up.

Examples:
  kassa drop --shop AMIS1 --sale 019394e8-6c00-7000-8000-000000000001 --why \"sold anew, see receipt 4711\"
  kassa drop --shop AMIS1 --reason wrong-key --why \"nobody knows whose key it is; asked ICT\" --stage prod"
)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["sale", "reason"])))]
pub struct GiveUpArgs {
    /// The shop
    #[arg(long)]
    pub shop: ShopId,
    /// Only what was rejected for this reason
    #[arg(long)]
    pub reason: Option<Reason>,
    /// Only this sale
    #[arg(long, value_name = "ID")]
    pub sale: Option<String>,
    /// Why, in a line: it is kept for good
    #[arg(long)]
    pub why: Why,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Accepted sales that are neither recorded nor rejected are sent on their way again by themselves, six times in two \
hours and forty minutes. This sends all of them at once, whenever they were accepted: for when what they failed at has \
been mended. A sale counts once however often it is sent. A closed shop does it by itself when it opens.

Examples:
  kassa reconcile --dry-run
  kassa reconcile --shop AMIS1 --stage prod"
)]
pub struct ReconcileArgs {
    /// Only this shop
    #[arg(long)]
    pub shop: Option<ShopId>,
    /// Count them, and send none
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kassa_bus::{SaleId, ShopId, TillId};

use super::{AskArgs, Destination, ShopArgs, patience, rate, till_name};
use crate::dead_letters::Why;

/// The folder of the tills of this machine.
pub const TILLS: &str = "./kassa-till";

#[derive(Debug, Subcommand)]
pub enum TillCommand {
    /// Make a till's signing key, and enrol the till with its shop
    #[command(
        after_help = "The key is made in FOLDER/SHOP/TILL/till.key, readable by its owner only, and never replaced. From then on \
kassa sell with this --shop, --till and --folder signs its sales. Again, it changes nothing.

A till that may not write the shop's registry prints its public key, and somebody who may enrols it:

  till$  kassa till enroll --shop AMIS1 --till till-1 --print > till-1.jwk
  shop$  kassa till enroll --shop AMIS1 --till till-1 --key till-1.jwk --stage prod

Examples:
  kassa till enroll --shop AMIS1 --till till-1
  kassa till enroll --shop AMIS1 --till till-1 --jwk
  kassa till enroll --shop AMIS1 --till till-1 --stage prod"
    )]
    Enroll(EnrollArgs),
    /// Take a till's right to sign: its later sales are rejected, the earlier ones stay
    #[command(
        after_help = "A sale is later if the shop took it later, whatever the till's clock says. Known everywhere within a minute.

Examples:
  kassa till revoke --shop AMIS1 --till till-1
  kassa till revoke --shop AMIS1 --till till-1 --stage prod"
    )]
    Revoke(RevokeArgs),
    /// Show the journals of this machine's tills: what was rung up, what waits, what was refused
    #[command(after_help = "Works while the till sells, and without the shop.

Examples:
  kassa till status
  kassa till status --shop AMIS1 --till till-1 --json")]
    Status(StatusArgs),
    /// Send what waits in a till's journal, the oldest first
    #[command(
        after_help = "Up to a hundred sales a request. kassa sell does it by itself; this is for a till that sells nothing now. \
The exit code is 1 if something still waits.

Examples:
  kassa till drain --shop AMIS1
  kassa till drain --shop AMIS1 --till till-2 --stage prod --rate 50"
    )]
    Drain(DrainArgs),
    /// Send refused sales of a till's journal again
    #[command(
        after_help = "For when what was wrong is mended: the shop is registered now, its limits are others. They wait again, and are sent \
at once. The exit code is 1 if any is refused again, or still waits.

Examples:
  kassa till retry --shop AMIS1
  kassa till retry --shop AMIS1 --till till-2 019394e8-6c00-7000-8000-000000000001"
    )]
    Retry(RetryRefusedArgs),
    /// Give refused sales of a till's journal up, and say why
    #[command(
        after_help = "What the shop refused stays in the till's journal until somebody sends it again or gives it up. Why, and what was \
refused, is kept; the sale itself is not.

Examples:
  kassa till drop --shop AMIS1 --why 'sold twice, see receipt 4711' 019394e8-6c00-7000-8000-000000000001
  kassa till drop --shop AMIS1 --why 'from the training day' --all"
    )]
    Drop(DropRefusedArgs),
    /// Show which tills are enrolled, and since when or until when
    #[command(after_help = "Examples:
  kassa till list
  kassa till list --shop AMIS1 --stage prod --json")]
    List(ShopArgs),
}

#[derive(Debug, Args)]
pub struct TillArgs {
    /// The shop the till stands in
    #[arg(long)]
    pub shop: ShopId,
    /// The till's name
    #[arg(long)]
    pub till: TillId,
}

#[derive(Debug, Args)]
pub struct EnrollArgs {
    #[command(flatten)]
    pub till: TillArgs,
    /// The folder of the tills of this machine
    #[arg(long, default_value = TILLS, value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Enrol this public key, a JWK in a file or - for standard input, and make none
    #[arg(long, value_name = "FILE", conflicts_with = "print")]
    pub key: Option<PathBuf>,
    /// Print the public key as a JWK, and enrol nothing
    #[arg(long)]
    pub print: bool,
    /// Write the private key as a JWK as well (FOLDER/SHOP/TILL/till.jwk), for tills in other languages
    #[arg(long, conflicts_with_all = ["key", "print"])]
    pub jwk: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    pub till: TillArgs,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this shop's tills
    #[arg(long)]
    pub shop: Option<String>,
    /// Only the till of this name
    #[arg(long)]
    pub till: Option<String>,
    /// The folder of the tills of this machine
    #[arg(long, default_value = TILLS, value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Whose journal it is.
#[derive(Debug, Args)]
pub struct JournalArgs {
    /// The shop the till stands in
    #[arg(long)]
    pub shop: ShopId,
    /// The till's name
    #[arg(long, default_value = "till-1", value_parser = till_name)]
    pub till: String,
    /// The folder of the tills of this machine
    #[arg(long, default_value = TILLS, value_name = "FOLDER")]
    pub folder: PathBuf,
    #[command(flatten)]
    pub to: Destination,
}

#[derive(Debug, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    pub journal: JournalArgs,
    #[command(flatten)]
    pub sending: SendingArgs,
}

/// How sales are sent that wait.
#[derive(Debug, Args)]
pub struct SendingArgs {
    /// Sales a second, at most
    #[arg(long, default_value_t = DRAIN_RATE, value_parser = rate)]
    pub rate: f64,
    /// Seconds to try without getting on, at most a day
    #[arg(long, default_value_t = 60, value_parser = patience)]
    pub patience: u64,
}

#[derive(Debug, Args)]
pub struct RetryRefusedArgs {
    #[command(flatten)]
    pub journal: JournalArgs,
    #[command(flatten)]
    pub sending: SendingArgs,
    /// Only these
    #[arg(value_name = "SALE")]
    pub sales: Vec<SaleId>,
}

#[derive(Debug, Args)]
pub struct DropRefusedArgs {
    #[command(flatten)]
    pub journal: JournalArgs,
    /// Why they are given up, in words that are kept
    #[arg(long)]
    pub why: Why,
    /// These
    #[arg(value_name = "SALE", required_unless_present = "all")]
    pub sales: Vec<SaleId>,
    /// All that were refused
    #[arg(long, conflicts_with = "sales")]
    pub all: bool,
}

/// Sales a second that a till sends of those that waited.
pub const DRAIN_RATE: f64 = 500.0;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kassa_bus::{ShopId, TillId};

use super::{AskArgs, ShopArgs};

/// The folder of the tills of this machine.
pub const TILLS: &str = "./kassa-till";

#[derive(Debug, Subcommand)]
pub enum TillCommand {
    /// Make a till's signing key, and enrol the till with its shop
    #[command(
        after_help = "The key is made in FOLDER/SHOP/TILL/till.key, readable by its owner only, and never replaced. From then on
kassa sell with this --shop, --till and --folder signs its sales. Again, it changes nothing.

A till that may not write the shop's registry prints its public key, and somebody who may enrols it:

  till$  kassa till enroll --shop AMIS1 --till till-1 --print > till-1.jwk
  shop$  kassa till enroll --shop AMIS1 --till till-1 --key till-1.jwk --stage prod

Examples:
  kassa till enroll --shop AMIS1 --till till-1
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

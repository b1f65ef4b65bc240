use clap::{Args, Subcommand};
use jiff::SignedDuration;
use kassa_bus::{ShopId, Thumbprint};

use super::{AskArgs, ShopArgs, back};

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Show the shops' keys: which tills seal with, which still open, which can be retired
    #[command(after_help = "Examples:
  kassa key list
  kassa key list --shop AMIS1 --stage prod --json")]
    List(ShopArgs),
    /// Give a shop another key, without refusing a sale
    #[command(
        after_help = "Tills get the new key when the shop answers their next sale (header Kassa-Key), or after an hour at most. What \
was sealed with the old one is opened for as long as the overlap says: a till that was cut off may bring such sales \
late. With less than an hour, tills that keep a key as long as they may are turned away. Then retire it. Cut off, ask \
again: it goes on where it was. No key is ever deleted.

A key that is gone, and in no backup, is told with --lost: what it sealed and was not opened is rejected, and the shop opens again.

Examples:
  kassa key rotate --shop AMIS1
  kassa key rotate --shop AMIS1 --lost
  kassa key rotate --shop AMIS1 --overlap 30d --stage prod"
    )]
    Rotate(RotateArgs),
    /// Disable a shop's old key: what comes sealed with it is rejected, and the key auditor names it
    #[command(
        after_help = "On AWS the key is disabled, here its file is renamed. It is never deleted: enabled by hand, it opens again.

Examples:
  kassa key retire --shop AMIS1 --kid NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs
  kassa key retire --shop AMIS1 --kid NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs --now --stage prod"
    )]
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The shop
    #[arg(long)]
    pub shop: ShopId,
    /// How long sales sealed with the old key are still opened, as 12h or 30d
    #[arg(long, default_value = "14d", value_name = "TIME", value_parser = back)]
    pub overlap: SignedDuration,
    /// The present key is gone for good: go on without it
    #[arg(long, conflicts_with = "overlap")]
    pub lost: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct RetireArgs {
    /// The shop
    #[arg(long)]
    pub shop: ShopId,
    /// The key, by its thumbprint
    #[arg(long)]
    pub kid: Thumbprint,
    /// Also before its overlap is over: a key that was stolen
    #[arg(long)]
    pub now: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

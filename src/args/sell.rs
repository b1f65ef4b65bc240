use std::path::PathBuf;

use clap::Args;
use kassa_bus::ShopId;

use super::{DRAIN_RATE, Service, TILLS, patience, rate, till_name};
use crate::cloud::StageName;
use crate::till::Format;
use crate::till::url::ShopUrl;

#[derive(Debug, Args)]
#[command(
    after_help = "Each sale has an id of its own, and is in the till's journal (FOLDER/SHOP/TILL, on disk) before it is posted. While the \
shop cannot be reached the till sells on; then what waits is sent, the oldest first, up to a hundred sales a request. \
Repeating is harmless: a sale counts once. What the shop has not answered in the end stays in the journal, for the next \
kassa sell or kassa till drain. In the end the shop is asked what became of what it accepted (of up to a thousand sales). The exit \
code is 1 if any sale was not accepted, or was rejected.

A sale's file holds {\"sales\":[{\"item_no\":\"98\",\"gross_number\":\"2\",\"gross_turnover\":\"37.90\"}]}, and may say sold_at.

Examples:
  kassa sell --shop AMIS1 --file sale.json
  kassa sell --shop AMIS2 --count 100000 --concurrency 64
  kassa sell --shop AMIS1 --count 600 --rate 10 --format classic"
)]
pub struct SellArgs {
    /// The shop the till stands in
    #[arg(long)]
    pub shop: ShopId,
    #[command(flatten)]
    pub to: Destination,
    /// Sell this sale
    #[arg(long, value_name = "FILE", conflicts_with = "count")]
    pub file: Option<PathBuf>,
    /// Sell this many random sales of the items in shops.toml
    #[arg(long, default_value_t = 1)]
    pub count: u64,
    /// Sales a second, at most
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// Sales a second, at most, of those that waited for the shop
    #[arg(long, default_value_t = DRAIN_RATE, value_parser = rate)]
    pub drain_rate: f64,
    /// Sales on their way at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// How to encrypt
    #[arg(long, value_enum, default_value = "sealed")]
    pub format: Format,
    /// The till's name
    #[arg(long, default_value = "till-1", value_parser = till_name)]
    pub till: String,
    /// The folder of the tills of this machine, with their journals; a till that has a key there (kassa till enroll)
    /// signs its sales
    #[arg(long, default_value = TILLS, value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Seal with another shop's key, as a misconfigured till would
    #[arg(long, value_name = "OTHERSHOP")]
    pub key_of: Option<ShopId>,
    /// Seconds to try a shop that does not answer: before anything is rung up, for its key, and once everything is; at most a
    /// day
    #[arg(long, default_value_t = 60, value_parser = patience)]
    pub patience: u64,
    /// Send a traceparent with each sale, so that the shop's logs can be told apart by it
    #[arg(long)]
    pub traceparent: bool,
    /// Items to draw on [default: ./shops.toml, or the one Kassa ships with]
    #[arg(long, value_name = "FILE")]
    pub shops: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// Where a till's sales go.
#[derive(Debug, Args)]
pub struct Destination {
    /// Where the shop takes sales
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: ShopUrl,
    /// A deployed stage instead, whose URL is looked up
    #[arg(long, conflicts_with = "url")]
    pub stage: Option<StageName>,
    #[command(flatten)]
    pub service: Service,
}

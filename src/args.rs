/// What is said of sales that are to go their way again.
mod again;
/// What is said of backups.
mod backup;
/// What queues put aside.
mod dead_letters;
/// What is said of the shops' keys.
mod key;
/// What is said of what was lost.
mod restore;
/// What is said of sales that are to be sold.
mod sell;
/// What may be set.
mod set;
/// What is said of tills.
mod till;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::cloud::StageName;
use crate::cost::CostArgs;
use crate::embedded::Sync;
use crate::warehouse::TopicArn;

pub use again::{GiveUpArgs, ReconcileArgs, RejectedArgs, RetryArgs};
pub use backup::BackupArgs;
pub use dead_letters::{DeadLettersArgs, DeadLettersCommand, DropArgs, ListArgs, RedriveArgs, ShowArgs};
pub use key::{KeyCommand, RetireArgs, RotateArgs};
pub use restore::{After, RestoreArgs};
pub use sell::{Destination, SellArgs};
pub use till::{
    DRAIN_RATE, DrainArgs, DropRefusedArgs, EnrollArgs, JournalArgs, RetryRefusedArgs, RevokeArgs,
    SendingArgs, StatusArgs as TillStatusArgs, TILLS, TillArgs, TillCommand,
};

/// Kassa takes encrypted sales from shop tills, keeps each one as an append-only event, and lets
/// anything that cares subscribe.
///
/// On this machine one process is the whole shop: `kassa up` opens it, `kassa sell` is a till, and
/// the other commands ask about sales, whether the shop is open or closed. With `--stage` they speak
/// to the shop that `npx serverless deploy` put on AWS.
#[derive(Debug, Parser)]
#[command(name = "kassa", version, after_long_help = [EXAMPLES, WITHOUT_AWS].concat())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

pub use crate::embedded::DATA;

/// The service's name in serverless.yml.
pub const SERVICE: &str = "kassa";

const EXAMPLES: &str = "Examples:
  kassa demo                                    a guided tour of some seconds
  kassa up                                      open the shops of shops.toml on 127.0.0.1:8080
  kassa sell --shop AMIS1 --count 1000          sell a thousand random sales
  kassa sell --shop AMIS1 --key-of AMIS2 --count 1
                                                play the till that has the wrong key
  kassa sale 019394e8-6c00-7000-8000-000000000001
                                                where is this sale?
  kassa stock --shop AMIS1                      what is left, and what was earned
  kassa events --shop AMIS1 --day 2026-11-22 | jq .kind
  kassa audit keys --since 7d                   who has a wrong key, and what to do?
  kassa status --watch                          is the shop all right?
  kassa console --stage prod                    the same, and more, in a browser
  kassa check --json                            do the books balance?
  kassa backup /mnt/backup/2026-11-22           a copy that can be opened again, while the shop sells
  kassa apply --stage dev --dry-run             what would shops.toml change on AWS?
  kassa stock --stage dev                       ask the shop on AWS
  kassa restore --stage prod                    could it be restored? Rehearse it
  kassa warehouse --database postgres://kassa@localhost/warehouse
                                                be the warehouse: load its sales into Postgres
  kassa completions bash > ~/.local/share/bash-completion/completions/kassa

Logs go to stderr; RUST_LOG=debug shows more. The exit code is 0 only if what was asked for was done, \
and, of status and check, if nothing is wrong. What cannot be written is an error; a reader that has gone, as head has, ends a \
command without a word, with 141.";

/// What a build without AWS's clients says of itself.
const WITHOUT_AWS: &str = if cfg!(feature = "aws") {
    ""
} else {
    "

This kassa was built for one machine: with --stage it can do nothing. This builds one that can:
  cargo install --path . --features aws"
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open the shop: take sales until Ctrl-C
    Up(UpArgs),
    /// Make a deployed stage match shops.toml: keys, registry, items and opening stock
    Apply(ApplyArgs),
    /// Be a till: seal sales, post each until it is accepted
    Sell(SellArgs),
    /// Enrol tills, whose signatures a shop trusts
    #[command(subcommand)]
    Till(TillCommand),
    /// Show, rotate and retire the shops' keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Is the shop all right? What is wrong, since when, and which command mends it
    Status(StatusArgs),
    /// Serve the console of a deployed stage until Ctrl-C; that of a shop on this machine is where kassa up says
    Console(ConsoleArgs),
    /// Show one sale's events in order, and where it stands
    #[command(after_help = "Examples:
  kassa sale 019394e8-6c00-7000-8000-000000000001
  kassa sale 12345-20261122 --shop AMIS1 --stage dev --json")]
    Sale(SaleArgs),
    /// Show stock and turnover
    #[command(after_help = "Examples:
  kassa stock
  kassa stock --shop AMIS1 --stage dev --json")]
    Stock(ShopArgs),
    /// Print a shop's events, one JSON object a line
    #[command(after_help = "Examples:
  kassa events --shop AMIS1 --day 2026-11-22 | jq .kind
  kassa events --shop AMIS1 --stage dev
  kassa events --misdated | jq '{shop_id, sale_id, till: .body.till, dated: .body.dated, booked: .body.business_date}'")]
    Events(EventsArgs),
    /// List rejected sales, and why
    Rejected(RejectedArgs),
    /// Put rejected sales through again, once what was wrong is mended
    Retry(RetryArgs),
    /// Give rejected sales up that nobody can book, and keep why as an event
    Drop(GiveUpArgs),
    /// What queues put aside: list, show, send back, or drop
    #[command(name = "dead-letters")]
    DeadLetters(DeadLettersArgs),
    /// Send accepted sales that came to no end on their way again
    Reconcile(ReconcileArgs),
    /// Check that the books balance: every sale and every row against the events
    #[command(after_help = "The exit code is 1 if they do not.

Examples:
  kassa check
  kassa check --stage dev --json")]
    Check(AskArgs),
    /// Make stock and turnover anew from the events, while sales go on
    #[command(after_help = "Cut off, it can be run again; it then completes what was begun.

Examples:
  kassa rebuild
  kassa rebuild --stage dev")]
    Rebuild(AskArgs),
    /// Back up the shop on this machine, while it is open or closed
    Backup(BackupArgs),
    /// Make a shop of a backup; of a deployed stage, rehearse its point-in-time recovery, or put back what it has lost
    Restore(RestoreArgs),
    /// Show how it goes with the warehouse: delivering, failing since when, or stopped
    #[command(
        after_help = "A warehouse that answered 410 Gone gets nothing more until it is resumed, or has another URL. \
What waits for it stays in its queue.

Examples:
  kassa webhook
  kassa webhook --stage prod --resume"
    )]
    Webhook(WebhookArgs),
    /// Show what was sent: text messages and alerts, to whom, in which words
    #[command(after_help = "On this machine nothing is sent; what would have been is kept here.

Examples:
  kassa outbox
  kassa outbox --follow
  kassa outbox --json | jq 'select(.channel == \"sms\")'")]
    Outbox(OutboxArgs),
    /// Show what subscribers found out
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Be the warehouse: take its sales and load them into Postgres until Ctrl-C
    Warehouse(WarehouseArgs),
    /// What the shop costs on AWS, by measured units and list prices
    Cost(CostArgs),
    /// A tour: two shops, tills good and bad, a crash, and the books afterwards
    Demo,
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Until it is stopped with Ctrl-C (or SIGTERM), which ends what was begun and exits 0. \
Killed at any moment and started again, it finishes what it had accepted.

Examples:
  kassa up --listen 127.0.0.1:0 --data /tmp/shop --sync normal
  kassa up --listen 0.0.0.0:8443 --tls-cert shop.pem --tls-key shop.key
  kassa up --set GROUP_WAIT=5s --set RESOLVE_AFTER=1m"
)]
pub struct UpArgs {
    /// Where tills post; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// The folder that is the shop: database, keys, lock
    #[arg(long, default_value = DATA, value_name = "FOLDER")]
    pub data: PathBuf,
    /// Shops and items [default: ./shops.toml, or the one Kassa ships with]
    #[arg(long, value_name = "FILE")]
    pub shops: Option<PathBuf>,
    /// What an accepted sale survives: power loss, or kill -9 only (faster)
    #[arg(long, value_enum, default_value = "full")]
    pub sync: Sync,
    /// A certificate in PEM, with its chain: tills post by https
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key in PEM, readable by its owner only
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// A setting of a subscriber, as deploy.yml names it; else the environment's
    #[arg(long, value_name = "NAME=VALUE", value_parser = set::setting)]
    pub set: Vec<(String, String)>,
}

/// Sales a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number from 0.001 to 1000000".into()),
    }
}

/// Seconds.
fn patience(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(seconds) if seconds <= 86_400 => Ok(seconds),
        _ => Err("must be a number of seconds, at most 86400".into()),
    }
}

/// What the shop takes as a till's name.
fn till_name(text: &str) -> Result<String, String> {
    kassa_pipeline::content::check_till(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// Which shop is asked: one on this machine, or a deployed one.
#[derive(Debug, Args)]
pub struct Where {
    /// The shop's folder
    #[arg(long, default_value = DATA, value_name = "FOLDER")]
    pub data: PathBuf,
    /// A deployed stage instead, with the AWS credentials and region of the environment
    #[arg(long, conflicts_with = "data")]
    pub stage: Option<StageName>,
    #[command(flatten)]
    pub service: Service,
}

#[derive(Debug, Args)]
pub struct Service {
    /// The service's name in serverless.yml
    #[arg(long, default_value = SERVICE, hide_short_help = true)]
    pub service: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Changes what differs and nothing else; applying again changes nothing. It never deletes \
anything, a key least of all.

Examples:
  kassa apply --stage dev --dry-run
  kassa apply --stage prod --shops shops.toml"
)]
pub struct ApplyArgs {
    /// The deployed stage
    #[arg(long)]
    pub stage: StageName,
    #[command(flatten)]
    pub service: Service,
    /// Shops and items [default: ./shops.toml, or the one Kassa ships with]
    #[arg(long, value_name = "FILE")]
    pub shops: Option<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct AskArgs {
    #[command(flatten)]
    pub shop: Where,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 if the first line says ●: the shop is open, its alarms watch, none has gone off, and nothing needs \
attention; under ▲ and ✖ it is 1. With --json, attention lists what does: shop, till, reason, how many, since when, \
and the command to run. A shop \
of this machine that is closed shows what its books say.

Rates, failures and times are the last five minutes': p50 of the middle minute, p99 of the worst. On AWS they \
are those up to two minutes ago, which is how late CloudWatch has them. What it has cost is by what AWS has \
counted where it counts, else by measured units, at the list prices of kassa cost.

--watch looks every 2 seconds here, and every minute on AWS, where CloudWatch charges about a cent for ten \
looks. On a terminal it redraws; elsewhere it prints a line each time, or with --json an object. Ctrl-C ends \
it, and so does the closing of the shop.

Asking AWS needs, beside what other questions need, the rights cloudwatch:GetMetricData and \
cloudwatch:DescribeAlarms on Resource \"*\"; they can be narrowed to no stage.

Examples:
  kassa status
  kassa status --watch
  kassa status --stage prod
  kassa status --stage prod --json | jq '.health.alarms[] | select(.state == \"ALARM\") | .run'
  kassa status --stage prod > /dev/null || echo somebody should look"
)]
pub struct StatusArgs {
    /// Look again and again, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Whoever is at this machine may look. Told to listen elsewhere, it wants the token that it prints.

What it shows it asks AWS for with the credentials of the environment, so that nobody who looks needs any: it \
reads tables and CloudWatch, and changes nothing. CloudWatch is asked for the same thing once a minute however \
many look, the tables for the latest sales every five seconds while somebody does.

Examples:
  kassa console --stage prod
  kassa console --stage prod --listen 0.0.0.0:8091"
)]
pub struct ConsoleArgs {
    /// The deployed stage
    #[arg(long)]
    pub stage: StageName,
    #[command(flatten)]
    pub service: Service,
    /// Where browsers look; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8091", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
}

#[derive(Debug, Args)]
pub struct WebhookArgs {
    /// Try the warehouse at the next run, whatever it answered last
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct OutboxArgs {
    /// Go on showing what comes, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Which wrong keys sales came with, from which tills, and what to do about it
    #[command(
        after_help = "Counted by the UTC day: a key that was seen since then is shown with all of its days. \
An unknown key is judged in the light of all shops, with --shop as well.

Examples:
  kassa audit keys
  kassa audit keys --since 7d --shop AMIS1
  kassa audit keys --stage prod --json | jq '.keys[] | {shop_id, told, looks_like, what_to_do}'"
    )]
    Keys(AuditKeysArgs),
}

#[derive(Debug, Args)]
pub struct AuditKeysArgs {
    /// How far back to look, as 90m, 24h or 7d
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = back)]
    pub since: SignedDuration,
    #[command(flatten)]
    pub shop: ShopArgs,
}

/// A length of time up to a quarter of a year, a day having 24 hours.
fn back(text: &str) -> Result<SignedDuration, String> {
    let parsed = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let within = |time: &SignedDuration| time.is_positive() && *time <= SignedDuration::from_hours(24 * 92);
    parsed.ok().filter(within).ok_or_else(|| "must be a length of time, as 24h or 7d, up to 92d".into())
}

#[derive(Debug, Args)]
pub struct ShopArgs {
    /// Only this shop
    #[arg(long)]
    pub shop: Option<String>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, Args)]
pub struct SaleArgs {
    /// The sale's id
    pub id: String,
    #[command(flatten)]
    pub shop: ShopArgs,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The shop
    #[arg(long, required_unless_present = "misdated")]
    pub shop: Option<String>,
    /// Only sales whose id is of this UTC date, as 2026-11-22
    #[arg(long)]
    pub day: Option<String>,
    /// Only recorded sales that are not booked on the day they say, more than 48 hours ahead or before 1970
    #[arg(long)]
    pub misdated: bool,
    #[command(flatten)]
    pub at: Where,
    /// Events are JSON anyway
    #[arg(long, hide = true)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Deliveries are signed as Standard Webhooks asks. The secret they are signed with stands in the \
variable WAREHOUSE_SECRET or in a file, which is read again when it changes; while it is being \
replaced, both, separated by a space or on lines of their own.

The database's certificate must be one the system trusts (SSL_CERT_FILE names others); \
?sslmode=disable is for a server on this machine. Tables are made, and brought up to date.

Examples:
  WAREHOUSE_SECRET=whsec_… kassa warehouse --database postgres://kassa@db.example.com/warehouse
  kassa warehouse --database postgres://kassa@localhost/warehouse?sslmode=disable \\
    --secret-file /run/secrets/webhook --shops shops.toml
  kassa warehouse --database postgres://kassa@db.example.com/warehouse \\
    --topic arn:aws:sns:eu-west-1:123456789012:kassa-prod-to-process"
)]
pub struct WarehouseArgs {
    /// Where sales are loaded: a Postgres database
    #[arg(long, env = "WAREHOUSE_DATABASE", hide_env_values = true, value_name = "URL")]
    pub database: String,
    /// Where deliveries come in; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// The file with the secret [default: the variable's]
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Shops and items, for their names, time zones and descriptions
    #[arg(long, value_name = "FILE")]
    pub shops: Option<PathBuf>,
    /// Also take what this topic sends straight from SNS; may be repeated
    #[arg(long, value_name = "ARN")]
    pub topic: Vec<TopicArn>,
}

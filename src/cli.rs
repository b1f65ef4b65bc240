use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use kassa_bus::{Clock, ShopId, telemetry};
use serde_json::json;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cloud::{Stage, StageName};
use crate::cost::{self, CostArgs};
use crate::embedded::{OpenShop, Sync, Up};
use crate::plan::Plan;
use crate::questions::DayFilter;
use crate::questions::ask::{Ask, AskError};
use crate::questions::render;
use crate::shops::Shops;
use crate::till::sell::{Goods, Pace, Summary, progress_bar, read_sale, sell};
use crate::till::{Format, Till};
use crate::{demo, show};

/// Kassa takes encrypted sales from shop tills, keeps each one as an append-only event, and lets
/// anything that cares subscribe.
///
/// On this machine one process is the whole shop: `kassa up` opens it, `kassa sell` is a till, and
/// the other commands ask about sales, whether the shop is open or closed. With `--stage` they speak
/// to the shop that `npx serverless deploy` put on AWS.
#[derive(Debug, Parser)]
#[command(name = "kassa", version, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  kassa demo                                    a guided tour, half a minute
  kassa up                                      open the shops of shops.toml on 127.0.0.1:8080
  kassa sell --shop AMIS1 --count 1000          sell a thousand random sales
  kassa sell --shop AMIS1 --key-of AMIS2 --count 1
                                                play the till that has the wrong key
  kassa sale 019394e8-6c00-7000-8000-000000000001
                                                where is this sale?
  kassa stock --shop AMIS1                      what is left, and what was earned
  kassa events --shop AMIS1 --day 2026-11-22 | jq .kind
  kassa check --json                            do the books balance?
  kassa apply --stage dev --dry-run             what would shops.toml change on AWS?
  kassa stock --stage dev                       ask the shop on AWS
  kassa completions bash > ~/.local/share/bash-completion/completions/kassa

Logs go to stderr; RUST_LOG=debug shows more. The exit code is 0 only if what was asked for was done.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Open the shop: take sales until Ctrl-C
    Up(UpArgs),
    /// Make a deployed stage match shops.toml: keys, registry, items and opening stock
    Apply(ApplyArgs),
    /// Be a till: seal sales, post each until it is accepted
    Sell(SellArgs),
    /// Show one sale's events in order, and where it stands
    Sale(SaleArgs),
    /// Show stock and turnover
    Stock(ShopArgs),
    /// Print a shop's events, one JSON object a line
    Events(EventsArgs),
    /// Check that the books balance: every sale and every row against the events
    Check(AskArgs),
    /// Make stock and turnover anew from the events, while sales go on
    Rebuild(AskArgs),
    /// What the shop costs on AWS, by measured units and list prices
    Cost(CostArgs),
    /// A tour: two shops, tills good and bad, a crash, and the books afterwards
    Demo,
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
#[command(after_help = "Until it is stopped with Ctrl-C (or SIGTERM), which ends what was begun and exits 0.
Killed at any moment and started again, it finishes what it had accepted.

Example:
  kassa up --listen 127.0.0.1:0 --data /tmp/shop --sync normal")]
struct UpArgs {
    /// Where tills post; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The folder that is the shop: database, keys, lock
    #[arg(long, default_value = "./kassa-data", value_name = "FOLDER")]
    data: PathBuf,
    /// Shops and items [default: ./shops.toml, or the one Kassa ships with]
    #[arg(long, value_name = "FILE")]
    shops: Option<PathBuf>,
    /// What an accepted sale survives: power loss, or kill -9 only (faster)
    #[arg(long, value_enum, default_value = "full")]
    sync: Sync,
}

#[derive(Debug, Args)]
#[command(after_help = "Each sale has an id of its own and is posted under it until the shop says yes, with
exponential backoff and jitter, honouring Retry-After. Repeating is harmless: a sale counts once.
The exit code is 1 if any sale was not accepted.

A sale's file holds {\"sales\":[{\"item_no\":\"98\",\"gross_number\":\"2\",\"gross_turnover\":\"37.90\"}]}

Examples:
  kassa sell --shop AMIS1 --file sale.json
  kassa sell --shop AMIS2 --count 100000 --concurrency 64
  kassa sell --shop AMIS1 --count 600 --rate 10 --format classic")]
struct SellArgs {
    /// The shop the till stands in
    #[arg(long)]
    shop: ShopId,
    /// Where the shop takes sales
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Sell to a deployed stage, whose URL is looked up
    #[arg(long, conflicts_with = "url")]
    stage: Option<StageName>,
    #[command(flatten)]
    service: Service,
    /// Sell this sale
    #[arg(long, value_name = "FILE", conflicts_with = "count")]
    file: Option<PathBuf>,
    /// Sell this many random sales of the items in shops.toml
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Sales a second, at most
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Sales on their way at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// How to encrypt
    #[arg(long, value_enum, default_value = "sealed")]
    format: Format,
    /// The till's name
    #[arg(long, default_value = "till-1")]
    till: String,
    /// Seal with another shop's key, as a misconfigured till would
    #[arg(long, value_name = "OTHERSHOP")]
    key_of: Option<ShopId>,
    /// Seconds to try one sale for
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Items to draw on [default: ./shops.toml, or the one Kassa ships with]
    #[arg(long, value_name = "FILE")]
    shops: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("must be a number above 0".into()),
    }
}

/// Which shop is asked: one on this machine, or a deployed one.
#[derive(Debug, Args)]
struct Where {
    /// The shop's folder
    #[arg(long, default_value = "./kassa-data", value_name = "FOLDER")]
    data: PathBuf,
    /// A deployed stage instead, with the AWS credentials and region of the environment
    #[arg(long, conflicts_with = "data")]
    stage: Option<StageName>,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Args)]
struct Service {
    /// The service's name in serverless.yml
    #[arg(long, default_value = "kassa", hide_short_help = true)]
    service: String,
}

impl Where {
    async fn ask(&self) -> Result<Ask, AskError> {
        match &self.stage {
            Some(stage) => Ask::stage(&self.service.service, stage).await,
            None => Ask::at(&self.data).await,
        }
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Changes what differs and nothing else; applying again changes nothing. It never deletes
anything, a key least of all.

Examples:
  kassa apply --stage dev --dry-run
  kassa apply --stage prod --shops shops.toml"
)]
struct ApplyArgs {
    /// The deployed stage
    #[arg(long)]
    stage: StageName,
    #[command(flatten)]
    service: Service,
    /// Shops and items [default: ./shops.toml, or the one Kassa ships with]
    #[arg(long, value_name = "FILE")]
    shops: Option<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AskArgs {
    #[command(flatten)]
    shop: Where,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShopArgs {
    /// Only this shop
    #[arg(long)]
    shop: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
struct SaleArgs {
    /// The sale's id
    id: String,
    #[command(flatten)]
    shop: ShopArgs,
}

#[derive(Debug, Args)]
struct EventsArgs {
    #[arg(long)]
    shop: String,
    /// Only sales whose id is of this UTC date, as 2026-11-22
    #[arg(long)]
    day: Option<String>,
    #[command(flatten)]
    at: Where,
    /// Events are JSON anyway
    #[arg(long, hide = true)]
    json: bool,
}

/// Anything that ends a command.
type Failure = Box<dyn std::error::Error>;

/// Runs the command.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(dispatch(cli.command)) {
        Ok(code) => code,
        Err(error) => fail(&*error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("kassa: {}", show::chain(error));
    ExitCode::FAILURE
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    let quiet = !matches!(command, Command::Up(_));
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| if quiet { "error" } else { "info" }.into());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_filter(telemetry::filter(&level)?);
    tracing_subscriber::registry().with(lines).init();
    match command {
        Command::Up(args) => up(args).await,
        Command::Apply(args) => apply(args).await,
        Command::Sell(args) => sell_command(args).await,
        Command::Sale(SaleArgs { id, shop: ShopArgs { shop, ask } }) => {
            let history = ask.shop.ask().await?.sale(&id, shop).await?;
            print(&if ask.json { format!("{}\n", json!(history)) } else { render::sale(&history) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Stock(ShopArgs { shop, ask }) => {
            let rows = ask.shop.ask().await?.stock(shop).await?;
            print(&if ask.json { format!("{}\n", json!(rows)) } else { render::stock(&rows) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Events(EventsArgs { shop, day, at, json: _ }) => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            let asked = at.ask().await?;
            // `kassa events | head` ends when head has enough.
            asked.events(&DayFilter { shop, day }, |event| writeln!(out, "{event}").is_ok()).await?;
            let _ = out.flush();
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(ask) => {
            let bar = events_bar("checking");
            let check = ask.shop.ask().await?.check(&|read, of| advance(&bar, read, of)).await?;
            bar.finish_and_clear();
            print(&if ask.json { format!("{}\n", json!(check)) } else { render::check(&check) });
            Ok(if check.mismatches.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Rebuild(ask) => {
            let bar = events_bar("rebuilding");
            let rebuilt = ask.shop.ask().await?.rebuild(&|read, of| advance(&bar, read, of)).await?;
            bar.finish_and_clear();
            print(&if ask.json { format!("{}\n", json!(rebuilt)) } else { render::rebuilt(&rebuilt) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Cost(args) => {
            print(&cost::run(&args)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo => demo::run().await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "kassa", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whoever reads may have gone away; that is not ours to complain about.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Counts events read; draws nothing where stderr is no terminal.
fn events_bar(doing: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix} {bar:30.green} {human_pos}/{human_len} events, {per_sec}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_prefix(doing)
}

fn advance(bar: &ProgressBar, read: u64, of: u64) {
    bar.set_length(of.max(read));
    bar.set_position(read);
}

async fn up(args: UpArgs) -> Result<ExitCode, Failure> {
    let shops = Shops::read(args.shops.as_deref())?;
    let ids: Vec<ShopId> = shops.shops.iter().map(|shop| shop.id.clone()).collect();
    let up = Up { listen: args.listen, data: args.data, shops, sync: args.sync, clock: Clock::system() };
    let shop = OpenShop::open(up).await?;
    let mut text = String::new();
    for change in &shop.applied.changes {
        text.push_str(&format!("  {}\n", show::marked(&change.to_string())));
    }
    let url = &shop.occupant.url;
    text.push_str(&format!("Kassa is open at {url}\n"));
    text.push_str(&format!("  POST {url}/shop\n"));
    for id in &ids {
        text.push_str(&format!("  GET  {url}/shop/{id}/key\n"));
    }
    text.push_str(&format!("  GET  {url}/health\nCtrl-C closes it.\n"));
    print(&text);
    asked_to_stop().await?;
    eprintln!("closing: no more sales, ending what was begun");
    match shop.close().await {
        0 => {}
        left => eprintln!("{left} messages were left; they are published again when the shop opens"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply(args: ApplyArgs) -> Result<ExitCode, Failure> {
    let shops = Shops::read(args.shops.as_deref())?;
    let stage = Stage::find(&args.service.service, &args.stage).await?;
    let (books, keys) = (stage.books().await?, stage.keys()?);
    let plan = Plan::make(&shops, &keys, &books.registry, &books.read_model).await?;
    print(&if args.json { format!("{}\n", json!(plan)) } else { plan_text(&plan) });
    if !args.dry_run {
        plan.carry_out(&keys, &books.registry, &books.read_model, Clock::system().now()).await?;
    }
    if !args.json {
        let stack = &stage.stack;
        print(&match (plan.changes.len(), args.dry_run) {
            (0, _) => format!("{stack} is as declared\n"),
            (n, true) => format!("{n} changes to {stack} are planned, none was made\n"),
            (n, false) => format!("{n} changes to {stack} were made\n"),
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Green for what is new, yellow for what changes.
fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        text.push_str(&format!("  {}\n", show::marked(&change.to_string())));
    }
    for shop in &plan.undeclared {
        text.push_str(&format!("  = {shop} is registered and not declared; it stays as it is\n"));
    }
    text
}

async fn asked_to_stop() -> std::io::Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        asked = tokio::signal::ctrl_c() => asked,
        _ = term.recv() => Ok(()),
    }
}

async fn sell_command(args: SellArgs) -> Result<ExitCode, Failure> {
    let goods = if let Some(file) = &args.file {
        Goods::Lines(read_sale(file)?)
    } else {
        let items = Shops::read(args.shops.as_deref())?.items;
        if items.is_empty() {
            return Err("shops.toml declares no items to sell".into());
        }
        Goods::Random(items)
    };
    let url = match &args.stage {
        Some(stage) => Stage::find(&args.service.service, stage).await?.url()?.to_owned(),
        None => args.url,
    };
    let mut till = Till::new(&url, args.shop, &args.till, args.format, Clock::system())?;
    if let Some(other) = args.key_of {
        till.key_of = other;
    }
    till.patience = std::time::Duration::from_secs(args.patience);
    let pace = Pace { count: args.count, rate: args.rate, concurrency: args.concurrency.into() };
    let summary = sell(Arc::new(till), Arc::new(goods), pace, progress_bar(&args.till)).await;
    print(&if args.json { format!("{}\n", json!(summary)) } else { summary_text(&summary) });
    Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary_text(summary: &Summary) -> String {
    let Summary { accepted, failed, retries, seconds, per_second, p50_ms, p99_ms, errors, last_sale } =
        summary;
    let mut text = format!(
        "{accepted} sales accepted in {seconds:.1} s ({per_second:.0}/s), p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, {retries} retries\n"
    );
    if *failed > 0 {
        text.push_str(&format!("{failed} sales were not accepted:\n"));
        for error in errors {
            text.push_str(&format!(
                "  {error}
"
            ));
        }
    }
    if let Some(sale) = last_sale {
        text.push_str(&format!("the last one was {sale}\n"));
    }
    text
}

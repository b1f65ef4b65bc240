/// Sales that are to go their way again.
mod again;
/// Backups, and what becomes of them.
mod backup;
/// What queues put aside.
mod dead_letters;
/// The shops' keys.
mod key;
/// What was lost, and how it comes back.
mod restore;
/// A till that sells.
mod sell;
/// Tills, their keys and their journals.
mod till;
/// Those that watch: `status` and `console`.
mod watching;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use indicatif::{ProgressBar, ProgressStyle};
use kassa_bus::error::chain;
use kassa_bus::table::Readable;
use kassa_bus::tills::Unsigned;
use kassa_bus::{Clock, Settings, ShopId, telemetry};
use serde_json::json;
use tokio::net::TcpListener;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use zeroize::Zeroizing;

use crate::args::{
    ApplyArgs, AuditCommand, AuditKeysArgs, Cli, Command, DATA, EventsArgs, OutboxArgs, SERVICE, SaleArgs,
    ShopArgs, UpArgs, WarehouseArgs, WebhookArgs, Where,
};
use crate::cloud::Stage;
use crate::cost;
use crate::embedded::{OpenShop, Up};
use crate::plan::Plan;
use crate::questions::ask::{Ask, AskError};
use crate::questions::audit::AuditFilter;
use crate::questions::render;
use crate::questions::{DayFilter, OutboxFilter};
use crate::shops::Shops;
use crate::tls::TlsFiles;
use crate::warehouse::{Database, Https, Receiver, Secrets, Subscriptions};
use crate::{demo, show};

impl Where {
    async fn ask(&self) -> Result<Ask, AskError> {
        match &self.stage {
            Some(stage) => Ask::stage(&self.service.service, stage).await,
            None => Ask::at(&self.data).await,
        }
    }

    /// What another command needs to be told to ask the same.
    fn reach(&self) -> String {
        let default = |data: &Path| data == Path::new(DATA);
        match (&self.stage, self.service.service.as_str()) {
            (Some(stage), SERVICE) => format!(" --stage {stage}"),
            (Some(stage), service) => format!(" --stage {stage} --service {service}"),
            (None, _) if default(&self.data) => String::new(),
            (None, _) => format!(" --data {}", self.data.display()),
        }
    }
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
    eprintln!("kassa: {}", chain(error));
    ExitCode::FAILURE
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    let quiet = !matches!(command, Command::Up(_) | Command::Console(_) | Command::Warehouse(_));
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| if quiet { "error" } else { "info" }.into());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_filter(telemetry::filter(&level)?);
    tracing_subscriber::registry().with(lines).init();
    match command {
        Command::Up(args) => Box::pin(up(args)).await,
        Command::Apply(args) => apply(args).await,
        Command::Sell(args) => sell::sell(args).await,
        Command::Till(command) => till::till(command).await,
        Command::Key(command) => key::key(command).await,
        Command::Sale(SaleArgs { id, shop: ShopArgs { shop, ask } }) => {
            let history = ask.shop.ask().await?.sale(&id, shop).await?;
            print(&if ask.json { format!("{}\n", json!(history)) } else { render::sale(&history) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Stock(ShopArgs { shop, ask }) => {
            let rows = read(ask.shop.ask().await?.stock(shop).await?);
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
        Command::Rejected(args) => again::rejected(args).await,
        Command::Retry(args) => again::retry(args).await,
        Command::Drop(args) => again::give_up(args).await,
        Command::DeadLetters(args) => dead_letters::dead_letters(args).await,
        Command::Reconcile(args) => again::reconcile(args).await,
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
        Command::Backup(args) => backup::backup(args).await,
        Command::Restore(args) => restore::restore(args).await,
        Command::Status(args) => watching::status(args).await,
        Command::Console(args) => watching::console(args).await,
        Command::Outbox(args) => outbox(args).await,
        Command::Webhook(WebhookArgs { resume, ask }) => {
            let asked = ask.shop.ask().await?;
            let state = if resume { asked.resume_webhook().await? } else { asked.webhook().await? };
            print(&if ask.json { format!("{}\n", json!(state)) } else { render::webhook(&state) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Audit(AuditCommand::Keys(AuditKeysArgs { since, shop: ShopArgs { shop, ask } })) => {
            let to = Clock::system().now();
            let audit = ask.shop.ask().await?.audit_keys(&AuditFilter { shop, from: to - since, to }).await?;
            print(&if ask.json { format!("{}\n", json!(audit)) } else { render::audit(&audit) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Warehouse(args) => warehouse(args).await,
        Command::Cost(args) => {
            print(&cost::run(&args)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo => demo::run().await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kassa", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn outbox(OutboxArgs { follow, ask }: OutboxArgs) -> Result<ExitCode, Failure> {
    let asked = ask.shop.ask().await?;
    let mut seen = OutboxFilter::default();
    loop {
        let sent = asked.outbox(&seen).await?;
        if sent.is_empty() && seen.after.is_empty() && !follow && !ask.json {
            print("Nothing was sent.\n");
        }
        for (name, sent) in sent {
            print(&if ask.json { format!("{}\n", json!(sent)) } else { render::sent(&sent) });
            seen.after = name;
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(OUTBOX_LOOK).await;
    }
}

/// How often a followed outbox is looked at.
const OUTBOX_LOOK: Duration = Duration::from_millis(300);

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
    let up = Up {
        listen: args.listen,
        data: args.data,
        shops,
        sync: args.sync,
        clock: Clock::system(),
        settings: Settings::from_env().with(args.set),
        tls: args.tls_cert.zip(args.tls_key).map(|(certificate, key)| TlsFiles { certificate, key }),
    };
    let data = up.data.clone();
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
    text.push_str(&format!("  GET  {url}/health\n"));
    text.push_str(&signed_only(&shop, &ids, &data).await);
    text.push_str(&format!("The console is at {}\nCtrl-C closes it.\n", shop.console));
    print(&text);
    asked_to_stop().await?;
    eprintln!("closing: no more sales, ending what was begun");
    match shop.close().await {
        0 => {}
        left => eprintln!("{left} messages were left; they are published again when the shop opens"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Which of the shops reject what no till signed, and what a till does about it.
async fn signed_only(shop: &OpenShop, ids: &[ShopId], data: &Path) -> String {
    let mut signed = Vec::new();
    for id in ids {
        // Of one that cannot be read, that was said when it was opened.
        let registered = shop.store.registry.shop(id).await.ok().flatten();
        signed.extend(registered.filter(|shop| shop.unsigned == Unsigned::Reject).map(|_| id.as_str()));
    }
    let Some(first) = signed.first() else { return String::new() };
    let data = if data == Path::new(DATA) { String::new() } else { format!(" --data {}", data.display()) };
    format!(
        "Signed sales only: {}; kassa till enroll --shop {first} --till till-1{data} enrols a till\n",
        signed.join(", ")
    )
}

/// Rows as far as they can be read, after saying which cannot: an answer is an answer all the same.
fn read<T>(Readable { rows, unreadable }: Readable<T>) -> Vec<T> {
    say_skipped(&unreadable);
    rows
}

fn say_skipped(rows: &[String]) {
    for row in rows {
        eprintln!("skipped: {row}");
    }
}

async fn apply(args: ApplyArgs) -> Result<ExitCode, Failure> {
    let shops = Shops::read(args.shops.as_deref())?;
    let stage = Stage::find(&args.service.service, &args.stage).await?;
    let (books, keys) = (stage.books().await?, stage.keys()?);
    let plan = Plan::make(&shops, &*keys, &books.registry, &books.read_model).await?;
    print(&if args.json { format!("{}\n", json!(plan)) } else { plan_text(&plan) });
    if !args.dry_run {
        let now = Clock::system().now();
        let refused = plan.carry_out(&*keys, &books.registry, &books.read_model, now).await?;
        say_skipped(&refused);
    }
    if !args.json {
        let stack = stage.stack();
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
    for row in &plan.unreadable {
        text.push_str(&format!("  ! {row}; it stays as it is\n"));
    }
    text
}

async fn warehouse(args: WarehouseArgs) -> Result<ExitCode, Failure> {
    let secrets = match args.secret_file {
        Some(file) => Secrets::of_file(file)?,
        None => Secrets::given(&Zeroizing::new(std::env::var("WAREHOUSE_SECRET").unwrap_or_default()))?,
    };
    if secrets.none() && args.topic.is_empty() {
        return Err("nobody could deliver: set WAREHOUSE_SECRET, --secret-file or --topic".into());
    }
    let shops = args.shops.map(|file| Shops::read(Some(&file))).transpose()?;
    let receiver = Receiver {
        database: Database::new(&args.database, shops)?,
        secrets,
        subscriptions: Subscriptions::new(args.topic, Arc::new(Https::new()?)),
        clock: Clock::system(),
    };
    let listener = TcpListener::bind(args.listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    print(&format!(
        "The warehouse takes sales at {url}\n  POST {url}/sales\n  POST {url}/sns\nCtrl-C closes it.\n"
    ));
    let until = async {
        match asked_to_stop().await {
            Ok(()) => eprintln!("closing: no more deliveries, ending what was begun"),
            Err(error) => eprintln!("closing: signals cannot be had: {error}"),
        }
    };
    receiver.serve(listener, until).await?;
    Ok(ExitCode::SUCCESS)
}

async fn asked_to_stop() -> std::io::Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        asked = tokio::signal::ctrl_c() => asked,
        _ = term.recv() => Ok(()),
    }
}

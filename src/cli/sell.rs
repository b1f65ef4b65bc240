//! `kassa sell`: a till on this machine.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use kassa_bus::{Clock, Settings, Tracer};
use serde_json::json;

use super::{Failure, till};
use crate::args::SellArgs;
use crate::otlp;
use crate::output::{print, say};
use crate::shops::Shops;
use crate::till::Till;
use crate::till::answer::Away;
use crate::till::counter::Counter;
use crate::till::folder::TillFolder;
use crate::till::goods::{Goods, Seller, read_sale};
use crate::till::journal::{Found, Journal};
use crate::till::outcome::Outcomes;
use crate::till::sell::{Pace, Sold, Summary, progress_bar};

/// How long the end of a command waits for those who collect its traces.
const LAST_EXPORT: Duration = Duration::from_secs(5);

pub(super) async fn sell(args: SellArgs) -> Result<ExitCode, Failure> {
    let goods = if let Some(file) = &args.file {
        let by = Seller { shop: &args.shop, till: &args.till, format: args.format };
        Goods::Basket(read_sale(file, &by)?)
    } else {
        let items = Shops::read(args.shops.as_deref())?.items;
        if items.is_empty() {
            return Err("shops.toml declares no items to sell".into());
        }
        Goods::Random(items)
    };
    let url = till::url(&args.to).await?;
    let folder = TillFolder::named(&args.folder, &args.shop, &args.till);
    folder.make()?;
    let journal = Journal::open(&folder.journal(&url), Clock::system())?;
    told_of(&journal.found, &args.till);
    let mut till = Till::new(&url.to_string(), args.shop, &args.till, args.format, Clock::system())?;
    till.signer = folder.signer()?;
    till.key_file = args.key_of.is_none().then(|| folder.key_file(&url));
    if let Some(other) = args.key_of {
        till.key_of = other;
    }
    till.patience = Duration::from_secs(args.patience);
    till.traceparent = args.traceparent;
    let resource = [("service.name", "till".to_owned()), ("service.instance.id", args.till.clone())];
    let tracer = Tracer::new(&Settings::from_env(), resource, Clock::system(), otlp::connect)?;
    till.tracer = tracer.clone();
    let bar = progress_bar(&args.till);
    till.told = telling(&args.till, &till, &bar);
    let exporting = tokio::spawn(tracer.clone().run());
    let pace = Pace { count: args.count, rate: args.rate, concurrency: args.concurrency.into() };
    let counter = Arc::new(Counter::new(till, journal, args.drain_rate));
    let sold = counter.sell(Arc::new(goods), pace, bar).await;
    tracer.close(LAST_EXPORT).await;
    exporting.abort();
    let Sold { mut summary, some, ended } = sold?;
    match counter.till.outcomes(&some).await {
        Ok(outcomes) => summary.outcomes = Some(outcomes).filter(|outcomes| outcomes.asked > 0),
        Err(away) => say(format_args!("{}: what became of the sales cannot be asked: {away}", args.till)),
    }
    print(&if args.json { format!("{}\n", json!(summary)) } else { summary_text(&summary) })?;
    ended?;
    let rejected = summary.outcomes.is_some_and(|told| told.unknown > 0 || !told.rejected.is_empty());
    Ok(if summary.failed + summary.waiting == 0 && !rejected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says why the shop does not take sales, once for each reason in a row.
pub(super) fn telling(name: &str, till: &Till, bar: &ProgressBar) -> Box<dyn Fn(&Away) + Send + Sync> {
    let begin = format!("{name}: {} does not take sales", till.url());
    let end = format!("trying for {} s", till.patience.as_secs());
    let (bar, last) = (bar.clone(), Mutex::new(String::new()));
    Box::new(move |away| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != away.why {
            bar.suspend(|| say(format_args!("{begin}: {away}; {end}")));
            last.clone_from(&away.why);
        }
    })
}

/// What a till must hear of its journal before it sells.
pub(super) fn told_of(found: &Found, till: &str) {
    if let Some(damaged) = &found.damaged {
        say(format_args!(
            "{till}: the journal was damaged; what can be read of it goes on, and all of it is kept in {}",
            damaged.display()
        ));
    }
    if found.taken_over > 0 {
        say(format_args!("{till}: {} journals of earlier processes are taken over", found.taken_over));
    }
    if found.unreadable > 0 {
        say(format_args!(
            "{till}: {} places in them could not be read; what is behind them is whole",
            found.unreadable
        ));
    }
    if found.waiting > 0 {
        say(format_args!("{till}: {} sales from before wait, and go first", found.waiting));
    }
}

fn summary_text(summary: &Summary) -> String {
    let Summary { accepted, failed, retries, seconds, per_second, p50_ms, p99_ms, waiting, .. } = summary;
    let mut text = format!(
        "{accepted} sales accepted in {seconds:.1} s ({per_second:.0}/s), p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, {retries} retries\n"
    );
    let errors = || summary.errors.iter().fold(String::new(), |all, error| format!("{all}  {error}\n"));
    if *failed > 0 {
        text.push_str(&format!("{failed} sales were not accepted:\n{}", errors()));
    }
    if *waiting > 0 {
        text.push_str(&format!(
            "{waiting} sales are in the till's journal and wait for the shop; kassa till drain sends them\n"
        ));
        if *failed == 0 {
            text.push_str(&errors());
        }
    }
    summary.outcomes.iter().for_each(|outcomes| text.push_str(&outcomes_text(outcomes, *accepted)));
    if let Some(sale) = &summary.last_sale {
        text.push_str(&format!("the last one was {sale}\n"));
    }
    text
}

fn outcomes_text(outcomes: &Outcomes, accepted: u64) -> String {
    let Outcomes { asked, recorded, pending, unknown, rejected, rejected_sale } = outcomes;
    let of = if *asked < accepted { format!("of {asked} that were asked about, ") } else { String::new() };
    let mut parts = vec![format!("{recorded} recorded")];
    parts.extend(rejected.iter().map(|(reason, count)| format!("{count} rejected as {reason}")));
    parts.extend((*pending > 0).then(|| format!("{pending} still on their way")));
    let mut text = format!("{of}{}\n", parts.join(", "));
    if *unknown > 0 {
        text.push_str(&format!(
            "  the shop does not know {unknown} of them, which were answered with yes: something answers in its place\n"
        ));
    }
    if rejected.contains_key("unsigned") {
        text.push_str(
            "  the shop takes signed sales only: kassa till enroll makes the till's key and enrols it\n",
        );
    }
    if let Some(sale) = rejected_sale {
        text.push_str(&format!("  kassa sale {sale} tells why it was rejected\n"));
    }
    text
}

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kassa_bus::Clock;
use serde_json::json;

use super::{Failure, advance, events_bar, print};
use crate::args::{GiveUpArgs, ReconcileArgs, RejectedArgs, RetryArgs};
use crate::questions::Status;
use crate::questions::ask::{Ask, AskError};
use crate::questions::reconcile::ReconcileFilter;
use crate::questions::rejected::{RejectedFilter, ShownRejection};
use crate::questions::render_again as render;

pub(super) async fn rejected(RejectedArgs { shop, reason, ask }: RejectedArgs) -> Result<ExitCode, Failure> {
    let filter = RejectedFilter { shop: shop.map(Into::into), reason, ..RejectedFilter::default() };
    let bar = events_bar("looking");
    let found = ask.shop.ask().await?.rejected(&filter, &|read, of| advance(&bar, read, of)).await?;
    bar.finish_and_clear();
    print(&if ask.json {
        format!("{}\n", json!(found))
    } else {
        render::rejected(&found, &ask.shop.reach())
    });
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn retry(args: RetryArgs) -> Result<ExitCode, Failure> {
    let filter = RejectedFilter {
        shop: Some(args.shop.into()),
        reason: args.reason,
        sale: args.sale,
        opened_with: args.opened_with.map(Into::into),
        why: None,
    };
    let asked = args.ask.shop.ask().await?;
    let bar = events_bar("looking");
    let progress = |read, of| advance(&bar, read, of);
    if args.dry_run {
        let preview = asked.preview(&filter, &progress, Clock::system().now()).await?;
        bar.finish_and_clear();
        print(&if args.ask.json { format!("{}\n", json!(preview)) } else { render::preview(&preview) });
        return Ok(ExitCode::SUCCESS);
    }
    let published = asked.retry(&filter, &progress).await?;
    bar.finish_and_clear();
    let came = follow(&asked, published, Duration::from_secs(args.patience)).await?;
    print(&if args.ask.json { format!("{}\n", json!(came)) } else { render::came(&came) });
    Ok(if came.rejected.is_empty() && came.pending.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(super) async fn give_up(args: GiveUpArgs) -> Result<ExitCode, Failure> {
    let filter = RejectedFilter {
        shop: Some(args.shop.into()),
        reason: args.reason,
        sale: args.sale,
        opened_with: None,
        why: Some(args.why),
    };
    let bar = events_bar("looking");
    let now = Clock::system().now();
    let given_up =
        args.ask.shop.ask().await?.give_up(&filter, now, &|read, of| advance(&bar, read, of)).await?;
    bar.finish_and_clear();
    let text = match given_up.len() {
        0 => "No such sale is rejected, or it was given up before.\n".to_owned(),
        n => format!("{n} given up, each with an event that says why\n"),
    };
    print(&if args.ask.json { format!("{}\n", json!({"given_up": given_up})) } else { text });
    Ok(if given_up.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// How often it is asked what has become of sales.
const LOOK: Duration = Duration::from_millis(200);

/// Waits for what becomes of sales that were put through again.
async fn follow(
    asked: &Ask,
    published: Vec<ShownRejection>,
    patience: Duration,
) -> Result<render::Came, AskError> {
    let begun = Instant::now();
    let bar = events_bar("waiting");
    let all = published.len() as u64;
    let mut came = render::Came { pending: published, ..render::Came::default() };
    loop {
        for sale in std::mem::take(&mut came.pending) {
            let history = asked.sale(sale.sale_id.as_str(), Some(sale.shop_id.to_string())).await?;
            let again = history.rejected_since(&sale.hash, sale.attempt);
            match (history.status, again) {
                (Status::Recorded, _) => came.recorded.push(sale),
                (_, Some(again)) => came.rejected.push(ShownRejection { detail: again, ..sale }),
                _ => came.pending.push(sale),
            }
        }
        advance(&bar, all - came.pending.len() as u64, all);
        if came.pending.is_empty() || begun.elapsed() >= patience {
            bar.finish_and_clear();
            return Ok(came);
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn reconcile(args: ReconcileArgs) -> Result<ExitCode, Failure> {
    let filter = ReconcileFilter { shop: args.shop.map(Into::into), dry_run: args.dry_run };
    let bar = events_bar("looking");
    let asked = args.ask.shop.ask().await?;
    let done = asked.reconcile(&filter, &|read, of| advance(&bar, read, of)).await?;
    bar.finish_and_clear();
    print(&if args.ask.json { format!("{}\n", json!(done)) } else { render::reconciled(&done) });
    Ok(ExitCode::SUCCESS)
}

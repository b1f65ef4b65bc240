//! What it costs a till to be able to do without the shop: its journal against the disk alone, a backlog sent in
//! batches against one by one, and a signature.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, StreamExt, TryStreamExt};
use kassa::till::drain::{Drain, Step};
use kassa::till::journal::Journal;
use kassa::till::{Format, Prepared, Till};
use kassa_bus::jws::{Jws, Signer};
use kassa_bus::{Clock, Line};

use crate::process::Shop;
use crate::selling::rate;
use crate::{Outcome, figure};

/// Rounds of each comparison, of which the median counts.
const ROUNDS: usize = 5;

/// Sales a till sold through an outage.
const BACKLOG: usize = 100_000;

pub async fn figures() -> Outcome<()> {
    journal().await?;
    signature()?;
    drain().await
}

fn lines() -> Outcome<Vec<Line>> {
    let line = |item: &str, turnover: &str| -> Outcome<Line> {
        Ok(Line { item_no: item.parse()?, gross_number: "1".parse()?, gross_turnover: turnover.parse()? })
    };
    Ok(vec![line("98", "18.95")?, line("12345", "2.49")?, line("90001", "7.25")?])
}

fn till(url: &str) -> Outcome<Till> {
    Ok(Till::new(url, "AMIS1".parse()?, "bench", Format::Sealed, Clock::system())?)
}

fn median(ratios: &mut [(f64, f64, f64)]) -> (f64, f64, f64) {
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    ratios[ratios.len() / 2]
}

/// Journal and bare file take turns, on the same disk.
async fn journal() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let shop = Shop::open(&folder.path().join("shop"), "normal").await?;
    let sale = till(&shop.url)?.ring_up(lines()?).await?;
    shop.close()?;
    for (sellers, appends) in [(1, 500), (16, 8_000)] {
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            let raw =
                raw_appends(&folder.path().join(format!("raw-{sellers}-{round}")), &sale, sellers, appends)?;
            let place = folder.path().join(format!("journal-{sellers}-{round}"));
            std::fs::create_dir(&place)?;
            let kept = appends_to(&Journal::open(&place, Clock::system())?, &sale, sellers, appends).await?;
            ratios.push((kept / raw, kept, raw));
        }
        let (ratio, kept, raw) = median(&mut ratios);
        figure(
            &format!("sales a second into a till's journal, each on disk, {sellers} at a time"),
            &format!("{kept:.0}, ratio {ratio:.2}"),
            &format!("{raw:.0} of the same bytes into a bare file, {sellers} to an fsync"),
            "≥ 0.8",
            ratio >= 0.8,
        );
    }
    Ok(())
}

/// The same bytes, appended to a file, so many to a wait for the disk.
fn raw_appends(path: &Path, sale: &Prepared, at_once: usize, appends: usize) -> Outcome<f64> {
    let some = sale.body.repeat(at_once);
    let file = File::options().create_new(true).write(true).open(path)?;
    let begun = Instant::now();
    let mut end = 0;
    for _ in 0..appends / at_once {
        file.write_all_at(some.as_bytes(), end)?;
        file.sync_data()?;
        end += some.len() as u64;
    }
    Ok(rate(u64::try_from(appends)?, begun.elapsed()))
}

async fn appends_to(journal: &Journal, sale: &Prepared, at_once: usize, appends: usize) -> Outcome<f64> {
    let begun = Instant::now();
    stream::iter((0..appends).map(Ok))
        .try_for_each_concurrent(at_once, |n| async move {
            let n = n as u64 + 1;
            let sale_id = format!("{n}-20261122").parse()?;
            Ok::<_, Box<dyn std::error::Error>>(
                journal.ring_up(&Prepared { seq: n, sale_id, body: sale.body.clone() }).await?,
            )
        })
        .await?;
    Ok(rate(u64::try_from(appends)?, begun.elapsed()))
}

/// What a till adds by signing, and the shop by looking at it.
fn signature() -> Outcome<()> {
    const TIMES: u32 = 5_000;
    let signer = Signer::new(&"bench".parse()?, &Signer::new_key()?)?;
    let content = serde_json::to_vec(&lines()?)?;
    let token = signer.sign(&content);
    let (mut signing, mut looking) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..TIMES {
            std::hint::black_box(signer.sign(&content));
        }
        signing.push(begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES));
        let begun = Instant::now();
        for _ in 0..TIMES {
            assert!(Jws::parse(&token)?.is_by(&signer.key()));
        }
        looking.push(begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES));
    }
    let middle = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    println!(
        "     a signature costs the till {:.0} µs and the shop {:.0} µs a sale",
        middle(&mut signing),
        middle(&mut looking)
    );
    Ok(())
}

/// A till that sold a hundred thousand sales without its shop, and has it again.
async fn drain() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let shop = Shop::open(&folder.path().join("shop"), "full").await?;
    let till = till(&shop.url)?;
    // One by one, each when the one before is answered: what a till without batches would do to keep the order.
    let some = journal_of(&folder.path().join("some"), &till, 2_000).await?;
    let begun = Instant::now();
    for sale in some.oldest(usize::MAX, usize::MAX)? {
        till.post(&sale).await?;
        some.accepted(&sale.sale_id).await?;
    }
    let single = rate(2_000, begun.elapsed());

    let backlog = journal_of(&folder.path().join("backlog"), &till, BACKLOG).await?;
    let drain = Drain { till: &till, journal: &backlog, rate: f64::MAX };
    let begun = Instant::now();
    loop {
        match drain.step().await? {
            Step::Sent(_) => {}
            Step::Empty => break,
            Step::Away(away) => return Err(away.to_string().into()),
        }
    }
    let answered = begun.elapsed();
    shop.projected(2_000 + BACKLOG as u64).await?;
    let (batched, recorded) = (rate(BACKLOG as u64, answered), rate(BACKLOG as u64, begun.elapsed()));
    shop.close()?;
    figure(
        "a backlog of 100,000 sales, in batches and in order, by one till",
        &format!(
            "answered after {answered:.1?} ({batched:.0} a second), in the read models at {recorded:.0} a second; {:.1} × single",
            batched / single
        ),
        &format!("{single:.0} a second one by one"),
        "≥ 2 ×",
        batched >= 2.0 * single,
    );
    Ok(())
}

/// A journal in which so many sales wait.
async fn journal_of(place: &Path, till: &Till, sales: usize) -> Outcome<Arc<Journal>> {
    std::fs::create_dir(place)?;
    let journal = Arc::new(Journal::open(place, Clock::system())?);
    let lines = lines()?;
    stream::iter(0..sales)
        .map(|_| till.ring_up(&*lines))
        .buffered(64)
        .map_err(Box::<dyn std::error::Error>::from)
        .try_for_each_concurrent(64, |sale| {
            let journal = &journal;
            async move { Ok(journal.ring_up(&sale).await?) }
        })
        .await?;
    Ok(journal)
}

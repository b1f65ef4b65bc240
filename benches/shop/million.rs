use std::path::Path;
use std::time::{Duration, Instant};

use kassa::embedded::{Store, Sync};
use kassa::questions::Questions;
use kassa::questions::reconcile::ReconcileFilter;
use kassa_bus::ShopId;
use kassa_pipeline::event_store::Scan;

use crate::limits::events_of_a_sale;
use crate::process::Shop;
use crate::selling::rate;
use crate::{Outcome, figure};

/// Puts that many events into a shop's folder, as a shop would have: half accepted, half recorded.
pub async fn fill(data: &Path, events: u64) -> Outcome<()> {
    let store = Store::open(Some(&data.join("shop.db")), Sync::Normal).await?;
    let shop: ShopId = "AMIS1".parse()?;
    let tasks: Vec<_> = (0..128)
        .map(|_| {
            let (store, shop, sales) = (store.clone(), shop.clone(), events / 2 / 128);
            tokio::spawn(async move {
                for _ in 0..sales {
                    for event in events_of_a_sale(&shop) {
                        store.events.append(&event).await.expect("appended");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    Ok(())
}

/// Reads every event and does nothing with it: the limit for whoever must read them all.
async fn raw_scan(store: &Store) -> Outcome<f64> {
    let begun = Instant::now();
    let (mut read, mut cursor) = (0, None);
    loop {
        let page = store.events.scan(Scan::default(), cursor).await?;
        read += page.events.len() as u64;
        cursor = page.next;
        if cursor.is_none() {
            return Ok(rate(read, begun.elapsed()));
        }
    }
}

fn peak_mb() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no such line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? / 1024)
}

/// Rebuilding 100 thousand and 1 million events, and opening a shop that has a million.
pub async fn figures() -> Outcome<()> {
    let mut per_event = Vec::new();
    for events in [100_000, 1_000_000] {
        let folder = tempfile::tempdir()?;
        let data = folder.path();
        Shop::open(data, "normal").await?.close()?;
        fill(data, events).await?;
        let sales = events / 2 / 128 * 128;
        let shop = Shop::open(data, "normal").await?;
        shop.projected(sales).await?;
        shop.close()?;
        let store = Store::open(Some(&data.join("shop.db")), Sync::Normal).await?;
        let scanned = raw_scan(&store).await?;
        // Forgets the peak so far (proc(5)), which filling and scanning made.
        std::fs::write("/proc/self/clear_refs", "5")?;
        let before = peak_mb()?;
        let begun = Instant::now();
        let rebuilt = Questions::new(store.books()).rebuild(&|_, _| {}).await?;
        let time = begun.elapsed();
        if rebuilt.sales != sales {
            return Err(format!("{} sales were rebuilt, not {sales}", rebuilt.sales).into());
        }
        let speed = rate(rebuilt.events, time);
        let ratio = speed / scanned;
        let limit = format!("a raw scan: {scanned:.0} events/s");
        figure(
            &format!("rebuild of {events} events"),
            &format!("{speed:.0} events/s, ratio {ratio:.2}"),
            &limit,
            "≥ 0.5",
            ratio >= 0.5,
        );
        println!("     it took {time:.1?} and {} MB more than the scan", peak_mb()? - before);
        per_event.push(time.as_secs_f64() / f64::from(u32::try_from(rebuilt.events)?));
        if events == 1_000_000 {
            reconciling(&store, scanned).await?;
            opening(data).await?;
            crate::console::pages(data).await?;
        }
    }
    let growth = per_event[1] / per_event[0];
    figure(
        "rebuild time per event, 1 M against 100 k",
        &format!("{growth:.2}"),
        "linear is 1",
        "≤ 1.5",
        growth <= 1.5,
    );
    Ok(())
}

/// Looks at a million events for sales that came to no end, as a shop that opens does, of which a thousand did.
async fn reconciling(store: &Store, scanned: f64) -> Outcome<()> {
    let shop: ShopId = "AMIS1".parse()?;
    for _ in 0..1_000 {
        let [accepted, _] = events_of_a_sale(&shop);
        store.events.append(&accepted).await?;
    }
    let begun = Instant::now();
    let read = std::sync::atomic::AtomicU64::new(0);
    let see = |so_far, _| read.store(so_far, std::sync::atomic::Ordering::Relaxed);
    let dry = ReconcileFilter { dry_run: true, ..ReconcileFilter::default() };
    let found = Questions::new(store.books()).reconcile(&dry, None, &see).await?;
    let time = begun.elapsed();
    if found.unsettled != 1_000 {
        return Err(format!("{} sales came to no end, not 1000", found.unsettled).into());
    }
    let speed = rate(read.into_inner(), time);
    let ratio = speed / scanned;
    figure(
        "reconcile over 1,000,000 events, of which 1,000 sales came to no end",
        &format!("{time:.1?}, {speed:.0} events/s, ratio {ratio:.2}"),
        &format!("a raw scan: {scanned:.0} events/s"),
        "≥ 0.5",
        ratio >= 0.5,
    );
    Ok(())
}

async fn opening(data: &Path) -> Outcome<()> {
    let shop = Shop::open(data, "full").await?;
    let opened = shop.opened_in;
    figure(
        "up on 1,000,000 events",
        &format!("answers after {opened:.2?}"),
        "wall clock",
        "≤ 2 s",
        opened <= Duration::from_secs(2),
    );
    shop.close()
}

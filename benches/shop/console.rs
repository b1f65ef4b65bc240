use std::path::Path;
use std::time::{Duration, Instant};

use kassa::console::Feed;
use kassa_bus::ShopId;
use kassa_pipeline::event::StoredEvent;

use crate::limits::events_of_a_sale;
use crate::million::fill;
use crate::process::Shop;
use crate::{Outcome, figure};

/// Events the store holds.
const EVENTS: u64 = 1_000_000;

/// The pages of a shop that holds a million events.
pub async fn figures() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path();
    Shop::open(data, "normal").await?.close()?;
    fill(data, EVENTS).await?;
    let shop = Shop::open(data, "normal").await?;
    shop.projected(EVENTS / 2 / 128 * 128).await?;
    shop.close()?;
    pages(data).await
}

/// The first page right after opening, and then each again and again.
pub async fn pages(data: &Path) -> Outcome<()> {
    let shop = Shop::open(data, "full").await?;
    let first = took(&shop, "/").await?;
    let limit = Duration::from_millis(300);
    figure(
        "the console's first page on 1,000,000 events, right after opening",
        &format!("{first:.1?}"),
        "wall clock",
        "≤ 300 ms",
        first <= limit,
    );
    for path in [
        "/",
        "/sales",
        "/stock/AMIS1",
        "/incidents",
        "/alarms",
        "/dashboards/sales",
        "/dashboards/operations",
    ] {
        let mut times = Vec::new();
        for _ in 0..21 {
            times.push(took(&shop, path).await?);
            // Longer than what was found is kept for whoever asks next.
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
        times.sort();
        let (median, slowest) = (times[10], times[20]);
        let value = format!("median {median:.1?}, slowest {slowest:.1?}");
        figure(
            &format!("the console's {path} on 1,000,000 events"),
            &value,
            "wall clock",
            "≤ 300 ms",
            slowest <= limit,
        );
    }
    shop.close()
}

async fn took(shop: &Shop, path: &str) -> Outcome<Duration> {
    let begun = Instant::now();
    let response = reqwest::get(format!("{}{path}", shop.url)).await?.error_for_status()?;
    response.bytes().await?;
    Ok(begun.elapsed())
}

/// What each recorded sale costs for being shown: nobody looks, batches as the projection takes them.
pub fn feed() -> Outcome<()> {
    let shop: ShopId = "AMIS1".parse()?;
    for (batch, sales) in [(1, 100_000), (100, 1_000_000)] {
        let batches: Vec<Vec<StoredEvent>> =
            (0..100).map(|_| (0..batch).map(|_| events_of_a_sale(&shop)[1].to_stored()).collect()).collect();
        let feed = Feed::default();
        let begun = Instant::now();
        for n in 0..sales / batch {
            feed.recorded(batches[n % 100].iter());
        }
        let each = begun.elapsed() / u32::try_from(sales)?;
        figure(
            &format!("the console's feed, a sale in batches of {batch}"),
            &format!("{each:?}"),
            "beside the projection",
            "≤ 1 µs in batches of 100",
            batch == 1 || each <= Duration::from_micros(1),
        );
    }
    Ok(())
}

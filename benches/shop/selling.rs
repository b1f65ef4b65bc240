use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use kassa::shops::Shops;
use kassa::till::goods::Goods;
use kassa::till::sell::{Pace, Summary, sell};
use kassa::till::{Format, Till};
use kassa_bus::Clock;

use crate::process::Shop;
use crate::{Outcome, figure, limits};

async fn run(
    shop: &Shop,
    format: Format,
    count: u64,
    concurrency: usize,
    rate: Option<f64>,
) -> Outcome<Summary> {
    let till = Till::new(&shop.url, "AMIS1".parse()?, "bench", format, Clock::system())?;
    let goods = Goods::Random(Shops::read(None)?.items);
    let pace = Pace { count, rate, concurrency };
    let summary = sell(Arc::new(till), Arc::new(goods), pace, ProgressBar::hidden()).await?;
    if summary.failed > 0 {
        return Err(format!("{} sales failed: {:?}", summary.failed, summary.errors).into());
    }
    Ok(summary)
}

#[expect(clippy::cast_precision_loss, reason = "a rate to read")]
pub fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Sales a second from the first post to the last in the read models.
async fn end_to_end(shop: &Shop, format: Format, count: u64, concurrency: usize) -> Outcome<f64> {
    let before = shop.counted("projected").await?;
    let begun = Instant::now();
    run(shop, format, count, concurrency, None).await?;
    shop.projected(before + count).await?;
    Ok(rate(count, begun.elapsed()))
}

/// Limit and figure take turns, so that both see the machine in the same mood.
pub async fn sealed() -> Outcome<()> {
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let folder = tempfile::tempdir()?;
        let puts = limits::conditional_puts(folder.path(), 4.0).await?;
        let shop = Shop::open(&folder.path().join("shop"), "full").await?;
        end_to_end(&shop, Format::Sealed, 1000, 64).await?;
        let rate = end_to_end(&shop, Format::Sealed, 20_000, 128).await?;
        let unwraps = shop.counted("key_unwraps").await?;
        shop.close()?;
        println!(
            "     {rate:.0} sealed sales/s, {puts:.0} durable puts/s alone, {unwraps} unwraps for 21000 sales"
        );
        ratios.push((rate / (puts / 2.0), rate, puts));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, rate, puts) = ratios[1];
    let limit = format!("half of {puts:.0} puts/s, 25 to a transaction");
    figure(
        "sealed sales/s end to end",
        &format!("{rate:.0}, ratio {ratio:.2}"),
        &limit,
        "≥ 0.4",
        ratio >= 0.4,
    );
    Ok(())
}

pub async fn classic() -> Outcome<()> {
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let folder = tempfile::tempdir()?;
        let decrypts = limits::rsa_decrypts(1, 2.0)?;
        let both = limits::rsa_decrypts(2, 2.0)?;
        let shop = Shop::open(&folder.path().join("shop"), "full").await?;
        end_to_end(&shop, Format::Classic, 1000, 64).await?;
        let rate = end_to_end(&shop, Format::Classic, 15_000, 128).await?;
        shop.close()?;
        println!("     {rate:.0} classic sales/s, {decrypts:.0} decrypts/s on one core, {both:.0} on two");
        ratios.push((rate / decrypts, rate, decrypts));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, rate, decrypts) = ratios[1];
    let limit = format!("{decrypts:.0} raw RSA-2048-OAEP decrypts/s on one core");
    figure(
        "classic sales/s end to end",
        &format!("{rate:.0}, ratio {ratio:.2}"),
        &limit,
        "≥ 0.9",
        ratio >= 0.9,
    );
    Ok(())
}

pub async fn latency() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let shop = Shop::open(&folder.path().join("shop"), "full").await?;
    let full = end_to_end(&shop, Format::Sealed, 10_000, 128).await?;
    let half = run(&shop, Format::Sealed, 10_000, 128, Some(full / 2.0)).await?;
    let unwraps_before = shop.counted("key_unwraps").await?;
    run(&shop, Format::Sealed, 1_000, 16, None).await?;
    shop.projected(21_000).await?;
    let unwraps = shop.counted("key_unwraps").await? - unwraps_before;
    shop.close()?;
    let Summary { p50_ms, p99_ms, per_second, .. } = half;
    println!(
        "     accept answers at {per_second:.0} sales/s (half load): p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms"
    );
    figure(
        "keys unwrapped per 1,000 sealed sales of one till",
        &unwraps.to_string(),
        "one session",
        "1",
        unwraps == 1,
    );
    Ok(())
}

pub async fn memory() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let shop = Shop::open(&folder.path().join("shop"), "full").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (idle, _) = shop.memory_mb()?;
    figure("idle memory", &format!("{idle} MB"), "resident", "≤ 60 MB", idle <= 60);
    run(&shop, Format::Sealed, 200_000, 256, None).await?;
    shop.projected(200_000).await?;
    let (_, peak) = shop.memory_mb()?;
    figure(
        "memory while selling 200,000 sales",
        &format!("{peak} MB"),
        "resident, at its peak",
        "≤ 200 MB",
        peak <= 200,
    );
    shop.close()
}

//! The receiver's figure: sales a second from signed, compressed deliveries into the star schema, against
//! plain `COPY` of the same rows into the same table, in the same run: `cargo bench --bench warehouse`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/it/common/postgres.rs"]
#[allow(dead_code, reason = "it uses its own part")]
mod postgres;

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{SinkExt, TryStreamExt};
use hdrhistogram::Histogram;
use jiff::Timestamp;
use kassa_bus::amount::Amount;
use kassa_bus::webhook::{ID, SIGNATURE, SalesDelivery, Secret, TIMESTAMP, WarehouseSale, sign};
use kassa_bus::{Line, SaleId};
use postgres::Postgres;
use tokio_postgres::Client;

type Outcome<T> = Result<T, Box<dyn Error>>;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SALES: u32 = 60_000;
const DELIVERY: u32 = 100;
const CONCURRENCY: usize = 8;
const ROUNDS: usize = 3;
const COLUMNS: &str = "shop_key, sale_id, line_no, item_key, date_key, sold_at, accepted_at, gross_number,
    gross_turnover, till, seq";

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let postgres = Postgres::start();
        let receiver = Receiver::start(&postgres.url())?;
        let client = postgres.client().await;
        let mut ratios = Vec::new();
        for round in 1..=ROUNDS {
            let (delivered, latency) = deliver(&receiver.url).await?;
            let (copied, rows) = copy(&client).await?;
            ratios.push(delivered / copied);
            println!(
                "round {round}: {delivered:.0} sales/s delivered (p50 {} ms, p99 {} ms), {copied:.0} copied, {rows} rows",
                latency.value_at_quantile(0.5),
                latency.value_at_quantile(0.99),
            );
        }
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios[ROUNDS / 2];
        let held = if ratio >= 0.5 { "ok  " } else { "MISS" };
        println!("{held} receiver against plain COPY: {ratio:.2}  [median of {ROUNDS}; wanted 0.5 or more]");
        Ok(())
    })
}

/// `kassa warehouse`, as the warehouse has it.
struct Receiver {
    child: Child,
    url: String,
}

impl Receiver {
    fn start(database: &str) -> Outcome<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kassa"))
            .args(["warehouse", "--listen", "127.0.0.1:0", "--database", database])
            .env("WAREHOUSE_SECRET", SECRET)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let line = BufReader::new(stdout).lines().next().ok_or("the receiver did not open")??;
        let url = line.rsplit(' ').next().ok_or("no URL")?.to_owned();
        Ok(Self { child, url })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sale of three lines, as tills have them.
fn sale(now: Timestamp) -> WarehouseSale {
    let lines = (1..).zip(["98", "12345", "90001"]).map(|(n, item)| Line {
        item_no: item.parse().expect("digits"),
        gross_number: Amount::from(n),
        gross_turnover: format!("{}.95", 7 * n).parse().expect("a number"),
    });
    WarehouseSale {
        shop_id: "AMIS1".parse().expect("a shop id"),
        sale_id: SaleId::new(now),
        till: Some("till-1".into()),
        seq: Some(1),
        sold_at: Some(now),
        accepted_at: now,
        lines: lines.collect(),
    }
}

/// Deliveries made beforehand: id, time and signature, and the compressed body.
fn deliveries() -> Outcome<Vec<(String, Timestamp, String, Bytes)>> {
    let (now, secret) = (Timestamp::now(), [SECRET.parse::<Secret>()?]);
    let delivery = |n: u32| {
        let body = SalesDelivery::of((0..DELIVERY).map(|_| sale(now)).collect(), now).to_json();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&body)?;
        let id = format!("msg_{n}");
        let signature = sign(&id, now, &body, &secret);
        Ok((id, now, signature, gzip.finish()?.into()))
    };
    (0..SALES / DELIVERY).map(delivery).collect()
}

async fn deliver(url: &str) -> Outcome<(f64, Histogram<u64>)> {
    let deliveries = Arc::new(deliveries()?);
    let (http, next) = (reqwest::Client::new(), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let sender = |_| {
        let (deliveries, http, next) = (Arc::clone(&deliveries), http.clone(), Arc::clone(&next));
        let url = format!("{url}/sales");
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some((id, at, signature, body)) = deliveries.get(next.fetch_add(1, Ordering::Relaxed)) {
                let posted = Instant::now();
                let request = http.post(&url).header("content-encoding", "gzip").header(ID, id);
                let request = request.header(TIMESTAMP, at.as_second()).header(SIGNATURE, signature);
                let answer = request.body(body.clone()).send().await.expect("an answer");
                assert_eq!(answer.status(), 204);
                taken.push(u64::try_from(posted.elapsed().as_millis()).unwrap_or(u64::MAX));
            }
            taken
        })
    };
    let mut latency = Histogram::new(2)?;
    for sender in (0..CONCURRENCY).map(sender).collect::<Vec<_>>() {
        for taken in sender.await? {
            latency.record(taken)?;
        }
    }
    Ok((f64::from(SALES) / begun.elapsed().as_secs_f64(), latency))
}

/// Takes the rows out, and copies them in again.
async fn copy(client: &Client) -> Outcome<(f64, u64)> {
    let out = client.copy_out(&format!("copy fact_sale_line ({COLUMNS}) to stdout (format binary)")).await?;
    let rows: Vec<Bytes> = out.try_collect().await?;
    // Sent in pieces as large as a client would make them.
    let pieces: Vec<Bytes> = rows.chunks(1000).map(|rows| rows.concat().into()).collect();
    client.batch_execute("truncate fact_sale_line").await?;
    let begun = Instant::now();
    let sink = client.copy_in(&format!("copy fact_sale_line ({COLUMNS}) from stdin (format binary)")).await?;
    let mut sink = std::pin::pin!(sink);
    for piece in pieces {
        sink.feed(piece).await?;
    }
    let rows = sink.finish().await?;
    let rate = f64::from(SALES) / begun.elapsed().as_secs_f64();
    client.batch_execute("truncate fact_sale_line").await?;
    Ok((rate, rows))
}

//! How long accept takes to answer while something behind it is down, against all being well.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use kassa::till::answer::Answered;
use kassa::till::{Format, Prepared, Till};
use kassa_bus::{Clock, Line};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::interval;

use crate::process::Shop;
use crate::{Outcome, figure};

/// Sales a second, and for how many seconds, in each of so many rounds.
const RATE: usize = 400;
const SECONDS: usize = 5;
const ROUNDS: usize = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    Nothing,
    /// No key opens anything.
    Keys,
    /// The warehouse refuses connections.
    Warehouse,
    /// The warehouse's webhook hangs: it is connected to, and hears nothing.
    Subscriber,
}

/// All take turns, so that each sees the machine in every mood.
pub async fn figures() -> Outcome<()> {
    let states = [Down::Nothing, Down::Keys, Down::Warehouse, Down::Subscriber];
    let mut p99 = vec![Vec::new(); states.len()];
    for round in 0..ROUNDS {
        for at in 0..states.len() {
            let at = (at + round) % states.len();
            p99[at].push(answers(states[at]).await?);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let well = median(&mut p99[0]);
    println!("     nothing down: {:.1?} ms", p99[0]);
    for (state, times) in states.iter().zip(&mut p99).skip(1) {
        let took = median(times);
        println!("     {state:?} down: {times:.1?} ms");
        let what = match state {
            Down::Nothing => "all is well",
            Down::Keys => "no key can be used",
            Down::Warehouse => "the warehouse is down",
            Down::Subscriber => "a subscriber hangs",
        };
        figure(
            &format!("p99 of accept's answer at {RATE} sales/s while {what}"),
            &format!("{took:.1} ms, ratio {:.2}", took / well),
            &format!("{well:.1} ms with all well, medians of {ROUNDS} rounds"),
            "≤ 1.1",
            took <= 1.1 * well,
        );
    }
    Ok(())
}

/// The 99th percentile of answers in that state, in milliseconds.
async fn answers(down: Down) -> Outcome<f64> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("shop");
    let warehouse = Warehouse::open(down).await?;
    let told = [
        format!("WAREHOUSE_URL={}", warehouse.url),
        "WAREHOUSE_SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
        "WAREHOUSE_ALLOW_HTTP=true".to_owned(),
        "WAREHOUSE_ALLOW_PRIVATE=true".to_owned(),
    ];
    let shop = Shop::open_told(&data, "full", &told).await?;
    let till = Arc::new(Till::new(&shop.url, "AMIS1".parse()?, "bench", Format::Sealed, Clock::system())?);
    let line = Line { item_no: "98".parse()?, gross_number: "1".parse()?, gross_turnover: "18.95".parse()? };
    let mut sales = Vec::new();
    for _ in 0..RATE * SECONDS {
        sales.push(till.ring_up(std::slice::from_ref(&line)).await?);
    }
    // What is sealed by now is sealed for a key that is not there any more.
    if down == Down::Keys {
        lose_keys(&data)?;
    }
    let p99 = paced(&till, sales, RATE).await?;
    let recorded = shop.counted("recorded").await?;
    if (down == Down::Keys) != (recorded == 0) {
        return Err(format!("{recorded} sales were recorded with {down:?} down").into());
    }
    shop.close()?;
    Ok(p99)
}

/// Has the shop read its keys anew, where there are none to be read.
fn lose_keys(data: &Path) -> Outcome<()> {
    let rotate = ["key", "rotate", "--shop", "AMIS1", "--data"];
    let rotated = Command::new(env!("CARGO_BIN_EXE_kassa")).args(rotate).arg(data).output()?;
    if !rotated.status.success() {
        return Err(String::from_utf8_lossy(&rotated.stderr).into());
    }
    let keys = data.join("keys");
    for file in std::fs::read_dir(keys.join("AMIS1"))?.chain(std::fs::read_dir(&keys)?) {
        let path = file?.path();
        if path.is_file() {
            std::fs::remove_file(&path)?;
            std::fs::create_dir(&path)?;
        }
    }
    Ok(())
}

/// Posts them at their turns, whatever became of those before, and says how long the slowest but one in a hundred took.
pub async fn paced(till: &Arc<Till>, sales: Vec<Prepared>, rate: usize) -> Outcome<f64> {
    let mut turns = interval(Duration::from_secs(1) / u32::try_from(rate)?);
    let mut posts = JoinSet::new();
    for sale in sales {
        turns.tick().await;
        let till = Arc::clone(till);
        posts.spawn(async move {
            let begun = Instant::now();
            till.post_once(&sale).await.map(|answered| (answered, begun.elapsed()))
        });
    }
    let mut times = Vec::new();
    while let Some(posted) = posts.join_next().await {
        let (answered, took) = posted?.map_err(|away| away.to_string())?;
        if answered != Answered::Accepted {
            return Err(format!("{answered:?}").into());
        }
        times.push(took.as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() * 99 / 100])
}

/// Whoever is to take what was sold.
struct Warehouse {
    url: String,
    server: JoinHandle<()>,
}

impl Warehouse {
    async fn open(down: Down) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/sales", listener.local_addr()?);
        let server = match down {
            Down::Nothing | Down::Keys => tokio::spawn(async move {
                let taken = Router::new().route("/sales", post(async |_: axum::body::Bytes| ()));
                let _ = axum::serve(listener, taken).await;
            }),
            Down::Warehouse => tokio::spawn(async move { drop(listener) }),
            Down::Subscriber => tokio::spawn(async move {
                let mut held = Vec::new();
                while let Ok((connection, _)) = listener.accept().await {
                    held.push(connection);
                }
            }),
        };
        Ok(Self { url, server })
    }
}

impl Drop for Warehouse {
    fn drop(&mut self) {
        self.server.abort();
    }
}

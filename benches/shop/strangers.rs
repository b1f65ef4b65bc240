//! How long a till waits for its answer, and how much memory the shop has, while a stranger or a neighbour does what it can;
//! against nobody doing anything.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kassa::till::{Format, Prepared, Till};
use kassa_bus::{Clock, Line, SaleId};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::outage::paced;
use crate::process::Shop;
use crate::{Outcome, figure};

/// Sales a second of the till that is looked at, for how many seconds, in each of so many rounds.
const RATE: usize = 100;
const SECONDS: usize = 8;
const ROUNDS: usize = 3;

/// Clients that post as fast as they are answered.
const CLIENTS: usize = 64;

/// Bodies that come slowly, at once.
const SLOW: usize = 520;

/// What was published is on its way for ten seconds; only after that is it looked at again.
const ON_ITS_WAY: Duration = Duration::from_secs(11);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stranger {
    Nobody,
    /// Posts what is no sale.
    Rubbish,
    /// Posts a sale that is recorded, again and again.
    Recorded,
    /// Posts an envelope that was rejected, again and again.
    Rejected,
    /// Posts a recorded sale of 160 KB, again and again.
    Large,
    /// Posts twenty sales a second that cannot be opened, each under an id of its own.
    Junk,
    /// Posts such sales as fast as they are answered.
    Flood,
    /// Posts a thousand envelopes under one id, and goes on.
    OneId,
    /// Sends bodies by the byte.
    Slow,
    /// Sells items nobody has heard of, 1,700 a sale.
    Undeclared,
    /// Has a shop that sold 6,000 items checked, every second.
    Check,
}

const ALL: [Stranger; 11] =
    [Nobody, Rubbish, Recorded, Rejected, Large, Junk, Flood, OneId, Slow, Undeclared, Check];

use Stranger::{Check, Flood, Junk, Large, Nobody, OneId, Recorded, Rejected, Rubbish, Slow, Undeclared};

/// All take turns, so that each sees the machine in every mood.
pub async fn figures(named: &[String]) -> Outcome<()> {
    let is_named = |stranger: &Stranger| named.contains(&format!("{stranger:?}"));
    let some = ALL.iter().any(is_named);
    let strangers: Vec<_> = ALL.into_iter().filter(|one| !some || *one == Nobody || is_named(one)).collect();
    let mut seen = vec![Vec::new(); strangers.len()];
    for round in 0..ROUNDS {
        for at in 0..strangers.len() {
            let at = (at + round) % strangers.len();
            seen[at].push(answers(strangers[at]).await?);
        }
    }
    let median = |seen: &[(f64, u64)]| {
        let mut times: Vec<f64> = seen.iter().map(|(p99, _)| *p99).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let alone = median(&seen[0]);
    for (stranger, seen) in strangers.iter().zip(&seen) {
        let (p99, most) = (median(seen), seen.iter().map(|(_, memory)| *memory).max().unwrap_or_default());
        figure(
            &format!("another till's p99 at {RATE} sales/s, {stranger:?}"),
            &format!("{p99:.1} ms, ratio {:.2}; {most} MB", p99 / alone),
            &format!("{alone:.1} ms with nobody there, medians of {ROUNDS} rounds"),
            "≤ 1.5; ≤ 200 MB",
            p99 <= 1.5 * alone && most <= 200,
        );
    }
    Ok(())
}

/// The 99th percentile of a till's answers in milliseconds, and the most memory the shop had in MB.
async fn answers(stranger: Stranger) -> Outcome<(f64, u64)> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("shop");
    let shop = Shop::open(&data, "full").await?;
    // Who posts elsewhere runs in nobody's way here but for the processors.
    let elsewhere = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let url = shop.url.clone();
    let begun =
        elsewhere.spawn(async move { stranger.begins(&url, &data).await.map_err(|error| error.to_string()) });
    let tasks = begun.await?;
    let till = Arc::new(Till::new(&shop.url, "AMIS2".parse()?, "bench", Format::Sealed, Clock::system())?);
    let line = line("98");
    let mut sales = Vec::new();
    for _ in 0..RATE * SECONDS {
        sales.push(till.ring_up(std::slice::from_ref(&line)).await?);
    }
    let p99 = paced(&till, sales, RATE).await?;
    drop(tasks?);
    elsewhere.shutdown_background();
    let (_, most) = shop.memory_mb()?;
    shop.close()?;
    println!("     {stranger:?}: {p99:.1} ms, {most} MB");
    Ok((p99, most))
}

#[expect(clippy::unwrap_used, reason = "these are amounts")]
fn line(item: &str) -> Line {
    Line {
        item_no: item.parse().unwrap(),
        gross_number: "1".parse().unwrap(),
        gross_turnover: "18.95".parse().unwrap(),
    }
}

impl Stranger {
    /// Begins, and goes on until its tasks are dropped.
    async fn begins(self, url: &str, data: &Path) -> Outcome<JoinSet<()>> {
        let to: SocketAddr = url.trim_start_matches("http://").parse()?;
        let till = Till::new(url, "AMIS1".parse()?, "stranger", Format::Sealed, Clock::system())?;
        let mut tasks = JoinSet::new();
        match self {
            Nobody => {}
            Rubbish => again_and_again(&mut tasks, to, "{}"),
            Recorded | Rejected | Large => {
                let lines = if self == Large { 1_900 } else { 1 };
                let lines: Vec<Line> = (0..lines).map(|n| line(&(1_000_000 + n).to_string())).collect();
                let sale = till.ring_up(lines.as_slice()).await?;
                let body = if self == Rejected { with_another_tag(&sale, &sale.sale_id)? } else { sale.body };
                if !ask(&mut connect(to).await?, &posting(&body)).await?.starts_with("HTTP/1.1 202") {
                    return Err(format!("{self:?}: it is not accepted").into());
                }
                tokio::time::sleep(ON_ITS_WAY).await;
                again_and_again(&mut tasks, to, &body);
            }
            Junk => {
                let sale = till.ring_up(std::slice::from_ref(&line("98"))).await?;
                tasks.spawn(async move {
                    let mut turns = tokio::time::interval(Duration::from_millis(50));
                    let Ok(mut stream) = connect(to).await else { return };
                    loop {
                        turns.tick().await;
                        let body = with_another_tag(&sale, &SaleId::new(Clock::system().now()));
                        let Ok(body) = body.map_err(|_| ()) else { return };
                        let _ = ask(&mut stream, &posting(&body)).await;
                    }
                });
            }
            Flood => {
                let sale = till.ring_up(std::slice::from_ref(&line("98"))).await?;
                for _ in 0..CLIENTS {
                    let sale = sale.clone();
                    tasks.spawn(async move {
                        loop {
                            let Ok(mut stream) = connect(to).await else { continue };
                            let made_up = || with_another_tag(&sale, &SaleId::new(Clock::system().now()));
                            while let Ok(body) = made_up().map_err(|_| ())
                                && ask(&mut stream, &posting(&body)).await.is_ok()
                            {
                            }
                        }
                    });
                }
            }
            OneId => {
                let sale = till.ring_up(std::slice::from_ref(&line("98"))).await?;
                tasks.spawn(async move {
                    let Ok(mut stream) = connect(to).await else { return };
                    for begun in (0..).step_by(100) {
                        let Ok(body) = batch(&sale, begun..begun + 100).map_err(|_| ()) else { return };
                        let _ = ask(&mut stream, &posting(&body)).await;
                        // A thousand in two seconds.
                        tokio::time::sleep(Duration::from_millis(150)).await;
                    }
                });
            }
            Slow => slowly(&mut tasks, to),
            Undeclared => {
                tasks.spawn(async move {
                    let Ok(mut stream) = connect(to).await else { return };
                    for begun in (100_000..270_000).step_by(1_700) {
                        let lines: Vec<Line> = (begun..begun + 1_700).map(|n| line(&n.to_string())).collect();
                        let Ok(sale) = till.ring_up(lines.as_slice()).await else { return };
                        let _ = ask(&mut stream, &posting(&sale.body)).await;
                    }
                });
            }
            Check => {
                let mut stream = connect(to).await?;
                for begun in (100_000..106_000).step_by(1_000) {
                    let lines: Vec<Line> = (begun..begun + 1_000).map(|n| line(&n.to_string())).collect();
                    ask(&mut stream, &posting(&till.ring_up(lines.as_slice()).await?.body)).await?;
                }
                let mut check = Command::new(env!("CARGO_BIN_EXE_kassa"));
                check.args(["check", "--data"]).arg(data).stdout(Stdio::null()).stderr(Stdio::null());
                tasks.spawn(async move {
                    while let Ok(running) = check.spawn() {
                        let mut running = Killed(running);
                        while matches!(running.0.try_wait(), Ok(None)) {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                });
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(tasks)
    }
}

/// A command that ends with whoever runs it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// From another address than the till's.
async fn connect(to: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into())?;
    Ok(BufReader::new(socket.connect(to).await?))
}

fn posting(body: &str) -> Vec<u8> {
    let head = format!("POST /shop HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Posts, and reads the answer. Gives its head.
async fn ask(stream: &mut BufReader<TcpStream>, request: &[u8]) -> std::io::Result<String> {
    stream.write_all(request).await?;
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.trim().parse().unwrap_or_default();
        }
        head += &line;
    }
    stream.read_exact(&mut vec![0; length]).await?;
    Ok(head)
}

/// Clients that post this as fast as they are answered.
fn again_and_again(tasks: &mut JoinSet<()>, to: SocketAddr, body: &str) {
    let request: Arc<[u8]> = posting(body).into();
    for _ in 0..CLIENTS {
        let request = Arc::clone(&request);
        tasks.spawn(async move {
            loop {
                let Ok(mut stream) = connect(to).await else { continue };
                while ask(&mut stream, &request).await.is_ok() {}
            }
        });
    }
}

/// Clients that begin a body, and begin another once they are let go.
fn slowly(tasks: &mut JoinSet<()>, to: SocketAddr) {
    for _ in 0..SLOW {
        tasks.spawn(async move {
            loop {
                let Ok(mut stream) = connect(to).await else { continue };
                let head = "POST /shop HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\n{";
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.read(&mut [0; 200]).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
}

/// An envelope that cannot be opened, under this id.
fn with_another_tag(sale: &Prepared, id: &SaleId) -> Outcome<String> {
    let mut body: Value = serde_json::from_str(&sale.body)?;
    let sealed = body["sealed"].as_str().and_then(|sealed| sealed.rsplit_once('.')).ok_or("not sealed")?;
    // Sixteen bytes, each time others.
    let tag = SaleId::new(Clock::system().now()).as_str().replace('-', "");
    body["sealed"] = json!(format!("{}.{}A", sealed.0, &tag[11..]));
    body["message_id"] = json!(id);
    Ok(body.to_string())
}

/// Envelopes under one id, each another.
fn batch(sale: &Prepared, which: std::ops::Range<usize>) -> Outcome<String> {
    let junk: Vec<Value> = which
        .map(|_| {
            let mut junk: Value = serde_json::from_str(&with_another_tag(sale, &sale.sale_id)?)?;
            junk.as_object_mut().map(|junk| junk.remove("shop_id"));
            Ok(junk)
        })
        .collect::<Outcome<_>>()?;
    Ok(json!({"shop_id": "AMIS1", "sales": junk}).to_string())
}

//! Those who post beside the tills that keep journals: older tills, misconfigured ones, and worse.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use kassa::till::{Format, Till};
use kassa_bus::{Clock, Line};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::common::unopenable;

/// What a stranger's sale must come to, if it was answered yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Recorded,
    Rejected,
}

/// A sale that was answered yes.
pub struct Answered {
    /// Its id; more of them if the same envelope was posted under others, of which any may be the first to arrive.
    pub sale_ids: Vec<String>,
    /// What one of them must come to. No other comes to that.
    pub due: Due,
}

/// Whose name and turnover no log may have.
pub const MARKS: [&str; 3] = ["till-7712345", "7712345.67", "gross_turnove"];

fn line(gross_number: &str, gross_turnover: &str) -> Line {
    Line {
        item_no: "98".parse().unwrap(),
        gross_number: gross_number.parse().unwrap(),
        gross_turnover: gross_turnover.parse().unwrap(),
    }
}

fn goods() -> Vec<Line> {
    vec![line("1", MARKS[1])]
}

/// A barcode keyed as a quantity, what is left of adding up in floats, and the largest and smallest there are.
pub const EXTREMES: [(&str, &str); 6] = [
    ("885909950805", "18.95"),
    ("0.30000000000000004", "0.00000000000000001"),
    ("999999999999.99999", "999999999999.99999"),
    ("-999999999999.99999", "-999999999999.99999"),
    ("0.00000000000000001", "999999999999"),
    ("-0.30000000000000004", "-885909950805"),
];

/// How long whoever posts rubbish waits for an answer.
const HTTP_PATIENCE: Duration = Duration::from_secs(2);

/// Posts so many sales of AMIS2, some of these amounts, and says which were answered yes.
pub async fn post(url: String, seed: u64, sales: u32, extremes: &[(&str, &str)]) -> Vec<Answered> {
    let mut chance = StdRng::seed_from_u64(seed);
    let till = |format, key_of: &str| {
        let shop = "AMIS2".parse().unwrap();
        let mut till = Till::new(&url, shop, MARKS[0], format, Clock::system()).unwrap();
        (till.key_of, till.patience) = (key_of.parse().unwrap(), Duration::from_millis(600));
        till
    };
    let (sealed, classic) = (till(Format::Sealed, "AMIS2"), till(Format::Classic, "AMIS2"));
    let misconfigured = till(Format::Sealed, "AMIS1");
    let http = Client::new();
    let mut answered = Vec::new();
    for n in 0..sales {
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..60))).await;
        let (till, due, times) = match chance.random_range(0..8) {
            0 => (&classic, Due::Recorded, 1),
            1 | 2 => (&sealed, Due::Recorded, 1),
            3 => (&sealed, Due::Recorded, 3),
            4 => (&misconfigured, Due::Rejected, 2),
            5 => {
                answered.extend(replay(&classic, &mut chance).await);
                continue;
            }
            6 => {
                let junk = chance.random_range(1..30);
                answered.extend(junk_first(&sealed, &misconfigured, junk).await);
                continue;
            }
            _ => {
                let id = format!("{n}-{}", Timestamp::now().strftime("%Y%m%d"));
                let body = json!({"shop_id": "AMIS2", "message_id": id, "content_base64": unopenable()});
                let asked = http.post(format!("{url}/shop")).timeout(HTTP_PATIENCE).body(body.to_string());
                let answer = async {
                    let answer = asked.send().await?;
                    let is_json =
                        answer.headers().get("content-type").is_some_and(|is| is == "application/json");
                    Ok::<_, reqwest::Error>(is_json && answer.text().await? == "\"OK\"")
                };
                // Whatever answers in the shop's place is not believed.
                if answer.await.is_ok_and(|accepted| accepted) {
                    answered.push(Answered { sale_ids: vec![id], due: Due::Rejected });
                }
                continue;
            }
        };
        let sold = match extremes.choose(&mut chance) {
            Some((number, turnover)) if till.format == Format::Sealed && chance.random_bool(0.5) => {
                vec![line(number, turnover), goods().remove(0)]
            }
            _ => goods(),
        };
        let Ok(sale) = till.ring_up(sold).await else { continue };
        // At once, as one who got no answer soon enough.
        let all = (0..times).map(|_| till.post(&sale));
        if futures::future::join_all(all).await.iter().any(Result::is_ok) {
            answered.push(Answered { sale_ids: vec![sale.sale_id.to_string()], due });
        }
    }
    answered
}

/// Posts so many envelopes that nobody can open under a sale's id, and then the sale.
async fn junk_first(till: &Till, misconfigured: &Till, junk: usize) -> Option<Answered> {
    let sale = till.ring_up(goods()).await.ok()?;
    for _ in 0..junk {
        let mut other = misconfigured.ring_up(goods()).await.ok()?;
        other.body = other.body.replace(other.sale_id.as_str(), sale.sale_id.as_str());
        other.sale_id = sale.sale_id.clone();
        // Too many at once are told to come again, as the sale may be.
        let _ = misconfigured.post(&other).await;
    }
    for _ in 0..5 {
        if till.post(&sale).await.is_ok() {
            return Some(Answered { sale_ids: vec![sale.sale_id.to_string()], due: Due::Recorded });
        }
        tokio::time::sleep(HTTP_PATIENCE / 4).await;
    }
    None
}

/// From an address of their own: connections on which half a sale comes, and such on which nobody reads the answer, until
/// they are dropped.
pub struct SlowClients {
    _clients: JoinSet<()>,
}

impl SlowClients {
    /// More than an address may have.
    const CONNECTIONS: usize = 600;

    pub fn of(shop: SocketAddr) -> Self {
        let mut clients = JoinSet::new();
        for n in 0..Self::CONNECTIONS {
            clients.spawn(async move {
                loop {
                    let _ = Self::one(shop, n % 2 == 0).await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        Self { _clients: clients }
    }

    async fn one(shop: SocketAddr, reads: bool) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
        let mut stream = socket.connect(shop).await?;
        let half = b"POST /shop HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{";
        if reads {
            stream.write_all(half).await?;
            stream.read_to_end(&mut Vec::new()).await?;
        } else {
            loop {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await?;
            }
        }
        Ok(())
    }
}

/// Posts a sale, and its envelope under another id, at the same time.
async fn replay(classic: &Till, chance: &mut StdRng) -> Option<Answered> {
    let sale = classic.ring_up(goods()).await.ok()?;
    let other = format!("{}-{}", chance.random::<u64>(), Timestamp::now().strftime("%Y%m%d"));
    let mut replay = sale.clone();
    replay.sale_id = other.parse().unwrap();
    replay.body = sale.body.replace(sale.sale_id.as_str(), &other);
    let (first, second) = futures::join!(classic.post(&sale), classic.post(&replay));
    let sale_ids = vec![sale.sale_id.to_string(), other];
    (first.is_ok() || second.is_ok()).then_some(Answered { sale_ids, due: Due::Recorded })
}

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use indicatif::MultiProgress;
use kassa_bus::jwe::RSA_2048_BYTES;
use kassa_bus::{Clock, ShopId};
use kassa_pipeline::check::Check;
use serde_json::{Value, json};

use crate::output::{OutputError, print};
use crate::questions::ask::Ask;
use crate::questions::stock::StockFilter;
use crate::questions::{EventFilter, Status, render};
use crate::shops::Shops;
use crate::show::table;
use crate::till::goods::Goods;
use crate::till::sell::{Pace, SellError, Summary, progress_bar, sell};
use crate::till::{Format, Till};

/// Sales each till rings up.
const SALES: u64 = 400;

type Failure = Box<dyn std::error::Error>;

/// The shop in a process of its own, so that it can be killed like one.
struct Process {
    child: Child,
    url: String,
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Opens the shop at the same address as before, if there was one: tills know no other.
    fn open(data: &Path, listen: &str) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["up", "--listen", listen, "--data"])
            .arg(data)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("the shop has no output")?);
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line)? == 0 {
                return Err("the shop did not open".into());
            }
            if let Some(url) = line.trim().strip_prefix("Kassa is open at ") {
                return Ok(Self { child, url: url.to_owned(), _stdout: stdout });
            }
        }
    }

    fn kill(mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the demo's tills.
struct Actor {
    name: &'static str,
    shop: &'static str,
    format: Format,
    key_of: &'static str,
    sales: u64,
}

const ACTORS: [Actor; 5] = [
    Actor { name: "AMIS1 till-1", shop: "AMIS1", format: Format::Sealed, key_of: "AMIS1", sales: SALES },
    Actor { name: "AMIS1 till-2", shop: "AMIS1", format: Format::Sealed, key_of: "AMIS1", sales: SALES },
    Actor { name: "AMIS2 till-1", shop: "AMIS2", format: Format::Sealed, key_of: "AMIS2", sales: SALES },
    Actor { name: "AMIS2 (classic)", shop: "AMIS2", format: Format::Classic, key_of: "AMIS2", sales: SALES },
    Actor { name: "AMIS2 wrong key", shop: "AMIS2", format: Format::Sealed, key_of: "AMIS1", sales: 3 },
];

/// The tour: sells, crashes, recovers, and shows the books.
///
/// # Errors
/// When something of it could not be run at all.
pub async fn run() -> Result<ExitCode, Failure> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("kassa-data");
    tell("Two shops, AMIS1 and AMIS2, open in a temporary folder.")?;
    let shop = Process::open(&data, "127.0.0.1:0")?;
    let url = shop.url.clone();
    tell(format_args!(
        "{url} takes sales. Five tills sell: three seal, one is of the old kind, one has the wrong key."
    ))?;
    tell("In the midst of it the shop is killed with kill -9, and opened again.\n")?;

    let bars = MultiProgress::new();
    let tills = ACTORS.iter().map(|actor| start(actor, &url, &bars)).collect::<Result<Vec<_>, _>>()?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    shop.kill()?;
    bars.println("*** kill -9 ***")?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let shop = Process::open(&data, url.trim_start_matches("http://"))?;
    bars.println("*** the shop is open again, the tills go on ***")?;
    let mut sold = 0;
    let mut last = None;
    for till in tills {
        let summary = till.await??;
        sold += summary.accepted;
        if summary.failed > 0 {
            return Err(format!("{} sales were not accepted: {:?}", summary.failed, summary.errors).into());
        }
        last = last.or(summary.last_sale);
    }
    let retried = twice_and_rubbish(&url).await?;
    tell(format_args!(
        "\n{sold} sales were accepted. Then one sale was posted twice ({retried}), and one was rubbish."
    ))?;

    let ask = Ask::at(&data).await?;
    let check = settled(&ask).await?;
    tell("\nStock and turnover, from the events:\n")?;
    tell(render::stock(&ask.stock(&StockFilter::default()).await?.rows.rows))?;
    tell("Rejected, and why:\n")?;
    tell(&rejected(&ask).await?)?;
    let last = last.ok_or("no sale was accepted")?;
    tell(format_args!("One sale's history (kassa sale {last}):\n"))?;
    tell(render::sale(&ask.sale(last.as_str(), None).await?, &ask.zones().await))?;
    let twice = ask.sale(&retried, Some("AMIS1".into())).await?;
    tell(format_args!("The sale that was posted twice is {} once.\n", twice.status.as_str()))?;
    tell("The books (kassa check):\n")?;
    tell(render::check(&check))?;
    drop(shop);
    let balanced = check.mismatches.is_empty() && check.pending == 0 && twice.status == Status::Recorded;
    tell(NEXT)?;
    Ok(if balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const NEXT: &str = "
What to run next:
  kassa up                                    your own shops, in ./kassa-data
  kassa sell --shop AMIS1 --count 10000       a busy day, in another terminal
  kassa stock
  kassa --help                                everything else
";

fn tell(text: impl std::fmt::Display) -> Result<(), OutputError> {
    print(format_args!("{text}\n"))
}

fn start(
    actor: &Actor,
    url: &str,
    bars: &MultiProgress,
) -> Result<tokio::task::JoinHandle<Result<Summary, SellError>>, Failure> {
    let mut till = Till::new(url, actor.shop.parse()?, actor.name, actor.format, Clock::system())?;
    till.key_of = actor.key_of.parse()?;
    let goods = Arc::new(Goods::Random(Shops::read(None)?.items));
    #[expect(clippy::cast_precision_loss, reason = "a rate to watch")]
    let pace = Pace { count: actor.sales, rate: Some(actor.sales as f64 / 4.0), concurrency: 4 };
    let bar = bars.add(progress_bar(actor.name));
    Ok(tokio::spawn(sell(Arc::new(till), goods, pace, bar)))
}

/// Posts one sale twice, and something that is no sale; gives the sale's id.
async fn twice_and_rubbish(url: &str) -> Result<String, Failure> {
    let shop: ShopId = "AMIS1".parse()?;
    let till = Till::new(url, shop, "till-1", Format::Classic, Clock::system())?;
    let line = kassa_pipeline::content::parse(
        br#"{"sales":[{"item_no":"98","gross_number":1,"gross_turnover":18.95}]}"#,
    )?;
    let sale = till.ring_up(line.lines).await?;
    till.post(&sale).await?;
    till.post(&sale).await?;
    let rubbish = BASE64_STANDARD.encode([b'?'; RSA_2048_BYTES]);
    let rubbish = json!({"shop_id": "AMIS1", "message_id": "666-20261122", "content_base64": rubbish});
    let http = reqwest::Client::builder().no_proxy().build()?;
    http.post(format!("{url}/shop")).json(&rubbish).send().await?.error_for_status()?;
    Ok(sale.sale_id.to_string())
}

/// The check, once nothing is pending any more.
async fn settled(ask: &Ask) -> Result<Check, Failure> {
    for _ in 0..100 {
        let check = ask.check(&|_, _| {}).await?;
        if check.pending == 0 && check.mismatches.is_empty() {
            return Ok(check);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(ask.check(&|_, _| {}).await?)
}

async fn rejected(ask: &Ask) -> Result<String, Failure> {
    let mut rows = table(["shop", "sale", "reason", "what was wrong", "sealed with"]);
    for shop in ["AMIS1", "AMIS2"] {
        let filter = EventFilter { shop: Some(shop.into()), ..EventFilter::default() };
        ask.events(&filter, |event| {
            if event["kind"] == "rejected" {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let body = &event["body"];
                let key = crate::show::short(&text(&body["sealed_with"]["kid"]), 12);
                rows.add_row([
                    shop.to_owned(),
                    text(&event["sale_id"]),
                    text(&body["reason"]),
                    text(&body["detail"]),
                    key,
                ]);
            }
            true
        })
        .await?;
    }
    Ok(format!("{rows}\n"))
}

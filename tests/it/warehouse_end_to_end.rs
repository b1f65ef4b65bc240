//! From the till to the fact table, whatever the warehouse, the line to it and the shop itself do: every sale
//! is there once, and the totals are the shop's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use kassa::embedded::{Store, Sync};
use kassa::warehouse::{Database, Receiver, Secrets, Subscriptions};
use kassa_bus::amount::Amount;
use kassa_bus::message::DecryptedSale;
use kassa_bus::notify::{Notice, Severity};
use kassa_bus::webhook::WarehouseSale;
use kassa_bus::{Host, Message, Subscriber, Topic};
use kassa_pipeline::row::ReadRow;
use kassa_subscribers::warehouse_webhook::ENTRY;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::common::postgres::Postgres;
use crate::common::process::{Up, command, json};
use crate::common::road::{Fault, Receiving, Road, loaded, recorded};
use crate::common::warehouse::{FakeSns, SECRET, holds};
use crate::common::world::{World, content, uuid};

/// A till in each shop, selling.
struct Tills(Vec<Child>);

impl Tills {
    #[track_caller]
    fn sold_all(mut self) {
        for till in &mut self.0 {
            assert!(till.wait().unwrap().success());
        }
    }
}

impl Drop for Tills {
    fn drop(&mut self) {
        for till in &mut self.0 {
            let _ = till.kill();
            let _ = till.wait();
        }
    }
}

/// Two shops in one process, the road, and the warehouse, each of them the real thing.
struct Trade {
    // In the order they are stopped in.
    shop: Up,
    receiver: Receiving,
    road: Road,
    data: TempDir,
    client: Client,
    postgres: Postgres,
}

impl Trade {
    async fn opens() -> Self {
        let postgres = Postgres::start();
        let receiver = Receiving::start(&postgres.url());
        let road = Road::to(&receiver.url).await;
        let data = tempfile::tempdir().unwrap();
        let shop = open(&data, &road);
        let client = postgres.client().await;
        Self { shop, receiver, road, data, client, postgres }
    }

    fn asked(&self, args: &[&str]) -> Value {
        json(&[args, &["--json", "--data", self.data.path().to_str().unwrap()]].concat())
    }

    fn sell(&self, count: u32) -> Tills {
        let till = |shop| {
            let (count, url) = (count.to_string(), &self.shop.url);
            let args = ["sell", "--url", url, "--shop", shop, "--count", &count, "--rate", "100"];
            command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        Tills(["AMIS1", "AMIS2"].map(till).into())
    }

    fn circuit_is_open(&self) -> bool {
        self.asked(&["webhook"])["failing"].is_object()
    }

    /// Whether the warehouse has as many sales as the shop recorded, and the shop all that it took.
    async fn all_arrived(&self) -> bool {
        let check = self.asked(&["check"]);
        let count = "select count(distinct (shop_key, sale_id)) from fact_sale_line";
        let there: i64 = self.client.query_one(count, &[]).await.unwrap().get(0);
        check["pending"] == 0 && check["recorded"] == there
    }

    async fn arrives(&self) {
        until("all sales are in the warehouse", async || self.all_arrived().await).await;
    }

    /// An open circuit is probed every 50 seconds. Nobody waits that long here: the next run probes at once.
    async fn arrives_when_resumed(&self) {
        until("all sales are in the warehouse", async || {
            self.asked(&["webhook", "--resume"]);
            self.all_arrived().await
        })
        .await;
    }

    fn receiver_is_killed_and_started(&mut self) {
        self.receiver.kill();
        self.receiver = Receiving::start(&self.postgres.url());
        self.road.leads_to(&self.receiver.url);
    }
}

fn open(data: &TempDir, road: &Road) -> Up {
    let settings = [
        format!("WAREHOUSE_URL={}", road.url),
        format!("WAREHOUSE_SECRET={SECRET}"),
        "WAREHOUSE_ALLOW_HTTP=true".into(),
        "WAREHOUSE_ALLOW_PRIVATE=true".into(),
        "WAREHOUSE_TIMEOUT=1s".into(),
        "MINUTE=300ms".into(),
    ];
    let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    Up::start_with(data.path(), &set)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_mins(1), "in a minute it did not come about that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Number and turnover of each item sold, by shop and `record_type`.
type Sold = BTreeMap<(String, String), (Amount, Amount)>;

fn sold(rows: Vec<ReadRow>) -> Sold {
    let item = |row| match row {
        ReadRow::Item(row) if row.gross_number != Amount::from(0) => {
            Some(((row.shop_id.to_string(), row.record_type), (row.gross_number, row.gross_turnover)))
        }
        _ => None,
    };
    rows.into_iter().filter_map(item).collect()
}

/// The same, by the warehouse.
async fn totals(client: &Client) -> Sold {
    let question = "select shop_id, 's-' || lpad(item_no::text, 5, '0'), sum(gross_number)::text,
            sum(gross_turnover)::text
        from fact_sale_line join dim_shop using (shop_key) join dim_item using (item_key) group by 1, 2";
    let rows = client.query(question, &[]).await.unwrap();
    let amount = |text| Amount::from_stored(text).unwrap();
    rows.iter().map(|row| ((row.get(0), row.get(1)), (amount(row.get(2)), amount(row.get(3))))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sale_is_there_once_whatever_happens_to_the_road_the_receiver_and_the_shop() {
    // given shops whose tills sell, and a warehouse that takes it
    let mut trade = Trade::opens().await;
    trade.sell(30).sold_all();
    trade.arrives().await;

    // when a delivery fails once, it arrives all the same
    for fault in [Fault::Broken, Fault::Unanswered] {
        trade.road.will_be([fault]);
        trade.sell(20).sold_all();
        trade.arrives().await;
    }
    // when the receiver is busy, it is left alone for as long as it asks
    trade.road.will_be([Fault::Busy]);
    trade.sell(20).sold_all();
    trade.arrives().await;
    assert!(trade.road.pause_after(Fault::Busy) >= Duration::from_secs(1));
    // when the road is broken, sales wait until somebody resumes
    for fault in [Fault::Broken, Fault::Lost, Fault::Unanswered] {
        trade.road.will_be([fault; 3]);
        trade.sell(30).sold_all();
        until("the circuit is open", async || trade.circuit_is_open()).await;
        trade.arrives_when_resumed().await;
    }
    // when the receiver is killed in the middle of loading
    for _ in 0..3 {
        trade.client.batch_execute("begin; lock table fact_sale_line in share mode").await.unwrap();
        let tills = trade.sell(30);
        until("a delivery waits for the table", async || {
            let question = "select exists (select from pg_locks where not granted)";
            trade.client.query_one(question, &[]).await.unwrap().get(0)
        })
        .await;
        trade.receiver_is_killed_and_started();
        trade.client.batch_execute("commit").await.unwrap();
        tills.sold_all();
        trade.arrives_when_resumed().await;
    }
    // when the shop is killed while its tills sell, before it heard that a delivery was taken
    let taken = trade.road.taken().len();
    trade.road.will_be([Fault::Unanswered]);
    let tills = trade.sell(1000);
    until("a delivery is taken", async || trade.road.taken().len() > taken).await;
    let Trade { shop, receiver, road, data, client, postgres } = trade;
    shop.kill();
    drop(tills);
    let trade = Trade { shop: open(&data, &road), receiver, road, data, client, postgres };
    trade.sell(30).sold_all();
    trade.arrives().await;

    // then every line of every sale is there as it was recorded, some of them having come twice
    let lines = loaded(&trade.client).await;
    assert!(lines == recorded(trade.data.path()), "the warehouse has other lines than the shop");
    let mut taken = trade.road.taken();
    let all = taken.len();
    taken.sort();
    taken.dedup();
    assert!(taken.len() < all, "no delivery came twice");
    // and the totals are the shop's
    let stock: Vec<ReadRow> = serde_json::from_value(trade.asked(&["stock"])).unwrap();
    assert_eq!(totals(&trade.client).await, sold(stock));
    assert_eq!(trade.asked(&["check"])["mismatches"], Value::Array(Vec::new()));
    // and nothing was given up
    assert!(trade.shop.terminate().success());
    let store = Store::open(Some(&trade.data.path().join("shop.db")), Sync::Normal).await.unwrap();
    for left in [&store.tables.dead_letters, &store.tables.queues] {
        assert_eq!(store.client.scan().table_name(left).send().await.unwrap().count(), 0, "{left}");
    }
}

/// A server that hangs up on whoever connects, and counts them.
struct HangsUp {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl HangsUp {
    async fn starts() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let counted = connections.clone();
        let server = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(connection);
            }
        });
        Self { address, connections, server }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Another may have the address.
    async fn leaves(self) -> SocketAddr {
        self.server.abort();
        let _ = self.server.await;
        self.address
    }
}

/// Sells something at this minute, and hands over what the webhook gets of it.
async fn a_sale(world: &World, minute: i64) -> Message {
    let (id, at) = (uuid(minute * 60_000), world.now.lock().unwrap().to_string());
    let content = content(&id, &at, &[("98", "2", "37.90"), ("91279", "-0.25", "-3.725")]);
    let request = world.seal_for("AMIS1", "AMIS1", &id, &content).await;
    assert_eq!(world.posts(request).await.status, 202);
    world.settle().await;
    let mut delivered = std::mem::take(&mut *world.post.delivered.lock().unwrap());
    delivered.retain(|(topic, _)| *topic == Topic::ToProcess);
    delivered.remove(0).1
}

/// A run of the webhook: the first hundred that wait, less those that are dealt with.
async fn run(webhook: &dyn Subscriber, queue: &mut Vec<Message>) {
    let batch: Vec<Message> = queue.iter().take(100).cloned().collect();
    let mut verdicts = webhook.handle(&batch).await.into_iter();
    queue.retain(|_| verdicts.next().is_none_or(|verdict| verdict.is_err()));
}

async fn told(world: &World) -> Vec<Severity> {
    let severity = |notice| match notice {
        Notice::Alert(alert) => alert.severity,
        Notice::Sms(_) => panic!("nobody is texted for a warehouse"),
    };
    world.outbox().await.into_iter().map(severity).collect()
}

#[tokio::test]
async fn three_days_of_outage_cost_one_connection_a_minute_and_no_sale() {
    // given a shop that sells, and a warehouse where whoever answers hangs up
    let world = World::open().await;
    let down = HangsUp::starts().await;
    let url = format!("http://{}/sales", down.address);
    let host = world.host(&[
        ("WAREHOUSE_URL", &url),
        ("WAREHOUSE_SECRET", SECRET),
        ("WAREHOUSE_ALLOW_HTTP", "true"),
        ("WAREHOUSE_ALLOW_PRIVATE", "true"),
    ]);
    let webhook = (ENTRY.make)(&host).unwrap().expect("it is switched on").subscriber;
    let (mut queue, mut sales) = (Vec::new(), Vec::<WarehouseSale>::new());

    // when that lasts for three days: three hours minute by minute, then, to be done sooner, every ten
    let from = *world.now.lock().unwrap();
    for minute in (0..3 * 60).chain((3 * 60..72 * 60).step_by(10)) {
        *world.now.lock().unwrap() = from + SignedDuration::from_mins(minute);
        if minute % 60 == 0 || minute >= 24 * 60 {
            let sale = a_sale(&world, minute).await;
            sales.push(sale.read::<DecryptedSale>().unwrap().into());
            queue.push(sale);
        }
        let before = down.connections();
        run(&*webhook, &mut queue).await;
        // then there is one attempt a minute, after the first three in which it might have been a blip
        let attempts = if minute == 0 { 3 } else { 1 };
        assert_eq!(down.connections() - before, attempts, "minute {minute}");
        if [59, 60].contains(&minute) {
            assert_eq!(told(&world).await, [Severity::Warning][..usize::from(minute == 60)]);
        }
    }
    world.passes(SignedDuration::from_mins(1));
    assert_eq!(queue.len(), sales.len());
    assert_eq!(told(&world).await, [Severity::Warning], "an outage is told once");

    // when the receiver is there
    let postgres = Postgres::start();
    let receiver = Receiver {
        database: Database::new(&postgres.url(), None).unwrap(),
        secrets: Secrets::given(SECRET).unwrap(),
        subscriptions: Subscriptions::new(Vec::new(), Arc::new(FakeSns::default())),
        clock: host.clock(),
    };
    let listener = TcpListener::bind(down.leaves().await).await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(receiver.serve(listener, async {
        let _ = stopped.await;
    }));
    // then it gets everything in as few runs as that takes, and people are told
    for _ in 0..queue.len().div_ceil(100) {
        run(&*webhook, &mut queue).await;
    }
    assert_eq!(queue.len(), 0);
    let client = postgres.client().await;
    holds(&client, &sales).await;
    assert_eq!(totals(&client).await, sold(world.questions.stock(None).await.unwrap().rows));
    assert_eq!(told(&world).await, [Severity::Warning, Severity::Info]);
    let _ = stop.send(());
    served.await.unwrap();
}

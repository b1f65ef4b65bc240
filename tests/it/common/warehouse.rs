//! A receiver on a Postgres of its own, and whoever delivers to it.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use kassa::shops::Shops;
use kassa::warehouse::{Database, Fetch, FetchError, Receiver, Secrets, Subscriptions};
use kassa_bus::webhook::{ID, SIGNATURE, SalesDelivery, Secret, TIMESTAMP, WarehouseSale, sign};
use kassa_bus::{Clock, Line, Totals};
use reqwest::{RequestBuilder, Response};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_postgres::Client;

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const NEXT_SECRET: &str = "whsec_3q2+796tvu/erb7v3q2+796tvu/erb7v3q2+796tvu8=";
pub const NOON: &str = "2026-11-22T12:00:00Z";
pub const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:kassa-dev-to-process";

/// Answers for SNS, and remembers what was asked.
#[derive(Default)]
pub struct FakeSns {
    pub pages: Mutex<HashMap<String, Vec<u8>>>,
    pub asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Fetch for FakeSns {
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        self.asked.lock().unwrap().push(url.to_owned());
        self.pages.lock().unwrap().get(url).cloned().ok_or(FetchError("404".into()))
    }
}

/// A receiver in this process.
pub struct Warehouse {
    pub url: String,
    pub now: Arc<Mutex<Timestamp>>,
    pub sns: Arc<FakeSns>,
    http: reqwest::Client,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

impl Warehouse {
    pub async fn open(database: &str) -> Self {
        Self::open_with(database, SECRET, None).await
    }

    /// The time is noon of 22 November 2026 until the test moves it.
    pub async fn open_with(database: &str, secrets: &str, shops: Option<Shops>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let now: Arc<Mutex<Timestamp>> = Arc::new(Mutex::new(NOON.parse().unwrap()));
        let (ticking, sns) = (now.clone(), Arc::new(FakeSns::default()));
        let receiver = Receiver {
            database: Database::new(database, shops).unwrap(),
            secrets: Secrets::given(secrets).unwrap(),
            subscriptions: Subscriptions::new(vec![TOPIC.parse().unwrap()], sns.clone()),
            clock: Clock::from_fn(move || *ticking.lock().unwrap()),
        };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(receiver.serve(listener, async {
            let _ = stopped.await;
        }));
        Self { url, now, sns, http: reqwest::Client::new(), stop, served }
    }

    pub fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    /// Ends as on Ctrl-C.
    pub async fn close(self) {
        let _ = self.stop.send(());
        self.served.await.unwrap();
    }

    /// Delivers sales as the sender does.
    pub async fn deliver(&self, sales: &[WarehouseSale]) -> Response {
        delivery(&self.http, &self.url, sales, self.now()).send().await.unwrap()
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    /// Posts a body as it is, signed.
    pub fn signed(&self, body: &[u8]) -> RequestBuilder {
        signed(self.post("/sales"), body, self.now())
    }
}

/// The request that delivers sales, signed and compressed.
pub fn delivery(
    http: &reqwest::Client,
    url: &str,
    sales: &[WarehouseSale],
    now: Timestamp,
) -> RequestBuilder {
    let body = SalesDelivery::of(sales.to_vec(), now).to_json();
    let request = signed(http.post(format!("{url}/sales")), &body, now);
    request.header("content-encoding", "gzip").body(gzip(&body))
}

/// With the headers of [`SECRET`]'s signature over `body`.
pub fn signed(request: RequestBuilder, body: &[u8], now: Timestamp) -> RequestBuilder {
    let secret: Secret = SECRET.parse().unwrap();
    request
        .header(ID, "msg_1")
        .header(TIMESTAMP, now.as_second())
        .header(SIGNATURE, sign("msg_1", now, body, &[secret]))
}

pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// The n-th sale of AMIS1: one to three lines, some of them refunds.
pub fn sale(n: i64) -> WarehouseSale {
    let noon: Timestamp = NOON.parse().unwrap();
    let hex = format!("{:012x}", noon.as_millisecond() + n);
    let line = |l: i64| Line {
        item_no: ["98", "12345", "90001"][usize::try_from(l).unwrap()].parse().unwrap(),
        gross_number: amount(&(if n % 7 == 0 { -1 } else { 1 } * (l + 1)).to_string()),
        gross_turnover: amount(&format!("{}{}.{:02}", if n % 7 == 0 { "-" } else { "" }, n % 50, l + 1)),
    };
    WarehouseSale {
        shop_id: "AMIS1".parse().unwrap(),
        sale_id: format!("{}-{}-7000-8000-000000000000", &hex[..8], &hex[8..]).parse().unwrap(),
        till: Some("till-1".into()),
        seq: Some(u64::try_from(n).unwrap()),
        sold_at: Some(noon),
        accepted_at: noon,
        lines: (0..=n % 3).map(line).collect(),
    }
}

pub fn amount(text: &str) -> kassa_bus::amount::Amount {
    text.parse().unwrap()
}

pub fn sales(numbers: std::ops::Range<i64>) -> Vec<WarehouseSale> {
    numbers.map(sale).collect()
}

/// Then the warehouse holds these sales and no others, each once.
pub async fn holds(client: &Client, sales: &[WarehouseSale]) {
    let lines: Vec<Line> = sales.iter().flat_map(|sale| sale.lines.clone()).collect();
    let Totals { gross_number, gross_turnover } = Totals::of(&lines).unwrap();
    let question = "select count(distinct (shop_key, sale_id)), count(*),
        coalesce(sum(gross_number), 0)::text, coalesce(sum(gross_turnover), 0)::text from fact_sale_line";
    let row = client.query_one(question, &[]).await.unwrap();
    let amount = |column| kassa_bus::amount::Amount::from_stored(row.get(column)).unwrap();
    let held = (row.get::<_, i64>(0), row.get::<_, i64>(1), amount(2), amount(3));
    let count = |n: usize| i64::try_from(n).unwrap();
    assert_eq!(held, (count(sales.len()), count(lines.len()), gross_number, gross_turnover));
}

/// Then the answer is this problem, and says why.
pub async fn is_problem(answer: Response, status: u16, says: &str) {
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
}

//! The way from the shop to the warehouse, the command that is at its end, and what both of them have.

use std::collections::VecDeque;
use std::future::pending;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{HOST, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use kassa::questions::ShownEvent;
use kassa_bus::Line;
use kassa_bus::amount::Amount;
use kassa_bus::webhook::ID;
use tokio::net::TcpListener;
use tokio_postgres::Client;

use super::process::{command, kassa};
use super::warehouse::SECRET;

/// What becomes of a delivery on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Status 500.
    Broken,
    /// Status 429: to be sent again in a second.
    Busy,
    /// It does not arrive.
    Lost,
    /// It arrives, and its answer does not.
    Unanswered,
}

/// The way to the receiver, which loses what it is told to.
pub struct Road {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    http: reqwest::Client,
    receiver: Mutex<String>,
    /// Of the next deliveries; all goes well after them.
    faults: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<(Instant, Option<Fault>)>>,
    /// The ids of deliveries that the receiver said yes to, as often as it did.
    taken: Mutex<Vec<String>>,
}

impl Road {
    pub async fn to(receiver: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/sales", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            receiver: Mutex::new(receiver.to_owned()),
            faults: Mutex::default(),
            seen: Mutex::default(),
            taken: Mutex::default(),
        });
        let router = Router::new().fallback(pass).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    pub fn leads_to(&self, receiver: &str) {
        receiver.clone_into(&mut self.shared.receiver.lock().unwrap());
    }

    pub fn will_be(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// Nothing more will be, and nothing has been.
    pub fn clear(&self) {
        self.calm();
        self.shared.seen.lock().unwrap().clear();
        self.shared.taken.lock().unwrap().clear();
    }

    /// Nothing more will be.
    pub fn calm(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// How many deliveries met a fault.
    pub fn met(&self) -> u64 {
        self.shared.seen.lock().unwrap().iter().filter(|(_, met)| met.is_some()).count() as u64
    }

    pub fn taken(&self) -> Vec<String> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// From the delivery that met this fault to the next.
    pub fn pause_after(&self, fault: Fault) -> Duration {
        let seen = self.shared.seen.lock().unwrap();
        let met = seen.iter().position(|(_, met)| *met == Some(fault)).expect("it was met");
        seen[met + 1].0 - seen[met].0
    }
}

async fn pass(State(road): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let fault = road.faults.lock().unwrap().pop_front();
    road.seen.lock().unwrap().push((Instant::now(), fault));
    match fault {
        Some(Fault::Broken) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Fault::Busy) => (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "1")]).into_response(),
        Some(Fault::Lost) => pending().await,
        Some(Fault::Unanswered) => {
            forward(&road, &uri, headers, body).await;
            pending().await
        }
        None => forward(&road, &uri, headers, body).await,
    }
}

async fn forward(road: &Shared, uri: &Uri, mut headers: HeaderMap, body: Bytes) -> Response {
    headers.remove(HOST);
    let id = headers[ID].to_str().unwrap().to_owned();
    let url = format!("{}{uri}", road.receiver.lock().unwrap());
    let Ok(answer) = road.http.post(url).headers(headers).body(body).send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    if answer.status().is_success() {
        road.taken.lock().unwrap().push(id);
    }
    let again = answer.headers().get(RETRY_AFTER).map(|again| (RETRY_AFTER, again.clone()));
    (answer.status(), again.into_iter().collect::<HeaderMap>()).into_response()
}

/// `kassa warehouse`.
pub struct Receiving {
    child: Child,
    pub url: String,
    // Kept open: it must not die of a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

impl Receiving {
    pub fn start(database: &str) -> Self {
        let mut command = command(&["warehouse", "--listen", "127.0.0.1:0", "--database", database]);
        let mut child = command
            .env("WAREHOUSE_SECRET", SECRET)
            .stderr(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("The warehouse takes sales at ").expect("it opens").to_owned();
        Self { child, url, _stdout: stdout }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A line's shop, sale, place in it, item, number and turnover.
pub type SoldLine = (String, String, i32, i64, Amount, Amount);

/// The lines of the sales that the shop recorded.
pub fn recorded(data: &Path) -> Vec<SoldLine> {
    let of = |shop| kassa(&["events", "--shop", shop, "--data", data.to_str().unwrap()]).stdout;
    let all = ["AMIS1", "AMIS2"].map(of).concat();
    let events: Vec<ShownEvent> =
        serde_json::Deserializer::from_slice(&all).into_iter().map(Result::unwrap).collect();
    recorded_lines(&events)
}

/// The lines of the sales that these events recorded.
pub fn recorded_lines(events: &[ShownEvent]) -> Vec<SoldLine> {
    let mut lines = Vec::new();
    for event in events.iter().filter(|event| event.kind == "recorded") {
        let sold: Vec<Line> = serde_json::from_value(event.body["lines"].clone()).unwrap();
        lines.extend((1..).zip(sold).map(|(n, line)| {
            let (shop, sale) = (event.shop_id.to_string(), event.sale_id.to_string());
            let item = line.item_no.to_string().parse().unwrap();
            (shop, sale, n, item, line.gross_number, line.gross_turnover)
        }));
    }
    lines.sort();
    lines
}

pub async fn loaded(client: &Client) -> Vec<SoldLine> {
    let question = "select shop_id, sale_id, line_no, item_no, gross_number::text, gross_turnover::text
        from fact_sale_line join dim_shop using (shop_key) join dim_item using (item_key)";
    let rows = client.query(question, &[]).await.unwrap();
    let line = |row: &tokio_postgres::Row| {
        let amount = |column| Amount::from_stored(row.get(column)).unwrap();
        (row.get(0), row.get(1), row.get(2), row.get(3), amount(4), amount(5))
    };
    let mut lines: Vec<SoldLine> = rows.iter().map(line).collect();
    lines.sort();
    lines
}

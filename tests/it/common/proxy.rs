//! A reverse proxy in front of an AWS endpoint: counts what passes, adds up the capacity it costs, injects faults.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Add;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::redirect::Policy;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Runs until it is dropped.
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// What tables used, in request units: a transaction's item costs twice, an eventually consistent read half.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    pub write: Decimal,
    pub read: Decimal,
}

/// Faults that were injected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injected {
    /// Throttled, and not forwarded.
    pub refused: u64,
    /// Forwarded and done, but the client was told of an internal error.
    pub denied: u64,
    /// Forwarded and done, but the connection broke before the answer.
    pub cut: u64,
    /// Publishes that were answered yes and not forwarded.
    pub lost: u64,
    /// Publishes that were forwarded again.
    pub doubled: u64,
    /// Publishes that were answered yes and forwarded later.
    pub late: u64,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    counts: BTreeMap<String, u64>,
    measuring: bool,
    capacity: BTreeMap<String, Capacity>,
    failed_conditions: u64,
    faults: Option<Faults>,
    /// What becomes of messages that are published: no pattern of requests, but what SNS does with them.
    mail: Option<Faults>,
    injected: Injected,
}

struct Faults {
    pattern: String,
    share: f64,
    chance: StdRng,
}

/// A message that is not simply delivered.
#[derive(Clone, Copy)]
enum Mail {
    Lost,
    Doubled,
    Late,
}

#[derive(Clone, Copy)]
enum Fault {
    Refuse,
    Deny,
    Cut,
}

impl Proxy {
    /// In front of an address such as `http://127.0.0.1:4566`, on a free port.
    pub async fn start(upstream: &str) -> Self {
        // What a client asks is passed on as it is: no proxy of the environment, no redirect followed.
        let client = reqwest::Client::builder().no_proxy().redirect(Policy::none());
        // The endpoint closes idle connections, and a request that it crosses on the way would fail.
        let client = client.pool_idle_timeout(Duration::from_secs(1)).build().unwrap();
        let upstream = upstream.trim_end_matches('/').to_owned();
        let shared = Arc::new(Shared { upstream, client, seen: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(pass).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared, server }
    }

    /// Requests by service and operation (`dynamodb.PutItem`, `sns.Publish`), else by method and path.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.shared.seen.lock().unwrap().counts.clone()
    }

    /// Lets a share (0 to 1) of the requests fail whose name matches, such as `dynamodb.*`: half of them before
    /// they are forwarded, half after. Which ones, in the order of their arrival, depends on the seed alone.
    pub fn throttle(&self, pattern: &str, share: f64, seed: u64) {
        let faults = Faults { pattern: pattern.into(), share, chance: StdRng::seed_from_u64(seed) };
        self.shared.seen.lock().unwrap().faults = Some(faults);
    }

    /// Has a share (0 to 1) of what is published be lost, come twice, or come late and so after others.
    pub fn mislay(&self, share: f64, seed: u64) {
        let mail = Faults { pattern: "sns.Publish*".into(), share, chance: StdRng::seed_from_u64(seed) };
        self.shared.seen.lock().unwrap().mail = Some(mail);
    }

    /// No more faults.
    pub fn calm(&self) {
        let mut seen = self.shared.seen.lock().unwrap();
        (seen.faults, seen.mail) = Default::default();
    }

    pub fn injected(&self) -> Injected {
        self.shared.seen.lock().unwrap().injected
    }
}

#[allow(dead_code, reason = "what benchmarks measure")]
impl Proxy {
    /// From now on, asks the tables what each request costs.
    ///
    /// That changes the body, which the signature covers. So these requests go to the emulator under its root
    /// key, which it does not verify: while measuring, it enforces no policy on tables.
    pub fn measure(&self) {
        self.shared.seen.lock().unwrap().measuring = true;
    }

    /// What was consumed while measuring, by table.
    pub fn capacity_by_table(&self) -> BTreeMap<String, Capacity> {
        self.shared.seen.lock().unwrap().capacity.clone()
    }

    /// What was consumed while measuring, in all.
    pub fn capacity(&self) -> Capacity {
        self.capacity_by_table().into_values().sum()
    }

    /// Writes whose condition failed while measuring: AWS charges these, too, but no answer says how much.
    pub fn failed_conditions(&self) -> u64 {
        self.shared.seen.lock().unwrap().failed_conditions
    }

    /// Forgets what was counted and measured, and goes on counting.
    pub fn reset(&self) {
        let mut seen = self.shared.seen.lock().unwrap();
        (seen.counts, seen.capacity) = Default::default();
        (seen.failed_conditions, seen.injected) = Default::default();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Add for Capacity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { write: self.write + other.write, read: self.read + other.read }
    }
}

impl Sum for Capacity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

impl Seen {
    /// Counts a request and decides its fate.
    fn arrives(&mut self, name: &str) -> Option<Fault> {
        *self.counts.entry(name.into()).or_default() += 1;
        let faults = self.faults.as_mut()?;
        if !faults.meet(name) {
            return None;
        }
        let (fault, count) = match faults.chance.random_range(0..4) {
            0 | 1 => (Fault::Refuse, &mut self.injected.refused),
            2 => (Fault::Deny, &mut self.injected.denied),
            _ => (Fault::Cut, &mut self.injected.cut),
        };
        *count += 1;
        Some(fault)
    }

    /// Decides what becomes of what is published.
    fn posts(&mut self, name: &str) -> Option<Mail> {
        let mail = self.mail.as_mut()?;
        if !mail.meet(name) {
            return None;
        }
        let (fate, count) = match mail.chance.random_range(0..3) {
            0 => (Mail::Lost, &mut self.injected.lost),
            1 => (Mail::Doubled, &mut self.injected.doubled),
            _ => (Mail::Late, &mut self.injected.late),
        };
        *count += 1;
        Some(fate)
    }

    fn learns(&mut self, name: &str, status: StatusCode, answer: &[u8]) {
        let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return };
        if !status.is_success() {
            self.failed_conditions += failed_conditions(&answer);
            return;
        }
        // One object, or one for each table of a batch or transaction.
        let consumed = &answer["ConsumedCapacity"];
        for table in consumed.as_array().map_or(std::slice::from_ref(consumed), Vec::as_slice) {
            let Some(units) = units(table) else { continue };
            let entry = self.capacity.entry(table["TableName"].as_str().unwrap_or("?").into()).or_default();
            if READS.contains(&name) {
                entry.read += units;
            } else {
                entry.write += units;
            }
        }
    }
}

impl Faults {
    /// Whether this request meets one.
    fn meet(&mut self, name: &str) -> bool {
        let matches = match self.pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.pattern,
        };
        matches && self.chance.random_bool(self.share)
    }
}

const READS: [&str; 5] = [
    "dynamodb.GetItem",
    "dynamodb.BatchGetItem",
    "dynamodb.TransactGetItems",
    "dynamodb.Query",
    "dynamodb.Scan",
];

const WRITES: [&str; 5] = [
    "dynamodb.PutItem",
    "dynamodb.UpdateItem",
    "dynamodb.DeleteItem",
    "dynamodb.BatchWriteItem",
    "dynamodb.TransactWriteItems",
];

fn units(table: &Value) -> Option<Decimal> {
    // As text: an exact decimal stays one.
    table["CapacityUnits"].as_number()?.to_string().parse().ok()
}

fn failed_conditions(answer: &Value) -> u64 {
    let failed = |code: &Value| code.as_str().is_some_and(|code| code.contains("ConditionalCheckFailed"));
    let reasons = answer["CancellationReasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    let count = reasons.iter().filter(|reason| failed(&reason["Code"])).count();
    count as u64 + u64::from(failed(&answer["__type"]))
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(mut body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let name = name(&parts, &body);
    let (fault, mail, measuring) = {
        let mut seen = shared.seen.lock().unwrap();
        (seen.arrives(&name), seen.posts(&name), seen.measuring)
    };
    if matches!(fault, Some(Fault::Refuse)) {
        return throttled(&name, &body);
    }
    if let Some(Mail::Doubled | Mail::Late) = mail {
        let (shared, parts, body) = (shared.clone(), parts.clone(), body.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LATE).await;
            shared.forward(parts, body).await
        });
    }
    if let Some(Mail::Lost | Mail::Late) = mail {
        return published(&body);
    }
    if measuring && (READS.contains(&name.as_str()) || WRITES.contains(&name.as_str())) {
        body = ask_for_capacity(&mut parts.headers, body);
    }
    let (status, headers, answer) = match shared.forward(parts, body).await {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    if measuring {
        shared.seen.lock().unwrap().learns(&name, status, &answer);
    }
    match fault {
        Some(Fault::Deny) => internal_error(&name),
        // Ends this connection's task with nothing written: the client sees the connection close. Unlike a
        // panic, it prints nothing.
        Some(Fault::Cut) => std::panic::resume_unwind(Box::new("cut")),
        _ => {
            let mut response = (status, answer).into_response();
            *response.headers_mut() = headers;
            response
        }
    }
}

impl Shared {
    async fn forward(
        &self,
        mut parts: Parts,
        body: Bytes,
    ) -> reqwest::Result<(StatusCode, HeaderMap, Bytes)> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.upstream);
        // Host stays as the client sent it, because it is signed.
        let bodiless = body.is_empty() && !parts.headers.contains_key(CONTENT_LENGTH);
        drop_framing(&mut parts.headers);
        let mut request = self.client.request(parts.method, url).headers(parts.headers);
        if !bodiless {
            request = request.header(CONTENT_LENGTH, body.len()).body(body);
        }
        let response = request.send().await?;
        let (status, mut headers) = (response.status(), response.headers().clone());
        let answer = response.bytes().await?;
        // The length of a HEAD's answer is that of the body it does not have.
        if !answer.is_empty() {
            drop_framing(&mut headers);
        }
        Ok((status, headers, answer))
    }
}

/// How a body is framed is each connection's own affair.
fn drop_framing(headers: &mut HeaderMap) {
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// `service.Operation`: the service a request is signed for, and its operation by JSON target or query action.
fn name(parts: &Parts, body: &[u8]) -> String {
    let text = |header| parts.headers.get(header).and_then(|value: &HeaderValue| value.to_str().ok());
    // AWS4-HMAC-SHA256 Credential=KEY/20261122/eu-west-1/sns/aws4_request, …
    let service = text(AUTHORIZATION).and_then(|signed| signed.split('/').nth(3)).unwrap_or("http");
    let target = text(TARGET).and_then(|target| target.rsplit('.').next()).map(str::to_owned);
    let form = text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let action = || form.then(|| action(body)).flatten().or_else(|| action(parts.uri.query()?.as_bytes()));
    match target.or_else(action) {
        Some(operation) => format!("{service}.{operation}"),
        None => format!("{service}.{} {}", parts.method, parts.uri.path()),
    }
}

fn action(form: &[u8]) -> Option<String> {
    let form = std::str::from_utf8(form).ok()?;
    form.split('&').find_map(|pair| pair.strip_prefix("Action=")).map(str::to_owned)
}

fn ask_for_capacity(headers: &mut HeaderMap, body: Bytes) -> Bytes {
    let asked = |body: &Value| body.get("ReturnConsumedCapacity").is_some();
    // Every such request names its tables, so there is a field to put a comma before.
    let Some(fields) = body.strip_prefix(b"{") else { return body };
    if serde_json::from_slice(&body).is_ok_and(|body| asked(&body)) {
        return body;
    }
    if let Some(rooted) = headers.get(AUTHORIZATION).and_then(as_root) {
        headers.insert(AUTHORIZATION, rooted);
        headers.remove("x-amz-security-token");
    }
    [br#"{"ReturnConsumedCapacity":"TOTAL","#, fields].concat().into()
}

fn as_root(authorization: &HeaderValue) -> Option<HeaderValue> {
    let (before, rest) = authorization.to_str().ok()?.split_once("Credential=")?;
    let (_key, rest) = rest.split_once('/')?;
    HeaderValue::from_str(&format!("{before}Credential=test/{rest}")).ok()
}

/// By so much a message comes late.
const LATE: Duration = Duration::from_millis(700);

/// What SNS answers who published, one message or several.
fn published(body: &[u8]) -> Response {
    let form = String::from_utf8_lossy(body);
    let ids = form.split('&').filter_map(|pair| pair.split_once(".Id=")).map(|(_, id)| id);
    let member = |id| format!("<member><Id>{id}</Id><MessageId>lost-{id}</MessageId></member>");
    let members = ids.map(member).collect::<Vec<_>>().concat();
    let xml = if members.is_empty() {
        "<PublishResponse><PublishResult><MessageId>lost</MessageId></PublishResult></PublishResponse>"
            .to_owned()
    } else {
        format!(
            "<PublishBatchResponse><PublishBatchResult><Successful>{members}</Successful><Failed/></PublishBatchResult></PublishBatchResponse>"
        )
    };
    (StatusCode::OK, [(CONTENT_TYPE, "text/xml")], Body::from(xml)).into_response()
}

/// The answer of a service that has had too much.
fn throttled(name: &str, body: &[u8]) -> Response {
    let items = || {
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        request["TransactItems"].as_array().map_or(1, |items| items.len().max(1))
    };
    let why = "throttled by the test";
    match name {
        "dynamodb.TransactWriteItems" | "dynamodb.TransactGetItems" => {
            // A reason for each item, in order; those that were not at fault have None.
            let mut reasons = vec![json!({"Code": "None"}); items()];
            reasons[0] = json!({"Code": "ThrottlingError", "Message": why});
            let detail = json!({"CancellationReasons": reasons});
            error(StatusCode::BAD_REQUEST, name, "TransactionCanceledException", why, detail)
        }
        _ if name.starts_with("dynamodb.") => {
            error(StatusCode::BAD_REQUEST, name, "ProvisionedThroughputExceededException", why, json!({}))
        }
        _ => error(StatusCode::BAD_REQUEST, name, "ThrottlingException", why, json!({})),
    }
}

fn internal_error(name: &str) -> Response {
    let why = "the answer was lost by the test";
    error(StatusCode::INTERNAL_SERVER_ERROR, name, "InternalServerError", why, json!({}))
}

/// An error in the service's own words: XML where it speaks the query protocol, JSON elsewhere.
fn error(status: StatusCode, name: &str, code: &str, why: &str, mut detail: Value) -> Response {
    if name.starts_with("sns.") {
        let xml = format!(
            "<ErrorResponse><Error><Code>{code}</Code><Message>{why}</Message></Error></ErrorResponse>"
        );
        return (status, [(CONTENT_TYPE, "text/xml")], Body::from(xml)).into_response();
    }
    let space = if name.starts_with("dynamodb.") { "com.amazonaws.dynamodb.v20120810#" } else { "" };
    detail["__type"] = json!(format!("{space}{code}"));
    detail["message"] = json!(why);
    (status, [(CONTENT_TYPE, "application/x-amz-json-1.0")], detail.to_string()).into_response()
}

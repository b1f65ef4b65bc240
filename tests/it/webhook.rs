//! What the warehouse gets, and what becomes of a sale it does not take: through a real HTTP server.

use std::collections::BTreeSet;
use std::future::pending;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use flate2::read::GzDecoder;
use futures::future::join_all;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use kassa::embedded::LocalHost;
use kassa_bus::attention::Attention;
use kassa_bus::conformance::{Dependencies, Trial, conforms};
use kassa_bus::keys::ShopKeys;
use kassa_bus::message::{DecryptedSale, Origin};
use kassa_bus::notify::{Notice, Notifier, Severity};
use kassa_bus::registry::Registry;
use kassa_bus::secrets::Secrets;
use kassa_bus::wake::Wakes;
use kassa_bus::webhook::{Headers, SalesDelivery, Secret, verify};
use kassa_bus::{
    Clock, Documents, Failure, Host, Line, Message, Metric, Metrics, Retry, SettingError, Settings,
    Subscriber, Verdict,
};
use kassa_subscribers::warehouse_webhook::{ENTRY, WebhookState, resume, status};

use crate::common::world::{NOON, World};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_3q2+796tvu/erb7v3q2+796tvu/erb7v3q2+796tvu8=";
/// The newest first.
const SECRETS: &str =
    "whsec_3q2+796tvu/erb7v3q2+796tvu/erb7v3q2+796tvu8= whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the warehouse does with a delivery.
enum Reply {
    Status(u16),
    With(u16, &'static str, &'static str),
    Text(u16, String),
    /// Answers, and never comes to an end.
    Endless(u16),
    Hang,
}

type Script = Box<dyn Fn(usize, &[String]) -> Reply + Send + Sync>;

/// A warehouse that notes what it gets, and answers by a script: of the request's number, and the sales in it.
#[derive(Clone)]
struct Warehouse {
    address: String,
    got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    script: Arc<Mutex<Script>>,
    /// The sales it said yes to.
    taken: Arc<Mutex<BTreeSet<String>>>,
}

impl Warehouse {
    async fn opens(script: impl Fn(usize, &[String]) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script: Script = Box::new(script);
        let script = Arc::new(Mutex::new(script));
        let warehouse = Self { address, got: Arc::default(), script, taken: Arc::default() };
        let router = Router::new().fallback(take).with_state(warehouse.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        warehouse
    }

    fn now_answers(&self, script: impl Fn(usize, &[String]) -> Reply + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    fn url(&self) -> String {
        format!("http://{}/sales", self.address)
    }

    fn requests(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    /// The sales of each request.
    fn sales(&self) -> Vec<Vec<String>> {
        self.got.lock().unwrap().iter().map(|(_, body)| sales(body)).collect()
    }

    fn header(&self, request: usize, name: &str) -> String {
        self.got.lock().unwrap()[request].0[name].to_str().unwrap().to_owned()
    }
}

fn inflate(body: &[u8]) -> Vec<u8> {
    let mut json = Vec::new();
    GzDecoder::new(body).read_to_end(&mut json).unwrap();
    json
}

fn sales(body: &[u8]) -> Vec<String> {
    let delivery = SalesDelivery::read(&inflate(body)).ok().unwrap();
    delivery.data.sales.iter().map(|sale| sale.sale_id.to_string()).collect()
}

async fn take(State(warehouse): State<Warehouse>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let reply = {
        let mut got = warehouse.got.lock().unwrap();
        got.push((headers, body.clone()));
        warehouse.script.lock().unwrap()(got.len() - 1, &sales(&body))
    };
    if let Reply::Status(200..300) = reply {
        warehouse.taken.lock().unwrap().extend(sales(&body));
    }
    let response = |status| Response::builder().status(status);
    match reply {
        Reply::Status(status) => response(status).body(Body::empty()),
        Reply::With(status, header, value) => response(status).header(header, value).body(Body::empty()),
        Reply::Text(status, text) => response(status).body(text.into()),
        Reply::Endless(status) => {
            let more = || Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1000]));
            response(status).body(Body::from_stream(stream::repeat_with(more)))
        }
        Reply::Hang => pending().await,
    }
    .unwrap()
}

/// The settings of a shop that may send to a warehouse on this machine.
fn settings(url: &str) -> [(&str, &str); 4] {
    [
        ("WAREHOUSE_URL", url),
        ("WAREHOUSE_SECRET", SECRETS),
        ("WAREHOUSE_ALLOW_HTTP", "true"),
        ("WAREHOUSE_ALLOW_PRIVATE", "true"),
    ]
}

/// The webhook of a shop of its own.
struct Webhook {
    world: World,
    subscriber: Arc<dyn Subscriber>,
}

fn made(host: &dyn Host) -> Arc<dyn Subscriber> {
    (ENTRY.make)(host).unwrap().expect("it is switched on").subscriber
}

impl Webhook {
    async fn to(url: &str) -> Self {
        Self::told(url, &[]).await
    }

    async fn told(url: &str, more: &[(&str, &str)]) -> Self {
        let world = World::open().await;
        let subscriber = made(&world.host(&[&settings(url), more].concat()));
        Self { world, subscriber }
    }

    async fn takes(&self, batch: &[Message]) -> Vec<Verdict> {
        let verdicts = self.subscriber.handle(batch).await;
        assert_eq!(verdicts.len(), batch.len());
        verdicts
    }

    fn passes(&self, time: SignedDuration) {
        self.world.passes(time);
    }

    fn documents(&self) -> Documents {
        self.world.host(&[]).documents(ENTRY.name).unwrap()
    }

    async fn state(&self) -> WebhookState {
        status(&self.documents()).await.unwrap()
    }

    /// What people were told: how bad it is.
    async fn alerts(&self) -> Vec<Severity> {
        let alert = |notice| match notice {
            Notice::Alert(alert) => alert.severity,
            Notice::Sms(_) => panic!("nobody is texted for a warehouse"),
        };
        self.world.outbox().await.into_iter().map(alert).collect()
    }

    /// Sales delivered, attempts failed, sales refused.
    fn counted(&self) -> [u64; 3] {
        [Metric::WebhookDelivered, Metric::WebhookFailed, Metric::WebhookRefused]
            .map(|m| self.world.counted(m))
    }
}

fn sale(n: usize) -> DecryptedSale {
    let line = Line {
        item_no: "98".parse().unwrap(),
        gross_number: "2".parse().unwrap(),
        gross_turnover: "37.90".parse().unwrap(),
    };
    DecryptedSale {
        shop_id: "AMIS1".parse().unwrap(),
        sale_id: id(n).parse().unwrap(),
        lines: vec![line],
        till: Some("till-7".into()),
        seq: Some(n as u64),
        sold_at: None,
        key: None,
        signed_by: None,
        envelope: format!("hash-{n}"),
        origin: Origin {
            source: "192.0.2.1".into(),
            accepted_at: noon(),
            attempt: 1,
            opened_with: None,
            trace: None,
        },
    }
}

fn noon() -> Timestamp {
    NOON.parse().unwrap()
}

fn id(n: usize) -> String {
    format!("{n}-20261122")
}

fn batch(sales: std::ops::Range<usize>) -> Vec<Message> {
    sales.map(|n| Message::of(&sale(n))).collect()
}

/// Sales so large that each needs a delivery of its own.
fn large(sales: std::ops::Range<usize>) -> Vec<Message> {
    let large = |n| DecryptedSale { till: Some("t".repeat(200_000)), ..sale(n) };
    sales.map(|n| Message::of(&large(n))).collect()
}

#[track_caller]
fn all_taken(verdicts: &[Verdict]) {
    assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");
}

/// That all of a batch waits: until when, and why.
#[track_caller]
fn all_wait(verdicts: &[Verdict]) -> (Option<Timestamp>, String) {
    let wait = |verdict: &Verdict| match verdict {
        Err(Failure::Pause { until, why }) => (*until, why.clone()),
        other => panic!("not to wait: {other:?}"),
    };
    let waits: Vec<_> = verdicts.iter().map(wait).collect();
    assert!(waits.iter().all(|one| *one == waits[0]), "{waits:?}");
    waits[0].clone()
}

#[tokio::test]
async fn sales_arrive_compressed_and_signed_by_either_secret() {
    let warehouse = Warehouse::opens(|_, _| Reply::Status(204)).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    all_taken(&webhook.takes(&batch(0..3)).await);
    let (headers, body) = warehouse.got.lock().unwrap()[0].clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["content-encoding"], "gzip");
    assert!(headers["user-agent"].to_str().unwrap().starts_with("kassa/"));
    let json = inflate(&body);
    let signed = Headers::from(|name| headers.get(name)?.to_str().ok()).unwrap();
    for secret in [OLD, NEW] {
        let secret: Secret = secret.parse().ok().unwrap();
        assert_eq!(verify(signed, &json, &[secret], noon()), Ok(()));
    }
    assert_eq!(warehouse.sales(), [[id(0), id(1), id(2)]]);
    assert_eq!(webhook.counted(), [3, 0, 0]);
    assert_eq!(webhook.state().await.delivered, 3);
}

#[tokio::test]
async fn what_was_delivered_is_shown_by_the_next_minute() {
    // given deliveries soon after each other, which are not each written down
    let warehouse = Warehouse::opens(|_, _| Reply::Status(200)).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    all_taken(&webhook.takes(&batch(0..3)).await);
    all_taken(&webhook.takes(&batch(3..7)).await);
    assert_eq!(webhook.state().await.delivered, 3);
    // when the minute comes
    webhook.subscriber.tick().await.unwrap();
    // then all are counted, once
    webhook.subscriber.tick().await.unwrap();
    assert_eq!(webhook.state().await.delivered, 7);
}

#[tokio::test]
async fn the_same_sales_sent_again_come_under_the_same_id() {
    let warehouse = Warehouse::opens(|_, _| Reply::Status(200)).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    for sales in [0..3, 0..3, 3..6] {
        all_taken(&webhook.takes(&batch(sales)).await);
    }
    let id = |request| warehouse.header(request, "webhook-id");
    assert_eq!(id(0), id(1));
    assert_ne!(id(0), id(2));
    let body = |request: usize| inflate(&warehouse.got.lock().unwrap()[request].1);
    assert!(body(0) == body(1));
}

#[tokio::test]
async fn a_blip_is_tried_again_at_once() {
    let warehouse = Warehouse::opens(|n, _| Reply::Status(if n == 0 { 500 } else { 200 })).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    all_taken(&webhook.takes(&batch(0..3)).await);
    assert_eq!(warehouse.requests(), 2);
    assert_eq!(warehouse.header(0, "webhook-id"), warehouse.header(1, "webhook-id"));
    assert_eq!(webhook.counted(), [3, 1, 0]);
    assert_eq!(webhook.state().await.failing, None);
}

#[tokio::test]
async fn a_warehouse_that_is_down_costs_one_probe_a_minute_and_gets_everything_afterwards() {
    let warehouse = Warehouse::opens(|_, _| Reply::Status(500)).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    // given a batch of three deliveries: the first is tried three times, the others not at all
    assert_eq!(all_wait(&webhook.takes(&large(0..3)).await), (None, "status 500".into()));
    assert_eq!(warehouse.sales(), [[id(0)], [id(0)], [id(0)]]);
    // when four functions ask in each of the next minutes
    for minute in 1..=5 {
        webhook.passes(SignedDuration::from_mins(1));
        let batches: Vec<_> = (0..4).map(|n| batch(n * 10..n * 10 + 10)).collect();
        let asked = batches.iter().map(|batch| webhook.takes(batch));
        for verdicts in join_all(asked).await {
            all_wait(&verdicts);
        }
        assert_eq!(warehouse.requests(), 3 + minute);
    }
    // then, when it is back, the probe and all that comes after it are taken
    warehouse.now_answers(|_, _| Reply::Status(200));
    all_wait(&webhook.takes(&batch(0..10)).await);
    webhook.passes(SignedDuration::from_mins(1));
    all_taken(&webhook.takes(&large(0..3)).await);
    all_taken(&webhook.takes(&batch(3..10)).await);
    assert_eq!(webhook.state().await.failing, None);
    assert!(webhook.alerts().await.is_empty(), "it was not away for an hour");
}

#[tokio::test]
async fn what_retry_after_asks_for_is_waited_for() {
    let warehouse = Warehouse::opens(|_, _| Reply::With(429, "retry-after", "300")).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    let (until, _) = all_wait(&webhook.takes(&batch(0..3)).await);
    assert_eq!(until, Some(noon() + SignedDuration::from_secs(300)));
    assert_eq!(warehouse.requests(), 1, "429 is no blip");
    warehouse.now_answers(|_, _| Reply::Status(200));
    webhook.passes(SignedDuration::from_secs(280));
    assert_eq!(all_wait(&webhook.takes(&batch(0..3)).await).0, until);
    webhook.passes(SignedDuration::from_secs(21));
    all_taken(&webhook.takes(&batch(0..3)).await);
    assert_eq!(warehouse.requests(), 2);
}

#[tokio::test]
async fn a_warehouse_that_hangs_is_not_waited_for() {
    let warehouse = Warehouse::opens(|_, _| Reply::Hang).await;
    let webhook = Webhook::told(&warehouse.url(), &[("WAREHOUSE_TIMEOUT", "100ms")]).await;
    assert_eq!(all_wait(&webhook.takes(&batch(0..3)).await), (None, "no answer in time".into()));
    assert_eq!(warehouse.requests(), 3);
    webhook.passes(SignedDuration::from_mins(1));
    all_wait(&webhook.takes(&batch(0..3)).await);
    assert_eq!(warehouse.requests(), 4);
}

#[tokio::test]
async fn nobody_there_or_no_tls_is_an_outage_too() {
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let plain = Warehouse::opens(|_, _| Reply::Status(200)).await;
    for url in [nobody, plain.url().replace("http:", "https:")] {
        let webhook = Webhook::to(&url).await;
        let (until, why) = all_wait(&webhook.takes(&batch(0..3)).await);
        assert_eq!(until, None);
        assert!(!why.is_empty() && !why.contains("37.9"), "{why}");
        assert!(webhook.state().await.failing.is_some());
    }
    assert_eq!(plain.requests(), 0);
}

#[tokio::test]
async fn gone_stops_and_is_told_once_until_somebody_resumes() {
    let warehouse = Warehouse::opens(|_, _| Reply::Status(410)).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    all_wait(&webhook.takes(&large(0..3)).await);
    assert_eq!(warehouse.requests(), 1);
    for _ in 0..3 {
        webhook.passes(SignedDuration::from_hours(24));
        let (_, why) = all_wait(&webhook.takes(&batch(0..3)).await);
        assert!(why.contains("410"), "{why}");
    }
    assert_eq!(warehouse.requests(), 1);
    assert_eq!(webhook.alerts().await, [Severity::Critical]);
    assert_eq!(webhook.world.counted(Metric::AlertsSent), 1);
    assert_eq!(webhook.state().await.stopped.unwrap().url, warehouse.url());
    // when somebody resumes
    warehouse.now_answers(|_, _| Reply::Status(200));
    resume(&webhook.documents()).await.unwrap();
    all_taken(&webhook.takes(&batch(0..3)).await);
}

#[tokio::test]
async fn another_url_is_not_stopped_by_what_the_first_one_said() {
    let (first, second) = (
        Warehouse::opens(|_, _| Reply::Status(410)).await,
        Warehouse::opens(|_, _| Reply::Status(200)).await,
    );
    let webhook = Webhook::to(&first.url()).await;
    all_wait(&webhook.takes(&batch(0..3)).await);
    let moved = made(&webhook.world.host(&settings(&second.url())));
    all_taken(&moved.handle(&batch(0..3)).await);
}

#[tokio::test]
async fn a_sale_the_warehouse_refuses_is_alone_in_being_refused() {
    let bad = |sales: &[String]| sales.contains(&id(13)) || sales.contains(&id(77));
    let refusal =
        |sales: &[String]| Reply::Text(400, format!("item 98 of {} sales\nis unknown", sales.len()));
    let warehouse =
        Warehouse::opens(move |_, sales| if bad(sales) { refusal(sales) } else { Reply::Status(204) }).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    let verdicts = webhook.takes(&batch(0..100)).await;
    for (n, verdict) in verdicts.iter().enumerate() {
        match verdict {
            Err(refused @ Failure::Refuse(_)) if n == 13 || n == 77 => {
                // What the warehouse says may repeat the sale: it is for the dead letters, not for the log.
                assert_eq!(refused.to_string(), "the warehouse answered 400");
                assert_eq!(refused.in_full(), "the warehouse answered 400: item 98 of 1 sales is unknown");
            }
            verdict => assert!(verdict.is_ok() && n != 13 && n != 77, "sale {n}: {verdict:?}"),
        }
    }
    let taken: Vec<String> = warehouse.sales().into_iter().filter(|sales| !bad(sales)).flatten().collect();
    assert_eq!(taken.len(), 98, "each once");
    assert_eq!(webhook.counted(), [98, 0, 2]);
    assert!(warehouse.requests() < 30, "{} requests", warehouse.requests());
}

#[tokio::test]
async fn a_refusal_that_is_no_sales_fault_is_not_divided() {
    for status in [401, 403, 404, 415] {
        let warehouse = Warehouse::opens(move |_, _| Reply::Status(status)).await;
        let webhook = Webhook::to(&warehouse.url()).await;
        let verdicts = webhook.takes(&batch(0..10)).await;
        let refused = |v: &Verdict| matches!(v, Err(Failure::Refuse(why)) if why.as_str().ends_with(&status.to_string()));
        assert!(verdicts.iter().all(refused), "{verdicts:?}");
        assert_eq!(warehouse.requests(), 1);
    }
}

#[tokio::test]
async fn an_outage_in_the_middle_of_a_division_keeps_what_was_decided() {
    // given that it refuses all four, the first two and the first, takes the second, and is overrun then
    let warehouse = Warehouse::opens(|n, _| Reply::Status([400, 400, 400, 200, 429][n.min(4)])).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    let verdicts = webhook.takes(&batch(0..4)).await;
    assert!(matches!(verdicts[0], Err(Failure::Refuse(_))) && verdicts[1].is_ok(), "{verdicts:?}");
    all_wait(&verdicts[2..]);
    assert_eq!(webhook.counted(), [1, 1, 1]);
}

#[tokio::test]
async fn a_message_that_is_no_sale_is_refused_and_its_neighbours_go() {
    let warehouse = Warehouse::opens(|_, _| Reply::Status(200)).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    let mut messages = batch(0..3);
    messages[1].body = "{\"till\":\"secret\"}".to_owned().into();
    let verdicts = webhook.takes(&messages).await;
    assert!(verdicts[0].is_ok() && verdicts[2].is_ok());
    assert!(matches!(&verdicts[1], Err(why @ Failure::Refuse(_)) if !why.in_full().contains("secret")));
    let verdicts = webhook.takes(&messages[1..2]).await;
    assert!(matches!(&verdicts[..], [Err(Failure::Refuse(_))]));
    assert_eq!(warehouse.sales(), [[id(0), id(2)]]);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let inside = Warehouse::opens(|_, _| Reply::Status(200)).await;
    let location: &'static str = inside.url().leak();
    for status in [301, 302, 307, 308] {
        let warehouse = Warehouse::opens(move |_, _| Reply::With(status, "location", location)).await;
        let webhook = Webhook::to(&warehouse.url()).await;
        let (_, why) = all_wait(&webhook.takes(&batch(0..3)).await);
        assert!(why.contains("redirects are not followed"), "{why}");
        assert_eq!((warehouse.requests(), inside.requests()), (1, 0));
    }
}

#[tokio::test]
async fn a_name_of_a_private_address_is_not_connected_to() {
    let warehouse = Warehouse::opens(|_, _| Reply::Status(200)).await;
    let url = warehouse.url().replace("127.0.0.1", "localhost");
    let webhook = Webhook::told(&url, &[("WAREHOUSE_ALLOW_PRIVATE", "false")]).await;
    let (_, why) = all_wait(&webhook.takes(&batch(0..3)).await);
    assert!(why.contains("private addresses"), "{why}");
    assert_eq!((warehouse.requests(), webhook.counted()), (0, [0, 1, 0]));
    // and where it is permitted, it is
    all_taken(&Webhook::to(&url).await.takes(&batch(0..3)).await);
}

#[tokio::test]
async fn it_is_on_by_its_settings_only() {
    let world = World::open().await;
    let made = |url: &str| (ENTRY.make)(&world.host(&[("WAREHOUSE_URL", url)]));
    assert!((ENTRY.make)(&world.host(&[])).unwrap().is_none());
    for url in
        ["http://warehouse.example/", "https://10.0.0.1/", "https://user:hunter2@warehouse.example/", "x"]
    {
        let told = made(url).err().unwrap().to_string();
        assert!(told.contains("WAREHOUSE_URL must be a") && !told.contains("hunter2"), "{told}");
    }
    assert!(made("https://warehouse.example/").unwrap().is_some());
}

#[tokio::test]
async fn of_an_answer_without_end_only_the_beginning_is_read() {
    for status in [200, 400] {
        let warehouse = Warehouse::opens(move |_, _| Reply::Endless(status)).await;
        let webhook = Webhook::to(&warehouse.url()).await;
        let verdicts =
            tokio::time::timeout(Duration::from_secs(5), webhook.takes(&batch(0..1))).await.unwrap();
        match &verdicts[..] {
            [Ok(())] => assert_eq!(status, 200),
            [Err(why @ Failure::Refuse(_))] => {
                assert_eq!(why.in_full().len(), "the warehouse answered 400: ".len() + 300);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn without_a_secret_nothing_is_sent_and_nothing_lost() {
    let warehouse = Warehouse::opens(|_, _| Reply::Status(200)).await;
    for secrets in ["", "whsec_c2hvcnQ=", &format!("{NEW} no-base64!")] {
        let webhook = Webhook::told(&warehouse.url(), &[("WAREHOUSE_SECRET", secrets)]).await;
        let (_, why) = all_wait(&webhook.takes(&batch(0..3)).await);
        assert!(why.contains("secret") && !why.contains("c2hvcnQ") && !why.contains(NEW), "{why}");
    }
    assert_eq!(warehouse.requests(), 0);
}

#[tokio::test]
async fn a_long_outage_is_told_once_and_so_is_its_end() {
    let warehouse = Warehouse::opens(|_, _| Reply::Status(503)).await;
    let webhook = Webhook::to(&warehouse.url()).await;
    let deaf = Arc::new(AtomicBool::new(true));
    let host = Deaf { host: webhook.world.host(&settings(&warehouse.url())), deaf: Arc::clone(&deaf) };
    let functions = [made(&host), made(&host)];
    // given five hours of outage; two functions ask each minute; for two hours nobody takes notices either
    for minute in 0..5 * 60 {
        deaf.store(minute < 120, Ordering::SeqCst);
        let batches = [batch(0..2), batch(2..4)];
        let asked = functions.iter().zip(&batches).map(|(function, batch)| function.handle(batch));
        for verdicts in join_all(asked).await {
            all_wait(&verdicts);
        }
        if minute % 30 == 0 {
            let told = if minute < 120 { &[][..] } else { &[Severity::Warning] };
            assert_eq!(webhook.alerts().await, told, "minute {minute}");
        }
        webhook.passes(SignedDuration::from_mins(1));
    }
    assert!(warehouse.requests() <= 2 * 3 + 5 * 60, "{} requests", warehouse.requests());
    // when it is back
    warehouse.now_answers(|_, _| Reply::Status(200));
    for _ in 0..3 {
        all_taken(&functions[0].handle(&batch(0..4)).await);
    }
    assert_eq!(webhook.alerts().await, [Severity::Warning, Severity::Info]);
}

/// A place where nobody takes notices for a while.
struct Deaf {
    host: LocalHost,
    deaf: Arc<AtomicBool>,
}

struct DeafNotifier {
    people: Arc<dyn Notifier>,
    deaf: Arc<AtomicBool>,
}

#[async_trait]
impl Notifier for DeafNotifier {
    async fn send(&self, notice: &Notice) -> Result<(), Retry> {
        if self.deaf.load(Ordering::SeqCst) {
            return Err(Retry::because("nobody takes notices"));
        }
        self.people.send(notice).await
    }
}

impl Host for Deaf {
    fn clock(&self) -> Clock {
        self.host.clock()
    }
    fn metrics(&self) -> Metrics {
        self.host.metrics()
    }
    fn settings(&self) -> &Settings {
        self.host.settings()
    }
    fn documents(&self, subscriber: &'static str) -> Result<Documents, SettingError> {
        self.host.documents(subscriber)
    }
    fn registry(&self) -> Result<Registry, SettingError> {
        self.host.registry()
    }
    fn attention(&self) -> Result<Attention, SettingError> {
        self.host.attention()
    }
    fn keys(&self) -> Result<Arc<dyn ShopKeys>, SettingError> {
        self.host.keys()
    }
    fn notifier(&self) -> Result<Arc<dyn Notifier>, SettingError> {
        Ok(Arc::new(DeafNotifier { people: self.host.notifier()?, deaf: Arc::clone(&self.deaf) }))
    }
    fn wakes(&self, subscriber: &'static str) -> Result<Arc<dyn Wakes>, SettingError> {
        self.host.wakes(subscriber)
    }
    fn secrets(&self) -> Result<Arc<dyn Secrets>, SettingError> {
        self.host.secrets()
    }
}

/// What a warehouse got, each sale once, is what the webhook brought about.
struct Deliveries {
    world: World,
    warehouse: Warehouse,
}

#[async_trait]
impl Trial for Deliveries {
    fn subscriber(&self, dependencies: Dependencies) -> Arc<dyn Subscriber> {
        // Later, so that a circuit that is open is probed.
        self.world.passes(SignedDuration::from_mins(1));
        let broken = dependencies == Dependencies::Fail;
        let answer = if broken { 503 } else { 204 };
        self.warehouse.now_answers(move |_, _| Reply::Status(answer));
        made(&self.world.host(&settings(&self.warehouse.url())))
    }

    async fn outcome(&self) -> String {
        format!("{:?}", self.warehouse.taken.lock().unwrap())
    }
}

#[tokio::test]
async fn the_webhook_conforms() {
    let begin = || async {
        Deliveries {
            world: World::open().await,
            warehouse: Warehouse::opens(|_, _| Reply::Status(204)).await,
        }
    };
    Box::pin(conforms(begin, &batch(0..12))).await;
}

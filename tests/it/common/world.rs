//! A whole shop in memory, with the messages in the test's hands: it decides what is delivered when,
//! how often, and what fails. Everything between the till's request and the tables is the real thing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use kassa::embedded::{FileKeys, LocalHost, SHARD, Stages, Store, Sync};
use kassa::plan::Plan;
use kassa::questions::{Books, OutboxFilter, Questions, SaleHistory, Status};
use kassa::shops::Shops;
use kassa_bus::jwe::{ContentKey, Sealer};
use kassa_bus::keys::{KeyError, PublicKey, ShopKeys};
use kassa_bus::message::RejectedSale;
use kassa_bus::metrics::{Series, Values};
use kassa_bus::notify::Notice;
use kassa_bus::table::TableError;
use kassa_bus::{
    Clock, Message, Metric, Metrics, PublishError, Publisher, Settings, ShopId, Source, Subscriber,
    Subscription, Thumbprint, Topic, Verdict,
};
use kassa_pipeline::accept::{Accept, Post};
use kassa_pipeline::check::Check;
use kassa_pipeline::event::StoredEvent;
use kassa_pipeline::problem::Answer;
use kassa_pipeline::row::ReadRow;
use serde_json::{Value, json};
use tempfile::TempDir;
use zeroize::Zeroizing;

pub const NOON: &str = "2026-11-22T12:00:00Z";

/// Keeps what is published until the test delivers it.
#[derive(Default)]
pub struct PostOffice {
    pub waiting: Mutex<VecDeque<(Topic, Message)>>,
    pub delivered: Mutex<Vec<(Topic, Message)>>,
    pub rejected: Mutex<Vec<RejectedSale>>,
    /// Publishes to refuse before the next is taken.
    pub refuse: AtomicU32,
    /// Shops whose sales there is no room for.
    pub full: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Publisher for PostOffice {
    async fn publish(&self, topic: Topic, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let take = |message: Message| {
            let refused =
                self.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if refused {
                return Err(PublishError { topic: topic.name(), why: "refused by the test".into() });
            }
            if topic == Topic::DecryptErrors {
                let rejected = message.read().expect("the published contract");
                self.rejected.lock().unwrap().push(rejected);
            } else {
                self.waiting.lock().unwrap().push_back((topic, message));
            }
            Ok(())
        };
        messages.into_iter().map(take).collect()
    }

    fn has_room(&self, _: Topic, shop: &ShopId) -> bool {
        !self.full.lock().unwrap().contains(shop.as_str())
    }
}

/// The real keys, which the test can make unavailable.
pub struct Keys {
    pub files: FileKeys,
    pub unavailable: AtomicBool,
    pub asked: AtomicU32,
    /// How often a public key was asked for.
    pub named: AtomicU32,
}

#[async_trait]
impl ShopKeys for Keys {
    async fn decrypt(
        &self,
        shop: &ShopId,
        kid: Option<&Thumbprint>,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(KeyError::unavailable("made so by the test"));
        }
        self.files.decrypt(shop, kid, ciphertext).await
    }

    async fn public_key(&self, shop: &ShopId) -> Result<PublicKey, KeyError> {
        self.named.fetch_add(1, Ordering::SeqCst);
        self.files.public_key(shop).await
    }
}

pub struct World {
    pub store: Store,
    pub keys: Arc<Keys>,
    pub post: Arc<PostOffice>,
    pub metrics: Metrics,
    /// What was taken of them.
    taken: Mutex<Vec<Series>>,
    pub questions: Box<Questions>,
    pub now: Arc<Mutex<Timestamp>>,
    pub accept: Accept,
    stages: Vec<Subscription>,
    /// How far the stream was handed to the projection.
    streamed: Mutex<u64>,
    _folder: TempDir,
}

impl World {
    /// The shops of shops.toml, at noon of 22 November 2026.
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(None, Sync::Normal).await.unwrap();
        let shops = Shops::read(None).unwrap();
        let files = FileKeys::open(folder.path()).unwrap();
        let [asked, named] = [const { AtomicU32::new(0) }; 2];
        let keys = Arc::new(Keys { files, unavailable: AtomicBool::new(false), asked, named });
        let now: Arc<Mutex<Timestamp>> = Arc::new(Mutex::new(NOON.parse().unwrap()));
        let ticking = now.clone();
        let clock = Clock::from_fn(move || *ticking.lock().unwrap());
        let plan = Plan::make(&shops, &keys.files, &store.registry, &store.read_model).await.unwrap();
        plan.carry_out(&keys.files, &store.registry, &store.read_model, clock.now()).await.unwrap();
        let (post, metrics) = (Arc::new(PostOffice::default()), Metrics::default());
        let wiring = Stages {
            store: &store,
            keys: keys.clone(),
            publisher: post.clone(),
            clock: &clock,
            metrics: &metrics,
            settings: &Settings::none(),
        };
        let (accept, stages) = (wiring.accept().unwrap(), wiring.subscriptions().unwrap());
        let questions = Box::new(Questions::new(Books { clock: clock.clone(), ..store.books() }));
        Self {
            store,
            keys,
            post,
            metrics,
            taken: Mutex::default(),
            questions,
            now,
            accept,
            stages,
            streamed: Mutex::new(0),
            _folder: folder,
        }
    }

    pub async fn posts(&self, body: impl AsRef<[u8]>) -> Answer {
        self.accept.sale(Post { body: body.as_ref(), client: "192.0.2.7".into(), trace: None }).await
    }

    fn stage(&self, wanted: impl Fn(&Source) -> bool) -> &dyn Subscriber {
        &*self.stages.iter().find(|s| wanted(&s.source)).expect("a stage").subscriber
    }

    /// Delivers a batch, as a queue would.
    pub async fn deliver(&self, topic: Topic, batch: &[Message]) -> Vec<Verdict> {
        self.stage(|source| *source == Source::Topic(topic)).handle(batch).await
    }

    /// Delivers what waits, and what that gives rise to, until nothing does; then projects.
    pub async fn settle(&self) {
        self.pass_on().await;
        self.project().await;
    }

    /// Delivers what waits, and what that gives rise to, until nothing does.
    pub async fn pass_on(&self) {
        loop {
            let next = self.post.waiting.lock().unwrap().pop_front();
            let Some((topic, message)) = next else { break };
            let verdicts = self.deliver(topic, std::slice::from_ref(&message)).await;
            if verdicts[0].is_err() {
                self.post.waiting.lock().unwrap().push_back((topic, message));
                break;
            }
            self.post.delivered.lock().unwrap().push((topic, message));
        }
    }

    /// Hands the stream to the projection, from where it was left off.
    pub async fn project(&self) {
        loop {
            let from = *self.streamed.lock().unwrap();
            let batch = self.stream(from, 50).await;
            let Some(last) = batch.last() else { return };
            let last = last.id.parse().unwrap();
            for verdict in self.project_batch(&batch).await {
                verdict.unwrap();
            }
            *self.streamed.lock().unwrap() = last;
        }
    }

    pub async fn project_batch(&self, batch: &[Message]) -> Vec<Verdict> {
        self.stage(|source| *source == Source::EventStream).handle(batch).await
    }

    /// What is done once a minute, as far as it can be.
    pub async fn try_minute(&self) {
        for stage in self.stages.iter().filter(|stage| stage.source == Source::Minute) {
            let _ = stage.subscriber.tick().await;
        }
    }

    /// What is done once a minute.
    pub async fn minute(&self) {
        for stage in self.stages.iter().filter(|stage| stage.source == Source::Minute) {
            stage.subscriber.tick().await.unwrap();
        }
    }

    /// Messages of the stream after a sequence number.
    pub async fn stream(&self, from: u64, most: usize) -> Vec<Message> {
        let mut changes = self.store.stream.read(from).await.unwrap();
        changes.truncate(most);
        let (sequences, keys): (Vec<u64>, Vec<_>) = changes.into_iter().unzip();
        let events = self.store.events.get(&keys).await.unwrap();
        let message = |(n, event): (u64, Result<StoredEvent, TableError>)| {
            Some(event.ok()?.into_message(n.to_string(), SHARD))
        };
        sequences.into_iter().zip(events).filter_map(message).collect()
    }

    pub async fn sale(&self, id: &str) -> SaleHistory {
        self.questions.sale(id, None).await.unwrap()
    }

    /// `(stock, gross_number, gross_turnover)` of an item.
    pub async fn stock(&self, shop: &str, item: &str) -> (String, String, String) {
        let rows = self.questions.stock(Some(shop)).await.unwrap().rows;
        let found = rows.into_iter().find_map(|row| match row {
            ReadRow::Item(row) if row.record_type == item => Some(row),
            _ => None,
        });
        let row = found.unwrap_or_else(|| panic!("no row {item}"));
        (row.stock.to_string(), row.gross_number.to_string(), row.gross_turnover.to_string())
    }

    /// `(sales, turnover)` of a day, if it has any.
    pub async fn day(&self, shop: &str, day: &str) -> Option<(String, String)> {
        let rows = self.questions.stock(Some(shop)).await.unwrap().rows;
        rows.into_iter().find_map(|row| match row {
            ReadRow::Day(row) if row.record_type == day => {
                Some((row.sales.to_string(), row.turnover.to_string()))
            }
            _ => None,
        })
    }

    /// The check, which must find no mismatch.
    pub async fn balanced(&self) -> Check {
        let check = self.questions.check(&|_, _| {}).await.unwrap();
        assert_eq!(check.mismatches, Vec::<String>::new());
        assert_eq!(check.accepted, check.recorded + check.rejected + check.pending);
        check
    }

    /// What a subscriber may ask of this shop, told these settings.
    pub fn host(&self, settings: &[(&str, &str)]) -> LocalHost {
        let now = self.now.clone();
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        LocalHost {
            store: self.store.clone(),
            keys: self.keys.clone(),
            settings: Settings::none().with(settings),
            clock: Clock::from_fn(move || *now.lock().unwrap()),
            metrics: self.metrics.clone(),
            feed: Arc::default(),
        }
    }

    pub fn passes(&self, time: SignedDuration) {
        *self.now.lock().unwrap() += time;
    }

    /// What was sent to people so far, in order.
    pub async fn outbox(&self) -> Vec<Notice> {
        let sent = self.questions.outbox(&OutboxFilter::default()).await.unwrap();
        sent.into_iter().map(|(_, sent)| sent.notice).collect()
    }

    pub fn counted(&self, metric: Metric) -> u64 {
        self.metrics.get(metric)
    }

    /// What was counted under one value of a dimension.
    pub fn counted_as(&self, metric: Metric, value: &str) -> u64 {
        let mut taken = self.taken.lock().unwrap();
        taken.extend(self.metrics.take());
        let of =
            taken.iter().filter(|s| s.metric == metric && s.labels.iter().any(|(_, said)| said == value));
        of.map(|series| match &series.values {
            Values::Sum(sum) => *sum,
            Values::Each(values) => values.len() as u64,
        })
        .sum()
    }

    /// What was last measured, of a shop or in all.
    pub fn measured(&self, metric: Metric, shop: Option<&str>) -> Option<f64> {
        let mut taken = self.taken.lock().unwrap();
        taken.extend(self.metrics.take());
        let of = |series: &&Series| {
            series.metric == metric && series.labels.first().map(|(_, said)| said.as_str()) == shop
        };
        match &taken.iter().rfind(of)?.values {
            Values::Sum(_) => panic!("{metric:?} is counted, not measured"),
            Values::Each(values) => values.last().copied(),
        }
    }

    pub fn rejections(&self) -> Vec<RejectedSale> {
        self.post.rejected.lock().unwrap().clone()
    }

    pub async fn public_key(&self, shop: &str) -> (Thumbprint, OaepPublicEncryptingKey) {
        let key = self.keys.public_key(&shop.parse().unwrap()).await.unwrap();
        (key.kid().clone(), encrypting(&key))
    }

    /// A sealed request for `shop` with the key of `key_of`, of any content.
    pub async fn seal_for(&self, shop: &str, key_of: &str, id: &str, content: &str) -> String {
        let (kid, key) = self.public_key(key_of).await;
        let sealed = sealer(&kid, &key).seal(content.as_bytes()).unwrap();
        json!({"shop_id": shop, "message_id": id, "sealed": sealed}).to_string()
    }

    pub async fn sealed(&self, id: &str, lines: &[(&str, &str, &str)]) -> String {
        self.seal_for("AMIS1", "AMIS1", id, &content(id, NOON, lines)).await
    }

    pub async fn classic_for(&self, shop: &str, key_of: &str, id: Option<&str>, content: &str) -> String {
        let (_, key) = self.public_key(key_of).await;
        let mut request = json!({"shop_id": shop, "content_base64": BASE64_STANDARD.encode(wrap(&key, content.as_bytes()))});
        if let Some(id) = id {
            request["message_id"] = json!(id);
        }
        request.to_string()
    }

    pub async fn classic(&self, id: Option<&str>, lines: &[(&str, &str, &str)]) -> String {
        self.classic_for("AMIS1", "AMIS1", id, &json!({"sales": sales(lines)}).to_string()).await
    }
}

pub fn encrypting(key: &PublicKey) -> OaepPublicEncryptingKey {
    let (n, e) = key.components().unwrap();
    let key: PublicEncryptingKey = PublicKeyComponents { n, e }.try_into().unwrap();
    OaepPublicEncryptingKey::new(key).unwrap()
}

pub fn wrap(key: &OaepPublicEncryptingKey, plaintext: &[u8]) -> Vec<u8> {
    let mut ciphertext = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, plaintext, &mut ciphertext, None).unwrap();
    ciphertext
}

pub fn sealer(kid: &Thumbprint, key: &OaepPublicEncryptingKey) -> Sealer {
    let content_key = [42; 32];
    Sealer::new(ContentKey::new(&content_key).unwrap(), kid, &wrap(key, &content_key))
}

pub fn sales(lines: &[(&str, &str, &str)]) -> Value {
    let line = |(item, number, turnover): &(&str, &str, &str)| json!({"item_no": item, "gross_number": number, "gross_turnover": turnover});
    lines.iter().map(line).collect()
}

/// What a till seals.
pub fn content(id: &str, sold_at: &str, lines: &[(&str, &str, &str)]) -> String {
    json!({"sale_id": id, "till": "till-7", "seq": 1, "sold_at": sold_at, "sales": sales(lines)}).to_string()
}

/// The sale's id of the n-th millisecond after noon, always the same.
pub fn uuid(n: i64) -> String {
    let noon: Timestamp = NOON.parse().unwrap();
    let hex = format!("{:012x}", noon.as_millisecond() + n);
    format!("{}-{}-7000-8000-000000000000", &hex[..8], &hex[8..])
}

/// Then a sale stands so.
#[track_caller]
pub fn is(history: &SaleHistory, status: Status) {
    assert_eq!(history.status, status, "{:?}", history.events.iter().map(|e| &e.event).collect::<Vec<_>>());
}

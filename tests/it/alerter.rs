//! What people hear of rejected sales: through the subscriber, over the shop's own tables.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use kassa::embedded::LocalHost;
use kassa_bus::attention::{Attention, Unbooked};
use kassa_bus::keys::ShopKeys;
use kassa_bus::message::{AcceptedSale, Carried, Origin, Reason, RejectedSale};
use kassa_bus::notify::{Alert, Notice, Notifier, Severity};
use kassa_bus::registry::{Registry, Shop};
use kassa_bus::secrets::Secrets;
use kassa_bus::wake::Wakes;
use kassa_bus::{
    Clock, Documents, Failure, Host, Message, Metric, Metrics, Retry, SaleId, SettingError, Settings,
    Subscriber, Topic,
};
use kassa_subscribers::decrypt_error_alerter::{ENTRY, Incident, Phase, incidents};

use crate::common::world::{NOON, World, content, uuid};

/// Reaches people, or does not.
#[derive(Default)]
struct People {
    heard: Mutex<Vec<Notice>>,
    unreachable: AtomicBool,
    /// Alerts get through, and text messages do not.
    no_phones: AtomicBool,
    /// Whoever tells them something dies of it.
    deadly: AtomicBool,
}

#[async_trait]
impl Notifier for People {
    async fn send(&self, notice: &Notice) -> Result<(), Retry> {
        let no_phone = self.no_phones.load(Ordering::SeqCst) && matches!(notice, Notice::Sms(_));
        if no_phone || self.unreachable.load(Ordering::SeqCst) {
            return Err(Retry::because("made so by the test"));
        }
        self.heard.lock().unwrap().push(notice.clone());
        if self.deadly.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// The world's, but for the people.
struct TestHost(LocalHost, Arc<People>);

impl Host for TestHost {
    fn clock(&self) -> Clock {
        self.0.clock()
    }
    fn metrics(&self) -> Metrics {
        self.0.metrics()
    }
    fn settings(&self) -> &Settings {
        self.0.settings()
    }
    fn documents(&self, subscriber: &'static str) -> Result<Documents, SettingError> {
        self.0.documents(subscriber)
    }
    fn registry(&self) -> Result<Registry, SettingError> {
        self.0.registry()
    }
    fn attention(&self) -> Result<Attention, SettingError> {
        self.0.attention()
    }
    fn keys(&self) -> Result<Arc<dyn ShopKeys>, SettingError> {
        self.0.keys()
    }
    fn notifier(&self) -> Result<Arc<dyn Notifier>, SettingError> {
        Ok(self.1.clone())
    }
    fn wakes(&self, subscriber: &'static str) -> Result<Arc<dyn Wakes>, SettingError> {
        self.0.wakes(subscriber)
    }
    fn secrets(&self) -> Result<Arc<dyn Secrets>, SettingError> {
        self.0.secrets()
    }
}

/// A world with an alerter in it.
struct Alerted {
    world: World,
    people: Arc<People>,
    alerter: Arc<dyn Subscriber>,
    sales: Mutex<i64>,
}

impl Alerted {
    async fn open() -> Self {
        Self::told(&[]).await
    }

    async fn told(settings: &[(&str, &str)]) -> Self {
        let (world, people) = (World::open().await, Arc::new(People::default()));
        let host = TestHost(world.host(settings), people.clone());
        let alerter = (ENTRY.make)(&host).unwrap().unwrap().subscriber;
        Self { world, people, alerter, sales: Mutex::new(0) }
    }

    /// The shop AMIS1, changed.
    async fn with(self, change: impl FnOnce(&mut Shop)) -> Self {
        let mut shop =
            (*self.world.store.registry.shop(&"AMIS1".parse().unwrap()).await.unwrap().unwrap()).clone();
        change(&mut shop);
        self.world.store.registry.register(&shop).await.unwrap();
        self
    }

    fn next_sale(&self) -> String {
        let mut sales = self.sales.lock().unwrap();
        *sales += 1;
        uuid(*sales)
    }

    /// A sale is sealed for AMIS1 with a key, and what comes of it is delivered.
    async fn posts(&self, id: &str, key_of: &str, inside: &str) {
        let rejected = self.world.rejections().len();
        self.world.posts(self.world.seal_for("AMIS1", key_of, id, inside).await).await;
        self.world.settle().await;
        let more = self.world.rejections().split_off(rejected);
        self.delivers(&more.iter().map(Message::of).collect::<Vec<_>>()).await;
    }

    /// Sales are rejected that nobody sold: they are on the list of what needs attention, and that is delivered.
    async fn hears(&self, rejected: &[RejectedSale]) {
        for sale in rejected.iter().filter(|sale| sale.reason.needs_attention()) {
            let RejectedSale { sale_id, reason, till, sealed_with, rejected_at, .. } = sale.clone();
            let since = rejected_at;
            let sale_of = Unbooked { sale_id, reason, till, sealed_with, since };
            self.attention().put(&sale.shop_id, &sale_of).await.unwrap();
        }
        self.delivers(&rejected.iter().map(Message::of).collect::<Vec<_>>()).await;
    }

    fn attention(&self) -> Attention {
        self.world.host(&[]).attention().unwrap()
    }

    async fn sells_with_the_key_of(&self, shop: &str) -> String {
        let id = self.next_sale();
        self.posts(&id, shop, &content(&id, NOON, &[("98", "1", "18.95")])).await;
        id
    }

    async fn fails(&self) -> String {
        self.sells_with_the_key_of("AMIS2").await
    }

    async fn sells(&self) {
        self.sells_with_the_key_of("AMIS1").await;
    }

    /// The till seals a sale of its anew, with the shop's key.
    async fn books(&self, id: &str) {
        self.posts(id, "AMIS1", &content(id, NOON, &[("98", "1", "18.95")])).await;
    }

    async fn gives_up(&self, shop: &str, id: &str) {
        self.attention().remove(&shop.parse().unwrap(), &id.parse().unwrap()).await.unwrap();
    }

    /// Brings the alerter what is due in its queue, and says how much that was.
    async fn wakes(&self) -> usize {
        let queues = self.world.store.kept(&self.world.host(&[]).clock()).queues;
        let due = queues.due(ENTRY.name, 99).await.unwrap();
        self.delivers(&due.iter().map(|queued| queued.message.clone()).collect::<Vec<_>>()).await;
        queues.done(ENTRY.name, &due).await.unwrap();
        due.len()
    }

    fn now(&self) -> Timestamp {
        *self.world.now.lock().unwrap()
    }

    fn passes(&self, seconds: i64) {
        self.world.passes(SignedDuration::from_secs(seconds));
    }

    async fn delivers(&self, batch: &[Message]) {
        for verdict in self.alerter.handle(batch).await {
            verdict.unwrap();
        }
    }

    async fn pass(&self, minutes: u32) {
        for _ in 0..minutes {
            self.world.passes(SignedDuration::from_mins(1));
            self.alerter.tick().await.unwrap();
        }
    }

    fn texts(&self) -> Vec<String> {
        let heard = self.people.heard.lock().unwrap();
        let text = |notice: &Notice| match notice {
            Notice::Sms(sms) => Some(format!("{} {}", sms.to, sms.text)),
            Notice::Alert(_) => None,
        };
        heard.iter().filter_map(text).collect()
    }

    fn alerts(&self) -> Vec<Alert> {
        let heard = self.people.heard.lock().unwrap();
        let alert = |notice: &Notice| match notice {
            Notice::Alert(alert) => Some(alert.clone()),
            Notice::Sms(_) => None,
        };
        heard.iter().filter_map(alert).collect()
    }

    fn subjects(&self) -> Vec<String> {
        self.alerts().into_iter().map(|alert| alert.subject).collect()
    }

    async fn incidents(&self) -> Vec<Incident> {
        incidents(&self.world.host(&[]).documents(ENTRY.name).unwrap()).await.unwrap().rows
    }
}

/// The n-th sale that was rejected at noon, as `decrypt` says it.
fn rejected(shop: &str, reason: Reason, n: i64) -> RejectedSale {
    let noon = NOON.parse().unwrap();
    RejectedSale {
        shop_id: shop.parse().unwrap(),
        sale_id: uuid(n).parse::<SaleId>().unwrap(),
        reason,
        detail: "made so by the test".into(),
        sealed_with: None,
        till: None,
        closed: None,
        envelope: String::new(),
        rejected_at: noon,
        origin: Origin {
            source: "192.0.2.7".into(),
            accepted_at: noon,
            attempt: 1,
            opened_with: None,
            trace: None,
        },
    }
}

const OPENED: &str = "+31600000001 AMIS Nieuwegein: 1 verkoop sinds 13:00 niet te boeken: een kassa heeft de \
    verkeerde sleutel. Verkoop door, er gaat niets verloren. ICT hoort het.";
const OVER: &str = "+31600000001 AMIS Nieuwegein: niets vraagt nog aandacht. 1 verkoop sinds 13:00: \
    inmiddels geboekt, of door ICT opgegeven.";

#[tokio::test]
async fn the_manager_hears_when_it_begins_and_when_it_is_over() {
    let shop = Alerted::told(&[("STAGE", "dev")]).await;
    shop.sells().await;
    let sale = shop.fails().await;
    shop.pass(1).await;
    assert_eq!(shop.texts(), [OPENED]);
    let alert = shop.alerts().remove(0);
    assert_eq!((alert.reason.as_str(), alert.severity), ("wrong-key", Severity::Critical));
    for command in [
        "Begin with\n  kassa retry --shop AMIS1 --reason wrong-key --opened-with AMIS2 --stage dev\n",
        "\n  kassa drop --shop AMIS1 --reason wrong-key --why '...' --stage dev\n",
        "\n  kassa audit keys --shop AMIS1 --since 24h --stage dev\n",
    ] {
        assert!(alert.texts.email.contains(command), "{command}\n{}", alert.texts.email);
    }
    // when it is booked
    shop.books(&sale).await;
    shop.pass(8).await;
    assert_eq!(shop.texts().len(), 1);
    shop.pass(1).await;
    assert_eq!(shop.texts(), [OPENED, OVER]);
    assert_eq!(shop.alerts()[1].severity, Severity::Info);
    // then that was all
    shop.pass(24 * 60).await;
    assert_eq!((shop.texts().len(), shop.alerts().len()), (2, 2));
    let counted = [Metric::IncidentsOpened, Metric::IncidentsClosed, Metric::SmsSent, Metric::AlertsSent];
    assert_eq!(counted.map(|metric| shop.world.counted(metric)), [1, 1, 2, 2]);
}

#[tokio::test]
async fn sales_that_are_not_booked_are_told_and_not_over_though_their_shop_sells_on() {
    let shop = Alerted::open().await;
    let mut wrong = Vec::new();
    for _ in 0..10 {
        wrong.push(shop.fails().await);
        shop.sells().await;
    }
    // one of them is booked at once, which is told of nobody
    shop.books(&wrong.pop().unwrap()).await;
    shop.passes(30);
    assert_eq!(shop.wakes().await, 1);
    let told = OPENED.replace("1 verkoop sinds", "9 verkopen sinds");
    assert_eq!(shop.texts(), [told.as_str()]);
    // when it sells on, and all but one is booked
    for sale in wrong.drain(1..) {
        shop.sells().await;
        shop.books(&sale).await;
        shop.pass(5).await;
    }
    shop.pass(60).await;
    assert!(matches!(shop.incidents().await[0].phase, Phase::Open { .. }));
    assert_eq!(shop.texts().len(), 1);
    // and when the last is given up
    shop.gives_up("AMIS1", &wrong[0]).await;
    shop.pass(1).await;
    assert_eq!(shop.texts().len(), 2);
    assert!(shop.texts()[1].contains("niets vraagt nog aandacht"));
}

#[tokio::test]
async fn what_is_rejected_after_all_that_was_told_is_booked_is_told_while_the_incident_is_open() {
    let shop = Alerted::open().await;
    let told = [shop.fails().await, shop.fails().await];
    shop.passes(30);
    shop.wakes().await;
    assert_eq!((shop.texts().len(), shop.alerts().len()), (1, 1));
    // given more while what was told is on the list, which is no news
    shop.passes(30);
    let third = shop.fails().await;
    shop.passes(30);
    shop.wakes().await;
    assert_eq!(shop.texts().len(), 1);
    // when all is booked, and before anybody has looked more are rejected
    for sale in told.iter().chain([&third]) {
        shop.books(sale).await;
    }
    shop.passes(6);
    let more = [shop.fails().await, shop.fails().await, shop.fails().await];
    // then they are told when their group wait is over, and once
    shop.passes(29);
    shop.wakes().await;
    assert_eq!(shop.texts().len(), 1);
    shop.passes(31);
    shop.wakes().await;
    let opened = OPENED.replace("1 verkoop sinds 13:00", "3 verkopen sinds 13:01");
    assert_eq!(shop.texts()[1..], [opened]);
    assert_eq!(shop.subjects()[1], "Kassa: AMIS1: sales are rejected (wrong-key)");
    shop.pass(60).await;
    assert_eq!((shop.texts().len(), shop.alerts().len()), (2, 2));
    // and what is booked within its group wait is told nobody
    for sale in more {
        shop.books(&sale).await;
    }
    let hiccup = shop.fails().await;
    shop.passes(20);
    shop.books(&hiccup).await;
    shop.pass(15).await;
    assert_eq!(shop.texts().len(), 3);
    assert!(
        shop.texts()[2].contains("niets vraagt nog aandacht. 7 verkopen sinds 13:00"),
        "{:?}",
        shop.texts()
    );
    assert_eq!(shop.world.counted(Metric::IncidentsOpened), 1);
}

#[tokio::test]
async fn of_what_is_booked_already_ict_hears_and_the_manager_does_not() {
    let shop = Alerted::open().await;
    shop.hears(&[rejected("AMIS1", Reason::Conflict, 1), rejected("AMIS1", Reason::Replayed, 2)]).await;
    shop.pass(30).await;
    assert!(shop.texts().is_empty());
    let mut subjects = shop.subjects();
    subjects.sort();
    assert_eq!(
        subjects,
        [
            "Kassa: AMIS1: no more come, nothing is to be booked (conflict)",
            "Kassa: AMIS1: no more come, nothing is to be booked (replayed)",
            "Kassa: AMIS1: recorded ids come with another content, nothing is to be booked (conflict)",
            "Kassa: AMIS1: recorded sales come again, nothing is to be booked (replayed)",
        ]
    );
    for alert in shop.alerts() {
        assert!(!alert.texts.email.contains("text message"), "{}", alert.texts.email);
        assert!(!alert.texts.email.contains("given up"), "{}", alert.texts.email);
    }
}

#[tokio::test]
async fn a_text_goes_at_the_end_of_the_group_wait_by_one_wake_up() {
    let shop = Alerted::open().await;
    for _ in 0..3 {
        shop.fails().await;
        shop.passes(7);
    }
    // when the minute comes in between
    shop.alerter.tick().await.unwrap();
    shop.passes(8);
    assert_eq!((shop.wakes().await, shop.texts().len()), (0, 0));
    shop.passes(1);
    assert_eq!((shop.wakes().await, shop.texts().len()), (1, 1));
    // and nobody is woken again, for whatever is due by the minute
    shop.passes(900);
    assert_eq!(shop.wakes().await, 0);
}

#[tokio::test]
async fn a_wake_up_that_is_late_forged_or_comes_twice_does_no_harm() {
    let shop = Alerted::open().await;
    shop.fails().await;
    shop.delivers(&[Message::wake_up("AMIS1"), Message::wake_up("AMIS2"), Message::wake_up("NOWHERE")]).await;
    assert!(shop.texts().is_empty());
    shop.passes(30);
    shop.delivers(&[Message::wake_up("AMIS1"), Message::wake_up("AMIS1")]).await;
    shop.delivers(&[Message::wake_up("AMIS1")]).await;
    assert_eq!((shop.texts().len(), shop.alerts().len()), (1, 1));
    // Not even when nobody can be reached: what is due is left to the minute.
    shop.people.unreachable.store(true, Ordering::SeqCst);
    shop.hears(&[rejected("AMIS2", Reason::WrongKey, 1)]).await;
    shop.passes(30);
    shop.delivers(&[Message::wake_up("AMIS2")]).await;
    let verdicts = shop.alerter.handle(&[Message::wake_up("no shop's id")]).await;
    assert!(matches!(verdicts[..], [Err(Failure::Refuse(_))]));
}

#[tokio::test]
async fn ten_thousand_failures_in_a_minute_are_one_text() {
    let shop = Alerted::open().await;
    let messages: Vec<Message> =
        (0..10_000).map(|n| Message::of(&rejected("AMIS1", Reason::WrongKey, n))).collect();
    // given that the list has no place for all of them
    shop.hears(&[rejected("AMIS1", Reason::WrongKey, 0)]).await;
    let (amis1, today) = ("AMIS1".parse().unwrap(), "2026-11-22".parse().unwrap());
    shop.attention().look_through(&amis1, &[today].into()).await.unwrap();
    // and that they come to four at once, and a tenth of them twice
    let again = messages.chunks(50).step_by(20);
    let batches: Vec<&[Message]> = messages.chunks(99).chain(again).collect();
    for together in batches.chunks(4) {
        join_all(together.iter().map(|batch| shop.delivers(batch))).await;
    }
    // when two tick at once, twice
    for _ in 0..2 {
        shop.world.passes(SignedDuration::from_mins(1));
        join_all([shop.alerter.tick(), shop.alerter.tick()]).await.into_iter().for_each(Result::unwrap);
    }
    let told = OPENED.replace("1 verkoop sinds", "10000 verkopen sinds");
    assert_eq!(shop.texts(), [told]);
    assert_eq!(shop.alerts().len(), 1);
    assert_eq!(shop.world.counted(Metric::IncidentsOpened), 1);
    // and it is not over while the list may lack some
    shop.gives_up("AMIS1", &uuid(0)).await;
    shop.pass(20).await;
    assert_eq!(shop.world.counted(Metric::IncidentsClosed), 0);
}

#[tokio::test]
async fn what_is_booked_within_the_group_wait_is_not_told() {
    let shop = Alerted::open().await;
    for _ in 0..3 {
        let sale = shop.fails().await;
        shop.passes(20);
        shop.books(&sale).await;
        shop.pass(2).await;
    }
    assert_eq!(shop.people.heard.lock().unwrap().len(), 0);
    shop.fails().await;
    shop.pass(1).await;
    assert_eq!(shop.texts().len(), 1);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_shop_at_once_is_one_text_and_an_alert_each() {
    let shop = Alerted::open().await;
    shop.hears(&[
        rejected("AMIS1", Reason::WrongKey, 1),
        rejected("AMIS2", Reason::WrongKey, 2),
        rejected("NOWHERE", Reason::UnknownShop, 3),
        rejected("AMIS1", Reason::Conflict, 1),
    ])
    .await;
    // one more comes some seconds later
    shop.passes(3);
    let late = RejectedSale { till: "kassa-3".parse().ok(), ..rejected("AMIS1", Reason::UnknownTill, 4) };
    shop.hears(&[RejectedSale { rejected_at: shop.now(), ..late }]).await;
    shop.passes(27);
    shop.wakes().await;
    let mut told = shop.texts();
    told.sort();
    assert_eq!(
        told,
        [
            "+31600000001 AMIS Nieuwegein: 2 verkopen sinds 13:00 niet te boeken: om 2 redenen. Verkoop door, er gaat niets \
             verloren. ICT hoort het.",
            "+31600000002 AMIS Utrecht: 1 sale since 13:00 cannot be booked: a till has the wrong key. Nothing is \
             lost, keep selling. ICT is told too.",
        ]
    );
    let mut subjects = shop.subjects();
    subjects.sort();
    assert_eq!(
        subjects,
        [
            "Kassa: AMIS1: recorded ids come with another content, nothing is to be booked (conflict)",
            "Kassa: AMIS1: sales are rejected (unknown-till)",
            "Kassa: AMIS1: sales are rejected (wrong-key)",
            "Kassa: AMIS2: sales are rejected (wrong-key)",
            "Kassa: NOWHERE: sales are rejected (unknown-shop)",
        ]
    );
    // and when one kind is over and the others are not, that is no news to the manager
    shop.gives_up("AMIS1", &uuid(1)).await;
    shop.pass(15).await;
    assert_eq!(shop.texts().len(), 2);
    let over = shop.alerts().pop().unwrap();
    assert!(over.texts.email.contains("other sales of the shop are still rejected"), "{}", over.texts.email);
    shop.gives_up("AMIS1", &uuid(4)).await;
    shop.pass(1).await;
    assert!(shop.texts()[2].contains("niets vraagt nog aandacht"), "{:?}", shop.texts());
}

#[tokio::test]
async fn a_manager_gets_one_text_a_minute() {
    let shop = Alerted::open().await;
    shop.fails().await;
    shop.passes(20);
    let reasons = [Reason::Malformed, Reason::Tampered];
    let later = reasons.iter().zip(10..).map(|(reason, n)| rejected("AMIS1", *reason, n));
    shop.hears(&later.map(|sale| RejectedSale { rejected_at: shop.now(), ..sale }).collect::<Vec<_>>()).await;
    shop.passes(10);
    shop.wakes().await;
    assert_eq!((shop.texts().len(), shop.alerts().len()), (1, 1));
    // when their group wait ends twenty seconds after a text was sent
    shop.passes(20);
    shop.wakes().await;
    assert_eq!(shop.texts().len(), 1);
    let waits = shop.alerts().pop().unwrap().texts.email;
    assert!(waits.contains("is to be sent a text message at 2026-11-22 13:01:30"), "{waits}");
    // then they are one text a minute after that
    shop.passes(39);
    shop.wakes().await;
    assert_eq!(shop.texts().len(), 1);
    shop.passes(1);
    shop.wakes().await;
    let texts = shop.texts();
    assert_eq!(texts.len(), 2);
    assert!(
        texts[1].contains("2 verkopen") && texts[1].contains("onleesbare gegevens; onderweg"),
        "{texts:?}"
    );
    assert_eq!(shop.alerts().len(), 3);
}

#[tokio::test]
async fn ict_reads_what_became_of_the_text_and_after_it_was_sent() {
    let shop = Alerted::open().await;
    shop.fails().await;
    shop.passes(30);
    shop.wakes().await;
    // the text goes first
    let heard = shop.people.heard.lock().unwrap().clone();
    assert!(matches!(&heard[..], [Notice::Sms(_), Notice::Alert(_)]));
    let sent = "The manager of AMIS Nieuwegein was sent a text message at 2026-11-22 13:00:30.";
    assert!(shop.alerts()[0].texts.email.contains(sent), "{}", shop.alerts()[0].texts.email);
    let program: serde_json::Value = serde_json::from_str(&shop.alerts()[0].texts.https).unwrap();
    assert_eq!(program["manager"], serde_json::json!({"text": "sent", "at": "2026-11-22T12:00:30Z"}));
    // and where none is sent, for whatever reason, it does not say so
    for (change, says) in [
        ((|shop: &mut Shop| shop.manager_phone = None) as fn(&mut Shop), "no phone number is registered"),
        (|shop| shop.sms_budget = 0, "this month's budget is used up"),
    ] {
        let shop = Alerted::open().await.with(change).await;
        shop.fails().await;
        shop.passes(30);
        shop.wakes().await;
        assert!(shop.texts().is_empty());
        let alert = shop.alerts().pop().unwrap().texts.email;
        assert!(alert.contains("was not sent a text message") && alert.contains(says), "{alert}");
    }
    let shop = Alerted::open().await;
    shop.people.no_phones.store(true, Ordering::SeqCst);
    shop.fails().await;
    shop.passes(30);
    shop.wakes().await;
    let alert = shop.alerts().pop().unwrap().texts.email;
    assert!(alert.contains("could not be sent a text message yet. It is tried again."), "{alert}");
}

#[tokio::test]
async fn what_comes_again_after_it_is_over_does_not_open_it_again() {
    let shop = Alerted::open().await;
    let sale = rejected("AMIS1", Reason::WrongKey, 5000);
    shop.hears(std::slice::from_ref(&sale)).await;
    shop.pass(1).await;
    shop.gives_up("AMIS1", &uuid(5000)).await;
    shop.pass(15).await;
    shop.delivers(&[Message::of(&sale)]).await;
    shop.pass(15).await;
    assert_eq!(shop.texts().len(), 2);
}

#[tokio::test]
async fn a_sale_that_is_put_through_again_and_rejected_again_is_no_news() {
    // given sales that were told of, and are over for whatever reason
    let shop = Alerted::open().await;
    let id = shop.fails().await;
    shop.pass(1).await;
    shop.gives_up("AMIS1", &id).await;
    shop.pass(15).await;
    let counted = |shop: &Alerted| {
        [Metric::Rejected, Metric::IncidentsOpened, Metric::SmsSent, Metric::AlertsSent]
            .map(|metric| shop.world.counted(metric))
    };
    let before = counted(&shop);
    // when they are put through again, to no avail
    let first = shop.world.rejections().remove(0);
    let (_, message) = shop.world.post.delivered.lock().unwrap()[0].clone();
    let sale: AcceptedSale<Carried> = message.read().unwrap();
    let origin = Origin { attempt: 2, ..sale.origin.clone() };
    shop.world.deliver(Topic::ToDecrypt, &[Message::of(&AcceptedSale { origin, ..sale })]).await;
    let again = shop.world.rejections().pop().unwrap();
    assert_eq!((again.sale_id.clone(), again.origin.attempt), (first.sale_id, 2));
    shop.hears(&[again]).await;
    shop.pass(60).await;
    // then nobody hears of it, and no alarm does
    assert_eq!(counted(&shop), before);
    // nor of what somebody gave up
    shop.delivers(&[Message::of(&rejected("AMIS1", Reason::Dropped, 9))]).await;
    shop.pass(60).await;
    assert_eq!(counted(&shop), before);
}

#[tokio::test]
async fn what_a_retry_moves_to_another_reason_keeps_its_incident_open() {
    let shop = Alerted::open().await;
    shop.hears(&[rejected("AMIS1", Reason::WrongKey, 1)]).await;
    shop.pass(1).await;
    // when the key is put right, and now its till is not enrolled
    let mut again = rejected("AMIS1", Reason::UnknownTill, 1);
    again.origin.attempt = 2;
    shop.hears(&[again]).await;
    shop.pass(30).await;
    assert_eq!(shop.world.counted(Metric::IncidentsClosed), 0);
    assert_eq!((shop.texts().len(), shop.incidents().await.len()), (1, 1));
    shop.gives_up("AMIS1", &uuid(1)).await;
    shop.pass(1).await;
    assert!(shop.texts()[1].contains("niets vraagt nog aandacht"));
}

#[tokio::test]
async fn what_nobody_of_ours_wrote_is_refused_and_its_neighbours_count() {
    let shop = Alerted::open().await;
    let mut poison = Message::of(&rejected("AMIS1", Reason::WrongKey, 1));
    poison.body = "{\"shop_id\":".to_owned().into();
    let sale = Message::of(&rejected("AMIS1", Reason::WrongKey, 2));
    let verdicts = shop.alerter.handle(&[poison, sale]).await;
    assert!(matches!(verdicts[..], [Err(Failure::Refuse(_)), Ok(())]));
    assert_eq!(shop.incidents().await[0].failures.count, 1);
}

#[tokio::test]
async fn a_function_that_dies_as_it_sends_leaves_it_to_the_next_after_its_lease() {
    let shop = Alerted::open().await;
    shop.fails().await;
    shop.world.passes(SignedDuration::from_mins(1));
    // when it dies after the text went out, before that was written down
    shop.people.deadly.store(true, Ordering::SeqCst);
    tokio::select! {
        _ = shop.alerter.tick() => panic!("it lived"),
        () = async { while shop.texts().is_empty() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    shop.people.deadly.store(false, Ordering::SeqCst);
    assert_eq!((shop.texts().len(), shop.alerts().len()), (1, 0));
    // then nobody sends it before the lease is over
    shop.pass(1).await;
    assert_eq!((shop.texts().len(), shop.alerts().len()), (1, 0));
    // and then it comes again, rather than not at all, and counts once against the budget
    shop.pass(3).await;
    assert_eq!(shop.texts(), [OPENED, OPENED]);
    assert_eq!(shop.alerts().len(), 1);
}

#[tokio::test]
async fn people_who_cannot_be_reached_hear_it_in_order_once_they_can() {
    let shop = Alerted::open().await;
    shop.people.unreachable.store(true, Ordering::SeqCst);
    let sales = [shop.fails().await, shop.fails().await];
    for _ in 0..30 {
        shop.world.passes(SignedDuration::from_mins(1));
        let _ = shop.alerter.tick().await;
    }
    for sale in &sales {
        shop.books(sale).await;
    }
    let _ = shop.alerter.tick().await;
    assert_eq!(shop.world.counted(Metric::IncidentsClosed), 1);
    shop.people.unreachable.store(false, Ordering::SeqCst);
    shop.pass(5).await;
    let texts = shop.texts();
    assert!(
        matches!(&texts[..], [first, last] if first.contains("niet te boeken") && last.contains("niets vraagt nog aandacht"))
    );
}

#[tokio::test]
async fn a_used_up_budget_is_told_to_ict_once_a_month_and_alerts_go_on() {
    let shop = Alerted::open().await.with(|shop| shop.sms_budget = 1).await;
    for _ in 0..2 {
        let sale = shop.fails().await;
        shop.pass(1).await;
        shop.books(&sale).await;
        shop.pass(15).await;
    }
    assert_eq!(shop.texts().len(), 1);
    assert_eq!(shop.world.counted(Metric::SmsOverBudget), 3);
    let alerts = shop.subjects();
    let told = "Kassa: AMIS1: SMS budget used up";
    assert_eq!(alerts.iter().filter(|subject| *subject == told).count(), 1);
    assert_eq!(alerts.iter().filter(|subject| subject.contains("(wrong-key)")).count(), 4);
    // and next month there is another
    shop.world.passes(SignedDuration::from_hours(24 * 9));
    shop.fails().await;
    shop.pass(1).await;
    assert_eq!(shop.texts().len(), 2);
}

#[tokio::test]
async fn reminders_wait_for_the_end_of_the_shops_quiet_hours() {
    let quiet = |shop: &mut Shop| shop.quiet_hours = Some("17:00-18:30".parse().unwrap());
    let shop = Alerted::open().await.with(quiet).await;
    // given a failure at one o'clock in Nieuwegein, of which a reminder is due at five
    shop.fails().await;
    shop.pass(5 * 60 + 29).await;
    assert_eq!(shop.texts().len(), 1);
    shop.pass(1).await;
    let texts = shop.texts();
    assert_eq!(texts.len(), 2);
    assert!(texts[1].contains("nog niet te boeken"), "{}", texts[1]);
}

#[tokio::test]
async fn a_manager_without_a_phone_is_no_obstacle() {
    let shop = Alerted::open().await.with(|shop| shop.manager_phone = None).await;
    shop.fails().await;
    shop.pass(1).await;
    assert!(shop.texts().is_empty());
    assert!(shop.alerts()[0].texts.email.contains("no phone number is registered"));
    assert!(shop.incidents().await[0].outgoing.is_empty());
}

//! What people hear of rejected sales: through the subscriber, over the shop's own tables.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use jiff::SignedDuration;
use kassa::embedded::LocalHost;
use kassa_bus::attention::Attention;
use kassa_bus::keys::ShopKeys;
use kassa_bus::message::{Origin, Reason, RejectedSale};
use kassa_bus::notify::{Alert, Notice, Notifier, Severity};
use kassa_bus::registry::{Registry, Shop};
use kassa_bus::secrets::Secrets;
use kassa_bus::{
    Clock, Documents, Failure, Host, Message, Metric, Metrics, Retry, SaleId, SettingError, Settings,
    Subscriber,
};
use kassa_subscribers::decrypt_error_alerter::{ENTRY, Incident, Phase, incidents};

use crate::common::world::{NOON, World, content, uuid};

/// Reaches people, or does not.
#[derive(Default)]
struct People {
    heard: Mutex<Vec<Notice>>,
    unreachable: AtomicBool,
    /// Whoever tells them something dies of it.
    deadly: AtomicBool,
}

#[async_trait]
impl Notifier for People {
    async fn send(&self, notice: &Notice) -> Result<(), Retry> {
        if self.unreachable.load(Ordering::SeqCst) {
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

    /// A till sells with a key, and what comes of it is delivered.
    async fn sells_with_the_key_of(&self, shop: &str) {
        let id = self.next_sale();
        let sale = content(&id, NOON, &[("98", "1", "18.95")]);
        let rejected = self.world.rejections().len();
        self.world.posts(self.world.seal_for("AMIS1", shop, &id, &sale).await).await;
        self.world.settle().await;
        let more = self.world.rejections().split_off(rejected);
        self.delivers(&more.iter().map(Message::of).collect::<Vec<_>>()).await;
    }

    async fn fails(&self) {
        self.sells_with_the_key_of("AMIS2").await;
    }

    async fn sells(&self) {
        self.sells_with_the_key_of("AMIS1").await;
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
fn rejected(shop: &str, reason: Reason, n: i64) -> Message {
    let noon = NOON.parse().unwrap();
    Message::of(&RejectedSale {
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
    })
}

const OPENED: &str = "+31600000001 AMIS Nieuwegein: 1 verkoop sinds 13:00 niet te boeken: een kassa heeft de \
    verkeerde sleutel. Verkoop door, er gaat niets verloren. ICT weet het.";
const OVER: &str = "+31600000001 AMIS Nieuwegein: verkopen worden weer geboekt. 1 verkoop sinds 13:00 nog niet: \
    bewaard, niets is verloren. ICT weet het.";

#[tokio::test]
async fn the_manager_hears_when_it_begins_and_when_it_is_over() {
    let shop = Alerted::told(&[("STAGE", "dev")]).await;
    shop.sells().await;
    shop.fails().await;
    shop.pass(1).await;
    assert_eq!(shop.texts(), [OPENED]);
    let alert = shop.alerts().remove(0);
    assert_eq!((alert.reason.as_str(), alert.severity), ("wrong-key", Severity::Critical));
    assert!(alert.texts.email.contains("kassa audit keys --shop AMIS1 --since 24h --stage dev"));
    // when it is mended
    shop.sells().await;
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
async fn ten_thousand_failures_in_a_minute_are_one_text() {
    let shop = Alerted::open().await;
    let messages: Vec<Message> = (0..10_000).map(|n| rejected("AMIS1", Reason::WrongKey, n)).collect();
    // given that they come to four at once, and a tenth of them twice
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
}

#[tokio::test]
async fn a_hiccup_that_recovers_is_not_told_and_the_next_soon_after_is_told_at_once() {
    let shop = Alerted::open().await;
    shop.fails().await;
    shop.sells().await;
    shop.pass(5).await;
    assert_eq!(shop.people.heard.lock().unwrap().len(), 0);
    shop.fails().await;
    assert!(matches!(shop.incidents().await[0].phase, Phase::Open { .. }));
    shop.pass(1).await;
    assert_eq!(shop.texts().len(), 1);
}

#[tokio::test]
async fn each_shop_and_reason_is_told_of_by_itself() {
    let shop = Alerted::open().await;
    let others = [Reason::Malformed, Reason::Conflict].map(|reason| rejected("AMIS1", reason, 1));
    shop.delivers(&others).await;
    shop.delivers(&[rejected("AMIS2", Reason::Malformed, 2), rejected("NOWHERE", Reason::UnknownShop, 3)])
        .await;
    shop.pass(1).await;
    let mut told: Vec<String> = shop.texts().iter().map(|text| text[..30].to_owned()).collect();
    told.sort();
    assert_eq!(
        told,
        [
            "+31600000001 AMIS Nieuwegein: ",
            "+31600000001 AMIS Nieuwegein: ",
            "+31600000002 AMIS Utrecht: 1 s",
        ]
    );
    let mut subjects = shop.subjects();
    subjects.sort();
    assert_eq!(
        subjects,
        [
            "Kassa: AMIS1: sales are rejected (conflict)",
            "Kassa: AMIS1: sales are rejected (malformed)",
            "Kassa: AMIS2: sales are rejected (malformed)",
            "Kassa: NOWHERE: sales are rejected (unknown-shop)",
        ]
    );
}

#[tokio::test]
async fn what_comes_again_after_it_is_over_does_not_open_it_again() {
    let shop = Alerted::open().await;
    let message = rejected("AMIS1", Reason::WrongKey, 5000);
    shop.delivers(std::slice::from_ref(&message)).await;
    shop.pass(1).await;
    shop.sells().await;
    shop.pass(15).await;
    shop.delivers(&[message]).await;
    shop.pass(15).await;
    assert_eq!(shop.texts().len(), 2);
}

#[tokio::test]
async fn what_nobody_of_ours_wrote_is_refused_and_its_neighbours_count() {
    let shop = Alerted::open().await;
    let mut poison = rejected("AMIS1", Reason::WrongKey, 1);
    poison.body = "{\"shop_id\":".to_owned().into();
    let verdicts = shop.alerter.handle(&[poison, rejected("AMIS1", Reason::WrongKey, 2)]).await;
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
    tokio::time::timeout(Duration::from_secs(1), shop.alerter.tick()).await.unwrap_err();
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
    shop.fails().await;
    shop.sells().await;
    shop.fails().await;
    for _ in 0..30 {
        shop.world.passes(SignedDuration::from_mins(1));
        let _ = shop.alerter.tick().await;
    }
    shop.sells().await;
    let _ = shop.alerter.tick().await;
    assert_eq!(shop.world.counted(Metric::IncidentsClosed), 1);
    shop.people.unreachable.store(false, Ordering::SeqCst);
    shop.pass(5).await;
    let texts = shop.texts();
    assert!(
        matches!(&texts[..], [first, last] if first.contains("niet te boeken") && last.contains("weer geboekt"))
    );
}

#[tokio::test]
async fn a_used_up_budget_is_told_to_ict_once_a_month_and_alerts_go_on() {
    let shop = Alerted::open().await.with(|shop| shop.sms_budget = 1).await;
    for _ in 0..2 {
        shop.fails().await;
        shop.pass(1).await;
        shop.sells().await;
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
    assert!(shop.alerts()[0].texts.email.contains("has no phone number"));
    assert!(shop.incidents().await[0].outgoing.is_empty());
}

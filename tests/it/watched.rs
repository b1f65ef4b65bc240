//! The shop on one machine watches itself: what it knows of its past, which alarms it raises and whom it tells.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kassa::embedded::{OpenShop, Sync, Up};
use kassa::monitor::alarms::Alarms;
use kassa::monitor::placeholders::Placeholders;
use kassa::monitor::{AlarmStatus, DataRequest, Line, MetricId, Monitor, Query, Stat, State, What};
use kassa::questions::{OutboxFilter, Questions};
use kassa::shops::Shops;
use kassa_bus::local::STACK;
use kassa_bus::notify::{Alert, Notice, Severity};
use kassa_bus::{Clock, Metric, Settings};
use reqwest::Client;

/// A shop whose clock the test moves, and that looks at itself twenty times a second.
struct Watched {
    shop: OpenShop,
    now: Arc<Mutex<Timestamp>>,
}

impl Watched {
    async fn open(data: &Path, now: Timestamp) -> Self {
        let now = Arc::new(Mutex::new(now));
        let clock = now.clone();
        let up = Up {
            listen: "127.0.0.1:0".parse().unwrap(),
            data: data.to_owned(),
            shops: Shops::read(None).unwrap(),
            sync: Sync::Normal,
            clock: Clock::from_fn(move || *clock.lock().unwrap()),
            settings: Settings::none().with([("MINUTE".to_owned(), "50ms".to_owned())]),
            tls: None,
        };
        Self { shop: OpenShop::open(up).await.unwrap(), now }
    }

    /// A minute goes by, at the end of which the shop has looked at itself.
    async fn minutes(&self, n: u32) {
        for _ in 0..n {
            self.shop.monitor.gather();
            *self.now.lock().unwrap() += SignedDuration::from_mins(1);
            self.shop.monitor.minute().await.unwrap();
        }
    }

    async fn state(&self, alarm: &str) -> State {
        let alarms = self.shop.monitor.alarms().await.unwrap();
        alarms.into_iter().find(|status| status.name == alarm).expect("an alarm").state
    }

    /// What it told ICT of that.
    async fn alerts(&self, reason: &str) -> Vec<Alert> {
        let questions = Questions::new(self.shop.store.books());
        let sent = questions.outbox(&OutboxFilter::default()).await.unwrap();
        let alert = |notice| match notice {
            Notice::Alert(alert) if alert.reason == reason => Some(alert),
            Notice::Alert(_) | Notice::Sms(_) => None,
        };
        sent.into_iter().filter_map(|(_, sent)| alert(sent.notice)).collect()
    }

    async fn sum(&self, metric: Metric, period: u32) -> Vec<f64> {
        let now = *self.now.lock().unwrap();
        let from = now - SignedDuration::from_hours(1);
        let lines = self.shop.monitor.data(&[query(metric, period)], from, now).await.unwrap();
        lines[0].points.iter().map(|(_, value)| *value).collect()
    }
}

fn noon() -> Timestamp {
    "2026-11-23T12:00:30Z".parse().unwrap()
}

fn query(metric: Metric, period: u32) -> Query {
    let id = MetricId {
        namespace: STACK.into(),
        name: metric.name().into(),
        dimensions: std::collections::BTreeMap::new(),
    };
    Query { id: "m".into(), what: What::Metric(id, Stat::Sum), label: None, period, shown: true }
}

#[tokio::test]
async fn an_alarm_goes_to_the_outbox_once_and_once_when_it_is_over_also_across_a_restart() {
    // given a shop that is watched, and an event that nobody can read
    let folder = tempfile::tempdir().unwrap();
    let watched = Watched::open(folder.path(), noon()).await;
    watched.minutes(5).await;
    assert_eq!(watched.state("unreadable-events").await, State::Ok);
    watched.shop.metrics.count(Metric::UnreadableEvents, 1);
    watched.minutes(3).await;

    // then ICT is told what it means and what to run, once
    assert_eq!(watched.state("unreadable-events").await, State::Alarm);
    let alerts = watched.alerts("unreadable-events").await;
    let subjects: Vec<&String> = alerts.iter().map(|alert| &alert.subject).collect();
    assert_eq!(subjects.len(), 1, "{subjects:?}");
    assert_eq!(
        (alerts[0].severity, &*alerts[0].subject),
        (Severity::Warning, "Kassa: ALARM: An event or a row cannot be read")
    );
    for part in ["left it out of stock and turnover", "kassa check", "docs/runbook.md#unreadable-events"] {
        assert!(alerts[0].texts.email.contains(part), "{}", alerts[0].texts.email);
    }

    // when the shop is closed and opened again, and nothing more happens
    let now = *watched.now.lock().unwrap();
    watched.shop.close().await;
    let watched = Watched::open(folder.path(), now).await;
    assert_eq!(watched.state("unreadable-events").await, State::Alarm);
    // The last value is looked at for as long as three of the alarm's periods.
    watched.minutes(20).await;

    // then that is the end of it
    assert_eq!(watched.state("unreadable-events").await, State::Ok);
    let said: Vec<Severity> = watched.alerts("unreadable-events").await.iter().map(|a| a.severity).collect();
    assert_eq!(said, [Severity::Warning, Severity::Info]);
    watched.shop.close().await;
}

#[tokio::test]
async fn what_was_counted_is_known_by_the_minute_and_over_a_restart_by_five() {
    // given a shop that counted in five minutes, the last of which is not over
    let folder = tempfile::tempdir().unwrap();
    let watched = Watched::open(folder.path(), noon()).await;
    for n in 1..=4 {
        watched.shop.metrics.count(Metric::Refused, n);
        watched.minutes(1).await;
    }
    watched.shop.metrics.count(Metric::Refused, 5);

    // then it knows of each
    assert_eq!(watched.sum(Metric::Refused, 60).await, [1.0, 2.0, 3.0, 4.0, 5.0]);

    // when it is closed within a minute and opened again
    watched.shop.metrics.count(Metric::Refused, 6);
    let now = *watched.now.lock().unwrap();
    watched.shop.close().await;
    let watched = Watched::open(folder.path(), now + SignedDuration::from_mins(7)).await;
    watched.shop.metrics.count(Metric::Refused, 7);

    // then it knows of all
    let begun = Instant::now();
    while watched.sum(Metric::Refused, 300).await != [21.0, 7.0] {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", watched.sum(Metric::Refused, 300).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    watched.shop.close().await;
}

#[tokio::test]
async fn a_shop_that_has_just_opened_does_not_take_its_closing_time_for_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let watched = Watched::open(folder.path(), noon()).await;
    watched.minutes(1).await;
    assert_eq!(watched.state("watch-is-silent").await, State::InsufficientData);
    // With the watch's first minute, it is all right.
    watched.shop.metrics.observe(Metric::Pending, &[], 0.0);
    watched.minutes(1).await;
    assert_ne!(watched.state("watch-is-silent").await, State::Alarm);
    watched.shop.close().await;
}

#[tokio::test]
async fn another_process_asks_with_the_token_and_is_told_what_is_wrong_with_its_question() {
    let folder = tempfile::tempdir().unwrap();
    let watched = Watched::open(folder.path(), noon()).await;
    watched.shop.metrics.count(Metric::Refused, 3);
    let (client, occupant) = (Client::new(), &watched.shop.occupant);
    let url = format!("{}/api/monitor", occupant.operator_url);
    let now = *watched.now.lock().unwrap();
    let ask = |queries: Vec<Query>| {
        let asked = DataRequest {
            queries,
            from: now - SignedDuration::from_hours(1),
            to: now + SignedDuration::from_mins(1),
        };
        client.post(format!("{url}/data")).bearer_auth(&occupant.token).json(&asked).send()
    };
    let lines: Vec<Line> = ask(vec![query(Metric::Refused, 300)]).await.unwrap().json().await.unwrap();
    assert_eq!(lines[0].points.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [3.0]);

    let wrong = Query { what: What::Expression("m +".into()), ..query(Metric::Refused, 300) };
    let answer = ask(vec![wrong]).await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("at character 4"));

    let alarms = client.get(format!("{url}/alarms")).bearer_auth(&occupant.token).send().await.unwrap();
    let told: Vec<AlarmStatus> = alarms.json().await.unwrap();
    let known = Alarms::of(&Placeholders::of(STACK, STACK)).unwrap();
    assert_eq!(told.len(), known.alarms.len() + known.composites.len());
    assert!(told[0].description.contains("Run: kassa"), "{}", told[0].description);

    assert_eq!(client.get(format!("{url}/alarms")).send().await.unwrap().status(), 401);
    watched.shop.close().await;
}

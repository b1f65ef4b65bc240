//! What every queue does sooner or later, done to every subscriber, and to `process` as one of them.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::config::BehaviorVersion;
use kassa::embedded::{LocalHost, Stages, Store};
use kassa::questions::audit::AuditFilter;
use kassa_bus::conformance::{Dependencies, Trial, conforms};
use kassa_bus::registry::Registry;
use kassa_bus::{Host, Message, Settings, Source, Subscriber, Topic};
use kassa_pipeline::event_store::{Appends, EventStore};
use kassa_subscribers::{bad_key_auditor, decrypt_error_alerter};
use serde_json::json;

use crate::common::world::{Keys, NOON, World, content, uuid};

/// A database that cannot be reached.
fn nowhere() -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::Config::builder().behavior_version(BehaviorVersion::v2026_01_12());
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

/// `process` in a world of its own.
struct Process(World);

#[async_trait]
impl Trial for Process {
    fn subscriber(&self, dependencies: Dependencies) -> Arc<dyn Subscriber> {
        let events = match dependencies {
            Dependencies::Work => self.0.store.events.clone(),
            Dependencies::Fail => EventStore::new(self.0.store.client.clone(), "not-there", Appends::Single),
        };
        let (store, clock) = (Store { events, ..self.0.store.clone() }, self.0.host(&[]).clock());
        let stages = Stages {
            store: &store,
            keys: self.0.keys.clone(),
            publisher: self.0.post.clone(),
            clock: &clock,
            metrics: &self.0.metrics,
            settings: &Settings::none(),
        };
        let on_topic = |source| source == Source::Topic(Topic::ToProcess);
        stages.subscriptions().unwrap().into_iter().find(|s| on_topic(s.source)).unwrap().subscriber
    }

    async fn outcome(&self) -> String {
        self.0.project().await;
        json!(self.0.questions.stock(None).await.unwrap()).to_string()
    }
}

/// The bad-key auditor in a world of its own, with the keys of the world that the sales come from.
struct BadKeyAuditor {
    world: World,
    keys: Arc<Keys>,
}

#[async_trait]
impl Trial for BadKeyAuditor {
    fn subscriber(&self, dependencies: Dependencies) -> Arc<dyn Subscriber> {
        let mut host = LocalHost { keys: self.keys.clone(), ..self.world.host(&[]) };
        if dependencies == Dependencies::Fail {
            host.store.client = nowhere();
        }
        (bad_key_auditor::ENTRY.make)(&host).unwrap().expect("it is on").subscriber
    }

    async fn outcome(&self) -> String {
        let now = *self.world.now.lock().unwrap();
        let today = AuditFilter { from: now, to: now, shop: None };
        json!(self.world.questions.audit_keys(&today).await.unwrap()).to_string()
    }
}

/// Sales with wrong keys, sealed and classic, as `decrypt` tells of them; and whose keys they are.
async fn wrong_keys(count: i64) -> (Vec<Message>, Arc<Keys>) {
    let world = World::open().await;
    for n in 0..count {
        let (sale, id) = (content(&uuid(n), NOON, &[("98", "1", "18.95")]), format!("{n}-20261122"));
        world.posts(world.seal_for("AMIS1", "AMIS2", &uuid(n), &sale).await).await;
        world.posts(world.classic_for("AMIS2", "AMIS1", Some(&id), "{}").await).await;
    }
    world.settle().await;
    (world.rejections().iter().map(Message::of).collect(), world.keys.clone())
}

#[tokio::test]
async fn the_bad_key_auditor_conforms() {
    let (sales, keys) = wrong_keys(6).await;
    let begin = || async { BadKeyAuditor { world: World::open().await, keys: keys.clone() } };
    Box::pin(conforms(begin, &sales)).await;
}

/// Sales as `decrypt` passes them on.
async fn decrypted_sales(count: i64) -> Vec<Message> {
    let world = World::open().await;
    for n in 0..count {
        let sale = world.sealed(&uuid(n), &[("98", "1", "18.95"), ("90001", "2", "14.50")]).await;
        assert_eq!(world.posts(sale).await.status, 202);
    }
    let accepted: Vec<Message> = world.post.waiting.lock().unwrap().drain(..).map(|(_, m)| m).collect();
    world.deliver(Topic::ToDecrypt, &accepted).await;
    world.post.waiting.lock().unwrap().drain(..).map(|(_, m)| m).collect()
}

#[tokio::test]
async fn process_conforms() {
    let sales = decrypted_sales(12).await;
    // Boxed, here as below: these futures are large.
    Box::pin(conforms(|| async { Process(World::open().await) }, &sales)).await;
}

/// The alerter in a world of its own.
struct Alerter(World);

#[async_trait]
impl Trial for Alerter {
    fn subscriber(&self, dependencies: Dependencies) -> Arc<dyn Subscriber> {
        let host = self.0.host(&[]);
        let registry = match dependencies {
            Dependencies::Work => host.store.registry.clone(),
            Dependencies::Fail => Registry::new(host.store.client.clone(), "not-there"),
        };
        let host = LocalHost { store: Store { registry, ..host.store.clone() }, ..host };
        (decrypt_error_alerter::ENTRY.make)(&host).unwrap().unwrap().subscriber
    }

    async fn outcome(&self) -> String {
        let documents = self.0.host(&[]).documents(decrypt_error_alerter::ENTRY.name).unwrap();
        json!(decrypt_error_alerter::incidents(&documents).await.unwrap().rows).to_string()
    }
}

#[tokio::test]
async fn the_alerter_conforms() {
    let world = World::open().await;
    for n in 0..12 {
        let key_of = if n % 3 == 0 { "AMIS1" } else { "AMIS2" };
        world.posts(world.seal_for("AMIS1", key_of, &uuid(n), "no sale").await).await;
    }
    world.settle().await;
    let rejected: Vec<Message> = world.rejections().iter().map(Message::of).collect();
    assert_eq!(rejected.len(), 12);
    Box::pin(conforms(|| async { Alerter(World::open().await) }, &rejected)).await;
}

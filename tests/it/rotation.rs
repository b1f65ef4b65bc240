//! A shop gets another key while its tills go on selling.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kassa::custody::KeepKeys;
use kassa::plan::MakeKeys;
use kassa::questions::Status;
use kassa::rotation::{KeyState, Retirement, RotateKeys, Rotation, RotationError, ShownKey, retire, rotate};
use kassa::till::{Format, Till};
use kassa_bus::amount::Amount;
use kassa_bus::keys::{KeyError, PublicKey, ShopKeys};
use kassa_bus::message::Reason;
use kassa_bus::registry::Registry;
use kassa_bus::{Clock, Line, ShopId, Thumbprint};
use serde_json::Value;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::common::cloud::Cloud;
use crate::common::process::{self, Up, json};
use crate::common::world::{NOON, World, content, encrypting, is, sales, sealer, uuid, wrap};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn shop() -> ShopId {
    "AMIS1".parse().unwrap()
}

fn now(world: &World) -> Timestamp {
    *world.now.lock().unwrap()
}

async fn rotated(world: &World, registry: &Registry, keys: &dyn RotateKeys) -> Result<(), RotationError> {
    rotate(keys, registry, &Rotation { shop_id: shop(), overlap: DAY, lost: false }, now(world))
        .await
        .map(drop)
}

async fn shown(world: &World) -> Vec<ShownKey> {
    world.questions.keys(Some("AMIS1"), now(world)).await.unwrap()
}

async fn served(world: &World) -> PublicKey {
    world.keys.public_key(&shop()).await.unwrap()
}

/// Sells a sealed and a classic sale with a key that a till has.
async fn sell_with(world: &World, key: &PublicKey, n: i64) -> [String; 2] {
    let (id, classic) = (uuid(n), format!("{n}-20261122"));
    let sealed = sealer(key.kid(), &encrypting(key))
        .seal(content(&id, NOON, &[("98", "1", "18.95")]).as_bytes())
        .unwrap();
    let body = serde_json::json!({"shop_id": "AMIS1", "message_id": id, "sealed": sealed});
    assert_eq!(world.posts(body.to_string()).await.status, 202);
    let inside = serde_json::json!({"sales": sales(&[("98", "1", "18.95")])}).to_string();
    let ciphertext =
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, wrap(&encrypting(key), inside.as_bytes()));
    let body = serde_json::json!({"shop_id": "AMIS1", "message_id": classic, "content_base64": ciphertext});
    assert_eq!(world.posts(body.to_string()).await.status, 200);
    world.settle().await;
    [id, classic]
}

#[track_caller]
fn none_rejected(world: &World) {
    let told: Vec<_> = world.rejections().into_iter().map(|r| r.detail).collect();
    assert_eq!(told, Vec::<String>::new());
}

#[tokio::test]
async fn after_a_rotation_both_keys_open_until_the_overlap_is_over() {
    let world = World::open().await;
    let old = served(&world).await;
    sell_with(&world, &old, 1).await;
    // when
    rotated(&world, &world.store.registry, &world.keys.files).await.unwrap();
    // then tills get another key, and hear of it with each yes
    let new = served(&world).await;
    assert_ne!(old.kid(), new.kid());
    let body = world.sealed(&uuid(100), &[("98", "1", "18.95")]).await;
    let told = world.posts(body).await.headers().find(|(name, _)| *name == "kassa-key");
    assert_eq!(told.unwrap().1, new.kid().to_string());
    // and those who have not heard of it sell on
    sell_with(&world, &old, 2).await;
    sell_with(&world, &new, 3).await;
    none_rejected(&world);
    let states: Vec<_> = shown(&world).await.into_iter().map(|key| (key.key.kid, key.state)).collect();
    let [overlapping, present] = [KeyState::Overlapping, KeyState::Present];
    assert_eq!(states, [(old.kid().clone(), overlapping), (new.kid().clone(), present)]);
    // until the overlap is over
    world.passes(DAY);
    let [sealed, classic] = sell_with(&world, &old, 4).await;
    is(&world.sale(&sealed).await, Status::Rejected);
    is(&world.sale(&classic).await, Status::Rejected);
    let told = &world.rejections()[0];
    assert_eq!(told.reason, Reason::WrongKey);
    assert!(told.detail.contains("opens nothing since 2026-11-23T12:00:00Z"), "{}", told.detail);
    let sealed_with = told.sealed_with.as_ref().unwrap();
    assert_eq!((&sealed_with.kid, sealed_with.shop_id.as_ref()), (old.kid(), Some(&shop())));
    assert_eq!(shown(&world).await[0].state, KeyState::Over);
    sell_with(&world, &new, 5).await;
    assert_eq!(world.rejections().len(), 2);
    world.balanced().await;
}

#[tokio::test]
async fn what_was_accepted_in_time_is_opened_however_late() {
    let world = World::open().await;
    let old = served(&world).await;
    rotated(&world, &world.store.registry, &world.keys.files).await.unwrap();
    // given a sale that came before the overlap was over
    let sealed = sealer(old.kid(), &encrypting(&old));
    let sealed = sealed.seal(content(&uuid(1), NOON, &[("98", "1", "1")]).as_bytes()).unwrap();
    let body = serde_json::json!({"shop_id": "AMIS1", "message_id": uuid(1), "sealed": sealed});
    world.posts(body.to_string()).await;
    // when it is opened after
    world.passes(DAY + DAY);
    world.settle().await;
    is(&world.sale(&uuid(1)).await, Status::Recorded);
}

#[tokio::test]
async fn a_process_that_has_not_heard_of_the_rotation_refuses_nobody() {
    let world = World::open().await;
    let old = served(&world).await;
    // given a shop that has just been looked up
    sell_with(&world, &old, 1).await;
    // when another process rotates its key
    let elsewhere = Registry::new(world.store.client.clone(), world.store.tables.shops.clone());
    rotated(&world, &elsewhere, &world.keys.files).await.unwrap();
    // then
    sell_with(&world, &served(&world).await, 2).await;
    sell_with(&world, &old, 3).await;
    none_rejected(&world);
}

/// Keys whose n-th step is the last before a crash.
struct CutOff<'a> {
    keys: &'a dyn RotateKeys,
    steps: AtomicU32,
}

impl CutOff<'_> {
    fn step(&self) -> Result<(), KeyError> {
        let left = self.steps.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        left.map(drop).map_err(|_| KeyError::unavailable("cut off by the test"))
    }
}

#[async_trait]
impl ShopKeys for CutOff<'_> {
    async fn decrypt(
        &self,
        shop: &ShopId,
        kid: Option<&Thumbprint>,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.keys.decrypt(shop, kid, ciphertext).await
    }

    async fn public_key(&self, shop: &ShopId) -> Result<PublicKey, KeyError> {
        self.keys.public_key(shop).await
    }
}

impl KeepKeys for CutOff<'_> {
    fn place(&self, shop: &ShopId) -> String {
        self.keys.place(shop)
    }

    fn put_back(&self, shop: &ShopId) -> String {
        self.keys.put_back(shop)
    }
}

#[async_trait]
impl MakeKeys for CutOff<'_> {
    async fn make(&self, shop: &ShopId) -> Result<(), KeyError> {
        self.keys.make(shop).await
    }
}

#[async_trait]
impl RotateKeys for CutOff<'_> {
    async fn name_present(&self, shop: &ShopId) -> Result<Thumbprint, KeyError> {
        self.step()?;
        let named = self.keys.name_present(shop).await;
        self.step()?;
        named
    }

    async fn make_next(&self, shop: &ShopId, known: &[Thumbprint]) -> Result<Thumbprint, KeyError> {
        self.step()?;
        let next = self.keys.make_next(shop, known).await;
        self.step()?;
        next
    }

    async fn promote(&self, shop: &ShopId, kid: &Thumbprint) -> Result<(), KeyError> {
        self.step()?;
        self.keys.promote(shop, kid).await?;
        self.step()
    }

    async fn disable(&self, shop: &ShopId, kid: &Thumbprint) -> Result<(), KeyError> {
        self.step()?;
        self.keys.disable(shop, kid).await?;
        self.step()
    }
}

#[tokio::test]
async fn cut_off_anywhere_nobody_is_refused_and_it_goes_on_when_it_is_asked_for_again() {
    for steps in 0..6 {
        let world = World::open().await;
        let old = served(&world).await;
        let cut_off = CutOff { keys: &world.keys.files, steps: AtomicU32::new(steps) };
        rotated(&world, &world.store.registry, &cut_off).await.unwrap_err();
        // in between, tills sell with whatever key they have or are given
        sell_with(&world, &old, 1).await;
        sell_with(&world, &served(&world).await, 2).await;
        // and somebody who applies shops.toml does no harm
        let shops = kassa::shops::Shops::read(None).unwrap();
        let (registry, read_model) = (&world.store.registry, &world.store.read_model);
        let plan = kassa::plan::Plan::make(&shops, &world.keys.files, registry, read_model).await.unwrap();
        assert_eq!(plan.changes, []);
        // when it is asked for again
        rotated(&world, &world.store.registry, &world.keys.files).await.unwrap();
        // then there is one new key, and both open
        let keys = shown(&world).await;
        let states: Vec<_> = keys.iter().map(|key| key.state).collect();
        assert_eq!(states, [KeyState::Overlapping, KeyState::Present], "after {steps} steps");
        assert_eq!(keys[1].key.kid, *served(&world).await.kid());
        sell_with(&world, &old, 3).await;
        sell_with(&world, &served(&world).await, 4).await;
        none_rejected(&world);
        world.balanced().await;
    }
}

#[tokio::test]
async fn a_key_is_retired_once_nobody_needs_it_and_stays_where_it_is() {
    let world = World::open().await;
    let old = served(&world).await;
    let (registry, keys) = (&world.store.registry, &world.keys.files);
    let retired = async |kid: &Thumbprint, at_once: bool| {
        let retirement = Retirement { shop_id: shop(), kid: kid.clone(), now: at_once };
        retire(keys, registry, &retirement, now(&world)).await
    };
    assert!(matches!(retired(old.kid(), true).await, Err(RotationError::InUse(..))));
    rotated(&world, registry, keys).await.unwrap();
    assert!(matches!(retired(old.kid(), false).await, Err(RotationError::TooEarly { .. })));
    let nobodys = "A".repeat(43).parse().unwrap();
    assert!(matches!(retired(&nobodys, false).await, Err(RotationError::NoSuchKey(..))));
    // when it was stolen
    assert_eq!(retired(old.kid(), true).await.unwrap().state, KeyState::Retired);
    assert_eq!(retired(old.kid(), false).await.unwrap().state, KeyState::Retired);
    // then what comes with it is rejected, and told to be the shop's own old key
    let [sealed, classic] = sell_with(&world, &old, 1).await;
    is(&world.sale(&sealed).await, Status::Rejected);
    is(&world.sale(&classic).await, Status::Rejected);
    assert_eq!(world.rejections()[0].sealed_with.as_ref().unwrap().shop_id, Some(shop()));
    // and the next rotation makes another
    rotated(&world, registry, keys).await.unwrap();
    let states: Vec<_> = shown(&world).await.into_iter().map(|key| key.state).collect();
    assert_eq!(states, [KeyState::Retired, KeyState::Overlapping, KeyState::Present]);
}

fn line() -> Vec<Line> {
    vec![Line {
        item_no: "98".parse().unwrap(),
        gross_number: Amount::from(1),
        gross_turnover: "18.95".parse().unwrap(),
    }]
}

/// Two tills that sell until they are told to stop.
struct Selling {
    stop: Arc<AtomicBool>,
    /// How many sales of each the shop took.
    sold: [Arc<AtomicU32>; 2],
    tills: Vec<JoinHandle<()>>,
}

impl Selling {
    fn begins(url: &str) -> Self {
        let (stop, sold): (Arc<AtomicBool>, [Arc<AtomicU32>; 2]) = Default::default();
        let till = |(format, sold): (Format, &Arc<AtomicU32>)| {
            let till = Till::new(url, shop(), "till-1", format, Clock::system()).unwrap();
            let (stop, sold) = (stop.clone(), sold.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let sale = till.ring_up(line()).await.unwrap();
                    till.post(&sale).await.unwrap();
                    sold.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        };
        let tills = [Format::Sealed, Format::Classic].into_iter().zip(&sold).map(till).collect();
        Self { stop, sold, tills }
    }

    /// Waits until each till has sold so many more.
    async fn goes_on(&self, sales: u32) {
        let sold = || self.sold.each_ref().map(|sold| sold.load(Ordering::SeqCst));
        let until = sold().map(|sold| sold + sales);
        while sold().iter().zip(&until).any(|(sold, until)| sold < until) {
            assert!(!self.tills.iter().any(JoinHandle::is_finished), "a till gave up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Says how many sales the shop took.
    async fn ends(self) -> u32 {
        self.stop.store(true, Ordering::SeqCst);
        for till in self.tills {
            till.await.unwrap();
        }
        self.sold.iter().map(|sold| sold.load(Ordering::SeqCst)).sum()
    }
}

/// The keys that sealed sales were recorded with.
fn keys_used(events: &str) -> HashSet<String> {
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter_map(|event| Some(event["body"]["key"].as_str()?.to_owned())).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_mins(1), "in a minute it did not come about that {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tills_sell_on_while_the_open_shop_gets_another_key() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap().to_owned();
    let up = Up::start(folder.path());
    let selling = Selling::begins(&up.url);
    let used = || {
        let events = process::kassa(&["events", "--shop", "AMIS1", "--data", &data]);
        keys_used(&String::from_utf8(events.stdout).unwrap())
    };
    until("a sale is recorded", || !used().is_empty()).await;
    // when
    let rotated = json(&["key", "rotate", "--shop", "AMIS1", "--json", "--data", &data]);
    until("a sale is recorded with the other key", || used().len() > 1).await;
    let sold = selling.ends().await;
    up.settled();
    // then nobody was refused, and the till that hears of keys has changed over by itself
    let check = json(&["check", "--json", "--data", &data]);
    assert_eq!((&check["recorded"], &check["rejected"]), (&sold.into(), &0.into()));
    let both = ["from", "to"].map(|key| rotated[key].as_str().unwrap().to_owned());
    assert_eq!(used(), HashSet::from(both.clone()));
    // and closed, the shop has the same keys, of which the old one can be retired
    drop(up);
    let retire = ["key", "retire", "--shop", "AMIS1", "--kid", &both[0], "--json", "--data", &data];
    let refused = process::kassa(&retire);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("may come until"));
    assert_eq!(json(&[&retire[..], &["--now"]].concat())["state"], "retired");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_aws_tills_sell_on_while_the_shop_gets_another_key() {
    let cloud = Cloud::deployed().await;
    let selling = Selling::begins(&cloud.url);
    selling.goes_on(10).await;
    // when
    let rotated = cloud.ask(&["key", "rotate", "--shop", "AMIS1"]).await;
    selling.goes_on(50).await;
    let sold = selling.ends().await;
    // then
    let all = |check: &Value| check["pending"] == 0 && check["accepted"] == sold;
    let check = cloud.until("the books", &["check"], all).await;
    assert_eq!((&check["recorded"], &check["rejected"]), (&sold.into(), &0.into()));
    // and an old key that is retired is disabled, not deleted
    let old = rotated["from"].as_str().unwrap();
    cloud.ask(&["key", "retire", "--shop", "AMIS1", "--kid", old, "--now"]).await;
    let state = format!(
        "print(json.dumps(aws('kms').describe_key(KeyId='alias/kassa-local-AMIS1/{old}')['KeyMetadata']['KeyState']))"
    );
    assert_eq!(cloud.boto(&state).await, "Disabled");
    let keys = cloud.ask(&["key", "list", "--shop", "AMIS1"]).await;
    assert_eq!((&keys[0]["state"], &keys[1]["state"]), (&"retired".into(), &"present".into()));
    assert_eq!(cloud.ask(&["apply"]).await["changes"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_aws_a_key_whose_alias_is_gone_is_named_and_not_replaced() {
    let cloud = Cloud::deployed().await;
    let present = cloud.ask(&["key", "list", "--shop", "AMIS1"]).await[0]["kid"].as_str().unwrap().to_owned();
    let keys = "print(json.dumps(len(aws('kms').list_keys()['Keys'])))";
    let before = cloud.boto(keys).await;
    let alias = |call: &str| {
        let named = "kms, name = aws('kms'), 'alias/kassa-local-AMIS1'";
        format!(
            "{named}; key = kms.describe_key(KeyId=name + '/{present}')['KeyMetadata']['KeyId']; {call}; print('null')"
        )
    };
    // given
    cloud.boto(&alias("kms.delete_alias(AliasName=name)")).await;
    // then none is made
    for apply in [&["apply", "--stage", "local", "--dry-run"][..], &["apply", "--stage", "local"]] {
        let refused = cloud.kassa(apply).await;
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        for part in ["alias/kassa-local-AMIS1 is gone", &present, "aws kms create-alias", "--lost"] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
    }
    assert_eq!(cloud.boto(keys).await, before);
    // nor where it leads to another's
    let other = "kms.create_alias(AliasName=name, TargetKeyId='alias/kassa-local-AMIS2')";
    let other = other.replace(
        "'alias/kassa-local-AMIS2'",
        "kms.describe_key(KeyId='alias/kassa-local-AMIS2')['KeyMetadata']['KeyId']",
    );
    cloud.boto(&alias(&other)).await;
    let said = String::from_utf8(cloud.kassa(&["apply", "--stage", "local"]).await.stderr).unwrap();
    assert!(said.contains("a key of AMIS2"), "{said}");
    // named again, all is as it was
    cloud.boto(&alias("kms.update_alias(AliasName=name, TargetKeyId=key)")).await;
    assert_eq!(cloud.ask(&["apply"]).await["changes"], serde_json::json!([]));
    // and lost for good, it is given up on purpose
    cloud.boto(&alias("kms.delete_alias(AliasName=name)")).await;
    assert_eq!(cloud.ask(&["key", "rotate", "--shop", "AMIS1", "--lost"]).await["from"], present);
    let keys = cloud.ask(&["key", "list", "--shop", "AMIS1"]).await;
    assert_eq!((&keys[0]["state"], &keys[1]["state"]), (&"retired".into(), &"present".into()));
    assert_eq!(cloud.ask(&["apply"]).await["changes"], serde_json::json!([]));
}

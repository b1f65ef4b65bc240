//! Whose word a sale is: what tills sign, what nobody signed, and what somebody forged.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL64;
use jiff::SignedDuration;
use kassa::questions::Status;
use kassa::questions::rejected::RejectedFilter;
use kassa::questions::tills::{Enrolment, Revocation};
use kassa_bus::Metric;
use kassa_bus::jws::Signer;
use kassa_bus::message::Reason;
use kassa_bus::registry::Shop;
use kassa_bus::tills::{Unsigned, revocations};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::world::{NOON, World, content, is, sales, uuid};

fn signer(till: &str) -> Signer {
    Signer::new(&till.parse().unwrap(), &Signer::new_key().unwrap()).unwrap()
}

async fn enrol(world: &World, shop: &str, till: &str, signer: &Signer) {
    let enrolment =
        Enrolment { shop_id: shop.parse().unwrap(), till: till.parse().unwrap(), key: signer.key() };
    let now = *world.now.lock().unwrap();
    world.questions.enrol(&enrolment, now).await.unwrap();
}

async fn revoke(world: &World, till: &str) {
    let revocation = Revocation { shop_id: "AMIS1".parse().unwrap(), till: till.parse().unwrap() };
    let now = *world.now.lock().unwrap();
    world.questions.revoke(&revocation, now).await.unwrap();
}

/// AMIS1 with this policy.
async fn world(unsigned: Unsigned) -> World {
    let world = World::open().await;
    let registered = world.store.registry.shop(&"AMIS1".parse().unwrap()).await.unwrap().unwrap();
    world.store.registry.register(&Shop { unsigned, ..(*registered).clone() }).await.unwrap();
    world
}

/// What a till signs.
fn signed_content(shop: &str, till: &str, id: &str) -> String {
    json!({"sale_id": id, "shop_id": shop, "till": till, "seq": 1, "sold_at": NOON, "sales": sales(&[("98", "1", "18.95")])})
        .to_string()
}

async fn sell(world: &World, id: &str, inside: &str) {
    let body = world.seal_for("AMIS1", "AMIS1", id, inside).await;
    assert_eq!(world.posts(body).await.status, 202);
    world.settle().await;
}

async fn sell_signed(world: &World, id: &str, signer: &Signer) {
    sell(world, id, &signer.sign(signed_content("AMIS1", "till-1", id).as_bytes())).await;
}

#[track_caller]
fn rejected(world: &World, reason: Reason, says: &str) {
    let told = world.rejections().pop().expect("a rejection");
    assert_eq!(told.reason, reason, "{}", told.detail);
    assert!(told.detail.contains(says), "{}", told.detail);
}

#[tokio::test]
async fn a_sale_that_its_till_signed_is_recorded_with_the_tills_name() {
    let world = world(Unsigned::Reject).await;
    let till = signer("till-1");
    enrol(&world, "AMIS1", "till-1", &till).await;
    sell_signed(&world, &uuid(1), &till).await;
    let sale = world.sale(&uuid(1)).await;
    is(&sale, Status::Recorded);
    let recorded = &sale.events.last().unwrap().body;
    assert_eq!((&recorded["signed_by"], &recorded["till"]), (&json!("till-1"), &json!("till-1")));
    // and its row among the shop's is no stock's
    world.balanced().await;
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    world.balanced().await;
}

#[tokio::test]
async fn whoever_has_the_public_key_alone_can_forge_nothing_where_unsigned_sales_are_rejected() {
    let world = world(Unsigned::Reject).await;
    enrol(&world, "AMIS1", "till-1", &signer("till-1")).await;
    // when a stranger seals a sale, as anybody can
    sell(&world, &uuid(1), &content(&uuid(1), NOON, &[("98", "1", "1")])).await;
    rejected(&world, Reason::Unsigned, "not signed");
    // or signs it with a key of his own under the till's name
    sell_signed(&world, &uuid(2), &signer("till-1")).await;
    rejected(&world, Reason::BadSignature, "till-1");
    // or under a name of his own
    let own = signer("mine").sign(signed_content("AMIS1", "mine", &uuid(3)).as_bytes());
    sell(&world, &uuid(3), &own).await;
    rejected(&world, Reason::UnknownTill, "mine");
    // or of the old kind
    world.posts(world.classic(Some("4-20261122"), &[("98", "1", "1")]).await).await;
    world.settle().await;
    rejected(&world, Reason::Unsigned, "not signed");
    assert_eq!(world.balanced().await.recorded, 0);
}

#[tokio::test]
async fn a_rejection_names_the_till_where_the_sale_opened_and_nobody_where_it_did_not() {
    let world = world(Unsigned::Reject).await;
    let tills = ["till-1", "till-2"].map(|till| (till, signer(till)));
    enrol(&world, "AMIS1", "till-1", &tills[0].1).await;
    let named = |reason: Reason, till: Option<&str>| {
        let told = world.rejections().pop().unwrap();
        assert_eq!((told.reason, told.till.as_ref().map(ToString::to_string).as_deref()), (reason, till));
    };
    sell(&world, &uuid(1), &content(&uuid(1), NOON, &[("98", "1", "1")])).await;
    named(Reason::Unsigned, Some("till-7"));
    sell_signed(&world, &uuid(2), &signer("till-1")).await;
    named(Reason::BadSignature, Some("till-1"));
    let of = |till: &str, id: &str| {
        let (_, signer) = tills.iter().find(|(name, _)| *name == till).unwrap();
        signer.sign(signed_content("AMIS1", till, id).as_bytes())
    };
    sell(&world, &uuid(3), &of("till-2", &uuid(3))).await;
    named(Reason::UnknownTill, Some("till-2"));
    // what is signed and is no sale, or is another's
    sell(&world, &uuid(4), &tills[0].1.sign(br#"{"sales":[]}"#)).await;
    named(Reason::InvalidSale, Some("till-1"));
    sell(&world, &uuid(5), &of("till-1", &uuid(6))).await;
    named(Reason::Tampered, Some("till-1"));
    // what comes under a recorded id
    sell(&world, &uuid(7), &of("till-1", &uuid(7))).await;
    let other = signed_content("AMIS1", "till-1", &uuid(7)).replace("18.95", "19.95");
    sell(&world, &uuid(7), &tills[0].1.sign(other.as_bytes())).await;
    named(Reason::Conflict, Some("till-1"));
    revoke(&world, "till-1").await;
    world.passes(SignedDuration::from_secs(1));
    sell(&world, &uuid(8), &of("till-1", &uuid(8))).await;
    named(Reason::RevokedTill, Some("till-1"));
    // as it stands in the event
    let history = world.sale(&uuid(8)).await;
    assert_eq!(history.events.last().unwrap().body["till"], "till-1");
    // what is no till's name is not taken for one, and what did not open says nothing
    let odd = content(&uuid(9), NOON, &[("98", "1", "1")]).replace("till-7", "call 0900-1234!");
    sell(&world, &uuid(9), &odd).await;
    named(Reason::Unsigned, None);
    world.posts(world.seal_for("AMIS1", "AMIS2", &uuid(10), &of("till-1", &uuid(10))).await).await;
    world.settle().await;
    named(Reason::WrongKey, None);
}

#[tokio::test]
async fn a_shop_that_is_moving_counts_what_is_not_signed() {
    for (policy, counted) in [(Unsigned::Accept, 0), (Unsigned::Flag, 2)] {
        let world = world(policy).await;
        let till = signer("till-1");
        enrol(&world, "AMIS1", "till-1", &till).await;
        sell(&world, &uuid(1), &content(&uuid(1), NOON, &[("98", "1", "1")])).await;
        world.posts(world.classic(Some("1-20261122"), &[("98", "1", "1")]).await).await;
        world.settle().await;
        sell_signed(&world, &uuid(2), &till).await;
        assert_eq!(world.balanced().await.recorded, 3);
        assert_eq!(world.counted_as(Metric::UnsignedSales, "AMIS1"), counted);
    }
}

#[tokio::test]
async fn whatever_the_policy_a_wrong_signature_is_no_unsigned_sale() {
    let world = world(Unsigned::Accept).await;
    enrol(&world, "AMIS1", "till-1", &signer("till-1")).await;
    sell_signed(&world, &uuid(1), &signer("till-1")).await;
    rejected(&world, Reason::BadSignature, "till-1");
}

#[tokio::test]
async fn a_revoked_till_sells_no_more_and_what_it_sold_stays() {
    let world = world(Unsigned::Reject).await;
    let till = signer("till-1");
    enrol(&world, "AMIS1", "till-1", &till).await;
    sell_signed(&world, &uuid(1), &till).await;
    // given a sale that was taken, but not opened yet
    let id = uuid(2);
    let inside = till.sign(signed_content("AMIS1", "till-1", &id).as_bytes());
    let waiting = world.seal_for("AMIS1", "AMIS1", &id, &inside).await;
    world.posts(&waiting).await;
    // when the till is revoked
    world.passes(SignedDuration::from_secs(1));
    revoke(&world, "till-1").await;
    world.settle().await;
    // then what came before counts, also if it comes once more
    is(&world.sale(&uuid(1)).await, Status::Recorded);
    is(&world.sale(&id).await, Status::Recorded);
    world.posts(&waiting).await;
    world.settle().await;
    assert!(world.rejections().is_empty());
    // and what comes after does not, whenever it says that it was sold
    sell_signed(&world, &uuid(3), &till).await;
    rejected(&world, Reason::RevokedTill, "revoked at 2026-11-22T12:00:01Z");
    // until the till has another key; the old one stays revoked
    let new = signer("till-1");
    enrol(&world, "AMIS1", "till-1", &new).await;
    sell_signed(&world, &uuid(4), &new).await;
    is(&world.sale(&uuid(4)).await, Status::Recorded);
    sell_signed(&world, &uuid(5), &till).await;
    rejected(&world, Reason::RevokedTill, "till-1");
    let check = world.balanced().await;
    assert_eq!((check.recorded, check.rejected), (3, 2));
}

#[tokio::test]
async fn a_revoked_till_sells_no_more_when_the_shops_clock_goes_back() {
    let world = world(Unsigned::Reject).await;
    let till = signer("till-1");
    enrol(&world, "AMIS1", "till-1", &till).await;
    // given a sale that was taken while the shop's clock was a day ahead, and is not opened yet
    let taken = |id: String| {
        let inside = till.sign(signed_content("AMIS1", "till-1", &id).as_bytes());
        let world = &world;
        async move { world.seal_for("AMIS1", "AMIS1", &id, &inside).await }
    };
    world.passes(SignedDuration::from_hours(24));
    let before = taken(uuid(1)).await;
    world.posts(&before).await;
    // when the clock is set right, the till is revoked, and the clock goes back further
    world.passes(SignedDuration::from_hours(-24));
    revoke(&world, "till-1").await;
    world.passes(SignedDuration::from_hours(-1));
    // then whoever has its key sells nothing, by whatever clock
    sell_signed(&world, &uuid(2), &till).await;
    rejected(&world, Reason::RevokedTill, "revoked at 2026-11-22T12:00:00Z");
    // and what was taken before it counts, also when it comes once more
    world.posts(&before).await;
    world.settle().await;
    is(&world.sale(&uuid(1)).await, Status::Recorded);
    // and is put through again in vain, whatever the time is then
    world.passes(SignedDuration::from_hours(48));
    let again = RejectedFilter { shop: Some("AMIS1".into()), ..RejectedFilter::default() };
    world.questions.retry(&again, &*world.post, &|_, _| {}).await.unwrap();
    world.settle().await;
    is(&world.sale(&uuid(2)).await, Status::Rejected);
    assert_eq!((world.balanced().await.recorded, world.rejections().len()), (1, 2));
    // and once the count is lost, sales are judged by the clock, until it begins again above what was counted
    let row = kassa_bus::shops_table::key("AMIS1", revocations::ROW);
    let lost = world.store.client.delete_item().table_name(&world.store.tables.shops).set_key(Some(row));
    lost.send().await.unwrap();
    let other = signer("till-2");
    enrol(&world, "AMIS1", "till-2", &other).await;
    world.passes(SignedDuration::from_hours(-96));
    sell_signed(&world, &uuid(3), &till).await;
    rejected(&world, Reason::RevokedTill, "till-1");
}

#[tokio::test]
async fn a_till_is_enrolled_with_one_key_at_a_time_and_a_revoked_key_never_again() {
    let world = world(Unsigned::Reject).await;
    let (one, two) = (signer("till-1"), signer("till-1"));
    enrol(&world, "AMIS1", "till-1", &one).await;
    enrol(&world, "AMIS1", "till-1", &one).await;
    let now = *world.now.lock().unwrap();
    let again = |key: &Signer| Enrolment {
        shop_id: "AMIS1".parse().unwrap(),
        till: "till-1".parse().unwrap(),
        key: key.key(),
    };
    let refused = world.questions.enrol(&again(&two), now).await.unwrap_err().to_string();
    assert!(refused.contains("another key"), "{refused}");
    revoke(&world, "till-1").await;
    let refused = world.questions.enrol(&again(&one), now).await.unwrap_err().to_string();
    assert!(refused.contains("was revoked"), "{refused}");
    let nobody = Revocation { shop_id: "AMIS1".parse().unwrap(), till: "till-2".parse().unwrap() };
    let refused = world.questions.revoke(&nobody, now).await.unwrap_err().to_string();
    assert!(refused.contains("no till till-2"), "{refused}");
    let nowhere = Enrolment { shop_id: "NOWHERE".parse().unwrap(), ..again(&two) };
    assert!(world.questions.enrol(&nowhere, now).await.is_err());
    assert_eq!(world.questions.tills(None).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn a_till_that_was_enrolled_or_got_a_new_key_just_now_is_not_turned_away() {
    let world = world(Unsigned::Reject).await;
    let (old, new) = (signer("till-1"), signer("till-1"));
    // given that the shop has just looked for it
    sell_signed(&world, &uuid(1), &old).await;
    rejected(&world, Reason::UnknownTill, "till-1");
    enrol(&world, "AMIS1", "till-1", &old).await;
    sell_signed(&world, &uuid(2), &old).await;
    is(&world.sale(&uuid(2)).await, Status::Recorded);
    // and that another process changes the key, of which this one has not heard
    let tills =
        kassa_bus::registry::Registry::new(world.store.client.clone(), world.store.tables.shops.clone())
            .tills;
    let (shop, till) = ("AMIS1".parse().unwrap(), "till-1".parse().unwrap());
    let now = *world.now.lock().unwrap();
    tills.revoke(&shop, &till, now + SignedDuration::from_secs(1)).await.unwrap();
    tills.enrol(&shop, &till, new.key(), now + SignedDuration::from_secs(2)).await.unwrap();
    sell_signed(&world, &uuid(3), &new).await;
    is(&world.sale(&uuid(3)).await, Status::Recorded);
}

#[tokio::test]
async fn a_signed_sale_is_no_other_sales_no_other_shops_and_no_other_tills() {
    let world = world(Unsigned::Reject).await;
    let (till, other) = (signer("till-1"), signer("till-2"));
    for shop in ["AMIS1", "AMIS2"] {
        enrol(&world, shop, "till-1", &till).await;
    }
    enrol(&world, "AMIS1", "till-2", &other).await;
    // given a sale that was recorded
    sell_signed(&world, &uuid(1), &till).await;
    let recorded = world.sale(&uuid(1)).await.events[0].body["sealed"].as_str().unwrap().to_owned();
    // when its envelope is posted under another id
    let replayed = json!({"shop_id": "AMIS1", "message_id": uuid(2), "sealed": recorded});
    assert_eq!(world.posts(replayed.to_string()).await.status, 202);
    world.settle().await;
    rejected(&world, Reason::Tampered, "message_id");
    // or what was signed is sealed anew, for another id
    let signed = till.sign(signed_content("AMIS1", "till-1", &uuid(1)).as_bytes());
    sell(&world, &uuid(3), &signed).await;
    rejected(&world, Reason::Tampered, "message_id");
    // or for another shop, which has the same till
    let body = world.seal_for("AMIS2", "AMIS2", &uuid(1), &signed).await;
    world.posts(body).await;
    world.settle().await;
    rejected(&world, Reason::Tampered, "another shop");
    // or one till speaks for another
    let inside = other.sign(signed_content("AMIS1", "till-1", &uuid(4)).as_bytes());
    sell(&world, &uuid(4), &inside).await;
    rejected(&world, Reason::Tampered, "another till");
    // or does not say for which shop
    let inside = till.sign(content(&uuid(5), NOON, &[("98", "1", "1")]).as_bytes());
    sell(&world, &uuid(5), &inside).await;
    rejected(&world, Reason::Tampered, "no shop_id");
    let check = world.balanced().await;
    assert_eq!((check.recorded, check.rejected), (1, 5));
}

#[tokio::test]
async fn no_trick_with_algorithms_or_headers_passes_for_a_signature() {
    let world = world(Unsigned::Reject).await;
    let till = signer("till-1");
    enrol(&world, "AMIS1", "till-1", &till).await;
    let id = uuid(1);
    let payload = URL64.encode(signed_content("AMIS1", "till-1", &id));
    let parts = |header: Value, signature: &[u8]| {
        format!("{}.{payload}.{}", URL64.encode(header.to_string()), URL64.encode(signature))
    };
    let with_public_key = |header: &Value| {
        // the public key as if it were a shared secret
        let key =
            aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &URL64.decode(till.key().x()).unwrap());
        let signed = format!("{}.{payload}", URL64.encode(header.to_string()));
        aws_lc_rs::hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
    };
    let hs256 = json!({"alg": "HS256", "kid": "till-1"});
    let genuine = till.sign(signed_content("AMIS1", "till-1", &id).as_bytes());
    let (stripped, _) = genuine.rsplit_once('.').unwrap();
    for (n, forged) in [
        parts(json!({"alg": "none", "kid": "till-1"}), b""),
        parts(json!({"alg": "none", "kid": "till-1"}), &[0; 64]),
        parts(hs256.clone(), &with_public_key(&hs256)),
        parts(json!({"alg": "EdDSA", "kid": "till-1", "jwk": signer("x").key()}), &[0; 64]),
        parts(json!({"alg": "EdDSA", "kid": "till-1"}), &[0; 64]),
        format!("{stripped}."),
        stripped.to_owned(),
        format!("{}.{}", *genuine, "AAAA"),
    ]
    .into_iter()
    .enumerate()
    {
        sell(&world, &id, &forged).await;
        assert_eq!(world.rejections().len(), n + 1, "{n}: {forged}");
    }
    is(&world.sale(&id).await, Status::Rejected);
    // and the till's own sale is not kept out by them
    sell(&world, &id, &genuine).await;
    is(&world.sale(&id).await, Status::Recorded);
    world.balanced().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Nobody who may open and seal anew, as whoever is in between with the shop's key might, can change a sale.
    #[test]
    fn no_byte_of_what_was_signed_can_be_changed(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = world(Unsigned::Reject).await;
            let till = signer("till-1");
            enrol(&world, "AMIS1", "till-1", &till).await;
            let mut signed = till.sign(signed_content("AMIS1", "till-1", &uuid(1)).as_bytes()).to_string();
            let at = at.index(signed.len());
            prop_assume!(signed[at..=at] != to);
            signed.replace_range(at..=at, &to);
            sell(&world, &uuid(1), &signed).await;
            is(&world.sale(&uuid(1)).await, Status::Rejected);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_signatures_header_may_escape_any_character() {
    let world = world(Unsigned::Reject).await;
    let pkcs8 = Signer::new_key().unwrap();
    let (till, pair) = (
        Signer::new(&"till-1".parse().unwrap(), &pkcs8).unwrap(),
        Ed25519KeyPair::from_pkcs8(&pkcs8).unwrap(),
    );
    enrol(&world, "AMIS1", "till-1", &till).await;
    let sign = |header: &str, id: &str| {
        let signed =
            format!("{}.{}", URL64.encode(header), URL64.encode(signed_content("AMIS1", "till-1", id)));
        format!("{signed}.{}", URL64.encode(pair.sign(signed.as_bytes())))
    };
    sell(&world, &uuid(1), &sign(r#"{"\u0061lg":"Ed\u0044SA","kid":"till\u002d1"}"#, &uuid(1))).await;
    is(&world.sale(&uuid(1)).await, Status::Recorded);
    // then no member is passed over for the way it is written, nor taken twice
    for header in [
        r#"{"alg":"EdDSA","kid":"till-1","\u006awk":{}}"#,
        r#"{"alg":"EdDSA","kid":"till-1","\u0063rit":["x"]}"#,
        r#"{"alg":"EdDSA","kid":"till-1","k\u0069d":"till-1"}"#,
        r#"{"alg":"\u006eone","kid":"till-1"}"#,
    ] {
        sell(&world, &uuid(2), &sign(header, &uuid(2))).await;
        assert_eq!(world.rejections().last().unwrap().sale_id.as_str(), uuid(2), "{header}");
    }
}

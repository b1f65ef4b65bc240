//! What was rejected needs attention until it is booked or given up, whoever sells on meanwhile; and the command that is named
//! books it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kassa::console::{Access, Feed, Sight, router};
use kassa::embedded::{DATA, OpenShop, Store, Sync, Up};
use kassa::monitor::{AlarmStatus, Line, Monitor, MonitorError, Query, State};
use kassa::questions::ask::Ask;
use kassa::questions::rejected::{RejectedFilter, ShownRejection};
use kassa::questions::{Questions, Status};
use kassa::shops::Shops;
use kassa::status::{MORE, Mood, Need, View, headline, look, needs};
use kassa_bus::attention::{PLACES, Unbooked};
use kassa_bus::jws::Signer;
use kassa_bus::message::{Envelope, Reason};
use kassa_bus::shops_table::key;
use kassa_bus::{Clock, SaleId, Settings, ShopId};
use kassa_pipeline::event::{Accepted, Event, Fact, Rejected, envelope_hash};
use serde_json::json;

use crate::common::world::{NOON, World, content, is, sales, uuid};

const LINES: &[(&str, &str, &str)] = &[("98", "1", "18.95")];

fn shop(id: &str) -> ShopId {
    id.parse().unwrap()
}

impl World {
    /// Sales of AMIS1's till-7 that was set up with AMIS2's key.
    async fn sells_with_the_wrong_key(&self, n: impl IntoIterator<Item = i64>) {
        for n in n {
            let inside = content(&uuid(n), NOON, LINES);
            self.posts(self.seal_for("AMIS1", "AMIS2", &uuid(n), &inside).await).await;
        }
        self.settle().await;
    }

    /// The list, a line each: shop, what, how many.
    async fn attention(&self) -> Vec<String> {
        let now = *self.now.lock().unwrap();
        let line = |need: Need| {
            let count = need.count.map_or("?".into(), |count| count.to_string());
            format!("{} {} {count}", need.shop_id.as_ref().unwrap(), need.what())
        };
        needs(&self.questions.attention().await.unwrap(), None, now).into_iter().map(line).collect()
    }

    async fn retries(&self, filter: &RejectedFilter) -> Vec<ShownRejection> {
        let sent = self.questions.retry(filter, &*self.post, &|_, _| {}).await.unwrap();
        self.settle().await;
        sent
    }

    async fn gives_up(&self, filter: RejectedFilter) -> usize {
        let why = Some("from the training day".parse().unwrap());
        let (filter, now) = (RejectedFilter { why, ..filter }, *self.now.lock().unwrap());
        self.questions.give_up(&filter, now, &|_, _| {}).await.unwrap().len()
    }
}

fn of_amis1() -> RejectedFilter {
    RejectedFilter { shop: Some("AMIS1".into()), ..RejectedFilter::default() }
}

fn with_the_key_of(owner: &str) -> RejectedFilter {
    RejectedFilter { opened_with: Some(owner.into()), ..of_amis1() }
}

#[tokio::test]
async fn sales_of_another_shops_key_need_attention_until_they_are_booked_with_it() {
    // given three sales that came with another shop's key, while their shop sells on
    let world = World::open().await;
    world.sells_with_the_wrong_key(1..=3).await;
    world.posts(world.sealed(&uuid(4), LINES).await).await;
    world.settle().await;
    world.minute().await;
    let listed = "AMIS1 wrong-key, sealed with AMIS2's key 3";
    assert_eq!(world.attention().await, [listed]);
    let needs = needs(&world.questions.attention().await.unwrap(), None, NOON.parse().unwrap());
    assert_eq!(needs[0].run, "kassa retry --shop AMIS1 --reason wrong-key --opened-with AMIS2");
    assert_eq!(needs[0].since, Some(NOON.parse().unwrap()));
    // when they are put through without that key, or with one they are not sealed with
    assert_eq!(world.retries(&of_amis1()).await.len(), 3);
    for owner in ["AMIS1"] {
        assert_eq!(world.retries(&with_the_key_of(owner)).await, []);
    }
    assert_eq!(world.attention().await, [listed]);
    // and with it, of which a preview says what would be
    let (opener, now) = (world.questions.opener(world.keys.clone()), *world.now.lock().unwrap());
    let preview = world.questions.preview(&with_the_key_of("AMIS2"), &opener, &|_, _| {}, now).await.unwrap();
    assert_eq!(preview.rows[1].number.map(|n| n.to_string()), ["99999", "99996"]);
    assert_eq!(world.retries(&with_the_key_of("AMIS2")).await.len(), 3);
    // then they are booked, with whose key it was, and need no attention as soon as they are projected
    assert_eq!(world.attention().await, Vec::<String>::new());
    let history = world.sale(&uuid(1)).await;
    is(&history, Status::Recorded);
    let recorded = &history.events.iter().find(|event| event.kind == "recorded").unwrap().body;
    let (kid, _) = world.public_key("AMIS2").await;
    assert_eq!(
        (&recorded["opened_with"], &recorded["key"], &recorded["attempt"]),
        (&json!("AMIS2"), &json!(kid.as_str()), &json!(3))
    );
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "4");
    assert_eq!(
        (world.balanced().await.recorded, world.questions.attention().await.unwrap()),
        (4, Vec::new())
    );
}

#[tokio::test]
async fn opened_with_anothers_key_a_sale_must_still_be_its_shops() {
    let world = World::open().await;
    let signer = Signer::new(&"till-1".parse().unwrap(), &Signer::new_key().unwrap()).unwrap();
    let now = *world.now.lock().unwrap();
    let (amis1, till) = (shop("AMIS1"), "till-1".parse().unwrap());
    world.store.registry.tills.enrol(&amis1, &till, signer.key(), now).await.unwrap();
    let inside_signed = |n: i64, of: &str| {
        let inside = content(&uuid(n), NOON, LINES).replacen('{', &format!(r#"{{"shop_id":"{of}","#), 1);
        signer.sign(inside.replace("till-7", "till-1").as_bytes())
    };
    // given a sale that a till of the shop signed, and one that it signed for the other shop
    for (n, of) in [(1, "AMIS1"), (2, "AMIS2")] {
        world.posts(world.seal_for("AMIS1", "AMIS2", &uuid(n), &inside_signed(n, of)).await).await;
    }
    // and one that nobody signed and that names the other shop, and a copy of one that came there
    let inside = content(&uuid(3), NOON, LINES).replacen('{', r#"{"shop_id":"AMIS2","#, 1);
    world.posts(world.seal_for("AMIS1", "AMIS2", &uuid(3), &inside).await).await;
    let theirs = world.seal_for("AMIS2", "AMIS2", &uuid(4), &content(&uuid(4), NOON, LINES)).await;
    world.posts(&theirs).await;
    world.posts(theirs.replace(r#""shop_id":"AMIS2""#, r#""shop_id":"AMIS1""#)).await;
    // and classic ones: of a till with the wrong key, and a copy of one that came to the other shop
    let classic = json!({"sales": sales(LINES)}).to_string();
    world.posts(world.classic_for("AMIS1", "AMIS2", Some("5-20261122"), &classic).await).await;
    let theirs = world.classic_for("AMIS2", "AMIS2", Some("6-20261122"), &classic).await;
    world.posts(&theirs).await;
    world.posts(theirs.replace(r#""shop_id":"AMIS2""#, r#""shop_id":"AMIS1""#)).await;
    // and a till that would say itself with which key it is to be opened
    let inside = content(&uuid(7), NOON, LINES);
    let said = world.seal_for("AMIS1", "AMIS2", &uuid(7), &inside).await;
    let origin = r#"{"opened_with":"AMIS2","origin":{"opened_with":"AMIS2","attempt":2},"#;
    world.posts(said.replacen('{', origin, 1)).await;
    world.settle().await;
    let reasons: Vec<Reason> = world.rejections().iter().map(|sale| sale.reason).collect();
    assert_eq!(reasons, [Reason::WrongKey; 7]);
    // when an operator says with which key
    assert_eq!(world.retries(&with_the_key_of("AMIS2")).await.len(), 7);
    // then what is the shop's is booked, and nothing that is another's
    let status = async |id: &str| world.questions.sale(id, Some("AMIS1")).await.unwrap().status;
    for (id, expected) in [
        (&*uuid(1), Status::Recorded),
        (&*uuid(2), Status::Rejected),
        (&*uuid(3), Status::Rejected),
        (&*uuid(4), Status::Rejected),
        ("5-20261122", Status::Recorded),
        ("6-20261122", Status::Rejected),
        (&*uuid(7), Status::Recorded),
    ] {
        assert_eq!(status(id).await, expected, "{id}");
    }
    let again: Vec<Reason> = world.rejections()[7..].iter().map(|sale| sale.reason).collect();
    let replayed = again.iter().filter(|reason| **reason == Reason::Replayed).count();
    assert_eq!((again.len(), replayed), (4, 2), "{again:?}");
    assert_eq!(
        world.sale(&uuid(1)).await.events.iter().find(|event| event.kind == "recorded").unwrap().body["signed_by"],
        "till-1"
    );
    world.balanced().await;
}

#[tokio::test]
async fn what_nobody_can_book_is_given_up_with_a_reason_and_stays_rejected() {
    let world = World::open().await;
    world.posts(world.seal_for("AMIS1", "AMIS1", &uuid(1), "no sale").await).await;
    world.sells_with_the_wrong_key([2]).await;
    // when it is not said which, nothing is given up
    let why = Some("all of it".parse().unwrap());
    let all = RejectedFilter { why, ..of_amis1() };
    assert!(world.questions.give_up(&all, NOON.parse().unwrap(), &|_, _| {}).await.is_err());
    // when one is given up, by its reason
    let invalid = RejectedFilter { reason: Some(Reason::InvalidSale), ..of_amis1() };
    assert_eq!(world.gives_up(invalid.clone()).await, 1);
    assert_eq!(world.gives_up(invalid).await, 0, "once is enough");
    // then it needs no attention, is not put through with others, and counts as what it is
    assert_eq!(world.attention().await, ["AMIS1 wrong-key, sealed with AMIS2's key 1"]);
    assert_eq!(world.retries(&of_amis1()).await.len(), 1);
    let check = world.balanced().await;
    assert_eq!((check.accepted, check.rejected, check.pending), (2, 2, 0));
    let history = world.sale(&uuid(1)).await;
    is(&history, Status::Rejected);
    let dropped = history.events.iter().find(|event| event.kind == "dropped").unwrap();
    assert_eq!(dropped.body, json!({"why": "from the training day"}));
    // nor does it come back, at the minute or with a rebuild
    let later = async || {
        world.passes(SignedDuration::from_mins(1));
        world.minute().await;
        world.questions.rebuild(&|_, _| {}).await.unwrap();
        world.balanced().await;
        world.attention().await
    };
    assert_eq!(later().await, ["AMIS1 wrong-key, sealed with AMIS2's key 1"]);
    // but what is rejected after that was not given up: another envelope under its id
    let named = RejectedFilter { sale: Some(uuid(1)), ..of_amis1() };
    let wrong_key = RejectedFilter { reason: Some(Reason::WrongKey), ..of_amis1() };
    let sales = |listed: &[String]| -> u32 {
        listed.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
    };
    for round in 2..=5 {
        if round == 2 {
            world.sells_with_the_wrong_key([1]).await;
        } else {
            // or the same, put through by its name and rejected once more
            assert_eq!(world.retries(&named).await.len(), 2);
        }
        let shown = world.questions.rejected(&wrong_key, &|_, _| {}).await.unwrap();
        assert_eq!(shown.iter().filter(|shown| shown.sale_id.as_str() == uuid(1)).count(), 1);
        assert_eq!((sales(&world.attention().await), sales(&later().await)), (2, 2));
        // and is given up for itself, once
        assert_eq!((world.gives_up(named.clone()).await, world.gives_up(named.clone()).await), (1, 0));
        assert_eq!(later().await, ["AMIS1 wrong-key, sealed with AMIS2's key 1"]);
        let history = world.sale(&uuid(1)).await;
        assert_eq!(history.events.iter().filter(|event| event.kind == "dropped").count(), round);
    }
}

#[tokio::test]
async fn a_list_that_is_wrong_is_set_right_by_the_next_minute_and_by_a_rebuild() {
    let world = World::open().await;
    let rows = world.store.attention.clone();
    // given junk under the id of a sale that came afterwards, and was booked at once
    world.posts(world.seal_for("AMIS1", "AMIS1", &uuid(1), "junk").await).await;
    world.settle().await;
    world.posts(world.sealed(&uuid(1), LINES).await).await;
    // and a rejection that is delivered again after its sale was booked
    world.sells_with_the_wrong_key([2]).await;
    let rejection =
        world.post.delivered.lock().unwrap().iter().find(|(_, m)| m.id == uuid(2)).cloned().unwrap();
    world.retries(&with_the_key_of("AMIS2")).await;
    world.deliver(rejection.0, &[rejection.1]).await.remove(0).unwrap();
    world.settle().await;
    world.minute().await;
    assert_eq!(world.attention().await, Vec::<String>::new());
    assert_eq!(rows.list(&shop("AMIS1")).await.unwrap().taken, 0);

    // given lists that were made once, a row that was lost, and one that cannot be read
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    world.sells_with_the_wrong_key([3, 4]).await;
    world.passes(SignedDuration::from_mins(5));
    world.posts(world.sealed(&uuid(5), LINES).await).await;
    world.settle().await;
    rows.remove(&shop("AMIS1"), &uuid(3).parse().unwrap()).await.unwrap();
    let table = world.store.shops();
    assert!(
        table
            .put_if(key("AMIS1", &format!("a-{}", uuid(9))), "attribute_not_exists(shop_id)", [].into())
            .await
            .unwrap()
    );
    let check = world.questions.check(&|_, _| {}).await.unwrap();
    assert_eq!(check.mismatches.len(), 2, "{:?}", check.mismatches);
    assert!(check.mismatches.iter().any(|m| m.contains(&uuid(3)) && m.contains("kassa rebuild")));
    // when the lists are made anew
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    world.balanced().await;
    assert_eq!(world.attention().await, ["AMIS1 wrong-key, sealed with AMIS2's key 2"]);
    assert_eq!(rows.list(&shop("AMIS1")).await.unwrap().taken, 2);
}

#[tokio::test]
async fn at_most_a_thousand_sales_have_a_place_and_the_others_come_when_there_is_one() {
    let world = World::open().await;
    let (list, amis1) = (world.store.attention_list(), shop("AMIS1"));
    let made_up = |n: usize| -> SaleId { format!("{n}-20261121").parse().unwrap() };
    let sale = |sale_id| Unbooked {
        sale_id,
        reason: Reason::Malformed,
        till: None,
        sealed_with: None,
        since: NOON.parse().unwrap(),
    };
    // given all places taken, twice over, when sales of a till come
    let (rows, table) = (world.store.attention.clone(), world.store.shops());
    let _ = list.expect(&amis1, &sale(made_up(0))).await.unwrap();
    let first = table.row("AMIS1", "a-0-20261121").await.unwrap().unwrap();
    for n in 1..PLACES - 1 {
        let row = first.clone().into_iter().chain(key("AMIS1", &format!("a-{}", made_up(n)))).collect();
        assert!(table.put_if(row, "attribute_not_exists(shop_id)", [].into()).await.unwrap());
    }
    world.minute().await;
    for n in (PLACES - 1..PLACES).chain(0..5) {
        let listed = list.expect(&amis1, &sale(made_up(n))).await.unwrap();
        list.rejected(&amis1, &sale(made_up(n)), listed).await.unwrap();
    }
    assert_eq!(rows.list(&amis1).await.unwrap().taken, PLACES as u64);
    assert_eq!(world.attention().await, [format!("AMIS1 malformed {PLACES}")]);
    world.sells_with_the_wrong_key([1, 2]).await;
    world.minute().await;
    // then the list says that it lacks some
    let more = format!("AMIS1 {MORE} ?");
    assert_eq!(world.attention().await, [format!("AMIS1 malformed {PLACES}"), more.clone()]);
    assert_eq!(rows.sales(&amis1).await.unwrap().rows.len(), PLACES);
    // and has them at the next minute once there is a place, all of them once there are enough
    list.ended(&amis1, &made_up(0)).await.unwrap();
    world.minute().await;
    assert_eq!(world.attention().await[2..], [more]);
    list.ended(&amis1, &made_up(1)).await.unwrap();
    world.minute().await;
    let mut listed = world.attention().await;
    listed.sort();
    let both =
        [format!("AMIS1 malformed {}", PLACES - 2), "AMIS1 wrong-key, sealed with AMIS2's key 2".into()];
    assert_eq!(listed, both);
}

/// A monitor of which all alarms are off.
struct Calm;

#[async_trait::async_trait]
impl Monitor for Calm {
    fn stack(&self) -> &'static str {
        "kassa-x"
    }

    fn api(&self) -> &'static str {
        "api-x"
    }

    async fn data(&self, _: &[Query], _: Timestamp, _: Timestamp) -> Result<Vec<Line>, MonitorError> {
        Ok(Vec::new())
    }

    async fn alarms(&self) -> Result<Vec<AlarmStatus>, MonitorError> {
        let (name, why) = ("dead-letters".into(), "so".into());
        let since = NOON.parse().unwrap();
        Ok(vec![AlarmStatus { name, state: State::Ok, since, why, description: String::new() }])
    }
}

#[tokio::test]
async fn status_and_console_show_the_list_also_after_a_restart() {
    let world = World::open().await;
    let now = *world.now.lock().unwrap();
    let view =
        View { place: "here".into(), questions: &world.questions, monitor: Some(&Calm), deployed: false };
    assert!(look(&view, now).await.unwrap().is_well());
    world.sells_with_the_wrong_key(1..=3).await;
    world.posts(world.sealed(&uuid(4), LINES).await).await;
    world.settle().await;
    // then status does not say that all is well, and the exit code is its mark's
    let status = look(&view, now).await.unwrap().reached_by(" --data /srv/shop");
    let run = "kassa retry --shop AMIS1 --reason wrong-key --opened-with AMIS2 --data /srv/shop";
    assert_eq!((status.is_well(), headline(&status).mood), (false, Mood::Ailing));
    assert_eq!(headline(&status).run.as_deref(), Some(run));
    let text = kassa::status::render(&status, kassa::status::Paper { width: 80, colour: false });
    for said in ["▲ Sales of AMIS1 need attention: wrong-key, sealed with AMIS2's key (3)", "needs attention"]
    {
        assert!(text.contains(said), "{said} in\n{text}");
    }
    let attention = &serde_json::to_value(&status).unwrap()["attention"];
    assert_eq!(
        *attention,
        json!([{"shop_id": "AMIS1", "reason": "wrong-key", "key_of": "AMIS2", "count": 3, "since": NOON, "run": run}])
    );
    // and a console that has just been opened shows it, and the rejected sales as well
    let questions = Arc::new(Questions::new(world.store.books()));
    let feed = Arc::new(Feed::default());
    feed.ask(&questions, now).await.unwrap();
    let sight = Sight {
        questions,
        monitor: Arc::new(Calm),
        feed,
        access: Access::Loopback,
        clock: Clock::from_fn(move || now),
        reach: " --stage prod".into(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, router(sight)).await });
    for path in ["/", "/incidents"] {
        let body = reqwest::get(format!("{url}{path}")).await.unwrap().text().await.unwrap();
        let run = "kassa retry --shop AMIS1 --reason wrong-key --opened-with AMIS2 --stage prod";
        assert!(body.contains("Needs attention") && body.contains(run), "{path}: {body}");
    }
    let body = reqwest::get(format!("{url}/")).await.unwrap().text().await.unwrap();
    assert!(body.contains("Rejected sales need attention"), "{body}");
    assert_eq!(body.matches(r#"<span class="tag bad">wrong-key"#).count(), 3, "{body}");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_before_there_was_a_list_has_one_once_it_is_opened() {
    assert_eq!(DATA, "./kassa-data");
    let folder = tempfile::tempdir().unwrap();
    let (at, now) = (NOON.parse().unwrap(), Timestamp::now());
    {
        // given a folder with a sale that was rejected, long ago, and no rows of it
        let store = Store::open(Some(&folder.path().join("shop.db")), Sync::Normal).await.unwrap();
        let envelope = Envelope::Sealed { sealed: "x".into() };
        let hash = envelope_hash(&envelope);
        let rejected = Rejected {
            reason: Reason::Malformed,
            detail: "no JWE".into(),
            sealed_with: None,
            till: None,
            envelope: hash,
            attempt: 1,
        };
        for fact in [
            Fact::Accepted(Accepted { envelope, source: "192.0.2.7".into(), revocations: None }),
            Fact::Rejected(rejected),
        ] {
            let event =
                Event { shop_id: shop("AMIS1"), sale_id: uuid(1).parse().unwrap(), at, trace: None, fact };
            store.events.append(&event).await.unwrap();
        }
    }
    let up = Up {
        listen: ([127, 0, 0, 1], 0).into(),
        data: folder.path().to_owned(),
        shops: Shops::read(None).unwrap(),
        sync: Sync::Normal,
        clock: Clock::system(),
        settings: Settings::none(),
        tls: None,
    };
    let open = OpenShop::open(up).await.unwrap();
    let ask = Ask::at(folder.path()).await.unwrap();
    for tries in 0.. {
        let attention = ask.status(now).await.unwrap().attention;
        if let [need] = &attention[..] {
            assert_eq!((need.what().as_str(), need.count, need.since), ("malformed", Some(1), Some(at)));
            break;
        }
        assert!(tries < 200, "{attention:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    open.close().await;
}

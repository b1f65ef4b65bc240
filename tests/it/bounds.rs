//! What one of shop, webhook, warehouse and `shops.toml` takes, the others take as well; and what cannot be loaded keeps
//! nothing else from it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kassa::shops::Shops;
use kassa_bus::webhook::WarehouseSale;
use kassa_pipeline::read_model::DeclaredItem;
use serde_json::{Value, json};

use crate::common::postgres::Postgres;
use crate::common::process::{Up, command, json};
use crate::common::road::Receiving;
use crate::common::warehouse::{SECRET, Warehouse, holds, is_problem, sale, sales};
use crate::common::world::{World, sealer, uuid, wrap};

/// A shop with its warehouse, both of them the real thing.
struct Trade {
    up: Up,
    data: tempfile::TempDir,
    postgres: Postgres,
    _receiver: Receiving,
}

impl Trade {
    fn opens() -> Self {
        let postgres = Postgres::start();
        let receiver = Receiving::start(&postgres.url());
        let data = tempfile::tempdir().unwrap();
        let settings = [
            format!("WAREHOUSE_URL={}/sales", receiver.url),
            format!("WAREHOUSE_SECRET={SECRET}"),
            "WAREHOUSE_ALLOW_HTTP=true".to_owned(),
            "WAREHOUSE_ALLOW_PRIVATE=true".to_owned(),
        ];
        let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        Self { up: Up::start_with(data.path(), &set), data, postgres, _receiver: receiver }
    }

    fn asked(&self, args: &[&str]) -> Value {
        json(&[args, &["--json", "--data", self.data.path().to_str().unwrap()]].concat())
    }

    async fn key(&self) -> kassa_bus::keys::PublicKey {
        let jwk = reqwest::get(format!("{}/shop/AMIS1/key", self.up.url)).await.unwrap();
        serde_json::from_slice(&jwk.bytes().await.unwrap()).unwrap()
    }

    async fn posts(&self, request: Value) -> u16 {
        let http = reqwest::Client::new();
        let posted = http.post(format!("{}/shop", self.up.url)).body(request.to_string());
        posted.send().await.unwrap().status().as_u16()
    }
}

const LINE: &str = r#"[{"item_no":"98","gross_number":"1","gross_turnover":"18.95"}]"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_of_whatever_year_is_recorded_and_loaded_on_the_same_day() {
    // given sales whose time or id is what a program writes that knows none, or whose clock is far off
    let trade = Trade::opens();
    let key = trade.key().await;
    let public = crate::common::world::encrypting(&key);
    let session = sealer(key.kid(), &public);
    let times = [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "0000-06-01T00:00:00Z",
        "-004000-01-01T00:00:00Z",
        "-009999-06-01T00:00:00Z",
        "1969-12-31T22:59:59Z",
        "1970-01-01T12:00:00Z",
        "9999-12-30T12:00:00Z",
        "9999-12-31T23:59:59.9999999Z",
        "2026-11-22T12:00:00.123456789123Z",
    ];
    for (n, sold_at) in (0..).zip(times) {
        let content = format!(r#"{{"sale_id":"{}","sold_at":"{sold_at}","sales":{LINE}}}"#, uuid(n));
        let sealed = session.seal(content.as_bytes()).unwrap();
        assert_eq!(
            trade.posts(json!({"shop_id": "AMIS1", "message_id": uuid(n), "sealed": sealed})).await,
            202
        );
    }
    let ids = ["7-00000101", "8-00010101", "9-19691231", "10-99991231"];
    for id in ids {
        let content = wrap(&public, format!(r#"{{"sales":{LINE}}}"#).as_bytes());
        let content = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, content);
        assert_eq!(
            trade.posts(json!({"shop_id": "AMIS1", "message_id": id, "content_base64": content})).await,
            200
        );
    }
    trade.up.settled();
    // then each is in the warehouse, on the day that it has in the shop's own books
    let client = trade.postgres.client().await;
    let question =
        "select d.date::text, f.sold_at is null from fact_sale_line f join dim_date d using (date_key)
        where sale_id = $1";
    let all = (0..).zip(times).map(|(n, _)| uuid(n)).chain(ids.map(str::to_owned));
    let mut untold = Vec::new();
    for id in all {
        let sale = trade.asked(&["sale", &id, "--shop", "AMIS1"]);
        let recorded = &sale["events"].as_array().unwrap().last().unwrap()["body"];
        let begun = Instant::now();
        let row = loop {
            match client.query_opt(question, &[&id]).await {
                Ok(Some(row)) => break row,
                _ => assert!(begun.elapsed() < Duration::from_mins(1), "{id} is not there: {sale}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(recorded["business_date"], row.get::<_, String>(0), "{recorded}");
        if row.get::<_, bool>(1) {
            untold.push(id);
        }
    }
    // with the time that the till says, where a database has it
    assert_eq!(untold, [&[uuid(4)], &ids.map(str::to_owned)[..]].concat());
    let kept = trade.asked(&["sale", &uuid(0)])["events"][1]["body"]["sold_at"].clone();
    assert_eq!(kept, "0001-01-01T00:00:00Z");
    // and nothing was given up
    let letters = trade.asked(&["dead-letters"]);
    assert!(letters.as_array().unwrap().iter().all(|queue| queue["letters"] == 0), "{letters}");
    assert_eq!(trade.asked(&["check"])["mismatches"], json!([]));
}

/// `shops.toml` with this description of its first item.
fn shops_file(folder: &Path, description: &str) -> String {
    let file = folder.join("shops.toml");
    let text = format!(
        "[[shops]]\nid = \"AMIS1\"\nname = \"A\"\ntime_zone = \"UTC\"\n\n[[items]]\nnumber = \"98\"\ndescription = \"{description}\"\nprice = \"1\"\nopening_stock = \"1\"\n"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn shop_and_warehouse_refuse_a_text_nobody_can_keep_and_name_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for (text, says) in [
        ("x".repeat(1025), "line 8: must have at most 1024 characters, and has 1025"),
        ("a\\u0000b".to_owned(), "line 8: must have no control characters, and has U+0000"),
    ] {
        let file = shops_file(folder.path(), &text);
        let up = ["up", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap(), "--shops", &file];
        let warehouse = [
            "warehouse",
            "--listen",
            "127.0.0.1:0",
            "--database",
            "postgres://localhost/x",
            "--shops",
            &file,
        ];
        for args in [&up[..], &warehouse[..]] {
            let output = command(args).env("WAREHOUSE_SECRET", SECRET).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(says), "{args:?}: {said}");
        }
    }
}

#[tokio::test]
async fn longer_texts_that_were_registered_before_are_read_and_stop_nothing() {
    let world = World::open().await;
    // given a shop and an item as a version without bounds registered them
    let mut shop = (*world.store.registry.shop(&"AMIS1".parse().unwrap()).await.unwrap().unwrap()).clone();
    shop.name = "N\u{0}\n".repeat(1_000);
    shop.manager_email = Some("e".repeat(1_000));
    world.store.registry.register(&shop).await.unwrap();
    let item = DeclaredItem {
        item_no: "98".parse().unwrap(),
        description: "D\u{0}".repeat(2_000),
        price: "18.95".parse().unwrap(),
        opening_stock: "100000".parse().unwrap(),
    };
    world.store.read_model.declare(&shop.shop_id, &item).await.unwrap();
    // then it goes on selling, and what is declared today takes their place
    world.posts(world.sealed(&uuid(0), &[("98", "1", "18.95")]).await).await;
    world.settle().await;
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "1");
    world.balanced().await;
    let shops = Shops::read(None).unwrap();
    let (registry, read_model) = (&world.store.registry, &world.store.read_model);
    let plan = kassa::plan::Plan::make(&shops, &world.keys.files, registry, read_model).await.unwrap();
    plan.carry_out(&world.keys.files, registry, read_model, "2026-11-22T12:00:00Z".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(world.store.registry.afresh(&shop.shop_id).await.unwrap().unwrap().name, "AMIS Nieuwegein");
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_are_loaded_whatever_becomes_of_what_is_declared() {
    let postgres = Postgres::start();
    let shops = || Some(Shops::read(Some(Path::new("shops.toml"))).unwrap());
    let warehouse = Warehouse::open_with(&postgres.url(), SECRET, shops()).await;
    assert_eq!(warehouse.deliver(&sales(0..1)).await.status(), 204);
    warehouse.close().await;
    // given a database that has less room for a description than today's migrations make
    let client = postgres.client().await;
    let narrow =
        "update dim_item set description = null; alter table dim_item alter description type varchar(5)";
    client.batch_execute(narrow).await.unwrap();
    let warehouse = Warehouse::open_with(&postgres.url(), SECRET, shops()).await;
    assert_eq!(warehouse.deliver(&sales(1..20)).await.status(), 204);
    holds(&client, &sales(0..20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_there_and_cannot_be_used_is_not_said_to_be_away() {
    let postgres = Postgres::start();
    let warehouse = Warehouse::open(&postgres.url()).await;
    assert_eq!(warehouse.deliver(&sales(0..1)).await.status(), 204);
    let client = postgres.client().await;
    client.batch_execute("alter table fact_sale_line rename to fact_sale_line_").await.unwrap();
    let answer = warehouse.deliver(&sales(1..2)).await;
    assert_eq!(answer.headers()["retry-after"], "5");
    is_problem(answer, 503, "the database cannot be used: SQLSTATE 42P01").await;
    // when it is mended, what waited is taken
    client.batch_execute("alter table fact_sale_line_ rename to fact_sale_line").await.unwrap();
    assert_eq!(warehouse.deliver(&sales(1..2)).await.status(), 204);
    holds(&client, &sales(0..2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_never_loads_is_refused_for_good_and_stops_no_other() {
    let postgres = Postgres::start();
    let warehouse = Arc::new(Warehouse::open(&postgres.url()).await);
    assert_eq!(warehouse.deliver(&sales(0..1)).await.status(), 204);
    // given a trigger that somebody made, which fails for one sale
    let client = postgres.client().await;
    let trap = "create function trap() returns trigger language plpgsql as
            $$ begin if new.seq = 7 then raise exception 'no'; end if; return new; end $$;
        create trigger trap before insert on fact_sale_line for each row execute function trap()";
    client.batch_execute(trap).await.unwrap();
    // and deliveries that wait for each other, so that they share a transaction
    client.batch_execute("begin; lock table fact_sale_line").await.unwrap();
    let deliver = |n| {
        let warehouse = Arc::clone(&warehouse);
        tokio::spawn(async move { (n, warehouse.deliver(&[sale(n)]).await) })
    };
    let deliveries: Vec<_> = (1..30).map(deliver).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.batch_execute("commit").await.unwrap();
    for delivery in deliveries {
        let (n, answer) = delivery.await.unwrap();
        if n == 7 {
            is_problem(answer, 400, "SQLSTATE P0001").await;
        } else {
            assert_eq!(answer.status(), 204, "{n}");
        }
    }
    let others: Vec<WarehouseSale> = (0..30).filter(|n| *n != 7).map(sale).collect();
    holds(&client, &others).await;
}

#[tokio::test]
async fn a_header_with_escapes_is_the_header_it_says() {
    // given an envelope whose protected header escapes characters, as any JSON may
    let world = World::open().await;
    let id = uuid(0);
    let (kid, key) = world.public_key("AMIS1").await;
    let content = crate::common::world::content(&id, crate::common::world::NOON, &[("98", "1", "18.95")]);
    let header = format!(
        r#"{{"alg":"RSA\u002dOAEP-256","enc":"A256GCM","kid":"\u00{:x}{}"}}"#,
        kid.as_str().as_bytes()[0],
        &kid.as_str()[1..]
    );
    let sealed = sealed_under(&header, &key, content.as_bytes());
    let request = json!({"shop_id": "AMIS1", "message_id": id, "sealed": sealed}).to_string();
    assert_eq!(world.posts(request).await.status, 202);
    world.settle().await;
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "1");
}

/// A compact JWE with this protected header (RFC 7516).
fn sealed_under(header: &str, key: &aws_lc_rs::rsa::OaepPublicEncryptingKey, content: &[u8]) -> String {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL64;
    let header = URL64.encode(header);
    let mut sealed = content.to_vec();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[42; 32]).unwrap());
    let tag = cipher
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([7; 12]),
            Aad::from(header.as_bytes()),
            &mut sealed,
        )
        .unwrap();
    let parts = [&wrap(key, &[42; 32])[..], &[7; 12], &sealed, tag.as_ref()].map(|part| URL64.encode(part));
    format!("{header}.{}", parts.join("."))
}

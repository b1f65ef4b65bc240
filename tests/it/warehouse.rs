//! The receiver with a real Postgres: every sale exactly once, whatever comes and however often.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use kassa::shops::Shops;
use kassa_bus::amount::Amount;
use kassa_bus::webhook::{SIGNATURE, SalesDelivery, WarehouseSale, sign};
use proptest::strategy::{Strategy, ValueTree};

use crate::common::postgres::Postgres;
use crate::common::warehouse::{
    NEXT_SECRET, SECRET, Warehouse, amount, gzip, holds, is_problem, sale, sales,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_there_once_however_often_it_comes() {
    let postgres = Postgres::start();
    let warehouse = Warehouse::open(&postgres.url()).await;
    // when deliveries repeat, overlap, and hold a sale twice
    for numbers in [0..100, 0..100, 50..150, 149..151] {
        assert_eq!(warehouse.deliver(&sales(numbers)).await.status(), 204);
    }
    let twice = [sales(150..160), sales(150..160)].concat();
    assert_eq!(warehouse.deliver(&twice).await.status(), 204);
    assert_eq!(warehouse.deliver(&[]).await.status(), 204);
    // then
    holds(&postgres.client().await, &sales(0..160)).await;
    warehouse.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_sale_under_an_id_stays_whole() {
    let postgres = Postgres::start();
    let warehouse = Warehouse::open(&postgres.url()).await;
    let mut other = sale(1);
    other.lines = [sale(2).lines, sale(3).lines].concat();
    let mut elsewhere = sale(1);
    elsewhere.shop_id = "AMIS2".parse().unwrap();
    // when another sale comes under the same id, and a third under that id in another shop
    for sales in [[sale(1)], [other], [elsewhere.clone()]] {
        assert_eq!(warehouse.deliver(&sales).await.status(), 204);
    }
    holds(&postgres.client().await, &[sale(1), elsewhere]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_receivers_on_one_database_load_each_sale_once() {
    let postgres = Postgres::start();
    let url = postgres.url();
    let receivers = Arc::new([Warehouse::open(&url).await, Warehouse::open(&url).await]);
    // when both get the same deliveries at the same time, in other orders, before there is a schema
    let deliveries = (0..32i64).map(|n| {
        let receivers = Arc::clone(&receivers);
        tokio::spawn(async move {
            let receiver = usize::try_from(n % 2).unwrap();
            for step in 0..10 {
                let from = (n * 7 + step * 13) % 20 * 10;
                assert_eq!(receivers[receiver].deliver(&sales(from..from + 20)).await.status(), 204);
            }
        })
    });
    for delivery in deliveries.collect::<Vec<_>>() {
        delivery.await.unwrap();
    }
    holds(&postgres.client().await, &sales(0..210)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_point_to_shops_items_and_days() {
    let postgres = Postgres::start();
    let shops = Shops::read(Some(Path::new("shops.toml"))).unwrap();
    let warehouse = Warehouse::open_with(&postgres.url(), SECRET, Some(shops)).await;
    // given a declared shop half an hour past midnight, and a shop and an item nobody declared
    let declared = WarehouseSale {
        sold_at: Some("2026-11-22T23:30:00.123456Z".parse().unwrap()),
        seq: Some(u64::MAX),
        till: Some("kassa \"één\" \\ \t".into()),
        ..sale(0)
    };
    let mut unknown = sale(1);
    unknown.shop_id = "POPUP".parse().unwrap();
    unknown.sale_id = "7-20240229".parse().unwrap();
    unknown.sold_at = None;
    unknown.till = None;
    unknown.seq = None;
    unknown.lines.truncate(1);
    unknown.lines[0].item_no = "999999999999999999".parse().unwrap();
    assert_eq!(warehouse.deliver(&[declared, unknown]).await.status(), 204);
    // then
    let question = "select s.shop_id, s.name, s.time_zone, i.item_no::text, i.description, d.date::text,
            d.weekday::text, d.iso_year || '-' || d.iso_week, f.till, f.seq::text, f.sold_at::text, d.quarter::text
        from fact_sale_line f join dim_shop s using (shop_key) join dim_item i using (item_key)
            join dim_date d using (date_key) order by s.shop_id, f.line_no";
    let client = postgres.client().await;
    client.batch_execute("set timezone = 'UTC'").await.unwrap();
    let rows = client.query(question, &[]).await.unwrap();
    let texts =
        |n: usize| -> Vec<Option<String>> { (0..rows[n].len()).map(|column| rows[n].get(column)).collect() };
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        "AMIS1",
        "AMIS Nieuwegein",
        "Europe/Amsterdam",
        "98",
        "Espresso beans, 1 kg",
        "2026-11-23",
        "1",
        "2026-48",
        "kassa \"één\" \\ \t",
        "18446744073709551615",
        "2026-11-22 23:30:00.123456+00",
        "4",
    ];
    assert_eq!(texts(0), expected.map(some));
    assert_eq!(rows.len(), 2);
    let expected = [
        some("POPUP"),
        None,
        None,
        some("999999999999999999"),
        None,
        some("2024-02-29"),
        some("4"),
        some("2024-9"),
        None,
        None,
        None,
        some("1"),
    ];
    assert_eq!(texts(1), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_arrive_as_they_were_sent() {
    let postgres = Postgres::start();
    let warehouse = Warehouse::open(&postgres.url()).await;
    // given the ends of what a till may send, and a thousand others
    let mut sent: Vec<Amount> = [
        "0",
        "-0.00000000000000001",
        "999999999999.999999",
        "0.30000000000000004",
        "10000",
        "-99990000.0001",
    ]
    .map(amount)
    .into();
    let any = "-?[0-9]{1,12}(\\.[0-9]{1,6})?".prop_map(|text| amount(&text));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    sent.extend((0..1000).map(|_| any.new_tree(&mut runner).unwrap().current()));
    let mut one = sale(0);
    one.lines = sent
        .iter()
        .map(|amount| kassa_bus::Line { gross_turnover: *amount, ..sale(0).lines[0].clone() })
        .collect();
    assert_eq!(warehouse.deliver(&[one]).await.status(), 204);
    // then
    let question = "select gross_turnover::text from fact_sale_line order by line_no";
    let rows = postgres.client().await.query(question, &[]).await.unwrap();
    let held: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(held, sent.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_signed_with_a_live_secret_is_taken() {
    let postgres = Postgres::start();
    let warehouse = Warehouse::open_with(&postgres.url(), &format!("{NEXT_SECRET} {SECRET}"), None).await;
    let body = SalesDelivery::of(sales(0..1), warehouse.now()).to_json();
    let send = |secret: &str| {
        let signature = sign("msg_1", warehouse.now(), &body, &[secret.parse().unwrap()]);
        let mut request = warehouse.signed(&body).body(body.to_vec()).build().unwrap();
        request.headers_mut().insert(SIGNATURE, signature.parse().unwrap());
        async { reqwest::Client::new().execute(request).await.unwrap() }
    };
    // either of two, while one is replaced
    assert_eq!(send(SECRET).await.status(), 204);
    assert_eq!(send(NEXT_SECRET).await.status(), 204);
    // none other, nothing unsigned, nothing else under the signature
    let wrong = send("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await;
    assert_eq!(wrong.headers()["www-authenticate"], "Standard-Webhooks");
    is_problem(wrong, 401, "signature").await;
    is_problem(warehouse.post("/sales").body(body.to_vec()).send().await.unwrap(), 401, "webhook-id").await;
    let other = SalesDelivery::of(sales(1..2), warehouse.now()).to_json();
    is_problem(warehouse.signed(&body).body(other.to_vec()).send().await.unwrap(), 401, "signature").await;
    // nothing that is overheard and sent again later
    let overheard = warehouse.signed(&other).body(other.to_vec());
    *warehouse.now.lock().unwrap() += SignedDuration::from_secs(301);
    is_problem(overheard.send().await.unwrap(), 401, "five minutes").await;
    holds(&postgres.client().await, &sales(0..1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_refused_and_harm_nobody() {
    let postgres = Postgres::start();
    let warehouse = Warehouse::open(&postgres.url()).await;
    let gzipped =
        |body: Vec<u8>| warehouse.signed(&body).header("content-encoding", "gzip").body(gzip(&body)).send();
    // too large: inflated, and as it travels
    is_problem(gzipped(vec![b' '; 64 * 1024 * 1024]).await.unwrap(), 413, "8388608").await;
    let plain = vec![b' '; 1024 * 1024 + 1];
    is_problem(warehouse.signed(&plain).body(plain).send().await.unwrap(), 413, "1048576").await;
    // not what it says it is
    let post =
        |coding: &'static str| warehouse.signed(b"{}").header("content-encoding", coding).body("{}").send();
    is_problem(post("gzip").await.unwrap(), 400, "gzip").await;
    is_problem(post("br").await.unwrap(), 415, "gzip").await;
    is_problem(warehouse.signed(b"{}").body("{}").send().await.unwrap(), 400, "column 2").await;
    // values the database cannot hold: the place is told, the value is not
    let delivery =
        String::from_utf8(SalesDelivery::of(sales(1..3), warehouse.now()).to_json().to_vec()).unwrap();
    let huge = "9".repeat(21);
    for (from, to, says) in [
        ("\"2.02\"", format!("\"{huge}\""), "data.sales[1].lines[1].gross_turnover"),
        ("\"2.02\"", format!("\"{}\"", "9".repeat(5000)), "column"),
        ("\"2.02\"", "1e999".into(), "column"),
        ("\"2.02\"", "\"NaN\"".into(), "column"),
        ("till-1", "till\\u0000".into(), "data.sales[0].till"),
        ("till-1", "\\ud800".into(), "column"),
        ("\"seq\":2", "\"seq\":18446744073709551616".into(), "column"),
        ("{\"type\"", format!("{}{{\"type\"", "[".repeat(100_000)), "column"),
    ] {
        assert!(delivery.contains(from), "{from}");
        let answer = gzipped(delivery.replace(from, &to).into_bytes()).await.unwrap();
        let text = format!("{:?}", answer.headers());
        assert!(!text.contains(&huge));
        is_problem(answer, 400, says).await;
    }
    is_problem(warehouse.post("/elsewhere").send().await.unwrap(), 404, "POST /sales").await;
    is_problem(reqwest::get(format!("{}/sales", warehouse.url)).await.unwrap(), 405, "POST /sales").await;
    // then it is as if nothing had been
    assert_eq!(warehouse.deliver(&sales(1..3)).await.status(), 204);
    holds(&postgres.client().await, &sales(1..3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_fails_alone() {
    let postgres = Postgres::start();
    let warehouse = Arc::new(Warehouse::open(&postgres.url()).await);
    assert_eq!(warehouse.deliver(&sales(0..1)).await.status(), 204);
    // given a rule of the database's own
    let client = postgres.client().await;
    client
        .batch_execute("alter table fact_sale_line add constraint no_seven check (seq <> 7)")
        .await
        .unwrap();
    // and deliveries that wait for each other, so that they share a transaction
    client.batch_execute("begin; lock table fact_sale_line").await.unwrap();
    let deliver = |n| {
        let warehouse = Arc::clone(&warehouse);
        tokio::spawn(async move { (n, warehouse.deliver(&[sale(n)]).await) })
    };
    let deliveries: Vec<_> = (1..20).map(deliver).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.batch_execute("commit").await.unwrap();
    // then only the one is refused, by the rule's name and without its row
    for delivery in deliveries {
        let (n, answer) = delivery.await.unwrap();
        if n == 7 {
            let text = answer.text().await.unwrap();
            assert!(text.contains("no_seven") && !text.contains("AMIS1"), "{text}");
        } else {
            assert_eq!(answer.status(), 204, "{n}");
        }
    }
    let others: Vec<_> = (0..20).filter(|n| *n != 7).map(sale).collect();
    holds(&client, &others).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_is_waited_for() {
    let mut postgres = Postgres::start();
    postgres.stop();
    // given a receiver that starts before its database
    let warehouse = Arc::new(Warehouse::open(&postgres.url()).await);
    let answer = warehouse.deliver(&sales(0..10)).await;
    assert_eq!(answer.headers()["retry-after"], "5");
    is_problem(answer, 503, "away").await;
    postgres.resume();
    assert_eq!(at_once(&warehouse, 0..160).await, [204; 16]);
    // when it goes away under the open connections
    postgres.stop();
    assert_eq!(at_once(&warehouse, 160..320).await, [503; 16]);
    assert_eq!(at_once(&warehouse, 160..320).await, [503; 16]);
    postgres.resume();
    assert_eq!(at_once(&warehouse, 160..320).await, [204; 16]);
    // or comes back before anything was sent
    postgres.stop();
    postgres.resume();
    assert_eq!(at_once(&warehouse, 320..480).await, [204; 16]);
    holds(&postgres.client().await, &sales(0..480)).await;
}

/// Delivers ten sales each, side by side.
async fn at_once(warehouse: &Arc<Warehouse>, numbers: std::ops::Range<i64>) -> Vec<u16> {
    let deliver = |from| {
        let warehouse = Arc::clone(warehouse);
        async move { warehouse.deliver(&sales(from..from + 10)).await.status().as_u16() }
    };
    futures::future::join_all(numbers.step_by(10).map(deliver)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_a_newer_kassa_is_left_alone() {
    let postgres = Postgres::start();
    let warehouse = Warehouse::open(&postgres.url()).await;
    assert_eq!(warehouse.deliver(&sales(0..1)).await.status(), 204);
    warehouse.close().await;
    let client = postgres.client().await;
    client.batch_execute("insert into kassa_schema values (99, now())").await.unwrap();
    let warehouse = Warehouse::open(&postgres.url()).await;
    is_problem(warehouse.deliver(&sales(1..2)).await, 503, "version 99, newer").await;
    holds(&client, &sales(0..1)).await;
}

/// Runs the reference library of Standard Webhooks.
fn reference(body: &[u8], args: &[&str]) -> std::process::Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "there is no .venv; `make setup` makes it");
    let mut command = Command::new(python);
    command.arg(root.join("tests/clients/webhook.py")).args(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), body).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_those_of_the_reference_library() {
    let postgres = Postgres::start();
    let warehouse = Warehouse::open(&postgres.url()).await;
    let now = jiff::Timestamp::now();
    *warehouse.now.lock().unwrap() = now;
    let second = now.as_second().to_string();
    let mut with_text = sale(1);
    with_text.till = Some("kassa één ☕".into());
    let body = SalesDelivery::of(vec![with_text.clone()], now).to_json();
    // it verifies ours, and nothing else
    let ours = sign("msg_ü", now, &body, &[NEXT_SECRET.parse().unwrap(), SECRET.parse().unwrap()]);
    for secret in [SECRET, NEXT_SECRET] {
        let verified = reference(&body, &["verify", secret, "msg_ü", &second, &ours]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
    assert!(!reference(&body[1..], &["verify", SECRET, "msg_ü", &second, &ours]).status.success());
    // we verify its
    let theirs = reference(&body, &["sign", SECRET, "msg_1", &second]);
    let mut request = warehouse.signed(&body).body(body.to_vec()).build().unwrap();
    let theirs = String::from_utf8(theirs.stdout).unwrap();
    request.headers_mut().insert(SIGNATURE, theirs.trim().parse().unwrap());
    assert_eq!(reqwest::Client::new().execute(request).await.unwrap().status(), 204);
    holds(&postgres.client().await, &[with_text]).await;
}

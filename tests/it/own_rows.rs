//! At most 1,000 items that nobody declared have rows of their own; the rest share one, the same ones whoever adds up in
//! whatever order, and not a cent is lost.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use kassa::embedded::SHARD;
use kassa_bus::amount::Amount;
use kassa_bus::{Clock, Line, Metrics, Subscriber, Totals};
use kassa_pipeline::event::{Event, Fact, Recorded};
use kassa_pipeline::own_rows::{OWN_ROWS, RowSums};
use kassa_pipeline::posting::{Position, RowKey, Sequence, Sums, postings};
use kassa_pipeline::project::Project;
use kassa_pipeline::read_model::DeclaredItem;
use kassa_pipeline::row::ReadRow;
use serde_json::json;

use crate::common::process::{Up, accepted, json, kassa};
use crate::common::world::{NOON, World, content, uuid};
use crate::rows::page;

/// Record type, number and turnover of every row that has any.
type Figures = BTreeMap<String, (Amount, Amount)>;

fn figures(rows: impl IntoIterator<Item = ReadRow>) -> Figures {
    let of = rows.into_iter().map(|row| match row {
        ReadRow::Item(row) => (row.record_type, (row.gross_number, row.gross_turnover)),
        ReadRow::Day(row) => (row.record_type, (row.sales, row.turnover)),
    });
    of.filter(|(_, (number, _))| *number != Amount::ZERO).collect()
}

impl World {
    async fn figures(&self) -> Figures {
        figures(self.questions.stock(Some("AMIS1")).await.unwrap().rows)
    }

    /// Sells one of each of these items.
    async fn sells_each(&self, id: i64, items: impl Iterator<Item = u64>) {
        let items: Vec<String> = items.map(|item| item.to_string()).collect();
        let lines: Vec<(&str, &str, &str)> = items.iter().map(|item| (item.as_str(), "1", "1.01")).collect();
        let body = self.sealed(&uuid(id), &lines).await;
        assert_eq!(self.posts(body).await.status, 202);
        self.settle().await;
    }
}

fn undeclared(figures: &Figures) -> usize {
    figures.keys().filter(|row| row.starts_with("s-9")).count()
}

/// What all rows of items add up to.
fn turnover(figures: &Figures) -> Amount {
    let items = figures.iter().filter(|(row, _)| row.starts_with("s-"));
    items.map(|(_, (_, turnover))| *turnover).sum::<kassa_bus::amount::Total>().amount().unwrap()
}

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_thousand_undeclared_items_have_rows_the_rest_share_one_and_a_rebuild_gives_the_same() {
    // given as many undeclared items as may have rows, from the middle of the numbers, and one that is declared
    let world = World::open().await;
    world.sells_each(1, (0..OWN_ROWS as u64).map(|n| 9_500_000 + n)).await;
    world.sells_each(2, [98].into_iter()).await;
    let full = world.figures().await;
    assert_eq!((undeclared(&full), full.get("s-other")), (OWN_ROWS, None));

    // when more are sold, with larger numbers and with smaller ones, and some again that lost their rows
    world.sells_each(3, (0..300).map(|n| 9_700_000 + n)).await;
    world.sells_each(4, (0..150).rev().map(|n| 9_300_000 + n)).await;
    world.sells_each(5, (900..OWN_ROWS as u64).map(|n| 9_500_000 + n)).await;

    // then there are as many rows as before and one more, which add up to what was sold
    let live = world.figures().await;
    assert_eq!(undeclared(&live), OWN_ROWS);
    // 300 that came too late, and the 150 largest of before, of which 100 were sold twice
    assert_eq!(live["s-other"], (amount("550"), amount("555.5")));
    assert_eq!(live["s-00098"].0, amount("1"));
    assert_eq!((turnover(&live), live["d-2026-11-22"].1), (amount("1566.51"), amount("1566.51")));
    world.balanced().await;

    // and a rebuild gives the same, page by page as at once
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    assert_eq!(world.figures().await, live);
    world.balanced().await;

    // when one of those that share a row is declared, it is told that its figures come with a rebuild, and none is lost
    let item = DeclaredItem {
        item_no: "9700007".parse().unwrap(),
        description: "Marmalade".into(),
        price: amount("1.01"),
        opening_stock: amount("10"),
    };
    let (shop, read_model) = ("AMIS1".parse().unwrap(), &world.store.read_model);
    assert!(read_model.declare(&shop, &item).await.unwrap());
    assert!(!read_model.declare(&shop, &item).await.unwrap());
    world.sells_each(6, [9_700_007].into_iter()).await;
    let declared = world.figures().await;
    assert_eq!((declared["s-9700007"].0, declared["s-other"].0), (amount("1"), amount("550")));
    let told = world.questions.check(&|_, _| {}).await.unwrap().mismatches;
    assert!(told.len() == 1 && told[0].starts_with("AMIS1: items were declared"), "{told:?}");
    assert!(read_model.needs_rebuild(std::slice::from_ref(&shop)).await.unwrap());

    // and a rebuild gives it all of its own
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    let rebuilt = world.figures().await;
    assert_eq!((rebuilt["s-9700007"].0, rebuilt["s-other"].0), (amount("2"), amount("549")));
    assert_eq!(turnover(&rebuilt), amount("1567.52"));
    assert!(!read_model.needs_rebuild(&[shop]).await.unwrap());
    world.balanced().await;
}

#[tokio::test]
async fn rows_of_before_there_was_a_limit_are_moved_to_the_one_that_is_shared() {
    // given a shop with more rows than it may have, as were made before
    let world = World::open().await;
    let items = || (0..OWN_ROWS as u64 + 250).map(|n| 9_000_000 + n);
    let lines: Vec<String> = items().map(|item| item.to_string()).collect();
    world.sells_each(1, items()).await;
    let table = &world.store.shops();
    let old = table.client.delete_item().table_name(&*table.name);
    old.set_key(Some(kassa_bus::shops_table::key("AMIS1", "s-other"))).send().await.unwrap();
    for item in &lines[OWN_ROWS..] {
        let mut row = kassa_bus::shops_table::key("AMIS1", &format!("s-{item}"));
        for (name, value) in [("gross_number", "1"), ("gross_turnover", "1.01"), ("stock", "-1")] {
            row.insert(name.into(), kassa_bus::table::n(value));
        }
        table.put_if(row, "attribute_not_exists(stock)", kassa_bus::table::Item::new()).await.unwrap();
    }
    world.balanced().await;
    let before = turnover(&world.figures().await);

    // when something is sold that nobody declared, by a projection that begins
    let project = project_of(&world);
    world.posts(world.sealed(&uuid(2), &[("9000001", "1", "1.01")]).await).await;
    world.pass_on().await;
    let last = world.stream(0, 50).await.pop().unwrap();
    for verdict in project.handle(&[last]).await {
        verdict.unwrap();
    }

    // then it has as many as it may have, and lost nothing
    let rows = world.figures().await;
    assert_eq!((undeclared(&rows), rows["s-other"].0), (OWN_ROWS, amount("250")));
    assert_eq!(Some(turnover(&rows)), before.checked_add(amount("1.01")));
    world.balanced().await;
}

fn project_of(world: &World) -> Project {
    let store = &world.store;
    Project::new(store.read_model.clone(), store.attention.clone(), Metrics::default(), Clock::system())
}

/// A sale of these items, as it is recorded.
fn recorded(n: usize, items: impl Iterator<Item = u64>) -> Event {
    let lines: Vec<Line> = items
        .map(|item| Line {
            item_no: item.to_string().parse().unwrap(),
            gross_number: amount("1"),
            gross_turnover: amount("0.1"),
        })
        .collect();
    let recorded = Recorded {
        totals: Totals::of(&lines).unwrap(),
        lines,
        business_date: "2026-11-22".parse().unwrap(),
        till: None,
        seq: None,
        sold_at: None,
        decrypted_at: None,
        dated: None,
        attempt: None,
        opened_with: None,
        key: None,
        signed_by: None,
        content: String::new(),
        envelope: String::new(),
    };
    Event {
        shop_id: "AMIS1".parse().unwrap(),
        sale_id: uuid(i64::try_from(n).unwrap()).parse().unwrap(),
        at: NOON.parse::<Timestamp>().unwrap(),
        trace: None,
        fact: Fact::Recorded(recorded),
    }
}

#[tokio::test]
async fn projections_of_several_shards_in_any_order_and_cut_end_with_the_rows_of_all_events() {
    for seed in 1u64..3 {
        // given sales of some 1,500 items that nobody declared, and of one that somebody did
        let world = World::open().await;
        let number = |n: u64| 9_000_000 + ((n % 1_700 + 1) * (seed * 2 + 1) * 0x9E37_79B9) % 2_609;
        let sales: Vec<Event> =
            (0..8).map(|n| recorded(n, (0..200).map(|i| number(n as u64 * 200 + i)).chain([98]))).collect();
        let mut all = RowSums::new([("AMIS1".parse().unwrap(), [("98".parse().unwrap())].into())]);
        for event in &sales {
            let Fact::Recorded(sale) = &event.fact else { unreachable!() };
            all.add(postings(&event.shop_id, event.at, sale));
        }

        // when two projections take them, each what its shard brings, some of it again, and neither knowing of the other
        let project = || project_of(&world);
        let shards = [("even", project()), ("odd", project())];
        let message = |n: usize, shard: &str| sales[n].to_stored().into_message((n + 1).to_string(), shard);
        let order: Vec<usize> = if seed % 2 == 0 { (0..8).rev().collect() } else { (0..8).collect() };
        for turn in 0usize..4 {
            for (lane, (shard, project)) in shards.iter().enumerate() {
                // A shard is in order; which sales are in it is not.
                let mut of: Vec<usize> = order[lane * 4..][..4].to_vec();
                of.sort_unstable();
                let batch: Vec<_> =
                    of[turn.saturating_sub(1)..=turn].iter().map(|n| message(*n, shard)).collect();
                for verdict in project.handle(&batch).await {
                    verdict.unwrap();
                }
            }
        }

        // then the rows are those of all sales
        let expected: Figures = all
            .sums
            .iter()
            .map(|(RowKey { row, .. }, sum)| {
                (row.to_string(), (sum.number.amount().unwrap(), sum.turnover.amount().unwrap()))
            })
            .collect();
        let live = world.figures().await;
        assert_eq!(undeclared(&live), OWN_ROWS, "seed {seed}");
        assert!(live == expected, "seed {seed}: {:?}", live.iter().zip(&expected).find(|(a, b)| a != b));
    }
}

#[tokio::test]
async fn a_check_ends_while_sales_flow_and_names_what_is_wrong_all_the_same() {
    // given many rows, and recorded sales of some of them that were not projected
    let world = World::open().await;
    let items = || (0..OWN_ROWS as u64).map(|n| 9_500_000 + n);
    world.sells_each(1, items()).await;
    for id in 2..122 {
        let (a, b) = ((9_500_000 + id % 700).to_string(), (9_500_000 + id % 9).to_string());
        let lines = [("98", "1", "18.95"), (&*a, "1", "1"), (&*b, "2", "2")];
        let body = content(&uuid(id), NOON, &lines);
        let sealed = world.seal_for("AMIS1", "AMIS1", &uuid(id), &body).await;
        assert_eq!(world.posts(sealed).await.status, 202);
    }
    world.pass_on().await;
    let waiting = world.stream(1, 1000).await;
    let read_model = &world.store.read_model;
    let flow = async {
        for message in &waiting {
            for verdict in world.project_batch(std::slice::from_ref(message)).await {
                verdict.unwrap();
            }
        }
        // And on and on, of events that touch no row.
        loop {
            let from = read_model.checkpoint(SHARD).await.unwrap();
            let Position { sequence, .. } = from.position().unwrap().unwrap();
            let next = Sequence((sequence.0.parse::<u64>().unwrap() + 1).to_string());
            let to = Position { sequence: next, partial: None };
            read_model
                .step(SHARD, (&from, &to), &Sums::new(), &HashMap::new(), Timestamp::now())
                .await
                .unwrap();
        }
    };
    let check = async {
        let check = world.questions.check(&|_, _| {}).await.unwrap();
        assert_eq!((check.recorded, check.pending, check.mismatches), (121, 0, Vec::new()));

        // and a row that is wrong is named also while others move
        let table = &world.store.shops();
        let update = table.client.update_item().table_name(&*table.name);
        let update = update.set_key(Some(kassa_bus::shops_table::key("AMIS1", "s-9500123")));
        let update = update.update_expression("ADD gross_turnover :cent");
        update.expression_attribute_values(":cent", kassa_bus::table::n("0.01")).send().await.unwrap();
        let told = world.questions.check(&|_, _| {}).await.unwrap().mismatches;
        assert!(told.len() == 1 && told[0].starts_with("AMIS1 s-9500123: gross_turnover"), "{told:?}");
    };
    // then it ends all the same, and finds what is wrong
    tokio::select! {
        () = check => {}
        () = flow => {}
        () = tokio::time::sleep(Duration::from_mins(2)) => panic!("check waits until nothing is projected"),
    }
}

#[test]
fn pages_and_answers_show_some_of_many_rows_and_say_how_many_there_are() {
    // given a shop that sold 2,000 items that nobody declared
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    let line = |n: u64| json!({"item_no": (9_000_000 + n).to_string(), "gross_number": "1", "gross_turnover": "0.1"});
    let file = folder.path().join("sale.json");
    std::fs::write(&file, json!({"sales": (0..2000).map(line).collect::<Vec<_>>()}).to_string()).unwrap();
    accepted(&kassa(&[
        "sell",
        "--shop",
        "AMIS1",
        "--url",
        &up.url,
        "--file",
        file.to_str().unwrap(),
        "--json",
    ]));
    up.settled();

    // then its page shows some of them, the command all that have rows, page by page, and both what the rest is
    let (status, html) = page(&up, "/stock/AMIS1");
    assert_eq!(
        (status, html.contains("1006 items"), html.len() < 100_000),
        (200, true, true),
        "{}",
        html.len()
    );
    let (_, html) = page(&up, "/stock/AMIS1?q=other");
    assert!(html.contains("1 item") && html.contains("all other items"), "{html}");
    let rows = json(&["stock", "--shop", "AMIS1", "--json", "--data", data]);
    let rows = rows.as_array().unwrap();
    let other = rows.iter().find(|row| row["record_type"] == "s-other").unwrap();
    assert_eq!((&other["gross_number"], rows.len()), (&json!("1000"), 1007));
    let text = kassa(&["stock", "--data", data]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("(all other items)") && text.contains("\nAMIS2\n"), "{text}");
    assert!(json(&["check", "--json", "--data", data])["mismatches"].as_array().unwrap().is_empty());
}

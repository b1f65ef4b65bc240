//! What the shop says of itself, wherever it is, and what must hold of that.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use kassa::questions::ShownEvent;
use serde_json::Value;
use tokio_postgres::Client;

use super::strangers::{Answered, Due, MARKS};
use super::tills::SHOP;
use crate::common::road::{loaded, recorded_lines};

/// Within this, everything must have come right once all is well.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Asks the shop: makes a command of its arguments, which knows where the shop is.
pub trait Asked {
    fn command(&self, args: &[&str]) -> Command;

    fn run(&self, args: &[&str]) -> Output {
        tokio::task::block_in_place(|| self.command(args).output().unwrap())
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        // A check that finds something says so and exits with 1.
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
    }

    /// Every event there is.
    fn events(&self) -> Vec<ShownEvent> {
        let of = |shop| self.run(&["events", "--shop", shop]).stdout;
        let all = ["AMIS1", "AMIS2"].map(of).concat();
        serde_json::Deserializer::from_slice(&all).into_iter().map(Result::unwrap).collect()
    }

    fn dead_letters(&self) -> u64 {
        let queues = self.json(&["dead-letters"]);
        queues.as_array().unwrap().iter().map(|queue| queue["letters"].as_u64().unwrap()).sum()
    }

    /// Whether the books balance with nothing on its way, and the warehouse has as many sales; and how it stands.
    async fn come_right(&self, warehouse: &Client) -> (bool, u64, String) {
        let (check, letters) = (self.json(&["check"]), self.dead_letters());
        let count = "select count(distinct (shop_key, sale_id)) from fact_sale_line";
        let there: i64 = warehouse.query_one(count, &[]).await.unwrap().get(0);
        let balanced = check["mismatches"] == Value::Array(Vec::new());
        let pending = check["pending"].as_u64().unwrap();
        let right = balanced && pending == 0 && letters == 0 && check["recorded"] == there;
        (right, pending, format!("{check}, {letters} dead letters, {there} in the warehouse"))
    }
}

/// What became of sales.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ends {
    pub recorded: u64,
    pub rejected: u64,
}

/// What was promised of a shop that has come right, after tills rang up so many, and all of these were answered yes.
pub async fn hold(shop: &impl Asked, rung_up: u64, answered: &[Answered], warehouse: &Client) -> Ends {
    let events = shop.events();
    let mut ends: BTreeMap<String, Vec<(Due, &str)>> = BTreeMap::new();
    let mut envelopes: BTreeMap<String, usize> = BTreeMap::new();
    for event in &events {
        let of_sale = ends.entry(event.sale_id.to_string()).or_default();
        match event.kind.as_str() {
            "recorded" => of_sale.push((Due::Recorded, "")),
            "rejected" => of_sale.push((Due::Rejected, event.body["reason"].as_str().unwrap_or_default())),
            "accepted" => *envelopes.entry(event.sale_id.to_string()).or_default() += 1,
            _ => {}
        }
    }
    // each sale that was answered yes has the end that is due, once
    for Answered { sale_ids, due } in answered {
        let ends: Vec<_> = sale_ids.iter().filter_map(|sale_id| ends.get(sale_id)).flatten().collect();
        assert_eq!(
            ends.iter().filter(|(end, _)| end == due).count(),
            1,
            "one of {sale_ids:?} is due {due:?}: {ends:?}"
        );
    }
    // and all that was rung up is recorded, and nothing else, where nobody else sells
    let of_tills = events.iter().filter(|event| event.kind == "recorded" && event.shop_id.as_str() == SHOP);
    assert_eq!(of_tills.count() as u64, rung_up, "recorded of what was rung up");
    // and so has each that came without its answer; a rejection has a reason
    for (sale_id, ends) in &ends {
        assert!((1..=envelopes[sale_id]).contains(&ends.len()), "{sale_id}: {ends:?}");
        let recorded = ends.iter().filter(|(end, _)| *end == Due::Recorded).count();
        assert!(recorded <= 1, "{sale_id}: {ends:?}");
        assert!(
            ends.iter().all(|(end, reason)| *end == Due::Recorded || !reason.is_empty()),
            "{sale_id}: {ends:?}"
        );
    }
    // and the warehouse has the same, line by line
    assert!(
        loaded(warehouse).await == recorded_lines(&events),
        "the warehouse has other lines than the shop"
    );
    let count = |due| ends.values().flatten().filter(|(end, _)| *end == due).count() as u64;
    Ends { recorded: count(Due::Recorded), rejected: count(Due::Rejected) }
}

/// Nobody wrote of what was sold.
#[track_caller]
pub fn say_nothing_of_a_sale(said: &[u8]) {
    let said = String::from_utf8_lossy(said);
    for mark in MARKS {
        assert_eq!(said.lines().find(|line| line.contains(mark)), None, "{mark}");
    }
}

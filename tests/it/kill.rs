//! The shop is killed, at any moment, over and over: nothing that was answered "yes" is lost, and
//! nothing counts twice.
//!
//! `KASSA_KILL_ROUNDS=300 cargo nextest run --release --all-features --test it kill::` runs more rounds than the usual ten,
//! and `KASSA_KILL_SEED` repeats a run's moments.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kassa::till::{Format, Till};
use kassa_bus::amount::Amount;
use kassa_bus::{Clock, Line};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::common::process::{Up, json, kassa};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn a_line() -> Vec<Line> {
    vec![Line {
        item_no: "98".parse().unwrap(),
        gross_number: Amount::from(1),
        gross_turnover: "18.95".parse().unwrap(),
    }]
}

/// Sells until the shop dies, and notes each sale that was answered yes.
async fn sell_until_killed(till: Till, yes: Arc<Mutex<HashSet<String>>>) {
    while let Ok(sale) = till.ring_up(a_line()).await {
        match till.post(&sale).await {
            Ok(_) => yes.lock().unwrap().insert(sale.sale_id.to_string()),
            Err(_) => return,
        };
    }
}

#[test]
fn killed_at_any_moment_nothing_answered_is_lost_or_doubled() {
    let rounds = setting("KASSA_KILL_ROUNDS", 10);
    let seed = setting("KASSA_KILL_SEED", rand::random());
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let yes: Arc<Mutex<HashSet<String>>> = Arc::default();
    for round in 0..rounds {
        let sync = ["full", "normal"][random.random_range(0..2)];
        let up = Up::start_with(folder.path(), &["--sync", sync]);
        for n in 0..12 {
            let format = if n % 4 == 0 { Format::Classic } else { Format::Sealed };
            let mut till =
                Till::new(&up.url, "AMIS1".parse().unwrap(), &format!("till-{n}"), format, Clock::system())
                    .unwrap();
            till.patience = Duration::from_millis(100);
            runtime.spawn(sell_until_killed(till, yes.clone()));
        }
        // Sometimes in the midst of finishing what the last round left.
        std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
        up.kill();
        if round % 5 == 4 || round + 1 == rounds {
            let up = Up::start(folder.path());
            no_sale_pending(data);
            up.settled();
            let answered = yes.lock().unwrap().clone();
            verify(data, &answered);
            println!("round {round}: {} answered so far", answered.len());
            // Killed while idle as well.
            up.kill();
        }
    }
    assert!(!yes.lock().unwrap().is_empty(), "no sale was ever answered");
    println!("{rounds} rounds, {} sales answered, 0 lost, 0 doubled", yes.lock().unwrap().len());
}

fn no_sale_pending(data: &str) {
    for _ in 0..600 {
        if json(&["check", "--json", "--data", data])["pending"] == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("sales are pending a minute after the shop opened again");
}

fn verify(data: &str, answered: &HashSet<String>) {
    let check = json(&["check", "--json", "--data", data]);
    assert_eq!(check["mismatches"], Value::Array(Vec::new()));
    assert_eq!((&check["pending"], &check["rejected"]), (&0.into(), &0.into()));
    let mut recorded: HashMap<String, u32> = HashMap::new();
    for line in
        String::from_utf8(kassa(&["events", "--shop", "AMIS1", "--data", data]).stdout).unwrap().lines()
    {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["kind"] == "recorded" {
            *recorded.entry(event["sale_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    let lost: Vec<_> = answered.iter().filter(|id| !recorded.contains_key(*id)).collect();
    assert_eq!(lost, Vec::<&String>::new(), "answered and not recorded");
    assert!(recorded.values().all(|times| *times == 1), "recorded more than once");
    let rows = json(&["stock", "--shop", "AMIS1", "--json", "--data", data]);
    let sold = rows.as_array().unwrap().iter().find(|row| row["record_type"] == "s-00098").unwrap();
    assert_eq!(sold["gross_number"], recorded.len().to_string());
}

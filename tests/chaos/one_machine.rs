//! A round over the shop on one machine: the real command, tills that keep journals, strangers, and a warehouse.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kassa::embedded::{Store, Sync};
use kassa::questions::ShownEvent;
use kassa::till::journal::{Entry, journals, read};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::line::{self, Line};
use crate::machine::Machine;
use crate::plan::{Ending, Fault, Round};
use crate::postgres::Postgres;
use crate::process::{Up, command, json, kassa};
use crate::road::{Receiving, Road, loaded, recorded};
use crate::strangers::{self, Answered, Due, MARKS};
use crate::tally::Tally;
use crate::warehouse::{SECRET, delivery, sales};

/// What all rounds have in common: a warehouse, and a shop as it is before it has sold anything.
pub struct Premises {
    receiver: Receiving,
    road: Road,
    client: Client,
    postgres: Postgres,
    new: TempDir,
}

/// The tills that keep journals. The first signs.
const TILLS: [(&str, &str, &str); 2] = [("AMIS1", "till-1", "sealed"), ("AMIS2", "till-2", "classic")];

/// In a minute everything must have come right.
const PATIENCE: Duration = Duration::from_mins(1);

impl Premises {
    pub async fn new() -> Self {
        let postgres = Postgres::start();
        let receiver = Receiving::start(&postgres.url());
        let road = Road::to(&receiver.url).await;
        let client = postgres.client().await;
        // It makes its tables when it first takes something.
        let first = delivery(&reqwest::Client::new(), &receiver.url, &sales(0..1), Timestamp::now());
        assert!(first.send().await.unwrap().status().is_success());
        let new = tempfile::tempdir().unwrap();
        let (shop, tills) = (new.path().join("shop"), new.path().join("tills"));
        let up = Up::start(&shop);
        let (shop, tills) = (shop.to_str().unwrap(), tills.to_str().unwrap());
        json(&[
            "till", "enroll", "--shop", "AMIS1", "--till", "till-1", "--folder", tills, "--data", shop,
            "--json",
        ]);
        up.kill();
        Self { receiver, road, client, postgres, new }
    }

    /// Plays a round, and panics if anything that was promised does not hold at its end.
    pub async fn play(&mut self, seed: u64, tally: &mut Tally) {
        let round = Round::of(seed);
        self.road.clear();
        self.client.batch_execute("truncate fact_sale_line").await.unwrap();
        let mut trade = Trade::opens(self, seed).await;
        let strangers = tokio::spawn(strangers::post(trade.line.url.clone(), seed, round.sales / 2));
        trade.tills_sell(round.sales);
        trade.suffers(&round, self, tally).await;
        let answered = strangers.await.unwrap();
        trade.recovers(round.ending, self, tally).await;
        trade.holds(&answered, &self.client, tally).await;
        tally.count("= deliveries to the warehouse that met a fault", self.road.met());
    }
}

/// One round's shop and its tills.
struct Trade {
    seed: u64,
    chance: StdRng,
    folder: TempDir,
    /// The shop's, and the tills'.
    machine: Machine,
    tills_machine: Machine,
    line: Line,
    up: Option<Up>,
    settings: Vec<String>,
    /// By the till's place.
    selling: Vec<(usize, Child)>,
    asking: Vec<Child>,
    sales: u32,
    /// What programs wrote.
    logs: Vec<Arc<Mutex<Vec<u8>>>>,
    said: Vec<u8>,
}

impl Trade {
    async fn opens(premises: &Premises, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let from = format!("{}/.", premises.new.path().display());
        let copied = Command::new("cp").args(["-a", &from]).arg(folder.path()).status().unwrap();
        assert!(copied.success());
        let settings = [
            format!("WAREHOUSE_URL={}", premises.road.url),
            format!("WAREHOUSE_SECRET={SECRET}"),
            "WAREHOUSE_ALLOW_HTTP=true".into(),
            "WAREHOUSE_ALLOW_PRIVATE=true".into(),
            "WAREHOUSE_TIMEOUT=300ms".into(),
            "MINUTE=200ms".into(),
        ];
        let mut trade = Self {
            seed,
            chance: StdRng::seed_from_u64(seed),
            machine: Machine::new(&folder.path().join("machine")),
            tills_machine: Machine::new(&folder.path().join("tills-machine")),
            folder,
            line: Line::lay("127.0.0.1:9".parse().unwrap()).await,
            up: None,
            settings: settings.into(),
            selling: Vec::new(),
            asking: Vec::new(),
            sales: 0,
            logs: Vec::new(),
            said: Vec::new(),
        };
        trade.reopens();
        trade
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("shop")
    }

    fn tills(&self) -> PathBuf {
        self.folder.path().join("tills")
    }

    fn reopens(&mut self) {
        self.up.take().map(Up::kill);
        // Where there is no room a shop does not open, and says so; somebody makes some.
        self.machine.full(false);
        let data = self.data();
        let mut args = vec!["up", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        args.extend(self.settings.iter().flat_map(|setting| ["--set", setting]));
        let mut command = command(&args);
        self.machine.runs(command.env("RUST_LOG", "debug"));
        let up = tokio::task::block_in_place(|| Up::spawn(&mut command));
        let address: SocketAddr = up.url.strip_prefix("http://").unwrap().parse().unwrap();
        self.logs.push(up.log.clone());
        self.said.extend(up.printed.concat().bytes());
        self.line.leads_to(address);
        self.up = Some(up);
    }

    fn signals(&self, signal: &str) {
        let pid = self.up.as_ref().unwrap().pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn tills_sell(&mut self, sales: u32) {
        self.sales = sales;
        for place in 0..TILLS.len() {
            let till = self.till_sells(place);
            self.selling.push((place, till));
        }
    }

    fn till_sells(&self, place: usize) -> Child {
        let (shop, till, format) = TILLS[place];
        let (tills, count) = (self.tills(), self.sales.to_string());
        let mut command = command(&[
            "sell",
            "--url",
            &self.line.url,
            "--shop",
            shop,
            "--till",
            till,
            "--format",
            format,
            "--count",
            &count,
            "--rate",
            "40",
            "--concurrency",
            "4",
            "--patience",
            "1",
            "--json",
            "--folder",
            tills.to_str().unwrap(),
        ]);
        self.tills_machine.runs(&mut command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Everything the round has in store, in its time.
    async fn suffers(&mut self, round: &Round, premises: &mut Premises, tally: &mut Tally) {
        let begun = Instant::now();
        let mut from = Duration::ZERO;
        let mut moments: Vec<(Duration, Fault, bool)> = Vec::new();
        for step in &round.steps {
            from += step.after;
            moments.push((from, step.fault, true));
            moments.push((from + step.lasts, step.fault, false));
        }
        moments.sort_by_key(|(at, ..)| *at);
        for (at, fault, begins) in moments {
            tokio::time::sleep(at.saturating_sub(begun.elapsed())).await;
            if begins {
                tally.count(fault.name(), 1);
                self.begins(fault, premises, tally).await;
            } else {
                self.ends(fault);
            }
        }
        // Whoever still sells does so in peace.
        let selling = std::mem::take(&mut self.selling).into_iter().map(|(_, till)| till);
        for mut child in selling.chain(std::mem::take(&mut self.asking)) {
            while child.try_wait().unwrap().is_none() {
                assert!(begun.elapsed() < PATIENCE, "seed {}: a command does not end", self.seed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let output = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
            self.said.extend([output.stdout, output.stderr].concat());
        }
    }

    async fn begins(&mut self, fault: Fault, premises: &mut Premises, tally: &mut Tally) {
        match fault {
            Fault::KillShop { requeue } => {
                self.up.take().map(Up::kill);
                if requeue {
                    let shuffled = self.requeue().await;
                    tally.count("= queued messages doubled and shuffled", shuffled);
                }
                self.reopens();
            }
            Fault::FreezeShop => self.signals("-STOP"),
            Fault::SlowDisk => self.machine.slow(Duration::from_millis(self.chance.random_range(5..150))),
            Fault::FullDisk => self.machine.full(true),
            Fault::Clock(by) => self.machine.clock(by),
            Fault::KillTill => {
                let place = self.chance.random_range(0..TILLS.len());
                for (_, till) in self.selling.iter_mut().filter(|(other, _)| *other == place) {
                    let _ = till.kill();
                    let _ = till.wait();
                }
                let again = self.till_sells(place);
                self.selling.push((place, again));
            }
            Fault::FullTill => self.tills_machine.full(true),
            Fault::CutLine => self.line.becomes(line::Is::Cut),
            Fault::LoseAnswers => self.line.becomes(line::Is::Deaf),
            Fault::Warehouse(fault, times) => premises.road.will_be(std::iter::repeat_n(fault, times)),
            Fault::KillWarehouse => {
                premises.receiver.kill();
                premises.receiver =
                    tokio::task::block_in_place(|| Receiving::start(&premises.postgres.url()));
                premises.road.leads_to(&premises.receiver.url);
            }
            // Not waited for: a shop that is frozen answers nobody.
            Fault::Republish => {
                let mut command = command(&["reconcile", "--data", self.data().to_str().unwrap()]);
                let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
                self.asking.push(child);
            }
        }
    }

    fn ends(&self, fault: Fault) {
        match fault {
            Fault::FreezeShop => self.signals("-CONT"),
            Fault::SlowDisk => self.machine.slow(Duration::ZERO),
            Fault::FullDisk => self.machine.full(false),
            Fault::Clock(_) => self.machine.clock(SignedDuration::ZERO),
            Fault::FullTill => self.tills_machine.full(false),
            Fault::CutLine | Fault::LoseAnswers => self.line.becomes(line::Is::Open),
            Fault::KillShop { .. }
            | Fault::KillTill
            | Fault::Warehouse(..)
            | Fault::KillWarehouse
            | Fault::Republish => {}
        }
    }

    /// Everything in the closed shop's queues waits twice, in another order, and some of it for longer.
    async fn requeue(&mut self) -> u64 {
        let store = Store::open(Some(&self.data().join("shop.db")), Sync::Normal).await.unwrap();
        let waiting = store
            .client
            .scan()
            .table_name(&store.tables.queues)
            .send()
            .await
            .unwrap()
            .items
            .unwrap_or_default();
        let mut places: Vec<_> = waiting.iter().map(|row| row["place"].clone()).collect();
        places.shuffle(&mut self.chance);
        for (mut row, place) in waiting.iter().cloned().zip(places) {
            let doubled = format!("{}-again", place.as_s().unwrap());
            row.insert("place".into(), aws_sdk_dynamodb::types::AttributeValue::S(doubled));
            store
                .client
                .put_item()
                .table_name(&store.tables.queues)
                .set_item(Some(row))
                .send()
                .await
                .unwrap();
        }
        waiting.len() as u64
    }

    fn asked(&self, args: &[&str]) -> Value {
        let output = kassa(&[args, &["--json", "--data", self.data().to_str().unwrap()]].concat());
        // A check that finds something says so and exits with 1.
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("seed {}: {args:?}: {output:?}\n{}", self.seed, self.end_of_log()))
    }

    /// All is well again: what is left over comes to its end.
    async fn recovers(&mut self, ending: Ending, premises: &Premises, tally: &mut Tally) {
        self.line.becomes(line::Is::Open);
        premises.road.calm();
        for (shop, till, _) in TILLS {
            let tills = self.tills();
            let drained = tokio::task::block_in_place(|| {
                kassa(&[
                    "till",
                    "drain",
                    "--url",
                    &self.line.url,
                    "--shop",
                    shop,
                    "--till",
                    till,
                    "--patience",
                    "20",
                    "--folder",
                    tills.to_str().unwrap(),
                ])
            });
            assert!(drained.status.success(), "seed {}: {drained:?}\n{}", self.seed, self.end_of_log());
            self.said.extend([drained.stdout, drained.stderr].concat());
        }
        let begun = Instant::now();
        for look in 1.. {
            let check = self.asked(&["check"]);
            let letters: u64 = self.dead_letters();
            let count = "select count(distinct (shop_key, sale_id)) from fact_sale_line";
            let there: i64 = premises.client.query_one(count, &[]).await.unwrap().get(0);
            let balanced = check["pending"] == 0 && check["mismatches"] == Value::Array(Vec::new());
            if balanced && letters == 0 && check["recorded"] == there {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "seed {}: after a minute {check}, {letters} dead letters, {there} in the warehouse\n{}",
                self.seed,
                self.end_of_log()
            );
            if letters > 0 {
                self.asked(&["dead-letters", "redrive"]);
                tally.count("= dead letters sent back", letters);
            }
            self.asked(&["webhook", "--resume"]);
            if check["pending"] != 0 && look % 8 == 0 {
                match ending {
                    Ending::Minutes => {
                        tally.count("= ended by time", 1);
                        self.machine.clock(SignedDuration::from_mins(6 * look / 8));
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        self.machine.clock(SignedDuration::ZERO);
                    }
                    Ending::Reopened => {
                        tally.count("= ended by opening again", 1);
                        self.reopens();
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }

    fn dead_letters(&self) -> u64 {
        let queues = self.asked(&["dead-letters"]);
        queues.as_array().unwrap().iter().map(|queue| queue["letters"].as_u64().unwrap()).sum()
    }

    /// Then what was promised holds.
    async fn holds(mut self, answered: &[Answered], warehouse: &Client, tally: &mut Tally) {
        let seed = self.seed;
        let events = self.events();
        // each sale that is in a till's journal was answered yes, and is recorded
        let (rung_up, refused) = self.journalled();
        assert!(refused.is_empty(), "seed {seed}: refused {refused:?}\n{}", self.end_of_log());
        for sale in &rung_up {
            self.came_to(&events, sale, Due::Recorded);
        }
        // each stranger's that was answered yes is recorded, or was rejected
        for Answered { sale_id, due } in answered {
            self.came_to(&events, sale_id, *due);
        }
        // nobody has two ends
        for (sale, kinds) in &events {
            let ends =
                kinds.iter().filter(|(kind, _)| ["recorded", "rejected"].contains(&kind.as_str())).count();
            assert_eq!(ends, 1, "seed {seed}: {sale}: {kinds:?}");
        }
        // the warehouse has what the shop recorded, line by line
        assert!(
            loaded(warehouse).await == recorded(&self.data()),
            "seed {seed}: the warehouse has other lines"
        );
        // and nobody wrote of what was sold
        let mut said = std::mem::take(&mut self.said);
        self.logs.iter().for_each(|log| said.extend_from_slice(&log.lock().unwrap()));
        let said = String::from_utf8_lossy(&said);
        for mark in MARKS {
            let line = said.lines().find(|line| line.contains(mark));
            assert_eq!(line, None, "seed {seed}");
        }
        let (machine, tills) = (self.machine.done(), self.tills_machine.done());
        let (connections, answers) = self.line.lost();
        let rejected = events.values().flatten().filter(|(kind, _)| kind == "rejected").count() as u64;
        for (what, times) in [
            ("= the shop's writes that found no room", machine.writes),
            ("= the shop's waits for its disk", machine.syncs),
            ("= tills' writes that found no room", tills.writes),
            ("= connections that broke", connections),
            ("= answers that were lost", answers),
            ("sales rung up by tills", rung_up.len() as u64),
            ("strangers' sales answered yes", answered.len() as u64),
            ("sales recorded", events.len() as u64 - rejected),
            ("sales rejected", rejected),
        ] {
            tally.count(what, times);
        }
    }

    #[track_caller]
    fn came_to(&self, events: &Events, sale: &str, due: Due) {
        let kinds = events.get(sale).map(Vec::as_slice).unwrap_or_default();
        let wanted = if due == Due::Recorded { "recorded" } else { "rejected" };
        let ended: Vec<_> = kinds.iter().filter(|(kind, _)| kind == wanted).collect();
        assert_eq!(
            ended.len(),
            1,
            "seed {}: {sale} is not {wanted} once: {kinds:?}\n{}",
            self.seed,
            self.end_of_log()
        );
        assert!(due == Due::Recorded || !ended[0].1.is_empty(), "seed {}: {sale}: no reason", self.seed);
    }

    fn events(&self) -> Events {
        let mut events = Events::new();
        for shop in ["AMIS1", "AMIS2"] {
            let output = kassa(&["events", "--shop", shop, "--data", self.data().to_str().unwrap()]).stdout;
            let all = serde_json::Deserializer::from_slice(&output).into_iter::<ShownEvent>();
            for event in all.map(Result::unwrap) {
                let reason = event.body["reason"].as_str().unwrap_or_default().to_owned();
                events.entry(event.sale_id.to_string()).or_default().push((event.kind, reason));
            }
        }
        events
    }

    /// The numbers of sales in the tills' journals, and what was refused.
    fn journalled(&self) -> (Vec<String>, Vec<String>) {
        let (mut sales, mut refused) = (Vec::new(), Vec::new());
        for (_, folder) in journals(&self.tills()).unwrap() {
            for (_, _, entry) in read(&fs::read(folder.join("journal")).unwrap()).entries {
                match entry {
                    Entry::Sale { sale_id, .. } => sales.push(sale_id.to_string()),
                    Entry::Refused { sale_id, status, detail } => {
                        refused.push(format!("{sale_id}: {status} {detail}"))
                    }
                    Entry::Accepted { .. } => {}
                    // A journal that was written anew has no sale that was answered any more.
                    Entry::Before { journalled, .. } => {
                        assert_eq!(journalled, 0, "more than a journal's worth")
                    }
                }
            }
        }
        (sales, refused)
    }

    fn end_of_log(&self) -> String {
        let log = self.logs.last().map(|log| log.lock().unwrap().clone()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("DEBUG")).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// What became of each sale: kinds of event, and the reasons in them.
type Events = BTreeMap<String, Vec<(String, String)>>;

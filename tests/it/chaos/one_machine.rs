//! A round over the shop on one machine: the real command, tills that keep journals, strangers, and a warehouse.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;
use kassa::embedded::{Store, Sync};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::around::Surroundings;
use super::books::{Asked, PATIENCE, hold, say_nothing_of_a_sale};
use super::depot::Depot;
use super::line::Line;
use super::machine::Machine;
use super::plan::{Ending, Fault, OnOneMachine, Round};
use super::strangers::{self, EXTREMES, SlowClients};
use super::tally::Tally;
use super::tills::{Tills, enrol};
use crate::common::process::{Up, command, json};
use crate::common::warehouse::SECRET;

/// What all rounds have in common: a warehouse, and a shop as it is before it has sold anything.
pub struct Premises {
    depot: Depot,
    new: TempDir,
}

impl Premises {
    pub async fn new() -> Self {
        let new = tempfile::tempdir().unwrap();
        let (shop, tills) = (new.path().join("shop"), new.path().join("tills"));
        let up = Up::start(&shop);
        json(&[&enrol(&tills)[..], &["--data", shop.to_str().unwrap(), "--json"]].concat());
        up.kill();
        Self { depot: Depot::opens().await, new }
    }

    /// Plays a round, and panics if anything that was promised does not hold at its end.
    pub async fn play(&mut self, seed: u64, tally: &mut Tally) {
        let round = Round::<OnOneMachine>::of(seed);
        self.depot.road.clear();
        self.depot.empties().await;
        let mut trade = Trade::opens(self, seed, tally).await;
        let strangers =
            tokio::spawn(strangers::post(trade.around.line.url.clone(), seed, round.sales / 2, &EXTREMES));
        if let Some(fault) = round.lasting {
            tally.count(&fault.name(), 1);
            trade.begins(fault, &mut self.depot, tally).await;
        }
        trade.around.tills.sell(round.sales);
        trade.suffers(&round, &mut self.depot, tally).await;
        let answered = strangers.await.unwrap();
        trade.recovers(round.ending, &self.depot, tally).await;
        let rung_up = trade.around.rung_up();
        let ends = hold(&trade, rung_up, &answered, &self.depot.client).await;
        tally.came_of(rung_up, answered.len(), ends);
        trade.was_silent();
        trade.is_told_of(tally);
        tally.count("= deliveries to the warehouse that met a fault", self.depot.road.met());
    }
}

/// One round's shop and its tills.
struct Trade {
    chance: StdRng,
    folder: TempDir,
    machine: Machine,
    up: Option<Up>,
    settings: Vec<String>,
    around: Surroundings,
    slow: Option<SlowClients>,
    /// What the shop wrote, each time it was open.
    logs: Vec<Arc<Mutex<Vec<u8>>>>,
}

impl Asked for Trade {
    fn command(&self, args: &[&str]) -> Command {
        command(&[args, &["--data", self.data().to_str().unwrap()]].concat())
    }
}

impl Trade {
    async fn opens(premises: &Premises, seed: u64, tally: &mut Tally) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let from = format!("{}/.", premises.new.path().display());
        let copied = Command::new("cp").args(["-a", &from]).arg(folder.path()).status().unwrap();
        assert!(copied.success());
        let settings = [
            format!("WAREHOUSE_URL={}", premises.depot.road.url),
            format!("WAREHOUSE_SECRET={SECRET}"),
            "WAREHOUSE_ALLOW_HTTP=true".into(),
            "WAREHOUSE_ALLOW_PRIVATE=true".into(),
            "WAREHOUSE_TIMEOUT=300ms".into(),
            "MINUTE=200ms".into(),
        ];
        let line = Line::lay().await;
        let tills_machine = Machine::new(&folder.path().join("tills-machine"));
        let tills = Tills::new(folder.path().join("tills"), &line.url, tills_machine);
        let mut trade = Self {
            chance: StdRng::seed_from_u64(seed),
            machine: Machine::new(&folder.path().join("machine")),
            around: Surroundings::new(tills, line),
            folder,
            slow: None,
            up: None,
            settings: settings.into(),
            logs: Vec::new(),
        };
        let is_new = trade.chance.random_bool(0.25);
        if is_new {
            tally.count("shop killed while it first opened", trade.is_new());
        }
        trade.reopens();
        if is_new {
            let tills = trade.folder.path().join("tills");
            assert!(trade.run(&enrol(&tills)).status.success());
        }
        trade
    }

    /// The shop is one that was killed while it opened for the first time, more than once. Says how often.
    fn is_new(&mut self) -> u64 {
        std::fs::remove_dir_all(self.data()).unwrap();
        let mut killed = 0;
        for _ in 0..self.chance.random_range(1..4) {
            let machine = Machine::new(&self.folder.path().join("first-machine"));
            machine.dies_at(self.chance.random_range(1..200));
            let mut command = self.opening();
            machine.runs(&mut command);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            killed += u64::from(!lines.map_while(Result::ok).any(|line| line.starts_with("Ctrl-C")));
            let _ = child.kill();
            child.wait().unwrap();
        }
        killed
    }

    fn opening(&self) -> Command {
        let mut args = vec!["up", "--listen", "127.0.0.1:0"];
        args.extend(self.settings.iter().flat_map(|setting| ["--set", setting]));
        Asked::command(self, &args)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("shop")
    }

    fn reopens(&mut self) {
        // `kill -9`, if it is open.
        self.up = None;
        // Where there is no room a shop does not open, and says so; somebody makes some.
        self.machine.full(false);
        let mut command = self.opening();
        self.machine.runs(command.env("RUST_LOG", "debug"));
        let up = tokio::task::block_in_place(|| Up::spawn(&mut command));
        self.logs.push(up.log.clone());
        self.around.said.extend(up.printed.concat().bytes());
        self.up = Some(up);
        self.around.line.leads_to(self.address());
    }

    /// Where the shop listens now.
    fn address(&self) -> SocketAddr {
        self.up.as_ref().unwrap().url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    fn signals(&self, signal: &str) {
        let pid = self.up.as_ref().unwrap().pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Everything the round has in store, in its time.
    async fn suffers(&mut self, round: &Round<OnOneMachine>, depot: &mut Depot, tally: &mut Tally) {
        let begun = Instant::now();
        for (at, fault, begins) in round.moments() {
            tokio::time::sleep(at.saturating_sub(begun.elapsed())).await;
            if begins {
                tally.count(&fault.name(), 1);
                self.begins(fault, depot, tally).await;
            } else {
                self.ends(fault);
            }
        }
        // Whoever still sells does so in peace.
        self.around.ended().await;
        if let Some(fault) = round.lasting {
            self.ends(fault);
        }
    }

    async fn begins(&mut self, fault: OnOneMachine, depot: &mut Depot, tally: &mut Tally) {
        match fault {
            OnOneMachine::KillShop { requeue } => {
                self.up = None;
                if requeue {
                    let shuffled = self.requeue().await;
                    tally.count("= queued messages doubled and shuffled", shuffled);
                }
                self.reopens();
            }
            OnOneMachine::FreezeShop => self.signals("-STOP"),
            OnOneMachine::SlowDisk => {
                self.machine.slow(Duration::from_millis(self.chance.random_range(5..150)));
            }
            OnOneMachine::FullDisk => self.machine.full(true),
            OnOneMachine::Clock(by) => self.machine.clock(by),
            // Not waited for: a shop that is frozen answers nobody.
            OnOneMachine::Republish => self.around.asks(self.command(&["reconcile"])),
            OnOneMachine::SlowClients => self.slow = Some(SlowClients::of(self.address())),
            OnOneMachine::Backup => tokio::task::block_in_place(|| self.backs_up()),
            OnOneMachine::Around(fault) => self.around.begins(fault, depot, &mut self.chance),
        }
    }

    fn ends(&mut self, fault: OnOneMachine) {
        match fault {
            OnOneMachine::FreezeShop => self.signals("-CONT"),
            OnOneMachine::SlowDisk => self.machine.slow(Duration::ZERO),
            OnOneMachine::FullDisk => self.machine.full(false),
            OnOneMachine::Clock(_) => self.machine.clock(SignedDuration::ZERO),
            OnOneMachine::SlowClients => self.slow = None,
            OnOneMachine::Around(fault) => self.around.ends(fault),
            OnOneMachine::KillShop { .. } | OnOneMachine::Republish | OnOneMachine::Backup => {}
        }
    }

    /// A backup of the shop, however it is just now, is a shop that has all that was accepted before.
    fn backs_up(&self) {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let [kept, restored] = ["backup", "restored"].map(|name| folder.path().join(name));
        let data = self.data();
        let [data, kept, restored] = [&data, &kept, &restored].map(|path| path.to_str().unwrap());
        // Read from the file, as a shop that is frozen answers nobody.
        let accepted = || -> u64 {
            let tables = rusqlite::Connection::open(self.data().join("shop.db")).unwrap();
            let accepted = "SELECT count(*) FROM \"kassa-local-events\" WHERE sk LIKE '%#accepted%'";
            tables.query_row(accepted, [], |row| row.get(0)).unwrap()
        };
        let before = accepted();
        json(&["backup", kept, "--data", data, "--json"]);
        json(&["restore", kept, "--data", restored, "--json"]);
        let check = json(&["check", "--data", restored, "--json"]);
        assert_eq!(check["mismatches"], serde_json::json!([]), "{check}");
        let events = command(&["events", "--shop", "AMIS1", "--data", restored]).output().unwrap();
        let others = command(&["events", "--shop", "AMIS2", "--data", restored]).output().unwrap();
        let events = [events.stdout, others.stdout].concat();
        let lines = String::from_utf8(events).unwrap();
        let in_it = lines.lines().filter(|line| line.contains("\"kind\":\"accepted\"")).count() as u64;
        assert!(in_it >= before, "{in_it} of {before} accepted envelopes are in the backup");
    }

    /// Everything in the closed shop's queues waits twice, in another order, and some of it for longer.
    async fn requeue(&mut self) -> u64 {
        let store = Store::open(Some(&self.data().join("shop.db")), Sync::Normal).await.unwrap();
        let queues = &store.tables.queues;
        let waiting = store.client.scan().table_name(queues).send().await.unwrap().items.unwrap_or_default();
        let mut places: Vec<_> = waiting.iter().map(|row| row["place"].clone()).collect();
        places.shuffle(&mut self.chance);
        for (row, place) in waiting.iter().zip(places) {
            let mut again = row.clone();
            again.insert("place".into(), AttributeValue::S(format!("{}-again", place.as_s().unwrap())));
            store.client.put_item().table_name(queues).set_item(Some(again)).send().await.unwrap();
        }
        waiting.len() as u64
    }

    /// All is well again: what is left over comes to its end.
    async fn recovers(&mut self, ending: Ending, depot: &Depot, tally: &mut Tally) {
        depot.road.calm();
        self.around.drain();
        let begun = Instant::now();
        for look in 1.. {
            let (right, pending, how) = self.come_right(&depot.client).await;
            if right {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not right in time: {how}");
            let sent = self.json(&["dead-letters", "redrive"])["sent"].as_u64().unwrap();
            tally.count("= dead letters sent back", sent);
            self.json(&["webhook", "--resume"]);
            if pending > 0 && look % 8 == 0 {
                match ending {
                    Ending::Minutes => {
                        tally.count("= finished by a minute's look", 1);
                        self.machine.clock(SignedDuration::from_mins(6 * look / 8));
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        self.machine.clock(SignedDuration::ZERO);
                    }
                    Ending::Hand => {
                        tally.count("= finished by opening the shop again", 1);
                        self.reopens();
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }

    fn was_silent(&mut self) {
        self.logs.iter().for_each(|log| self.around.said.extend_from_slice(&log.lock().unwrap()));
        say_nothing_of_a_sale(&self.around.said);
    }

    fn is_told_of(&self, tally: &mut Tally) {
        self.around.is_told_of(tally);
        tally.count("= the shop's writes that found no room", self.machine.done().writes);
        tally.count("= the shop's waits for its disk", self.machine.done().syncs);
    }
}

impl Drop for Trade {
    /// Who looks for why a round failed finds the end of the shop's log.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.logs.last().map(|log| log.lock().unwrap().clone()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("DEBUG")).collect();
            eprintln!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

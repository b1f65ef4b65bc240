//! A round over the deployed shop on an emulated AWS: its own functions, killed, and every call of theirs to AWS.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::around::Surroundings;
use super::books::{Asked, Ends, PATIENCE, hold, say_nothing_of_a_sale};
use super::depot::Depot;
use super::line::Line;
use super::machine::Machine;
use super::plan::{Around, Ending, Fault, OnAws, Round};
use super::strangers::{self, Answered};
use super::tally::Tally;
use super::tills::{Tills, enrol};
use crate::common::cloud::Cloud;
use crate::common::road::Fault::{Broken, Busy};
use crate::common::warehouse::SECRET;

/// The deployed shop, which sells from round to round.
pub struct Deployed {
    cloud: Cloud,
    depot: Depot,
    around: Surroundings,
    /// What tills rang up, in all rounds.
    rung_up: u64,
    /// What strangers were answered yes for, in all rounds.
    answered: Vec<Answered>,
    /// And what became of all.
    ends: Ends,
    /// How much of the functions' log was looked at.
    read: usize,
    _folder: TempDir,
}

impl Asked for Cloud {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Cloud::command(self, Path::new(env!("CARGO_BIN_EXE_kassa")));
        command.args(args).args(["--stage", "local"]);
        command
    }
}

/// A message that failed comes again soon, and what came to no end is looked for soon: on AWS that is a minute and five.
/// Who is called once a minute is called by the round: a schedule that goes off all the time would meet every fault.
const SOON: [&str; 6] = [
    "--param=scheduleInterval=1s",
    "--param=queueTimeout=3",
    "--param=queueVisibility=4",
    "--param=subscriberTimeout=3",
    "--param=subscriberVisibility=8",
    "--param=reconcileAfter=10s",
];

/// By then every sale that is looked for each minute has been found and sent again. In a short run somebody does that by
/// hand before, once most of them have been.
fn minutes() -> Duration {
    Duration::from_secs(if super::is_short() { 20 } else { 95 })
}

impl Deployed {
    pub async fn new() -> Self {
        let depot = Depot::opens().await;
        let url = format!("--param=warehouseUrl={}", depot.road.url);
        let cloud = Cloud::deployed_with(&[&[url.as_str()], &SOON[..]].concat()).await;
        cloud.boto(&format!("aws('secretsmanager').put_secret_value(SecretId='kassa-local-warehouse', SecretString='{SECRET}'); print('null')")).await;
        let folder = tempfile::tempdir().unwrap();
        let tills: PathBuf = folder.path().join("tills");
        cloud.json(&enrol(&tills));
        let line = Line::lay().await;
        // What is behind the emulator's address stays; the address is that of the line.
        let (emulator, path) = cloud.url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        line.leads_to(emulator.parse().unwrap());
        let url = format!("{}/{path}", line.url);
        let machine = Machine::new(&folder.path().join("tills-machine"));
        let around = Surroundings::new(Tills::new(tills, &url, machine), line);
        Self {
            cloud,
            depot,
            around,
            rung_up: 0,
            answered: Vec::new(),
            ends: Ends::default(),
            read: 0,
            _folder: folder,
        }
    }

    /// Plays a round, and panics if anything that was promised does not hold at its end.
    pub async fn play(&mut self, seed: u64, tally: &mut Tally) {
        let round = Round::<OnAws>::of(seed);
        let mut chance = StdRng::seed_from_u64(seed);
        // The emulator adds up in fewer digits than DynamoDB, which has 38: nothing extreme is sold there.
        let url = self.around.tills.url.clone();
        let strangers = tokio::spawn(strangers::post(url, seed, round.sales / 2, &[]));
        if let Some(OnAws::Around(fault)) = round.lasting {
            tally.count(&fault.name(), 1);
            self.around.begins(fault, &mut self.depot, &mut chance);
        }
        self.around.tills.sell(round.sales);
        self.suffers(&round, &mut chance, seed, tally).await;
        self.answered.extend(strangers.await.unwrap());
        self.recovers(round.ending, tally).await;
        self.rung_up = self.around.rung_up();
        self.ends = hold(&self.cloud, self.rung_up, &self.answered, &self.depot.client).await;
        self.was_silent();
    }

    async fn suffers(&mut self, round: &Round<OnAws>, chance: &mut StdRng, seed: u64, tally: &mut Tally) {
        let begun = Instant::now();
        for (at, fault, begins) in round.moments() {
            // Functions take longer than a process.
            tokio::time::sleep((at * 4).saturating_sub(begun.elapsed())).await;
            if !begins {
                self.ends(fault);
                continue;
            }
            tally.count(&fault.name(), 1);
            match fault {
                OnAws::Kill(function) => {
                    tally.count("= functions killed while they ran", self.cloud.kill(function) as u64);
                }
                OnAws::Calls(service, share) => {
                    self.cloud.proxy.throttle(service, f64::from(share) / 100.0, seed);
                }
                OnAws::Messages(share) => self.cloud.proxy.mislay(f64::from(share) / 100.0, seed),
                OnAws::Republish => self.around.asks(Asked::command(&self.cloud, &["reconcile"])),
                OnAws::Around(fault) => {
                    self.around.begins(fault, &mut self.depot, chance);
                    // It delivers once a minute. One that hangs would keep what it has in hand for longer than a
                    // round lasts.
                    if matches!(fault, Around::Warehouse(Broken | Busy, _)) {
                        self.minute("warehouse-webhook").await;
                    }
                }
            }
        }
        self.around.ended().await;
        if let Some(fault) = round.lasting {
            self.ends(fault);
        }
    }

    fn ends(&self, fault: OnAws) {
        match fault {
            OnAws::Calls(..) | OnAws::Messages(_) => self.cloud.proxy.calm(),
            OnAws::Around(fault) => self.around.ends(fault),
            OnAws::Kill(_) | OnAws::Republish => {}
        }
    }

    /// All is well again: what is left over comes to its end.
    async fn recovers(&mut self, ending: Ending, tally: &mut Tally) {
        // A webhook that is killed while it waits leaves what it had in hand to its queue for longer than a round lasts.
        self.depot.road.calm();
        self.around.drain();
        let begun = Instant::now();
        loop {
            let (right, pending, how) = self.cloud.come_right(&self.depot.client).await;
            if right {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not right in time: {how}");
            let sent = self.cloud.json(&["dead-letters", "redrive"])["sent"].as_u64().unwrap();
            tally.count("= dead letters sent back", sent);
            self.cloud.json(&["webhook", "--resume"]);
            self.minute("warehouse-webhook").await;
            if pending > 0 {
                // What has been tried for the last time, nobody tries again but by hand.
                if ending == Ending::Minutes && begun.elapsed() < minutes() {
                    self.minute("reconcile").await;
                } else {
                    self.cloud.json(&["reconcile"]);
                    tally.count("= sales sent on their way again by hand", pending);
                }
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// What the schedule does each minute.
    async fn minute(&self, function: &str) {
        let invoke = format!(
            "aws('lambda').invoke(FunctionName='kassa-local-{function}', Payload=json.dumps({{'source': 'aws.events', 'detail-type': 'Scheduled Event'}}))
print('null')"
        );
        self.cloud.boto(&invoke).await;
    }

    fn was_silent(&mut self) {
        let log = self.cloud.log();
        say_nothing_of_a_sale(&log.as_bytes()[self.read..]);
        self.read = log.len();
        say_nothing_of_a_sale(&std::mem::take(&mut self.around.said));
    }

    /// What came of all rounds.
    pub fn is_told_of(&self, tally: &mut Tally) {
        self.around.is_told_of(tally);
        tally.came_of(self.rung_up, self.answered.len(), self.ends);
        let injected = self.cloud.proxy.injected();
        for (what, times) in [
            ("= calls to AWS throttled", injected.refused),
            ("= calls to AWS done and told as failed", injected.denied),
            ("= calls to AWS done and their answer lost", injected.cut),
            ("= publishes lost", injected.lost),
            ("= publishes doubled", injected.doubled),
            ("= publishes late", injected.late),
            ("= deliveries to the warehouse that met a fault", self.depot.road.met()),
        ] {
            tally.count(what, times);
        }
    }
}

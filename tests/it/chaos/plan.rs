//! What a round does, drawn from its seed alone.

use std::time::Duration;

use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::line::IMPOSTORS;
use crate::common::road;

/// Something that goes wrong.
pub trait Fault: Copy {
    fn draw(chance: &mut StdRng) -> Self;

    /// What is wrong from a round's beginning on, if anything is.
    fn draw_lasting(chance: &mut StdRng) -> Option<Self>;

    /// What the tally calls it.
    fn name(self) -> String;
}

/// Whatever the shop runs on: its tills, the network to them, and the warehouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// `kill -9` of a till, which is started again.
    KillTill,
    /// The tills' disks.
    FullTill,
    CutLine,
    LoseAnswers,
    /// Something else answers tills in the shop's place.
    Impostor(usize),
    /// The tills' clocks are that much ahead.
    TillClocks(SignedDuration),
    /// The next deliveries to the warehouse meet that.
    Warehouse(road::Fault, usize),
    KillWarehouse,
}

/// The shop on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOneMachine {
    /// `kill -9`, and opened again; what waits in its durable queues comes twice and in another order, perhaps.
    KillShop {
        requeue: bool,
    },
    /// It stands still: nobody gives it the processor.
    FreezeShop,
    SlowDisk,
    FullDisk,
    /// Its clock goes that much ahead, or back.
    Clock(SignedDuration),
    /// All that is on its way is sent on its way again.
    Republish,
    /// From another address come requests that never end, and some whose answers nobody reads.
    SlowClients,
    /// No fault: a backup is made, which must open.
    Backup,
    Around(Around),
}

/// The shop on AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAws {
    /// `kill -9` of whatever of this function runs.
    Kill(&'static str),
    /// Of a hundred calls to this service, so many are throttled, fail, or lose their answer.
    Calls(&'static str, u32),
    /// Of a hundred publishes, so many are lost, come twice, or come late and so after others.
    Messages(u32),
    Republish,
    Around(Around),
}

impl Fault for Around {
    fn draw(chance: &mut StdRng) -> Self {
        match chance.random_range(0..9) {
            0 => Self::KillTill,
            1 => Self::FullTill,
            2 => Self::CutLine,
            3 => Self::LoseAnswers,
            4 | 5 => {
                use road::Fault::{Broken, Busy, Lost, Unanswered};
                let fault = [Broken, Busy, Lost, Unanswered][chance.random_range(0..4)];
                Self::Warehouse(fault, chance.random_range(1..5))
            }
            6 => Self::KillWarehouse,
            _ => Self::Impostor(chance.random_range(0..IMPOSTORS.len())),
        }
    }

    fn draw_lasting(chance: &mut StdRng) -> Option<Self> {
        // Minutes, hours, or more days than a sale is booked ahead.
        let most = [600, 100_000, 10_000_000][chance.random_range(0..3)];
        let by = SignedDuration::from_secs(chance.random_range(1..=most));
        chance.random_bool(0.25).then_some(Self::TillClocks(by))
    }

    fn name(self) -> String {
        let name = match self {
            Self::KillTill => "till killed",
            Self::FullTill => "tills' disks full",
            Self::CutLine => "network cut",
            Self::LoseAnswers => "network loses answers",
            Self::Impostor(_) => "something else answers tills",
            Self::TillClocks(_) => "tills' clocks ahead",
            Self::Warehouse(road::Fault::Broken, _) => "warehouse broken",
            Self::Warehouse(road::Fault::Busy, _) => "warehouse busy",
            Self::Warehouse(road::Fault::Lost, _) => "warehouse hangs",
            Self::Warehouse(road::Fault::Unanswered, _) => "warehouse takes it and hangs",
            Self::KillWarehouse => "warehouse killed",
        };
        name.to_owned()
    }
}

impl Fault for OnOneMachine {
    fn draw(chance: &mut StdRng) -> Self {
        match chance.random_range(0..17) {
            0..=2 => Self::KillShop { requeue: chance.random_bool(0.5) },
            3 => Self::FreezeShop,
            4 => Self::SlowDisk,
            5 | 6 => Self::FullDisk,
            7 => {
                // Seconds, minutes, hours or days, in either direction.
                let most = [10, 600, 7_200, 300_000][chance.random_range(0..4)];
                Self::Clock(SignedDuration::from_secs(chance.random_range(-most..=most)))
            }
            8 => Self::Republish,
            9 => Self::Backup,
            _ => Self::Around(Around::draw(chance)),
        }
    }

    fn draw_lasting(chance: &mut StdRng) -> Option<Self> {
        let slow = chance.random_bool(0.15).then_some(Self::SlowClients);
        slow.or_else(|| Around::draw_lasting(chance).map(Self::Around))
    }

    fn name(self) -> String {
        let name = match self {
            Self::KillShop { requeue: false } => "shop killed",
            Self::KillShop { requeue: true } => "shop killed, its queues shuffled and doubled",
            Self::FreezeShop => "shop frozen",
            Self::SlowDisk => "shop's disk slow",
            Self::FullDisk => "shop's disk full",
            Self::Clock(by) if by.is_negative() => "shop's clock back",
            Self::Clock(_) => "shop's clock ahead",
            Self::Republish => "all on its way repeated",
            Self::SlowClients => "slow clients",
            Self::Backup => "backup made and opened",
            Self::Around(around) => return around.name(),
        };
        name.to_owned()
    }
}

impl Fault for OnAws {
    fn draw(chance: &mut StdRng) -> Self {
        match chance.random_range(0..16) {
            0..=4 => {
                let functions =
                    ["accept", "decrypt", "process", "project", "bad-key-auditor", "warehouse-webhook"];
                Self::Kill(functions[chance.random_range(0..functions.len())])
            }
            5..=7 => {
                let services = ["dynamodb.*", "sns.*", "kms.*", "*"];
                Self::Calls(services[chance.random_range(0..services.len())], chance.random_range(5..60))
            }
            8..=10 => Self::Messages(chance.random_range(10..80)),
            11 => Self::Republish,
            _ => Self::Around(Around::draw(chance)),
        }
    }

    fn draw_lasting(chance: &mut StdRng) -> Option<Self> {
        Around::draw_lasting(chance).map(Self::Around)
    }

    fn name(self) -> String {
        match self {
            Self::Kill(function) => format!("{function} killed"),
            Self::Calls(service, _) => format!("calls to {service} fail"),
            Self::Messages(_) => "messages lost, doubled, late".to_owned(),
            Self::Republish => "all on its way repeated".to_owned(),
            Self::Around(around) => around.name(),
        }
    }
}

/// When a fault begins after the one before began, and how long it lasts if it is one that lasts.
#[derive(Debug)]
struct Step<F> {
    after: Duration,
    fault: F,
    lasts: Duration,
}

/// What finishes what was left, once all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Time: what came to no end is looked for every minute.
    Minutes,
    /// Somebody who does something about it: opens the shop again, or has all sent again.
    Hand,
}

/// What a round is made of.
#[derive(Debug)]
pub struct Round<F> {
    /// What is wrong while tills sell, from the beginning on.
    pub lasting: Option<F>,
    steps: Vec<Step<F>>,
    pub ending: Ending,
    /// How many sales each till has to sell.
    pub sales: u32,
}

impl<F: Fault> Round<F> {
    pub fn of(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let step = |chance: &mut StdRng| Step {
            after: Duration::from_millis(chance.random_range(0..250)),
            fault: F::draw(chance),
            lasts: Duration::from_millis(chance.random_range(20..500)),
        };
        let steps = (0..chance.random_range(3..8)).map(|_| step(&mut chance)).collect();
        let ending = if chance.random_bool(0.5) { Ending::Minutes } else { Ending::Hand };
        let sales = chance.random_range(5..40);
        Self { steps, ending, sales, lasting: F::draw_lasting(&mut chance) }
    }

    /// What begins or ends, and when, from the round's own beginning.
    pub fn moments(&self) -> Vec<(Duration, F, bool)> {
        let (mut from, mut moments) = (Duration::ZERO, Vec::new());
        for Step { after, fault, lasts } in &self.steps {
            from += *after;
            moments.extend([(from, *fault, true), (from + *lasts, *fault, false)]);
        }
        moments.sort_by_key(|(at, ..)| *at);
        moments
    }
}

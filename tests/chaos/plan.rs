//! What a round does to the shop, drawn from its seed alone.

use std::time::Duration;

use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::road;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
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
    /// `kill -9` of a till, which is started again.
    KillTill,
    /// The tills' disks.
    FullTill,
    CutLine,
    LoseAnswers,
    /// The next deliveries to the warehouse meet that.
    Warehouse(road::Fault, usize),
    KillWarehouse,
    /// All that is on its way is sent on its way again.
    Republish,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Self::KillShop { requeue: false } => "shop killed",
            Self::KillShop { requeue: true } => "shop killed, its queues shuffled and doubled",
            Self::FreezeShop => "shop frozen",
            Self::SlowDisk => "shop's disk slow",
            Self::FullDisk => "shop's disk full",
            Self::Clock(by) if by.is_negative() => "shop's clock back",
            Self::Clock(_) => "shop's clock ahead",
            Self::KillTill => "till killed",
            Self::FullTill => "tills' disk full",
            Self::CutLine => "network cut",
            Self::LoseAnswers => "answers lost",
            Self::Warehouse(road::Fault::Broken, _) => "warehouse broken",
            Self::Warehouse(road::Fault::Busy, _) => "warehouse busy",
            Self::Warehouse(road::Fault::Lost, _) => "warehouse hangs",
            Self::Warehouse(road::Fault::Unanswered, _) => "warehouse took it and hangs",
            Self::KillWarehouse => "warehouse killed",
            Self::Republish => "all on its way repeated",
        }
    }
}

/// A fault, when it begins after the one before began, and how long it lasts if it is one that lasts.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub after: Duration,
    pub fault: Fault,
    pub lasts: Duration,
}

/// What finishes what was left, once all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Time: what came to no end is looked for every minute.
    Minutes,
    /// The shop is opened again.
    Reopened,
}

/// What a round is made of.
#[derive(Debug)]
pub struct Round {
    pub steps: Vec<Step>,
    pub ending: Ending,
    /// Whether a till that is killed, or finds no room, matters: sales of each till.
    pub sales: u32,
}

impl Round {
    pub fn of(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let steps = (0..chance.random_range(3..8)).map(|_| step(&mut chance)).collect();
        let ending = if chance.random_bool(0.5) { Ending::Minutes } else { Ending::Reopened };
        Self { steps, ending, sales: chance.random_range(5..40) }
    }
}

fn step(chance: &mut StdRng) -> Step {
    let fault = match chance.random_range(0..16) {
        0..=2 => Fault::KillShop { requeue: chance.random_bool(0.5) },
        3 => Fault::FreezeShop,
        4 => Fault::SlowDisk,
        5 | 6 => Fault::FullDisk,
        7 => Fault::Clock(SignedDuration::from_secs(jump(chance))),
        8 => Fault::KillTill,
        9 => Fault::FullTill,
        10 => Fault::CutLine,
        11 => Fault::LoseAnswers,
        12 | 13 => {
            let faults = [road::Fault::Broken, road::Fault::Busy, road::Fault::Lost, road::Fault::Unanswered];
            Fault::Warehouse(faults[chance.random_range(0..4)], chance.random_range(1..5))
        }
        14 => Fault::KillWarehouse,
        _ => Fault::Republish,
    };
    Step {
        after: Duration::from_millis(chance.random_range(0..250)),
        fault,
        lasts: Duration::from_millis(chance.random_range(20..500)),
    }
}

/// Seconds: some, minutes, hours or days, in either direction.
fn jump(chance: &mut StdRng) -> i64 {
    let most = [10, 600, 7_200, 300_000][chance.random_range(0..4)];
    chance.random_range(-most..=most)
}

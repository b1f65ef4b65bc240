//! Whether the shop is all right: what `kassa status` answers.

/// What needs attention.
mod attention;
/// Which metrics are asked for, and what the answers come to.
mod figures;
/// The first line: is it all right, and if not, what is wrong?
mod headline;
/// How a status is had.
mod look;
/// What it is written on.
mod paper;
/// A status as people read it.
mod render;
/// The shops in it.
mod shops;
/// What it has cost so far.
mod spent;
/// How each shop sells.
mod standing;
/// `--watch`.
mod watch;

use jiff::Timestamp;
use kassa_bus::ShopId;
use kassa_bus::amount::Amount;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

pub use attention::{MORE, Need, PENDING, needs};
pub use headline::{Headline, Mood, headline};
pub use look::{StatusError, View, look};
pub use paper::Paper;
pub use render::{line, render};
pub use watch::{Screen, watch};

use crate::monitor::State;
use crate::monitor::alarms::Severity;

/// A shop as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What is asked: a stage's stack and region, or the folder on this machine.
    pub place: String,
    /// What commands need to be told to ask the same, as ` --stage prod`.
    pub reach: String,
    pub at: Timestamp,
    /// A closed shop takes no sales and is watched by nobody: there is nothing but its books.
    pub open: bool,
    /// None of a closed shop.
    pub health: Option<Health>,
    /// By their ids.
    pub shops: Vec<Standing>,
    /// Which sales were rejected and are neither booked nor given up; which are pending for over a minute; which messages were
    /// given up by their queues.
    #[serde(default)]
    pub attention: Vec<Need>,
    pub incidents: Vec<OpenIncident>,
    /// Rows that cannot be read and are left out, each with what is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    pub cost: Cost,
}

/// What metrics and alarms say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// accept, decrypt, process, project.
    pub hops: Vec<Hop>,
    /// Whoever else listens.
    pub subscribers: Vec<Hop>,
    /// Sales accepted that are neither recorded nor rejected.
    pub pending: Option<f64>,
    /// How long the oldest of them has waited.
    pub pending_seconds: Option<f64>,
    /// Sales recorded in each minute of the last hour, the last one last.
    pub recorded: Vec<f64>,
    /// Those that are deployed, in the order of `dashboards/alarms.json`.
    pub alarms: Vec<Alarm>,
    /// Those that are not.
    pub not_deployed: Vec<String>,
}

/// A function, as of the last minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    pub name: String,
    /// Messages dealt with; for accept, requests answered; for project, sales that reached the read models.
    pub per_minute: f64,
    /// Messages that failed and come again, and calls that ended in an error; for accept, requests answered with 500
    /// and more.
    pub failed: f64,
    /// Milliseconds from a message's publication until it was dealt with, of the middle minute; for accept, until a
    /// request was answered; for project, until a recorded sale was in the read models.
    pub p50: Option<f64>,
    /// Likewise, of the worst minute.
    pub p99: Option<f64>,
    /// None for accept, which has none.
    pub queue: Option<Queue>,
}

/// What waits before a function. None is what nobody has measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    pub waiting: Option<f64>,
    pub oldest_seconds: Option<f64>,
    pub dead_letters: Option<f64>,
}

/// An alarm, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    pub name: String,
    pub severity: Severity,
    pub title: String,
    pub state: State,
    pub since: Timestamp,
    /// Which values made it so.
    pub why: String,
    /// What it means.
    pub meaning: String,
    /// The command to begin with. Where this status itself is that command, none is: the runbook goes on from here.
    pub run: Option<String>,
    /// Where there is more.
    pub runbook: String,
}

/// How a shop sells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub shop_id: ShopId,
    pub name: String,
    /// When a sale was last recorded. None if there never was one, or the books are from before they said.
    pub last_sale: Option<Timestamp>,
    /// Of its day so far.
    pub today: Day,
    /// Of the same weekday last week, the whole day.
    pub last_week: Option<Day>,
    /// Of its month so far.
    pub sales_this_month: u64,
}

/// A shop's day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    pub sales: u64,
    pub turnover: Amount,
}

/// A shop whose sales are rejected, and whose manager was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIncident {
    pub shop_id: ShopId,
    pub reason: String,
    pub since: Timestamp,
    pub sales: u64,
}

/// Dollars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    pub today: Decimal,
    pub this_month: Decimal,
    /// Whether AWS counted what was used. Else it is what so many sales would cost there.
    pub counted: bool,
}

impl Status {
    /// With commands that ask the same shop.
    #[must_use]
    pub fn reached_by(mut self, reach: &str) -> Self {
        let alarms = self.health.iter_mut().flat_map(|health| &mut health.alarms);
        let runs = alarms.filter_map(|alarm| alarm.run.as_mut());
        let runs = runs.chain(self.attention.iter_mut().map(|need| &mut need.run));
        for run in runs.filter(|run| run.starts_with("kassa ")) {
            run.push_str(reach);
        }
        reach.clone_into(&mut self.reach);
        self
    }

    /// Whether nothing is wrong: it is open, its alarms watch, none has gone off, nothing needs attention, and every row
    /// can be read. What the first line says, and the exit code, never differ.
    #[must_use]
    pub fn is_well(&self) -> bool {
        headline(self).mood == Mood::Well
    }
}

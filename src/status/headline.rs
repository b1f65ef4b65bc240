use std::cmp::Reverse;

use jiff::Zoned;
use jiff::tz::TimeZone;

use super::paper::grouped;
use super::{Alarm, Need, OpenIncident, Status};
use crate::monitor::State;
use crate::monitor::alarms::Severity;

/// Whether the shop is all right, in a line, and the command to begin with if it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headline {
    pub mood: Mood,
    pub text: String,
    /// Since when: of a shop by its own clocks, else in UTC.
    pub since: Option<Zoned>,
    pub run: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    Well,
    /// Something is wrong that can wait for the working day.
    Ailing,
    /// Somebody must look now; or nobody can tell.
    Ill,
}

/// What to say first.
#[must_use]
pub fn headline(status: &Status) -> Headline {
    let Some(health) = status.health.as_ref().filter(|_| status.open) else {
        return ill("The shop is closed: it takes no sales.", &format!("kassa up{}", status.reach));
    };
    if health.alarms.is_empty() {
        let text = "Nobody watches the shop: none of its alarms is deployed.";
        return ill(text, "npx serverless deploy, with this version");
    }
    let gone_off = gone_off(&health.alarms);
    if let ([], [need, others @ ..]) = (gone_off.as_slice(), status.attention.as_slice()) {
        return of_need(need, others.len(), status);
    }
    match (gone_off.as_slice(), status.incidents.as_slice(), status.unreadable.len()) {
        ([worst, others @ ..], ..) => of_alarm(worst, others.len()),
        ([], [incident, others @ ..], _) => of_incident(incident, others.len(), status),
        ([], [], 0) => well(&health.alarms, health.not_deployed.len()),
        ([], [], rows) => {
            let text = format!("{} cannot be read.", count(rows, "row"));
            Headline {
                mood: Mood::Ailing,
                text,
                since: None,
                run: Some(format!("kassa check{}", status.reach)),
            }
        }
    }
}

/// The alarms that have gone off, the worst first.
pub(super) fn gone_off(alarms: &[Alarm]) -> Vec<&Alarm> {
    let mut gone_off: Vec<_> = alarms.iter().filter(|alarm| alarm.state == State::Alarm).collect();
    // Among equals, those that speak for others stand first as it is.
    gone_off.sort_by_key(|alarm| Reverse(alarm.severity));
    gone_off
}

fn ill(text: &str, run: &str) -> Headline {
    Headline { mood: Mood::Ill, text: text.to_owned(), since: None, run: Some(run.to_owned()) }
}

fn of_alarm(alarm: &Alarm, others: usize) -> Headline {
    let mood = if alarm.severity == Severity::Critical { Mood::Ill } else { Mood::Ailing };
    let text = format!("{}{}", alarm.title, more(others, "alarm"));
    Headline { mood, text, since: Some(alarm.since.to_zoned(TimeZone::UTC)), run: alarm.run.clone() }
}

fn of_need(need: &Need, others: usize, status: &Status) -> Headline {
    let count = need.count.map_or(String::new(), |count| format!(" ({})", grouped(&count.to_string())));
    let whose = need.shop_id.as_ref().map_or(String::new(), |shop| format!(" of {shop}"));
    let text = format!("Sales{whose} need attention: {}{count}{}", need.what(), more(others, "matter"));
    let text = if need.shop_id.is_some() { text } else { text.replacen("Sales need", "This needs", 1) };
    let since = need.since.map(|at| match &need.shop_id {
        Some(shop) => status.local(shop, at),
        None => at.to_zoned(TimeZone::UTC),
    });
    Headline { mood: Mood::Ailing, text, since, run: Some(need.run.clone()) }
}

fn of_incident(incident: &OpenIncident, others: usize, status: &Status) -> Headline {
    let reach = &status.reach;
    let OpenIncident { shop_id, reason, since, .. } = incident;
    let text = format!("Sales of {shop_id} are rejected ({reason}){}", more(others, "incident"));
    let run = if reason == "wrong-key" {
        format!("kassa audit keys --shop {shop_id}{reach}")
    } else {
        format!("kassa events --shop {shop_id}{reach} | jq 'select(.kind == \"rejected\")'")
    };
    let since = status.local(shop_id, *since);
    Headline { mood: Mood::Ailing, text, since: Some(since), run: Some(run) }
}

fn well(alarms: &[Alarm], not_deployed: usize) -> Headline {
    let without = alarms.iter().filter(|alarm| alarm.state == State::InsufficientData).count();
    if without == alarms.len() {
        let text = "The shop is open. Its alarms have seen nothing yet.".to_owned();
        return Headline { mood: Mood::Well, text, since: None, run: None };
    }
    let mut watching = format!("{} watch, none has gone off", count(alarms.len(), "alarm"));
    if without > 0 {
        watching.push_str(&format!(", {without} without data yet"));
    }
    if not_deployed > 0 {
        watching.push_str(&format!(", {not_deployed} not deployed"));
    }
    Headline { mood: Mood::Well, text: format!("All is well. {watching}."), since: None, run: None }
}

fn more(others: usize, what: &str) -> String {
    if others == 0 { String::new() } else { format!(", and {}", count(others, &format!("more {what}"))) }
}

/// `1 alarm`, `2 alarms`.
pub(super) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

//! How alarms stand, and what people are told when that changes: alarms' actions, composite alarms and suppression as
//! `CloudWatch` has them
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-suppression.html>).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::alarms::{Alarm, Alarms, Composite, Severity};
use super::evaluate::{judge, reason, watched};
use super::math::Data;
use super::{AlarmStatus, State};

/// How each alarm stands, by its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Standings(BTreeMap<String, Standing>);

/// How one alarm stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub state: State,
    pub since: Timestamp,
    pub why: String,
    /// Whether people heard of an alarm and not yet that it is over.
    told: bool,
    /// Whether a change of state has not had its action yet. Only a composite that is suppressed leaves it at that.
    due: bool,
    /// Actions wait until then.
    waits: Option<Timestamp>,
    /// Whether the suppressor was on when it was last looked at.
    suppressed: bool,
}

/// What an alarm's action says to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub name: String,
    pub title: String,
    pub meaning: String,
    pub run: String,
    pub severity: Severity,
    pub state: State,
    pub at: Timestamp,
    pub why: String,
    /// Whether it says that something is over of which people had heard. `CloudWatch` also says of an alarm that is
    /// new, or that knew nothing for a while, that it is OK.
    pub over: bool,
}

impl Standings {
    /// Looks at every alarm as of now, and says what people are to be told.
    pub fn step(&mut self, alarms: &Alarms, now: Timestamp, data: &dyn Data) -> Vec<Told> {
        let there = |name: &String| {
            alarms.alarms.iter().any(|a| a.name == *name) || alarms.composites.iter().any(|c| c.name == *name)
        };
        self.0.retain(|name, _| there(name));
        let mut told = Vec::new();
        for alarm in &alarms.alarms {
            told.extend(self.step_alarm(alarm, now, data));
        }
        for composite in members_first(&alarms.composites) {
            told.extend(self.step_composite(composite, now));
        }
        told
    }

    fn step_alarm(&mut self, alarm: &Alarm, now: Timestamp, data: &dyn Data) -> Option<Told> {
        let standing = self.standing(&alarm.name, now);
        let values = match watched(alarm, now, data) {
            Ok(values) => values,
            Err(error) => {
                tracing::error!(alarm = alarm.name, %error, "cannot evaluate the alarm; it stays as it is");
                return None;
            }
        };
        let state = judge(alarm, &values, standing.state);
        if state == standing.state {
            return None;
        }
        standing.turn(state, now, reason(alarm, &values));
        standing.due = false;
        let about = (&alarm.name, &alarm.title, &alarm.meaning, &alarm.run, alarm.severity);
        alarm.actions.then(|| standing.tell(about, now)).flatten()
    }

    fn step_composite(&mut self, composite: &Composite, now: Timestamp) -> Option<Told> {
        let on = |name: &&String| self.0.get(*name).is_some_and(|standing| standing.state == State::Alarm);
        let members: Vec<&str> = composite.any.iter().filter(on).map(String::as_str).collect();
        let state = if members.is_empty() { State::Ok } else { State::Alarm };
        let why = because_of(&members);
        let suppressed = composite.suppressed_by.as_ref().is_some_and(|name| on(&name));
        let later = |seconds: u32| now + SignedDuration::from_secs(seconds.into());

        let standing = self.standing(&composite.name, now);
        if state != standing.state {
            standing.turn(state, now, why);
            // A wait that lasts longer goes on.
            let wait = composite.suppressed_by.as_ref().map(|_| later(composite.wait));
            standing.waits = standing.waits.max(wait);
        }
        if standing.suppressed && !suppressed {
            standing.waits = Some(later(composite.extension));
        }
        standing.suppressed = suppressed;
        let waits = standing.waits.is_some_and(|until| now < until);
        if suppressed || waits || !standing.due {
            return None;
        }
        standing.due = false;
        let about =
            (&composite.name, &composite.title, &composite.meaning, &composite.run, composite.severity);
        standing.tell(about, now)
    }

    fn standing(&mut self, name: &str, now: Timestamp) -> &mut Standing {
        self.0.entry(name.to_owned()).or_insert_with(|| Standing {
            state: State::InsufficientData,
            since: now,
            why: "not looked at yet".into(),
            told: false,
            due: false,
            waits: None,
            suppressed: false,
        })
    }

    /// How an alarm stands, if it was ever looked at.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Standing> {
        self.0.get(name)
    }

    /// As it is shown, in the file's order: single alarms, then composites.
    #[must_use]
    pub fn status(&self, alarms: &Alarms, now: Timestamp) -> Vec<AlarmStatus> {
        let single = alarms.alarms.iter().map(|alarm| (&alarm.name, alarm.description()));
        let composite = alarms.composites.iter().map(|alarm| (&alarm.name, alarm.description()));
        let status = |(name, description): (&String, String)| {
            let standing = self.of(name);
            AlarmStatus {
                name: name.clone(),
                state: standing.map_or(State::InsufficientData, |standing| standing.state),
                since: standing.map_or(now, |standing| standing.since),
                why: standing.map_or_else(|| "not looked at yet".to_owned(), |standing| standing.why.clone()),
                description,
            }
        };
        single.chain(composite).map(status).collect()
    }
}

/// Name, title, meaning, command, severity.
type About<'a> = (&'a String, &'a String, &'a String, &'a String, Severity);

impl Standing {
    fn turn(&mut self, state: State, now: Timestamp, why: String) {
        (self.state, self.since, self.why, self.due) = (state, now, why, true);
    }

    /// What the state's action says. There is none for not knowing.
    fn tell(&mut self, about: About<'_>, at: Timestamp) -> Option<Told> {
        let over = self.told && self.state == State::Ok;
        match self.state {
            State::InsufficientData => return None,
            State::Alarm => self.told = true,
            State::Ok => self.told = false,
        }
        let (name, title, meaning, run, severity) = about;
        Some(Told {
            name: name.clone(),
            title: title.clone(),
            meaning: meaning.clone(),
            run: run.clone(),
            severity,
            state: self.state,
            at,
            why: self.why.clone(),
            over,
        })
    }
}

/// Why a composite is on or not, from the names of its members that are.
pub(super) fn because_of(members: &[&str]) -> String {
    match members {
        [] => "None of the alarms it stands for is on.".to_owned(),
        [one] => format!("The alarm {one} is on."),
        [first @ .., last] => format!("The alarms {} and {last} are on.", first.join(", ")),
    }
}

/// Composites behind those that they watch or wait for. Where they go round in a circle, in the given order.
fn members_first(composites: &[Composite]) -> Vec<&Composite> {
    let mut left: Vec<&Composite> = composites.iter().collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let needs = |composite: &Composite, other: &Composite| {
            composite.any.contains(&other.name) || composite.suppressed_by.as_ref() == Some(&other.name)
        };
        let next = left.iter().position(|composite| !left.iter().any(|other| needs(composite, other)));
        ordered.push(left.remove(next.unwrap_or_default()));
    }
    ordered
}

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::Console;
use super::page::{self, Page, Place};
use super::text::{self, outside, outside_lines, rough};
use crate::monitor::alarms::Alarms;
use crate::monitor::placeholders::Placeholders;
use crate::monitor::{AlarmStatus, State as AlarmState};

pub(super) async fn show(State(console): State<Arc<Console>>) -> Response {
    let sight = &console.sight;
    let health = console.looks.health(sight).await;
    let now = sight.clock.now();
    let body = html! {
        h1 { "Alarms" }
        @match &health.alarms {
            Err(why) => (page::unavailable("The alarms", why)),
            Ok(alarms) => (list(alarms, &console.titles, now)),
        }
    };
    Page { place: Place::Alarms, title: "Alarms", body, pace: 2_000 }.respond(sight.monitor.stack(), &health)
}

/// What alarms are called in words, by their names.
#[derive(Default)]
pub(super) struct Titles(BTreeMap<String, String>);

impl Titles {
    pub(super) fn read(with: &Placeholders<'_>) -> Self {
        let Alarms { alarms, composites } = Alarms::of(with).unwrap_or_default();
        let alarms = alarms.into_iter().map(|alarm| (alarm.name, alarm.title));
        Self(alarms.chain(composites.into_iter().map(|alarm| (alarm.name, alarm.title))).collect())
    }

    /// The names of those that are in the file and not there: nobody watches for what they are for.
    pub(super) fn missing<'a>(&'a self, there: &[AlarmStatus]) -> Vec<&'a str> {
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| there.iter().all(|alarm| alarm.name != *name)).collect()
    }

    /// An alarm that is not in the file is called by its name.
    pub(super) fn of<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }
}

/// By state, what is on first, each in the file's order.
fn list(alarms: &[AlarmStatus], titles: &Titles, now: Timestamp) -> Markup {
    html! {
        @for (state, heading) in
            [(AlarmState::Alarm, "On"), (AlarmState::InsufficientData, "Not enough data"), (AlarmState::Ok, "Off")]
        {
            @let of: Vec<_> = alarms.iter().filter(|alarm| alarm.state == state).collect();
            @if !of.is_empty() { section aria-labelledby=(word(state)) {
                h2 id=(word(state)) { (heading) " " span.aside { (of.len()) } }
                ul.alarms { @for alarm in of { (entry(alarm, titles, now)) } }
            } }
        }
        @let missing = titles.missing(alarms);
        @if !missing.is_empty() { section aria-labelledby="missing" {
            h2 #missing { "Not deployed" span.aside { (missing.len()) } }
            p { "Nobody watches for these: " (missing.join(", ")) ". " code { "npx serverless deploy" } ", with this version, makes them." }
        } }
    }
}

fn entry(alarm: &AlarmStatus, titles: &Titles, now: Timestamp) -> Markup {
    html! {
        li id=(alarm.name) data-key=(alarm.name) { details open[alarm.state == AlarmState::Alarm] {
            summary {
                (state(alarm.state))
                span.subject { (outside(titles.of(&alarm.name))) span.id { (outside(&alarm.name)) } }
                span.since { "for " (rough(now.duration_since(alarm.since))) }
            }
            p { (outside_lines(&alarm.description)) }
            p.why { "Since " (text::time(now, alarm.since, &TimeZone::UTC)) " UTC: " (outside_lines(&alarm.why)) }
        } }
    }
}

fn word(state: AlarmState) -> &'static str {
    match state {
        AlarmState::Alarm => "on",
        AlarmState::InsufficientData => "unknown",
        AlarmState::Ok => "off",
    }
}

/// An alarm's state, by `CloudWatch`'s words.
pub(super) fn state(state: AlarmState) -> Markup {
    let (tone, words) = match state {
        AlarmState::Alarm => ("bad", "In alarm"),
        AlarmState::InsufficientData => ("quiet", "No data"),
        AlarmState::Ok => ("good", "OK"),
    };
    html! { span.state.(tone) { (words) } }
}

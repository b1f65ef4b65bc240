/// A widget of metrics: a chart, numbers or a table.
mod widget;

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use serde::Deserialize;

use super::health::Health;
use super::markdown::markdown;
use super::page::{self, Page, Place, capital};
use super::text::{outside, rough};
use super::{Console, alarms};
use crate::monitor::dashboard::{BODIES, Content, Dashboard, Widget};
use crate::monitor::placeholders::Placeholders;

/// `?span=`
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    span: Option<String>,
}

/// Lengths of time that can be chosen, in seconds.
const SPANS: [(&str, u32, &str); 5] = [
    ("1h", 3_600, "1 hour"),
    ("3h", 10_800, "3 hours"),
    ("12h", 43_200, "12 hours"),
    ("1d", 86_400, "1 day"),
    ("1w", 604_800, "1 week"),
];

/// The time that is shown.
#[derive(Debug, Clone, Copy)]
struct Shown {
    span: u32,
    now: Timestamp,
}

impl Shown {
    /// From a whole minute to a whole minute, so that a page that looks again soon shows the same.
    fn times(self, span: u32) -> (Timestamp, Timestamp) {
        let end = (self.now.as_second() + 60).div_euclid(60) * 60;
        let to = Timestamp::from_second(end).unwrap_or(self.now);
        (to - SignedDuration::from_secs(span.into()), to)
    }
}

pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let sight = &console.sight;
    let health = console.looks.health(sight).await;
    let with = Placeholders::of(sight.monitor.stack(), sight.monitor.api());
    let known = BODIES.iter().find(|(known, _)| *known == name).map(|(known, _)| *known);
    let place = known.map_or(Place::Nowhere, Place::Dashboard);
    let title = known.map_or_else(|| "Dashboard".to_owned(), capital);
    let (status, body) = match Dashboard::named(&name, &with) {
        None => {
            let names: Vec<&str> = BODIES.iter().map(|(name, _)| *name).collect();
            let why = format!("There is no dashboard of this name; there are: {}.", names.join(", "));
            (StatusCode::NOT_FOUND, html! { h1 { (title) } p.unavailable { (why) } })
        }
        Some(Err(why)) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            html! { h1 { (title) } (page::unavailable("The dashboard", &why)) },
        ),
        Some(Ok(dashboard)) => {
            let chosen = SPANS.iter().find(|(name, ..)| wanted.span.as_deref() == Some(name));
            let span = chosen.map_or(dashboard.span, |(_, seconds, _)| *seconds);
            let shown = Shown { span, now: sight.clock.now() };
            (StatusCode::OK, drawn(&console, &health, &name, &title, &dashboard, shown).await)
        }
    };
    // Metrics come once a minute; what is new in between is alarms.
    Page { place, title: &title, body, pace: 15_000 }.with_status(status, sight.monitor.stack(), &health)
}

async fn drawn(
    console: &Console,
    health: &Health,
    name: &str,
    title: &str,
    dashboard: &Dashboard,
    shown: Shown,
) -> Markup {
    let widgets = dashboard.widgets.iter().enumerate();
    let widgets = join_all(widgets.map(|(n, widget)| one(console, health, (n, title), widget, shown))).await;
    html! {
        div.dashboard-head {
            h1 { (title) }
            (picker(name, shown.span))
        }
        div.grid { @for widget in widgets { (widget) } }
        p.zone { "Times are UTC." }
    }
}

/// Which length of time is shown. One that is none of the list is the dashboard's own.
fn picker(name: &str, span: u32) -> Markup {
    html! {
        nav.tabs.spans aria-label="Time shown" { ul {
            @if !SPANS.iter().any(|(_, seconds, _)| *seconds == span) {
                li { a href={ "/dashboards/" (name) } aria-current="true" { (rough(SignedDuration::from_secs(span.into()))) } }
            }
            @for (short, seconds, long) in SPANS {
                li { a href={ "/dashboards/" (name) "?span=" (short) } title=(long)
                    aria-current=[(seconds == span).then_some("true")] { (short) } }
            }
        } }
    }
}

async fn one(
    console: &Console,
    health: &Health,
    (n, title): (usize, &str),
    widget: &Widget,
    shown: Shown,
) -> Markup {
    let Widget { x, y, width, height, content } = widget;
    let class = format!("widget x{x} y{y} w{width} h{height}");
    match content {
        Content::Text { markdown: text } => html! { div.{ (class) " words" } { (markdown(text, title)) } },
        Content::Alarms { title, alarms } => html! {
            section.(class) aria-labelledby={ "w" (n) } {
                h2 id={ "w" (n) } { (outside(title)) }
                (states(health, &console.titles, alarms))
            }
        },
        Content::Metrics(metrics) => {
            let inside = widget::content(&*console.sight.monitor, metrics, (*width, *height), shown).await;
            html! {
                section.(class) aria-labelledby={ "w" (n) } {
                    h2 id={ "w" (n) } { (outside(&metrics.title)) }
                    (inside)
                }
            }
        }
    }
}

/// The states of the alarms of these names, or of all if none is named.
fn states(health: &Health, titles: &alarms::Titles, names: &[String]) -> Markup {
    let all = match &health.alarms {
        Ok(all) => all,
        Err(why) => return page::unavailable("The alarms", why),
    };
    let mut shown: Vec<_> =
        all.iter().filter(|alarm| names.is_empty() || names.contains(&alarm.name)).collect();
    shown.sort_by_key(|alarm| alarm.state);
    html! {
        ul.states { @for alarm in shown {
            li { a href={ "/alarms#" (alarm.name) } { (outside(titles.of(&alarm.name))) } (alarms::state(alarm.state)) }
        } }
    }
}

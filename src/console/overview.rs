use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, ToSpan};
use kassa_bus::ShopId;
use kassa_bus::amount::Amount;
use kassa_bus::error::chain;
use kassa_bus::registry::Shop;
use kassa_bus::table::Readable;
use kassa_pipeline::row::DayRow;
use maud::{Markup, html};

use super::health::{FRESH, Health};
use super::page::{Page, Place};
use super::sales::{by_id, sold, turned_away, zones};
use super::text::{self, ago, amount, count, money, outside};
use super::{Console, Sight, attention, hops, page};
use crate::questions::QuestionError;

/// Every shop and its last days, or why they cannot be read.
pub(super) type Shops = Result<Vec<Facts>, String>;

pub(super) struct Facts {
    pub shop: Arc<Shop>,
    /// The last first.
    pub days: Vec<DayRow>,
    /// Days that cannot be read.
    pub unreadable: Vec<String>,
}

/// Days of which a card draws the turnover.
const DAYS: i32 = 14;

/// A shop that sold something within this is selling.
const SELLING: SignedDuration = SignedDuration::from_mins(15);

/// Sales shown of each kind.
const LATEST: usize = 12;

/// Shops that are asked for at once.
const SIDE_BY_SIDE: usize = 16;

pub(super) async fn look(sight: &Sight) -> Shops {
    let facts = |shop: Arc<Shop>| async move {
        let Readable { rows: days, unreadable } = sight.questions.last_days(&shop.shop_id, DAYS).await?;
        Ok::<_, QuestionError>(Facts { shop, days, unreadable })
    };
    let found = async {
        let shops = sight.questions.registered().await?.rows;
        stream::iter(shops.into_iter().map(facts)).buffered(SIDE_BY_SIDE).try_collect().await
    };
    found.await.map_err(|error: QuestionError| chain(&error))
}

pub(super) async fn show(State(console): State<Arc<Console>>) -> Response {
    let sight = &console.sight;
    let (health, shops) = (console.looks.health(sight).await, console.shops().await);
    let hops = console.looks.hops.get(FRESH * 10, hops::look(sight)).await;
    let now = sight.clock.now();
    let ids = by_id(&shops);
    let body = html! {
        (banner(&shops, &health, console.as_ref(), now))
        @if !health.is_attended() { (attention::list(&health, &ids, now)) }
        section aria-labelledby="shops" {
            h2 #shops { "Shops" }
            @match &*shops {
                Err(why) => (page::unavailable("The shops", why)),
                Ok(shops) => ul.shops { @for facts in shops { (card(facts, &health, &console, now)) } },
            }
        }
        div.feeds { (sold(&console, &ids, now, None, LATEST)) (turned_away(&console, &ids, now, None, LATEST)) }
        section aria-labelledby="hops" {
            h2 #hops { "A sale’s way" span.aside { "the last 15 minutes" } }
            (hops::table(&hops))
        }
        (zones(&ids))
    };
    Page { place: Place::Overview, title: "Overview", body, pace: 500 }
        .respond(sight.monitor.stack(), &health)
}

/// How it goes, in one line.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    tone: &'static str,
    says: String,
}

/// What a verdict goes by. None is what cannot be read.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Alarms there are.
    alarms: Option<usize>,
    on: usize,
    incidents: Option<usize>,
    /// Whether rejected sales need attention.
    attention: Option<bool>,
    /// Shops that sell, of how many.
    selling: Option<(usize, usize)>,
}

impl Known {
    fn of(shops: &Shops, health: &Health, console: &Console, now: Timestamp) -> Self {
        let sells = |facts: &&Facts| last(facts, console).is_some_and(|at| now.duration_since(at) <= SELLING);
        Self {
            alarms: health.alarms.as_ref().ok().map(Vec::len),
            on: health.firing().count(),
            attention: health.attention.as_ref().ok().map(|needs| !needs.is_empty()),
            incidents: health.incidents.is_ok().then(|| health.open().count()),
            selling: shops.as_ref().ok().map(|shops| (shops.iter().filter(sells).count(), shops.len())),
        }
    }
}

/// What is wrong comes first, then what nobody knows; only when all is known and well, it matters whether anybody buys
/// anything.
fn verdict(known: Known) -> Verdict {
    let some = |number: usize, one: &str, more: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{number} {more}")),
    };
    let wrong: Vec<String> = [
        some(known.on, "alarm is on", "alarms are on"),
        some(known.incidents.unwrap_or(0), "incident is open", "incidents are open"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let (true, Some(true)) = (wrong.is_empty(), known.attention) {
        return Verdict { tone: "bad", says: "Rejected sales need attention".to_owned() };
    }
    if !wrong.is_empty() {
        return Verdict { tone: "bad", says: wrong.join(", ") };
    }
    let (tone, says) = match (known.alarms, known.incidents, known.selling) {
        _ if known.attention.is_none() => ("unknown", "Nothing is known of what needs attention".to_owned()),
        (None, ..) => ("unknown", "Nothing is known of the alarms".to_owned()),
        (Some(0), ..) => ("unknown", "Nobody watches: none of the alarms is deployed".to_owned()),
        (_, None, _) => ("unknown", "Nothing is known of incidents".to_owned()),
        (.., None) => ("unknown", "Nothing is known of the shops".to_owned()),
        (.., Some((0, _))) => ("quiet", "No shop sold anything in the last 15 minutes".to_owned()),
        (.., Some((1, 1))) => ("good", "The shop is selling".to_owned()),
        (.., Some((selling, shops))) if selling == shops => {
            ("good", format!("All {shops} shops are selling"))
        }
        (.., Some((selling, shops))) => ("good", format!("{selling} of {shops} shops are selling")),
    };
    Verdict { tone, says }
}

fn banner(shops: &Shops, health: &Health, console: &Console, now: Timestamp) -> Markup {
    let known = Known::of(shops, health, console, now);
    let verdict = verdict(known);
    let unread = [health.alarms.as_ref().err(), health.incidents.as_ref().err()];
    html! {
        div.banner.(verdict.tone) {
            h1 { (verdict.says) }
            @if verdict.tone == "bad" { ul { (wrong(health, console, now)) } }
            @for why in unread.into_iter().flatten() { p { (outside(why)) } }
            @let days = shops.iter().flatten().flat_map(|facts| &facts.unreadable);
            (page::skipped(health.unreadable.iter().chain(days)))
            @if let (0, Some(alarms @ 1..)) = (known.on, known.alarms) {
                p { "None of the " a href="/alarms" { (alarms) " alarms" } " is on"
                    @if let (Ok(Some(_)), Some(0)) = (&health.incidents, known.incidents) { ", and no incident is open" }
                    "." }
            }
            @let missing = console.titles.missing(health.alarms.as_deref().unwrap_or_default()).len();
            @if health.alarms.is_ok() && missing > 0 {
                p { a href="/alarms#missing" { (missing) " alarms are not deployed" } ": nobody watches for what they are for." }
            }
        }
    }
}

fn wrong(health: &Health, console: &Console, now: Timestamp) -> Markup {
    html! {
        @for alarm in health.firing() {
            li { a href={ "/alarms#" (alarm.name) } { (outside(console.titles.of(&alarm.name))) }
                " " span.since { "for " (text::rough(now.duration_since(alarm.since))) } }
        }
        @for incident in health.open() {
            li { a href="/incidents" { (incident.shop_id) ": " (incident.reason) }
                " " span.since { (count(incident.failures.count)) " sales, the last " (ago(now, incident.failures.last)) } }
        }
    }
}

fn card(facts: &Facts, health: &Health, console: &Console, now: Timestamp) -> Markup {
    let Facts { shop, days, .. } = facts;
    let zone = shop.zone();
    let today = now.to_zoned(zone.clone()).date();
    let on = |date: Date| days.iter().find(|row| is_of(row, date));
    let before = on(today.saturating_sub(7.days()));
    let last = last(facts, console);
    let incident = health.open().find(|incident| incident.shop_id == shop.shop_id);
    let (tone, state) = match (incident, last) {
        (Some(_), _) => ("bad", "rejecting"),
        (None, Some(at)) if now.duration_since(at) <= SELLING => ("good", "selling"),
        _ => ("quiet", "quiet"),
    };
    html! {
        li.shop data-key=(shop.shop_id) {
            div.head { h3 { a href={ "/stock/" (shop.shop_id) } { (text::shop(shop)) } } span.state.(tone) { (state) } }
            dl {
                div { dt { "Turnover today" } dd.figure { (money(on(today).map_or(Amount::ZERO, |row| row.turnover))) } }
                div { dt { "Sales today" } dd.figure { (amount(on(today).map_or(Amount::ZERO, |row| row.sales))) } }
                div { dt { "Last sale" } dd { @match last {
                    Some(at) => { (text::time(now, at, &zone)) span.aside { (ago(now, at)) } },
                    None => (last_day(days)),
                } } }
                div { dt { (today.strftime("%A").to_string()) " last week" } dd { @match before {
                    Some(row) => { (money(row.turnover)) span.aside { (amount(row.sales)) " sales" } },
                    None => { span.none { "no sales" } },
                } } }
            }
            (bars(days, today, &shop.shop_id))
        }
    }
}

/// When the shop's last sale was recorded: the feed may not have seen it, and the days' rows lag behind the feed.
fn last(facts: &Facts, console: &Console) -> Option<Timestamp> {
    let seen = console.sight.feed.last(&facts.shop.shop_id);
    facts.days.iter().filter_map(|day| day.last_at).chain(seen).max()
}

fn last_day(days: &[DayRow]) -> Markup {
    html! { @match days.first().and_then(date) {
        Some(date) => (date.strftime("%-d %b %Y").to_string()),
        None => { span.none { "none yet" } },
    } }
}

fn is_of(row: &DayRow, day: Date) -> bool {
    date(row) == Some(day)
}

fn date(row: &DayRow) -> Option<Date> {
    row.record_type.strip_prefix("d-")?.parse().ok()
}

/// The turnover of the last two weeks, a bar a day; the figures themselves are on the shop's own page.
fn bars(days: &[DayRow], today: Date, shop: &ShopId) -> Markup {
    let turnover = |back: i64| {
        let row = days.iter().find(|row| is_of(row, today.saturating_sub(back.days())));
        row.and_then(|row| row.turnover.to_string().parse::<f64>().ok()).unwrap_or(0.0).max(0.0)
    };
    let values: Vec<f64> = (0..i64::from(DAYS)).rev().map(turnover).collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    html! {
        svg.bars viewBox={ "0 0 " (DAYS * 10) " 30" } preserveAspectRatio="none" role="img"
            aria-label={ "Turnover of " (shop) " in the last " (DAYS) " days" } {
            @for (n, value) in values.iter().enumerate() {
                @let height = if most > 0.0 { (value / most * 28.0).max(if *value > 0.0 { 1.5 } else { 0.5 }) } else { 0.5 };
                rect class=[(n + 1 == values.len()).then_some("today")] x=(n * 10 + 1) y=(format!("{:.2}", 30.0 - height))
                    width="8" height=(format!("{height:.2}")) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_before_who_sells() {
        let says = |alarms: Option<(usize, usize)>, incidents: Option<usize>, selling| {
            let (alarms, on) = (alarms.map(|(_, all)| all), alarms.map_or(0, |(on, _)| on));
            let attention = Some(incidents.is_some_and(|open| open > 0));
            let Verdict { tone, says } = verdict(Known { alarms, on, incidents, attention, selling });
            format!("{tone}: {says}")
        };
        let of_two = |selling| Some((selling, 2));
        assert_eq!(says(Some((1, 9)), Some(2), of_two(2)), "bad: 1 alarm is on, 2 incidents are open");
        assert_eq!(says(None, Some(1), of_two(2)), "bad: 1 incident is open");
        assert_eq!(says(Some((1, 9)), None, None), "bad: 1 alarm is on");
        assert_eq!(
            says(Some((0, 9)), Some(0), of_two(0)),
            "quiet: No shop sold anything in the last 15 minutes"
        );
        assert_eq!(says(Some((0, 9)), Some(0), of_two(1)), "good: 1 of 2 shops are selling");
        assert_eq!(says(Some((0, 9)), Some(0), of_two(2)), "good: All 2 shops are selling");
        assert_eq!(says(Some((0, 9)), Some(0), Some((1, 1))), "good: The shop is selling");
    }

    #[test]
    fn what_nobody_knows_is_not_well() {
        let known = Known {
            alarms: Some(9),
            on: 0,
            incidents: Some(0),
            attention: Some(false),
            selling: Some((2, 2)),
        };
        for unknown in [
            Known { alarms: None, ..known },
            Known { alarms: Some(0), ..known },
            Known { incidents: None, ..known },
            Known { attention: None, ..known },
            Known { selling: None, ..known },
        ] {
            assert_eq!(verdict(unknown).tone, "unknown", "{unknown:?}");
        }
    }
}

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::ShopId;
use kassa_pipeline::event::{ACCEPTED, RECORDED, REJECTED};
use maud::{Markup, html};
use serde_json::Value;

use super::page::{Page, Place};
use super::text::{amount, money, outside, plain, took};
use super::{Console, page};
use crate::questions::{SaleHistory, ShownEvent, Status};

/// Lines of a sale that are shown.
const LINES: usize = 200;

pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Path((shop, sale)): Path<(String, String)>,
) -> Response {
    let sight = &console.sight;
    let health = console.looks.health(sight).await;
    let (status, body) = match sight.questions.sale(&sale, Some(&shop)).await {
        Ok(history) => (StatusCode::OK, found(&console, &history).await),
        Err(error) => {
            let (status, why) = page::unanswered(&error);
            (status, html! { h1 { "Sale" } (why) p { a href="/sales" { "Look for another" } } })
        }
    };
    let title = format!("Sale {}", plain(&sale));
    let page = Page { place: Place::Nowhere, title: &title, body, pace: 1_000 };
    page.with_status(status, sight.monitor.stack(), &health)
}

async fn found(console: &Console, history: &SaleHistory) -> Markup {
    let SaleHistory { sale_id, shop_id, status, events, more } = history;
    let shops = console.shops().await;
    let shop = super::sales::by_id(&shops).remove(shop_id);
    let zone = shop.as_ref().map_or(TimeZone::UTC, |shop| shop.zone());
    let recorded = events.iter().find(|event| event.kind == RECORDED);
    let items = match recorded {
        Some(event) => descriptions(console, shop_id, &event.body).await,
        None => HashMap::new(),
    };
    let tone = match status {
        Status::Recorded => "good",
        Status::Rejected => "bad",
        Status::Pending => "quiet",
    };
    html! {
        div {
            h1 { "Sale " span.id { (sale_id) } " " span.state.(tone) { (status.as_str()) } }
            p.facts {
                @match &shop { Some(shop) => (super::text::shop(shop)), None => (shop_id) }
                @if let Some(event) = recorded { (booked(&event.body)) }
                " · times in " (zone.iana_name().unwrap_or("UTC"))
            }
        }
        section aria-labelledby="way" { h2 #way { "Its way" } (waterfall(&steps(events), &zone)) }
        @if let Some(event) = recorded {
            section aria-labelledby="lines" { h2 #lines { "What was sold" } (lines(&event.body, &items)) }
        }
        section aria-labelledby="events" { h2 #events { "Events" } (table(events, &zone))
            @if *more { p.empty { "There are more events, which are not shown." } }
        }
    }
}

/// What the items shown are called. Without it numbers must do.
async fn descriptions(console: &Console, shop: &ShopId, body: &Value) -> HashMap<String, String> {
    let lines = body["lines"].as_array().into_iter().flatten().take(LINES);
    let items = lines.filter_map(|line| text(line, "item_no")?.parse().ok()).collect();
    let described = console.sight.questions.descriptions(shop, items).await.unwrap_or_default();
    described.into_iter().map(|(item, description)| (item.to_string(), description)).collect()
}

fn text<'v>(body: &'v Value, name: &str) -> Option<&'v str> {
    body[name].as_str()
}

fn booked(body: &Value) -> Markup {
    html! {
        @if let Some(day) = text(body, "business_date") { " · booked on " (outside(day)) }
        @if let Some(day) = text(body, "dated") { ", the day it was accepted, as " (outside(day)) " is not believed" }
        @if let Some(till) = text(body, "till") { " · " (outside(till)) }
        @if let Some(seq) = body["seq"].as_u64() { ", its number " (seq) }
    }
}

/// Something that happened to a sale, and when what came before it had.
struct Step {
    name: String,
    from: Timestamp,
    at: Timestamp,
    bad: bool,
}

/// What happened, each after what led to it: a recorded or rejected event names the envelope it came of.
fn steps(events: &[ShownEvent]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for event in events {
        let accepted = events.iter().rfind(|other| other.kind == ACCEPTED && other.at <= event.at);
        let from = accepted.map_or(event.at, |accepted| accepted.at);
        match event.kind.as_str() {
            RECORDED => {
                let opened = text(&event.body, "decrypted_at").and_then(|at| at.parse::<Timestamp>().ok());
                // A clock may have been set back in between.
                let opened = opened.map(|at| at.clamp(from.min(event.at), event.at));
                if let Some(at) = opened {
                    steps.push(Step { name: "decrypted".to_owned(), from, at, bad: false });
                }
                let from = opened.unwrap_or(from);
                steps.push(Step { name: "recorded".to_owned(), from, at: event.at, bad: false });
            }
            REJECTED => {
                let reason = text(&event.body, "reason").unwrap_or_default();
                steps.push(Step { name: format!("rejected: {reason}"), from, at: event.at, bad: true });
            }
            _ => steps.push(Step { name: event.kind.clone(), from: event.at, at: event.at, bad: false }),
        }
    }
    steps
}

fn waterfall(steps: &[Step], zone: &TimeZone) -> Markup {
    let begun = steps.iter().map(|step| step.from).min().unwrap_or(Timestamp::UNIX_EPOCH);
    let ended = steps.iter().map(|step| step.at).max().unwrap_or(begun);
    let whole = ended.duration_since(begun).as_secs_f64().max(1e-6);
    let place = |at: Timestamp| at.duration_since(begun).as_secs_f64() / whole * 990.0;
    html! {
        table.waterfall {
            caption { @if steps.len() > 1 {
                "From the first to the last, " (took(ended.duration_since(begun)))
            } @else { "Accepted, and not settled yet" } }
            thead { tr {
                th scope="col" { "Step" } th.wide scope="col" { "At" }
                th.bar scope="col" { span.unseen { "On the way" } } th.number scope="col" { "Took" }
            } }
            tbody { @for (n, step) in steps.iter().enumerate() {
                tr data-key=(n) {
                    th scope="row" { (outside(&step.name)) }
                    td.wide { time datetime=(step.at) { (step.at.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f").to_string()) } }
                    td.bar { svg viewBox="0 0 1000 16" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
                        rect.track x="0" y="7" width="1000" height="2" {}
                        rect class=(if step.bad { "span bad" } else { "span" }) x=(format!("{:.1}", place(step.from))) y="2" rx="3" height="12"
                            width=(format!("{:.1}", (place(step.at) - place(step.from)).max(10.0))) {}
                    } }
                    td.number { @if step.at > step.from { "+" (took(step.at.duration_since(step.from))) } @else { "0" } }
                }
            } }
        }
    }
}

fn lines(body: &Value, items: &HashMap<String, String>) -> Markup {
    let all = body["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    let decimal = |value: &Value, name: &str| text(value, name).and_then(|text| text.parse().ok());
    html! {
        table {
            thead { tr {
                th.wide scope="col" { "Item" } th scope="col" { "Description" }
                th.number scope="col" { "Number" } th.number scope="col" { "Turnover" }
            } }
            tbody { @for line in all.iter().take(LINES) {
                @let item = text(line, "item_no").unwrap_or_default();
                tr {
                    td.id.wide { (outside(item)) }
                    td { @match items.get(item) {
                        Some(description) => (outside(description)),
                        None => { span.none { "not declared" } span.aside.narrow { (outside(item)) } },
                    } }
                    td.number { (decimal(line, "gross_number").map_or_else(String::new, amount)) }
                    td.number { (decimal(line, "gross_turnover").map_or_else(String::new, money)) }
                }
            } }
            tfoot { tr {
                th scope="row" { "Total" } td.wide {}
                td.number { (decimal(&body["totals"], "gross_number").map_or_else(String::new, amount)) }
                td.number { (decimal(&body["totals"], "gross_turnover").map_or_else(String::new, money)) }
            } }
        }
        @if all.len() > LINES { p.empty { (all.len() - LINES) " more lines are not shown; kassa sale shows them all." } }
    }
}

fn table(events: &[ShownEvent], zone: &TimeZone) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Time" } th scope="col" { "Event" } th scope="col" { "What" } } }
            tbody { @for event in events { tr {
                @let at = event.at.to_zoned(zone.clone());
                td { time datetime=(event.at) {
                    span.wide { (at.strftime("%F ").to_string()) } (at.strftime("%T%.3f").to_string())
                } }
                td.word { (outside(&event.kind)) }
                td { (what(event, zone)) @if let Some(trace) = &event.trace { span.aside { "trace " (outside(&trace.to_string())) } } }
            } } }
        }
    }
}

fn what(event: &ShownEvent, zone: &TimeZone) -> Markup {
    let said = |name: &str| text(&event.body, name).unwrap_or_default();
    html! { @match event.kind.as_str() {
        ACCEPTED => { (outside(said("format"))) " envelope from " (outside(said("source"))) },
        REJECTED => { (outside(said("reason"))) ": " (outside(said("detail"))) },
        RECORDED => {
            (money_of(&event.body)) " in " (number_of_lines(&event.body))
            @if let Some(at) = text(&event.body, "sold_at").and_then(|at| at.parse::<Timestamp>().ok()) {
                (sold_at(at, event.at, zone))
            }
        },
        _ => {},
    } }
}

fn number_of_lines(body: &Value) -> String {
    match body["lines"].as_array().map_or(0, Vec::len) {
        1 => "1 line".to_owned(),
        lines => format!("{lines} lines"),
    }
}

fn money_of(body: &Value) -> String {
    let total = text(&body["totals"], "gross_turnover").and_then(|text| text.parse().ok());
    total.map_or_else(String::new, money)
}

fn sold_at(sold: Timestamp, recorded: Timestamp, zone: &TimeZone) -> Markup {
    let late = recorded.duration_since(sold);
    html! { span.aside {
        "sold at " (sold.to_zoned(zone.clone()).strftime("%F %T").to_string()) " by the till’s clock"
        @if late > SignedDuration::from_mins(1) { ", " (took(late)) " before" }
        @if late < SignedDuration::from_mins(-1) { ", " (took(-late)) " after it was recorded" }
    } }
}

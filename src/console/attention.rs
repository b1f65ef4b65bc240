//! The list of what needs attention, as `kassa status` has it: from the tables, so that a restart forgets nothing.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::health::Health;
use super::page;
use super::sales::ById;
use super::text::{self, ago, count};
use crate::status::Need;

pub(super) fn list(health: &Health, shops: &ById, now: Timestamp) -> Markup {
    let needs = match &health.attention {
        Err(why) => return page::unavailable("What needs attention", why),
        Ok(needs) => needs,
    };
    html! {
        section aria-labelledby="attention" {
            h2 #attention { "Needs attention" @if !needs.is_empty() { " " span.aside { (sales(needs)) } } }
            @if needs.is_empty() { p.empty { "Nothing. Every rejected sale is booked by now, or was given up." } }
            @else { table {
                thead { tr {
                    th scope="col" { "Shop" } th.wide scope="col" { "Till" } th scope="col" { "Why" }
                    th.number scope="col" { "Sales" } th scope="col" { "Since" } th.wide scope="col" { "Begin with" }
                } }
                tbody { @for need in needs { (row(need, shops, now)) } }
            } }
        }
    }
}

/// How many sales, at least.
fn sales(needs: &[Need]) -> String {
    let counted = needs.iter().filter_map(|need| need.count).fold(0, u64::saturating_add);
    let more = if needs.iter().any(|need| need.count.is_none()) { " and more" } else { "" };
    format!("{}{more}", count(counted))
}

fn row(need: &Need, shops: &ById, now: Timestamp) -> Markup {
    let shop = need.shop_id.as_ref();
    let zone = shop.and_then(|shop| shops.get(shop)).map_or(TimeZone::UTC, |shop| shop.zone());
    html! {
        tr data-key={ @if let Some(shop) = shop { (shop) } "/" (need.what()) "/" @if let Some(till) = &need.till { (till) } } {
            td { @if let Some(shop) = shop { (shop) } }
            td.wide { @if let Some(till) = &need.till { (till) } }
            td { (need.what()) }
            td.number { @if let Some(number) = need.count { (count(number)) } }
            td { @if let Some(at) = need.since { (text::time(now, at, &zone)) " " span.aside { (ago(now, at)) } } }
            td.wide { code { (need.run) } }
        }
    }
}

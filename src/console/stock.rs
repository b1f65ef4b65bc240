use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use kassa_bus::registry::Shop;
use kassa_bus::table::Readable;
use kassa_pipeline::posting::Row;
use kassa_pipeline::row::{DayRow, ItemRow};
use maud::{Markup, html};
use serde::Deserialize;

use super::Console;
use super::page::{self, Page, Place};
use super::text::{amount, money, outside, plain};
use crate::questions::QuestionError;

/// `?q=`
#[derive(Debug, Default, Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    q: String,
}

/// Characters that are looked for.
const SEARCHED: usize = 100;

/// Rows shown at once.
const SHOWN: usize = 200;

/// Days shown.
const DAYS: i32 = 14;

/// The stock of the first shop there is.
pub(super) async fn first(State(console): State<Arc<Console>>) -> Response {
    match &*console.shops().await {
        Ok(shops) if !shops.is_empty() => {
            Redirect::to(&format!("/stock/{}", shops[0].shop.shop_id)).into_response()
        }
        shops => {
            let why = shops.as_ref().err().map_or("No shop is registered yet.", String::as_str);
            let body = html! { h1 { "Stock" } (page::unavailable("The stock", why)) };
            let health = console.looks.health(&console.sight).await;
            let page = Page { place: Place::Stock, title: "Stock", body, pace: 2_000 };
            page.respond(console.sight.monitor.stack(), &health)
        }
    }
}

pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Path(shop): Path<String>,
    Query(search): Query<Search>,
) -> Response {
    let sight = &console.sight;
    let health = console.looks.health(sight).await;
    let shops = console.shops().await;
    let all: Vec<&Shop> = shops.iter().flatten().map(|facts| &*facts.shop).collect();
    let zone = all.iter().find(|of| of.shop_id.as_str() == shop).map_or(TimeZone::UTC, |of| of.zone());
    let today = sight.clock.now().to_zoned(zone).date();
    let (status, answer) = match read(&console, &shop, &search.q, today).await {
        Ok((found, days, unreadable)) => {
            let skipped = page::skipped(unreadable.iter());
            (StatusCode::OK, html! { (skipped) (shown(&found, &days, &shop)) })
        }
        Err(error) => page::unanswered(&error),
    };
    let body = html! {
        h1 { "Stock" }
        nav.tabs aria-label="Shop" { ul { @for of in &all {
            li { a href={ "/stock/" (of.shop_id) } aria-current=[(of.shop_id.as_str() == shop).then_some("page")] {
                (super::text::shop(of))
            } }
        } } }
        (answer)
    };
    let title = format!("Stock of {}", plain(&shop));
    let page = Page { place: Place::Stock, title: &title, body, pace: 2_000 };
    page.with_status(status, sight.monitor.stack(), &health)
}

/// What was looked for, and what of it is shown: no more of the rows is kept than that.
struct Found {
    search: String,
    matching: usize,
    items: Vec<ItemRow>,
}

impl Found {
    fn take(&mut self, item: ItemRow, words: &[&str]) {
        if !matches(&item, words) {
            return;
        }
        self.matching += 1;
        self.items.push(item);
        if self.items.len() >= SHOWN * 2 {
            self.cut();
        }
    }

    /// Those that are declared come first, by name; the one that others share comes last.
    fn cut(&mut self) {
        self.items.sort_by_cached_key(|item| {
            (item.is_shared(), item.item_description.is_none(), item.item_description.clone())
        });
        self.items.truncate(SHOWN);
    }
}

async fn read(
    console: &Console,
    shop: &str,
    search: &str,
    today: Date,
) -> Result<(Found, Vec<DayRow>, Vec<String>), QuestionError> {
    let questions = &console.sight.questions;
    let search: String = search.chars().take(SEARCHED).collect();
    let lower = search.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let mut found = Found { search, matching: 0, items: Vec::new() };
    let mut unreadable = questions.items(shop, |item| found.take(item, &words)).await?;
    found.cut();
    let days = match shop.parse() {
        Ok(shop) => questions.last_days(&shop, today, DAYS).await?,
        Err(_) => Readable::default(),
    };
    unreadable.extend(days.unreadable);
    unreadable.truncate(SHOWN);
    Ok((found, days.rows, unreadable))
}

/// An item's number as tills and `shops.toml` have it.
fn number(item: &ItemRow) -> String {
    match Row::parse(&item.record_type) {
        Some(Row::Item(number)) => number.to_string(),
        Some(Row::Other) => "other".to_owned(),
        _ => item.record_type.clone(),
    }
}

/// Whether every word that was looked for is in the item's number or description.
fn matches(item: &ItemRow, words: &[&str]) -> bool {
    let told =
        format!("{} {}", number(item), item.item_description.as_deref().unwrap_or_default()).to_lowercase();
    words.iter().all(|word| told.contains(word))
}

fn shown(Found { search, matching, items }: &Found, days: &[DayRow], shop: &str) -> Markup {
    html! {
        form.search method="get" action={ "/stock/" (shop) } role="search" {
            label for="q" { "Item" }
            input #q name="q" type="search" value=(plain(search)) maxlength=(SEARCHED) autocomplete="off" placeholder="Number or description";
            button type="submit" { "Search" }
            @if !search.is_empty() { a href={ "/stock/" (shop) } { "Show all" } }
        }
        p.count role="status" { (matching) @if *matching == 1 { " item" } @else { " items" }
            @if *matching > SHOWN { ", the first " (SHOWN) " are shown: search for the others" } }
        @if !items.is_empty() { section aria-labelledby="items" { h2.unseen #items { "Items" } (table(items)) } }
        section aria-labelledby="days" { h2 #days { "Turnover a day" } (turnover(days)) }
    }
}

fn table(items: &[ItemRow]) -> Markup {
    html! {
        table {
            thead { tr {
                th.wide scope="col" { "Item" } th scope="col" { "Description" } th.number.wide scope="col" { "Price" }
                th.number scope="col" { "Stock" } th.number scope="col" { "Sold" }
                th.number.wide scope="col" { "Turnover" }
            } }
            tbody { @for item in items { tr data-key=(item.record_type) {
                td.id.wide { (outside(&number(item))) }
                td { @match &item.item_description {
                    Some(description) => (outside(description)),
                    None if item.is_shared() => { span.none { "all other items that are not declared" } },
                    None => { span.none { "not declared" } },
                } span.aside.narrow { (outside(&number(item))) } }
                td.number.wide { (item.selling_price.map_or_else(String::new, money)) }
                td.number.bad[item.stock.is_negative()] { (amount(item.stock)) }
                td.number { (amount(item.gross_number)) }
                td.number.wide { (money(item.gross_turnover)) }
            } } }
        }
    }
}

fn turnover(days: &[DayRow]) -> Markup {
    html! {
        @if days.is_empty() { p.empty { "Nothing was sold yet." } }
        @else { table {
            thead { tr {
                th scope="col" { "Day" } th.number scope="col" { "Sales" } th.number scope="col" { "Turnover" }
            } }
            tbody { @for day in days { tr data-key=(day.record_type) {
                td { (outside(day.record_type.trim_start_matches("d-"))) }
                td.number { (amount(day.sales)) }
                td.number { (money(day.turnover)) }
            } } }
        } }
    }
}

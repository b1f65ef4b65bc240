use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kassa_bus::registry::Shop;
use kassa_bus::{SaleId, ShopId};
use maud::{Markup, html};
use serde::Deserialize;

use super::feed::{KEPT, Sold, TurnedAway};
use super::health::FRESH;
use super::page::{Page, Place};
use super::text::{self, money, outside, plain};
use super::{Console, page};
use crate::questions::QuestionError;

/// `?id=&shop=`
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    id: Option<String>,
    shop: Option<String>,
}

/// Shops by their ids, for times and names.
pub(super) type ById = BTreeMap<ShopId, Arc<Shop>>;

pub(super) async fn show(State(console): State<Arc<Console>>, Query(wanted): Query<Wanted>) -> Response {
    let health = console.looks.health(&console.sight).await;
    let shops = console.shops().await;
    let id = wanted.id.as_deref().map(str::trim).filter(|id| !id.is_empty());
    let shop = wanted.shop.as_deref().filter(|shop| !shop.is_empty());
    let (mut status, mut found) = (StatusCode::OK, None);
    if let Some(id) = id {
        match console.sight.questions.sale(id, shop).await {
            Ok(sale) => return Redirect::to(&address(&sale.shop_id, &sale.sale_id)).into_response(),
            // The same id in more than one shop is no error here: each is offered.
            Err(QuestionError::Ambiguous(id, shops)) => found = Some(choice(&id, &shops)),
            Err(error) => {
                let (failed, why) = page::unanswered(&error);
                (status, found) = (failed, Some(why));
            }
        }
    }
    let now = console.sight.clock.now();
    let by_id = by_id(&shops);
    let of_shop = by_id.values().map(|of| &of.shop_id).find(|id| shop == Some(id.as_str()));
    let body = html! {
        h1 { "Sales" }
        form.search method="get" action="/sales" role="search" {
            label for="id" { "Sale’s id" }
            input #id name="id" type="search" value=[id.map(plain)] autocomplete="off" spellcheck="false"
                placeholder="019394e8-6c00-7000-8000-000000000001";
            label.unseen for="shop" { "Shop" }
            select #shop name="shop" {
                option value="" { "Any shop" }
                @for of in by_id.values() {
                    option value=(of.shop_id) selected[shop == Some(of.shop_id.as_str())] { (plain(&of.name)) }
                }
            }
            button type="submit" { "Find" }
        }
        @if let Some(found) = found { div.answer role="status" { (found) } }
        div.feeds { (sold(&console, &by_id, now, of_shop, KEPT)) (turned_away(&console, &by_id, now, of_shop, KEPT)) }
        (zones(&by_id))
    };
    let page = Page { place: Place::Sales, title: "Sales", body, pace: 500 };
    page.with_status(status, console.sight.monitor.stack(), &health)
}

impl Console {
    /// The shops there are and their last days, as found not long ago.
    pub(super) async fn shops(&self) -> Arc<super::overview::Shops> {
        self.looks.shops.get(FRESH, Box::pin(super::overview::look(&self.sight))).await
    }
}

pub(super) fn by_id(shops: &super::overview::Shops) -> ById {
    let shops = shops.iter().flatten();
    shops.map(|facts| (facts.shop.shop_id.clone(), Arc::clone(&facts.shop))).collect()
}

pub(super) fn address(shop: &ShopId, sale: &SaleId) -> String {
    format!("/sales/{shop}/{}", sale.as_str())
}

fn choice(id: &SaleId, shops: &str) -> Markup {
    html! { p { "More than one shop has a sale of this id: "
        @for shop in shops.split(", ") { a href={ "/sales/" (shop) "/" (id) } { (shop) } " " }
    } }
}

fn zone(shops: &ById, shop: &ShopId) -> TimeZone {
    shops.get(shop).map_or(TimeZone::UTC, |shop| shop.zone())
}

/// Whose times the times are.
pub(super) fn zones(shops: &ById) -> Markup {
    let mut zones: BTreeSet<&str> = shops.values().map(|shop| shop.time_zone.as_str()).collect();
    html! { p.zone { @match (zones.pop_first(), zones.is_empty()) {
        (Some(zone), true) => { "Times are those of " (outside(zone)) "." },
        _ => "Times are each shop’s own.",
    } } }
}

/// The end of an id tells sales of a day apart.
fn link(shop: &ShopId, sale: &SaleId) -> Markup {
    let id = sale.as_str();
    let short = if sale.is_uuid() { &id[id.len() - 8..] } else { id };
    html! { a.id href=(address(shop, sale)) title=(id) { (short) } }
}

/// The latest recorded sales, of one shop or of all.
pub(super) fn sold(
    console: &Console,
    shops: &ById,
    now: Timestamp,
    shop: Option<&ShopId>,
    limit: usize,
) -> Markup {
    let mut sales = console.sight.feed.sold(limit);
    sales.retain(|sale| shop.is_none_or(|shop| sale.shop_id == *shop));
    html! {
        section.feed aria-labelledby="sold" {
            h2 #sold { "Recorded" }
            @if let (true, Some(shop)) = (sales.is_empty(), shop) { (none_of(shop)) }
            @else if sales.is_empty() { p.empty { "No sale was seen yet." } }
            @else { table {
                thead { tr {
                    th scope="col" { "Time" } th scope="col" { "Shop" } th.wide.till scope="col" { "Till" }
                    th.wide scope="col" { "Sale" } th.number.wide scope="col" { "Lines" }
                    th.number scope="col" { "Turnover" }
                } }
                tbody.news data-counts="recorded" { @for sale in &sales { (sold_row(sale, shops, now)) } }
            } }
        }
    }
}

fn none_of(shop: &ShopId) -> Markup {
    html! { p.empty { "None of the latest " (KEPT) " is of " (shop) "." } }
}

fn sold_row(sale: &Sold, shops: &ById, now: Timestamp) -> Markup {
    let Sold { shop_id, sale_id, at, till, lines, totals } = sale;
    let refund = totals.gross_turnover.is_negative();
    html! {
        tr data-key={ (shop_id) "/" (sale_id) } {
            td { a.quiet href=(address(shop_id, sale_id)) { (text::time(now, *at, &zone(shops, shop_id))) } }
            td { (shop_id) }
            td.wide.till { @if let Some(till) = till { (outside(&short(till))) } }
            td.wide { (link(shop_id, sale_id)) }
            td.number.wide { (lines) }
            td.number { @if refund { span.tag { "refund" } " " } (money(totals.gross_turnover)) }
        }
    }
}

/// The latest rejected sales, likewise.
pub(super) fn turned_away(
    console: &Console,
    shops: &ById,
    now: Timestamp,
    shop: Option<&ShopId>,
    limit: usize,
) -> Markup {
    let mut sales = console.sight.feed.turned_away(limit);
    sales.retain(|sale| shop.is_none_or(|shop| sale.shop_id == *shop));
    html! {
        section.feed aria-labelledby="turned-away" {
            h2 #turned-away { "Rejected" }
            @if let (true, Some(shop)) = (sales.is_empty(), shop) { (none_of(shop)) }
            @else if sales.is_empty() { p.empty { "None of late, and none that needs attention." } }
            @else { table {
                thead { tr {
                    th scope="col" { "Time" } th scope="col" { "Shop" } th.reason scope="col" { "Why" }
                    th.wide scope="col" { "From" } th.wide scope="col" { "Sale" }
                } }
                tbody.news data-counts="rejected" { @for sale in &sales { (turned_away_row(sale, shops, now)) } }
            } }
        }
    }
}

fn turned_away_row(sale: &TurnedAway, shops: &ById, now: Timestamp) -> Markup {
    let TurnedAway { shop_id, sale_id, at, reason, detail, source } = sale;
    html! {
        tr data-key={ (shop_id) "/" (sale_id) "/" (at) } {
            td { a.quiet href=(address(shop_id, sale_id)) { (text::time(now, *at, &zone(shops, shop_id))) } }
            td { (shop_id) }
            td.reason { span.tag.bad { (reason) } span.detail { (outside(&short(detail))) } }
            td.wide { @if let Some(source) = source { (outside(source)) } }
            td.wide { (link(shop_id, sale_id)) }
        }
    }
}

fn short(text: &str) -> String {
    crate::show::short(text, 120)
}

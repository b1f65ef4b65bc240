use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kassa_bus::error::chain;
use kassa_bus::notify::{Alert, Notice, Severity, Sms};
use kassa_subscribers::decrypt_error_alerter::{Incident, Phase};
use maud::{Markup, html};

use super::health::Health;
use super::page::{self, Page, Place};
use super::sales::{ById, by_id, zones};
use super::text::{self, ago, count, outside, outside_lines};
use super::{Console, attention};
use crate::questions::{QuestionError, Sent};

/// Notices shown.
const SENT: i32 = 60;

/// Incidents that are over, shown.
const OVER: usize = 20;

pub(super) async fn show(State(console): State<Arc<Console>>) -> Response {
    let sight = &console.sight;
    let health = console.looks.health(sight).await;
    let (shops, now) = (by_id(&*console.shops().await), sight.clock.now());
    let sent = sight.questions.last_sent(SENT).await;
    let body = html! {
        h1 { "Incidents" }
        (attention::list(&health, &shops, now))
        (incidents(&health, &shops, now))
        @match sent {
            Ok(sent) => (outbox(&sent, &shops, now)),
            Err(QuestionError::NoDocuments(_)) => p.empty {
                "On AWS, text messages go to the managers’ phones and alerts to whoever subscribed to the topic alerts; \
                 they are not kept here."
            },
            Err(error) => (page::unavailable("What was sent", &chain(&error))),
        }
        (zones(&shops))
    };
    Page { place: Place::Incidents, title: "Incidents", body, pace: 500 }
        .respond(sight.monitor.stack(), &health)
}

fn incidents(health: &Health, shops: &ById, now: Timestamp) -> Markup {
    let all = match &health.incidents {
        Err(why) => return page::unavailable("The incidents", why),
        Ok(None) => return html! { p.empty { "The subscriber that keeps incidents is switched off here." } },
        Ok(Some(all)) => all,
    };
    let mut open: Vec<&Incident> = all.iter().filter(|incident| incident.phase != Phase::Over).collect();
    open.sort_by_key(|incident| (!incident.is_open(), incident.failures.first));
    let mut over: Vec<&Incident> = all.iter().filter(|incident| incident.phase == Phase::Over).collect();
    over.sort_by_key(|incident| std::cmp::Reverse(incident.failures.last));
    html! {
        section aria-labelledby="open" {
            h2 #open { "Open" }
            @if open.is_empty() { p.empty { "None. No shop’s sales are being rejected." } }
            @else { ul.incidents { @for incident in open { (card(incident, shops, now)) } } }
        }
        @if !over.is_empty() { section aria-labelledby="over" { h2 #over { "Over" } (past(&over, now)) } }
    }
}

fn card(incident: &Incident, shops: &ById, now: Timestamp) -> Markup {
    let Incident { shop_id, reason, failures, phase, .. } = incident;
    let (tone, state) = match phase {
        Phase::Open { .. } if incident.outgoing.is_empty() => ("bad", "people were told"),
        Phase::Open { .. } => ("bad", "people are being told"),
        Phase::Pending { .. } => ("quiet", "may be a hiccup"),
        Phase::Over => ("good", "over"),
    };
    let zone = shops.get(shop_id).map_or(TimeZone::UTC, |shop| shop.zone());
    html! {
        li data-key={ (shop_id) "#" (reason) } {
            div.head {
                h3 { @match shops.get(shop_id) { Some(shop) => (text::shop(shop)), None => (shop_id) } }
                span.state.(tone) { (state) }
            }
            p { strong { (reason) } " · " (count(failures.count)) @if failures.count == 1 { " sale" } @else { " sales" } }
            dl {
                div { dt { "First" } dd { (text::time(now, failures.first, &zone)) span.aside { (ago(now, failures.first)) } } }
                div { dt { "Last" } dd { (text::time(now, failures.last, &zone)) span.aside { (ago(now, failures.last)) } } }
                div { dt { "From" } dd { (outside(&failures.source)) } }
            }
        }
    }
}

fn past(over: &[&Incident], now: Timestamp) -> Markup {
    html! { table {
        thead { tr {
            th scope="col" { "Shop" } th scope="col" { "Why" } th.number scope="col" { "Sales" }
            th scope="col" { "Last" } th.wide scope="col" { "From" }
        } }
        tbody { @for Incident { shop_id, reason, failures, .. } in over.iter().take(OVER) {
            tr data-key={ (shop_id) "#" (reason) } {
                td { (shop_id) } td { (reason) } td.number { (count(failures.count)) }
                td { (ago(now, failures.last)) } td.wide { (outside(&failures.source)) }
            }
        } }
    } }
}

/// What would have been sent, as its receivers would have it before them.
fn outbox(sent: &[Sent], shops: &ById, now: Timestamp) -> Markup {
    let mut phones: BTreeMap<&str, Vec<(Timestamp, &Sms)>> = BTreeMap::new();
    let mut mails: Vec<(Timestamp, &Alert)> = Vec::new();
    for Sent { at, notice } in sent {
        match notice {
            Notice::Sms(sms) => phones.entry(&sms.to).or_default().push((*at, sms)),
            Notice::Alert(alert) => mails.push((*at, alert)),
        }
    }
    html! {
        section.outbox aria-labelledby="phones" {
            h2 #phones { "Text messages" span.aside { "nothing is sent from this machine" } }
            @if phones.is_empty() { p.empty { "None was sent." } }
            @else { ul.phones { @for (to, messages) in &phones { (phone(to, messages, shops, now)) } } }
        }
        section aria-labelledby="mails" {
            h2 #mails { "Alerts to ICT" }
            @if mails.is_empty() { p.empty { "None was sent." } }
            @else { ul.mails { @for (at, alert) in mails { (mail(at, alert, shops, now)) } } }
        }
    }
}

/// A phone, the newest message at its end.
fn phone(to: &str, messages: &[(Timestamp, &Sms)], shops: &ById, now: Timestamp) -> Markup {
    html! {
        li.phone data-key=(text::plain(to)) {
            h3 { (outside(to)) }
            ol tabindex="0" role="list" aria-label={ "Text messages to " (text::plain(to)) } {
                @for (at, sms) in messages.iter().rev() {
                    @let zone = shops.get(&sms.shop_id).map_or(TimeZone::UTC, |shop| shop.zone());
                    li data-key=(at) { p.bubble { (outside_lines(&sms.text)) } (text::time(now, *at, &zone)) }
                }
            }
        }
    }
}

fn mail(at: Timestamp, alert: &Alert, shops: &ById, now: Timestamp) -> Markup {
    let shop = alert.shop_id.as_ref().and_then(|shop| shops.get(shop));
    let zone = shop.map_or(TimeZone::UTC, |shop| shop.zone());
    let tone = match alert.severity {
        Severity::Info => "good",
        Severity::Warning => "warn",
        Severity::Critical => "bad",
    };
    html! {
        li data-key=(at) { details {
            summary {
                span.state.(tone) { (alert.severity) }
                span.subject { (outside(&alert.subject)) }
                (text::time(now, at, &zone))
                @if shop.is_none() { " UTC" }
            }
            pre tabindex="0" { (outside_lines(alert.texts.email.trim_end())) }
        } }
    }
}

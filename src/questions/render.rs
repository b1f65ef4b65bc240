use std::collections::BTreeMap;
use std::fmt::Display;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kassa_bus::ShopId;
use kassa_bus::notify::{Alert, Notice};
use kassa_bus::tills::{EnrolledTill, TillKey};
use kassa_pipeline::check::Check;
use kassa_pipeline::rebuild::Rebuilt;
use kassa_pipeline::row::{DayRow, ItemRow, ReadRow};
use kassa_subscribers::bad_key_auditor::{Audit, Bounded};
use kassa_subscribers::warehouse_webhook::WebhookState;
use serde_json::Value;

use super::zones::Zones;
use super::{SaleHistory, Sent, ShownEvent};
use crate::rotation::{KeyState, Rotated, ShownKey};
use crate::show::{money, short, table};

/// A sale's history as a table, with the time between events.
#[must_use]
pub fn sale(history: &SaleHistory, zones: &Zones) -> String {
    let when = format!("when ({})", zones.named([&history.shop_id]));
    let mut rows = table([when.as_str(), "after", "event", "what"]);
    let mut before: Option<Timestamp> = None;
    for event in &history.events {
        let after = before.map_or(String::new(), |b| format!("+{}", elapsed(b, event.at)));
        let at = zones.local(&event.shop_id, event.at).strftime("%F %T%.3f").to_string();
        rows.add_row([at, after, event.kind.clone(), what(event)]);
        before = Some(event.at);
    }
    let SaleHistory { sale_id, shop_id, status, more, events: _ } = history;
    let more = if *more { "There are more events, which are not shown.\n" } else { "" };
    format!("Sale {sale_id} of {shop_id}: {}\n{rows}\n{more}", status.as_str())
}

fn elapsed(from: Timestamp, to: Timestamp) -> String {
    let millis = to.duration_since(from).as_millis();
    match millis {
        0..10_000 => format!("{millis} ms"),
        10_000..600_000 => format!("{} s", millis / 1000),
        _ => format!("{} min", millis / 60_000),
    }
}

fn what(event: &ShownEvent) -> String {
    let body = &event.body;
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    match event.kind.as_str() {
        "accepted" => format!("{} envelope from {}", text("format"), text("source")),
        "rejected" => format!("{}: {} (attempt {})", text("reason"), text("detail"), body["attempt"]),
        "recorded" => {
            let lines = body["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
            let line = |l: &Value| {
                let text = |name: &str| l[name].as_str().unwrap_or_default().to_owned();
                format!("{} × {} = {}", text("gross_number"), text("item_no"), text("gross_turnover"))
            };
            let mut told: Vec<String> = lines.iter().take(5).map(line).collect();
            if lines.len() > 5 {
                told.push(format!("… {} lines", lines.len()));
            }
            let dated = body["dated"].as_str().map_or(String::new(), |day| format!(" though dated {day}"));
            let till = body["till"].as_str().map_or(String::new(), |t| format!(" at {t}"));
            let signed = if body["signed_by"].is_string() { "signed" } else { "not signed" };
            let key = body["opened_with"]
                .as_str()
                .map_or(String::new(), |shop| format!(", opened with {shop}'s key"));
            format!(
                "{}\ntotal {}, booked on {}{dated}{till}, {signed}{key}",
                told.join("\n"),
                body["totals"]["gross_turnover"].as_str().unwrap_or_default(),
                text("business_date"),
            )
        }
        "dropped" if text("queue").is_empty() => format!("given up: {}", text("why")),
        "dropped" => format!("a message of {} was given up: {}", text("queue"), text("why")),
        other => other.to_owned(),
    }
}

/// Tills with their keys, past and present.
#[must_use]
pub fn tills(tills: &[EnrolledTill], zones: &Zones) -> String {
    if tills.is_empty() {
        return "No till is enrolled.\n".into();
    }
    let whose = zones.named(tills.iter().map(|till| &till.shop_id));
    let local = |shop: &ShopId, at| zones.local(shop, at).strftime("%F %T").to_string();
    let since = format!("since ({whose})");
    let mut rows = table(["shop", "till", "key (Ed25519)", since.as_str(), "revoked"]);
    for till in tills {
        for TillKey { key, since, revoked, revocation: _ } in &till.keys {
            rows.add_row([
                till.shop_id.to_string(),
                till.till.to_string(),
                key.x(),
                local(&till.shop_id, *since),
                revoked.map_or(String::new(), |at| local(&till.shop_id, at)),
            ]);
        }
    }
    format!("{rows}\n")
}

/// The shops' keys, and what to do about those that are over. `reach` is what another command needs to be told to
/// ask the same shop.
#[must_use]
pub fn keys(keys: &[ShownKey], zones: &Zones, reach: &str) -> String {
    let since = format!("since ({})", zones.named(keys.iter().map(|key| &key.shop_id)));
    let mut rows = table(["shop", "key", since.as_str(), "opens"]);
    let mut advice = String::new();
    for ShownKey { shop_id, key, state } in keys {
        let local = |at| zones.local(shop_id, at).strftime("%F %T").to_string();
        let opens = match (state, key.until, key.retired) {
            (KeyState::Present, ..) => "what tills seal now".to_owned(),
            (KeyState::Coming, ..) => "what tills will seal soon".to_owned(),
            (KeyState::Overlapping, Some(until), _) => format!("what comes until {}", local(until)),
            (KeyState::Retired, _, Some(at)) => format!("nothing, retired {}", local(at)),
            _ => "nothing, can be retired".to_owned(),
        };
        rows.add_row([shop_id.to_string(), key.kid.to_string(), local(key.since), opens]);
        match state {
            KeyState::Over => {
                advice.push_str(&format!("kassa key retire --shop {shop_id} --kid {}{reach}\n", key.kid));
            }
            KeyState::Coming => advice.push_str(&format!("kassa key rotate --shop {shop_id}{reach}\n")),
            _ => {}
        }
    }
    if advice.is_empty() { format!("{rows}\n") } else { format!("{rows}\n\nTo be done:\n{advice}") }
}

/// What a rotation did, and what is left to do.
#[must_use]
pub fn rotated(Rotated { shop_id, from, to, until }: &Rotated, zones: &Zones, reach: &str) -> String {
    let until = zones.local(shop_id, *until).strftime("%F %T %Z");
    format!(
        "Tills of {shop_id} now get the key {to}.\nWhat comes sealed with the one before is opened until {until}. \
         Then:\n  kassa key retire --shop {shop_id} --kid {from}{reach}\n"
    )
}

/// Stock and turnover, a block per shop.
#[must_use]
pub fn stock(rows: &[ReadRow]) -> String {
    let mut shops: BTreeMap<&str, (Vec<&ItemRow>, Vec<&DayRow>)> = BTreeMap::new();
    for row in rows {
        match row {
            ReadRow::Item(item) => shops.entry(item.shop_id.as_str()).or_default().0.push(item),
            ReadRow::Day(day) => shops.entry(day.shop_id.as_str()).or_default().1.push(day),
        }
    }
    let mut text = String::new();
    for (shop, (items, days)) in shops {
        let mut stock = table(["item", "description", "price", "stock", "sold", "turnover"]).right(2..6);
        for item in items {
            stock.add_row([
                item.record_type.trim_start_matches("s-").to_owned(),
                item.item_description.clone().unwrap_or_else(|| undeclared(item).into()),
                item.selling_price.map_or(String::new(), money),
                item.stock.to_string(),
                item.gross_number.to_string(),
                money(item.gross_turnover),
            ]);
        }
        text.push_str(&format!("{shop}\n{stock}\n"));
        if !days.is_empty() {
            let mut turnover = table(["day", "sales", "turnover"]).right(1..3);
            for day in days {
                let date = day.record_type.trim_start_matches("d-").to_owned();
                turnover.add_row([date, day.sales.to_string(), money(day.turnover)]);
            }
            text.push_str(&format!("{turnover}\n"));
        }
    }
    text
}

fn undeclared(item: &ItemRow) -> &'static str {
    if item.is_shared() { "(all other items)" } else { "(not declared)" }
}

/// The balance in two lines, and each mismatch on one of its own.
#[must_use]
pub fn check(check: &Check) -> String {
    let Check { accepted, recorded, rejected, pending, mismatches } = check;
    let mut text =
        format!("{accepted} accepted = {recorded} recorded + {rejected} rejected + {pending} pending\n");
    if mismatches.is_empty() {
        text.push_str(
            "The books balance: no sale is recorded twice, and every row is what the events add up to.\n",
        );
    } else {
        text.push_str(&format!("{} mismatches:\n", mismatches.len()));
        for mismatch in mismatches {
            text.push_str(&format!(
                "  {}
",
                short(mismatch, 200)
            ));
        }
        text.push_str("If the rows are wrong, run kassa rebuild: the events are what counts.\n");
    }
    text
}

/// What a rebuild did.
#[must_use]
pub fn rebuilt(rebuilt: &Rebuilt) -> String {
    let Rebuilt { events, sales, rows, skipped } = rebuilt;
    let mut text = format!("{events} events read, {sales} recorded sales counted, {rows} rows written\n");
    for skipped in skipped {
        text.push_str(&format!("skipped: {}\n", short(skipped, 200)));
    }
    text
}

/// The wrong keys, and under them what to do about each.
#[must_use]
pub fn audit(Audit { from, keys }: &Audit) -> String {
    if keys.is_empty() {
        return format!("No sale came with a wrong key since {from}.\n");
    }
    let mut rows = table(["shop", "key", "till", "source", "sales", "first", "last", "looks like"]);
    let mut advice: Vec<String> = Vec::new();
    for key in keys {
        let zone = TimeZone::get(&key.time_zone).unwrap_or(TimeZone::UTC);
        let local = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%F %T").to_string();
        rows.add_row([
            key.shop_id.to_string(),
            key.told.clone(),
            named(&key.seen.tills),
            named(&key.seen.sources),
            key.seen.count.to_string(),
            local(key.seen.first),
            local(key.seen.last),
            key.looks_like.as_str().to_owned(),
        ]);
        let what = format!("  - {}.", key.what_to_do);
        if !advice.contains(&what) {
            advice.push(what);
        }
    }
    let advice = advice.join("\n");
    format!("Wrong keys since {from} (UTC), times as in the shop\n{rows}\n\nWhat to do\n{advice}\n")
}

/// The first few names, each with its number if there are more.
fn named<K: Display>(names: &Bounded<K, u64>) -> String {
    const SHOWN: usize = 3;
    if names.others.is_none()
        && let [name] = names.named.keys().collect::<Vec<_>>()[..]
    {
        return name.to_string();
    }
    let mut lines: Vec<String> =
        names.named.iter().take(SHOWN).map(|(name, count)| format!("{name}: {count}")).collect();
    let more: u64 = names.named.values().skip(SHOWN).chain(&names.others).sum();
    lines.extend((more > 0).then(|| format!("others: {more}")));
    lines.join("\n")
}

/// A notice, as its receiver would have it before them.
#[must_use]
pub fn sent(sent: &Sent, zones: &Zones) -> String {
    let shop = match &sent.notice {
        Notice::Sms(sms) => Some(&sms.shop_id),
        Notice::Alert(alert) => alert.shop_id.as_ref(),
    };
    let at = match shop {
        Some(shop) => zones.local(shop, sent.at),
        None => sent.at.to_zoned(TimeZone::UTC),
    };
    let at = at.strftime("%F %T %Z");
    match &sent.notice {
        Notice::Sms(sms) => format!("{at}  SMS to {} ({})\n  {}\n\n", sms.to, sms.shop_id, sms.text),
        Notice::Alert(alert) => {
            let about = alert.shop_id.as_ref().map_or(String::new(), |shop| format!("{shop}, "));
            let text = alert.texts.email.trim_end().replace('\n', "\n  ");
            let Alert { subject, reason, severity, .. } = alert;
            format!("{at}  alert, {severity} ({about}{reason})\n  {subject}\n\n  {text}\n\n")
        }
    }
}

/// How it goes with the warehouse, in a sentence or three.
#[must_use]
pub fn webhook(state: &WebhookState) -> String {
    let at = |at: Timestamp| at.strftime("%F %T UTC").to_string();
    let mut text = match (&state.stopped, &state.failing, state.last_delivered_at) {
        (Some(stopped), ..) => format!(
            "Stopped: {} answered 410 Gone at {}.\nkassa webhook --resume tries it again.\n",
            stopped.url,
            at(stopped.since)
        ),
        (None, Some(failing), _) => format!(
            "Failing since {} ({}). It is asked again from {} on; nothing is lost in the meantime.\n",
            at(failing.since),
            failing.why,
            at(failing.not_before)
        ),
        (None, None, Some(_)) => "Delivering.\n".to_owned(),
        (None, None, None) => "Nothing was delivered yet; it is on where WAREHOUSE_URL is set.\n".to_owned(),
    };
    if let Some(last) = state.last_delivered_at {
        text.push_str(&format!("{} sales delivered, the last at {}.\n", state.delivered, at(last)));
    }
    text
}

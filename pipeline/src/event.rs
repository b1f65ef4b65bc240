use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL64;
use jiff::Timestamp;
use jiff::civil::Date;
use kassa_bus::message::{Envelope, Reason, SealedWith};
use kassa_bus::table::TableError;
use kassa_bus::{Line, Message, Network, SaleId, ShopId, Thumbprint, TillId, Totals, TraceContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

/// Where an event stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventKey {
    /// Partition: `<shop_id>#<UTC date of the sale's id>`; of what an envelope was used for, see [`Used`].
    pub stream: String,
    /// Sort key: `<sale_id>#<kind>…`, so that a sale's history stands side by side.
    pub event: String,
}

impl EventKey {
    #[must_use]
    pub fn stream(shop: &ShopId, date: Date) -> String {
        format!("{shop}#{date}")
    }

    /// Where stands what an envelope was used for.
    #[must_use]
    pub fn envelope(shop: &ShopId, ciphertext: &str) -> String {
        format!("{shop}#{ciphertext}")
    }

    /// Of the one event that says what was sold.
    #[must_use]
    pub fn recorded(shop: &ShopId, sale: &SaleId) -> Self {
        Self::of(shop, sale, RECORDED)
    }

    /// Of the event that says why a sale was given up, for the first time or once more.
    #[must_use]
    pub fn given_up(shop: &ShopId, sale: &SaleId, times: u32) -> Self {
        let event = if times == 1 { GIVEN_UP.to_owned() } else { format!("{GIVEN_UP}#{times}") };
        Self::of(shop, sale, &event)
    }

    /// Of the event that keeps an envelope, by its hash.
    #[must_use]
    pub fn accepted(shop: &ShopId, sale: &SaleId, envelope: &str) -> Self {
        Self::of(shop, sale, &format!("{ACCEPTED}#{envelope}"))
    }

    /// Of the event that says what an envelope was used for, by its ciphertext's hash.
    #[must_use]
    pub fn used(shop: &ShopId, ciphertext: &str, number: u32) -> Self {
        Self { stream: Self::envelope(shop, ciphertext), event: format!("{USED}#{number}") }
    }

    fn of(shop: &ShopId, sale: &SaleId, event: &str) -> Self {
        Self { stream: Self::stream(shop, sale.utc_date()), event: format!("{sale}#{event}") }
    }
}

/// What can be known about a sale. Events are never changed and never deleted.
#[derive(Clone)]
pub enum Fact {
    Accepted(Accepted),
    Rejected(Rejected),
    Recorded(Recorded),
    Dropped(Dropped),
    Used(Used),
}

/// Body of `accepted#<hash of the envelope>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    #[serde(flatten)]
    pub envelope: Envelope,
    /// The network it came from.
    pub source: Network,
    /// How many revocations of its shop there had been. Events of before they were counted do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocations: Option<u64>,
}

/// Body of `rejected#<hash of the envelope>#<attempt>`; in events of before keys had the hash, of `rejected#<number>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    pub reason: Reason,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_with: Option<SealedWith>,
    /// The till it says it is of, where that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<TillId>,
    /// Hash of the envelope that was rejected.
    pub envelope: String,
    pub attempt: u32,
}

/// Body of `dropped#sale`, where a rejected sale was given up, of `dropped#sale#2` and so on, where it was once more, as it was
/// rejected once more; or of `dropped#<queue>#<hash of the message's id>`, where a
/// dead letter was, without which its sale is none the worse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    #[serde(flatten)]
    pub letter: Option<DroppedLetter>,
    /// Whoever dropped it wrote this.
    pub why: String,
    /// How often its sale was given up by then, if that is more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

/// Which dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedLetter {
    pub queue: String,
    /// The message's id.
    pub message: String,
}

/// Body of `used#<number>`, in the stream of its envelope, `<shop_id>#<ciphertext>`: what an envelope that names no sale
/// was used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Its SHA-256 in base64url.
    pub ciphertext: String,
    /// 1, unless the uses before came to nothing.
    pub number: u32,
}

/// Body of `recorded`. Has no `Debug`: it is the sale in plaintext.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub lines: Vec<Line>,
    pub totals: Totals,
    /// The day it is booked on: the sale's, in the shop's time zone.
    pub business_date: Date,
    /// The day it says itself, where that is not believed: see [`kassa_bus::business_date`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dated: Option<Date>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sold_at: Option<Timestamp>,
    /// When it had been opened, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decrypted_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Thumbprint>,
    /// The shop with whose key it was opened, if an operator had it opened with another's than its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_with: Option<ShopId>,
    /// At which try, if not at the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The till that signed it. A sale without is only as good as the secrecy of the shop's public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<TillId>,
    /// SHA-256 of what was sold, in base64url: tells a repeat from a different sale under the same id.
    pub content: String,
    /// Hash of the envelope it came out of.
    pub envelope: String,
}

/// One fact with its place and time.
#[derive(Clone)]
pub struct Event {
    pub shop_id: ShopId,
    pub sale_id: SaleId,
    pub at: Timestamp,
    pub trace: Option<TraceContext>,
    pub fact: Fact,
}

/// An event as the table has it: the body is JSON in whatever version it was written.
#[derive(Clone)]
pub struct StoredEvent {
    pub key: EventKey,
    pub kind: String,
    pub version: u32,
    pub at: Timestamp,
    pub sale_id: SaleId,
    pub shop_id: ShopId,
    pub trace: Option<TraceContext>,
    /// Of a rejected event, beside its body, for whoever may not look into bodies. Events of before there was one have none.
    pub reason: Option<Reason>,
    pub body: String,
}

/// What is in the table is not an event this code can read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("event {event} of {stream}: {why}")]
pub struct Unreadable {
    stream: String,
    event: String,
    why: String,
}

impl From<Unreadable> for TableError {
    fn from(event: Unreadable) -> Self {
        Self::Unreadable(event.to_string())
    }
}

/// The version each kind is written in today.
const ACCEPTED_VERSION: u32 = 1;
const REJECTED_VERSION: u32 = 1;
const RECORDED_VERSION: u32 = 2;
const DROPPED_VERSION: u32 = 1;
const USED_VERSION: u32 = 1;

/// The kind projections live on.
pub const RECORDED: &str = "recorded";
pub const ACCEPTED: &str = "accepted";
pub const REJECTED: &str = "rejected";
pub const DROPPED: &str = "dropped";
pub const USED: &str = "used";

/// How the key ends of the event by which a sale was given up first, and begins of those by which it was again.
const GIVEN_UP: &str = "dropped#sale";

impl Event {
    #[must_use]
    pub fn key(&self) -> EventKey {
        let event = match &self.fact {
            Fact::Accepted(accepted) => format!("{ACCEPTED}#{}", envelope_hash(&accepted.envelope)),
            Fact::Rejected(Rejected { envelope, attempt, .. }) => format!("{REJECTED}#{envelope}#{attempt}"),
            Fact::Recorded(_) => RECORDED.to_owned(),
            Fact::Dropped(Dropped { letter: None, times, .. }) => {
                return EventKey::given_up(&self.shop_id, &self.sale_id, times.unwrap_or(1));
            }
            Fact::Dropped(Dropped { letter: Some(DroppedLetter { queue, message }), .. }) => {
                format!("{DROPPED}#{queue}#{}", URL64.encode(digest(&SHA256, message.as_bytes())))
            }
            Fact::Used(Used { ciphertext, number }) => {
                return EventKey::used(&self.shop_id, ciphertext, *number);
            }
        };
        EventKey::of(&self.shop_id, &self.sale_id, &event)
    }

    /// The event in today's version.
    #[must_use]
    pub fn to_stored(&self) -> StoredEvent {
        let (kind, version, body) = match &self.fact {
            Fact::Accepted(body) => (ACCEPTED, ACCEPTED_VERSION, serde_json::to_string(body)),
            Fact::Rejected(body) => (REJECTED, REJECTED_VERSION, serde_json::to_string(body)),
            Fact::Recorded(body) => (RECORDED, RECORDED_VERSION, serde_json::to_string(body)),
            Fact::Dropped(body) => (DROPPED, DROPPED_VERSION, serde_json::to_string(body)),
            Fact::Used(body) => (USED, USED_VERSION, serde_json::to_string(body)),
        };
        StoredEvent {
            key: self.key(),
            kind: kind.to_owned(),
            version,
            at: self.at,
            sale_id: self.sale_id.clone(),
            shop_id: self.shop_id.clone(),
            trace: self.trace,
            reason: match &self.fact {
                Fact::Rejected(rejected) => Some(rejected.reason),
                _ => None,
            },
            // Plain structs with string keys: serde_json cannot fail on them.
            body: body.unwrap_or_default(),
        }
    }
}

impl StoredEvent {
    /// Reads the event, whatever version it was written in.
    ///
    /// # Errors
    /// [`Unreadable`] for a kind or version from the future, or a body that is not the version's.
    pub fn read(&self) -> Result<Event, Unreadable> {
        let fact = match self.kind.as_str() {
            ACCEPTED => self.body(ACCEPTED_VERSION).map(Fact::Accepted),
            REJECTED => self.body(REJECTED_VERSION).map(Fact::Rejected),
            RECORDED => self.recorded().map(Fact::Recorded),
            DROPPED => self.body(DROPPED_VERSION).map(Fact::Dropped),
            USED => self.body(USED_VERSION).map(Fact::Used),
            other => Err(self.unreadable(format!("unknown kind {other}"))),
        }?;
        Ok(Event {
            shop_id: self.shop_id.clone(),
            sale_id: self.sale_id.clone(),
            at: self.at,
            trace: self.trace,
            fact,
        })
    }

    /// An event as the stream carries it: the body as body, every other attribute as attribute.
    ///
    /// # Errors
    /// [`Unreadable`] if one is missing or not in its form.
    pub fn from_message(message: &Message) -> Result<Self, Unreadable> {
        Self::from_attributes(&message.attributes, &message.body)
    }

    /// An event from its row's attributes, which are all strings and numbers.
    ///
    /// # Errors
    /// [`Unreadable`] if one is missing or not in its form.
    pub fn from_image(image: &HashMap<String, String>) -> Result<Self, Unreadable> {
        Self::from_attributes(image, image.get("body").map_or("", String::as_str))
    }

    fn from_attributes(attributes: &HashMap<String, String>, body: &str) -> Result<Self, Unreadable> {
        let text = |name: &str| attributes.get(name).map_or("", String::as_str);
        let key = EventKey { stream: text("stream").to_owned(), event: text("event").to_owned() };
        let wrong = |name: &str| Unreadable {
            stream: key.stream.clone(),
            event: key.event.clone(),
            why: format!("attribute {name} is missing or not in its form"),
        };
        Ok(Self {
            kind: text("kind").to_owned(),
            version: text("version").parse().map_err(|_| wrong("version"))?,
            at: text("at").parse().map_err(|_| wrong("at"))?,
            sale_id: text("sale_id").parse().map_err(|_| wrong("sale_id"))?,
            shop_id: text("shop_id").parse().map_err(|_| wrong("shop_id"))?,
            trace: attributes.get("trace").and_then(|trace| trace.parse().ok()),
            reason: attributes.get("reason").and_then(|reason| reason.parse().ok()),
            body: body.to_owned(),
            key,
        })
    }

    /// Hash of the envelope that was accepted or rejected, as the event's key says it; of a rejection of before keys did,
    /// as its body does, if that is there.
    #[must_use]
    pub fn envelope(&self) -> Option<String> {
        let key = self.key.event.strip_prefix(self.sale_id.as_str())?;
        let hash = match self.kind.as_str() {
            ACCEPTED => key.strip_prefix("#accepted#"),
            REJECTED => {
                key.strip_prefix("#rejected#").and_then(|end| end.split_once('#')).map(|(hash, _)| hash)
            }
            _ => return None,
        };
        hash.map(str::to_owned)
            .or_else(|| self.body::<Rejected>(REJECTED_VERSION).ok().map(|old| old.envelope))
    }

    /// The stream record of this event, as `sequence` of `shard`.
    #[must_use]
    pub fn into_message(self, sequence: String, shard: &str) -> Message {
        let mut attributes = HashMap::from([
            ("shard".to_owned(), shard.to_owned()),
            ("stream".to_owned(), self.key.stream),
            ("event".to_owned(), self.key.event),
            ("kind".to_owned(), self.kind),
            ("version".to_owned(), self.version.to_string()),
            ("at".to_owned(), self.at.to_string()),
            ("sale_id".to_owned(), self.sale_id.into()),
            ("shop_id".to_owned(), self.shop_id.into()),
        ]);
        attributes.extend(self.trace.map(|trace| ("trace".to_owned(), trace.to_string())));
        attributes.extend(self.reason.map(|reason| ("reason".to_owned(), reason.to_string())));
        Message { id: sequence, attributes, body: Zeroizing::new(self.body), sent: None }
    }

    /// The body of a `recorded` event, upcast from version 1 where it is old.
    ///
    /// # Errors
    /// As [`StoredEvent::read`].
    pub fn recorded(&self) -> Result<Recorded, Unreadable> {
        if self.version != 1 {
            return self.body(RECORDED_VERSION);
        }
        let old = serde_json::from_str(&self.body).map_err(|e| self.not_the_versions(&e))?;
        let new = recorded_v1_to_v2(old, &self.sale_id)
            .ok_or_else(|| self.unreadable("not a version 1 body".into()))?;
        serde_json::from_value(new).map_err(|e| self.not_the_versions(&e))
    }

    fn body<T: serde::de::DeserializeOwned>(&self, today: u32) -> Result<T, Unreadable> {
        if self.version != today {
            return Err(self.unreadable(format!("version {} is unknown, this is {today}", self.version)));
        }
        serde_json::from_str(&self.body).map_err(|e| self.not_the_versions(&e))
    }

    /// serde's text may quote the body, which may be a sale: only the place is told.
    fn not_the_versions(&self, error: &serde_json::Error) -> Unreadable {
        self.unreadable(format!("the body is not version {}'s (at column {})", self.version, error.column()))
    }

    fn unreadable(&self, why: String) -> Unreadable {
        Unreadable { stream: self.key.stream.clone(), event: self.key.event.clone(), why }
    }
}

/// Version 1 had neither totals nor a business date: totals follow from the lines, and the date was
/// the UTC date of the sale.
fn recorded_v1_to_v2(mut body: Value, sale_id: &SaleId) -> Option<Value> {
    let fields = body.as_object_mut()?;
    let lines: Vec<Line> = serde_json::from_value(fields.get("lines")?.clone()).ok()?;
    let sold_at: Option<Timestamp> = match fields.get("sold_at") {
        Some(at) => Some(serde_json::from_value(at.clone()).ok()?),
        None => None,
    };
    let date = sold_at.map_or(sale_id.utc_date(), |at| at.to_zoned(jiff::tz::TimeZone::UTC).date());
    fields.insert("totals".into(), serde_json::to_value(Totals::of(&lines)?).ok()?);
    fields.insert("business_date".into(), serde_json::to_value(date).ok()?);
    Some(body)
}

/// SHA-256 in base64url of an envelope, by which its `accepted` event is named.
#[must_use]
pub fn envelope_hash(envelope: &Envelope) -> String {
    URL64.encode(digest(&SHA256, envelope.text().as_bytes()))
}

/// SHA-256 in base64url of what was sold: lines, till, counter and time.
#[must_use]
pub fn content_hash(
    lines: &[Line],
    till: Option<&str>,
    seq: Option<u64>,
    sold_at: Option<Timestamp>,
) -> String {
    content_hash_of_json(&serde_json::to_string(&(lines, till, seq, sold_at)).unwrap_or_default())
}

/// The same of an array of these as it was written.
pub(crate) fn content_hash_of_json(canonical: &str) -> String {
    URL64.encode(digest(&SHA256, canonical.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(version: u32, body: &str) -> StoredEvent {
        let (shop_id, sale_id): (ShopId, SaleId) = ("AMIS1".parse().unwrap(), "7-20261121".parse().unwrap());
        StoredEvent {
            key: EventKey::of(&shop_id, &sale_id, RECORDED),
            kind: RECORDED.into(),
            version,
            at: "2026-11-22T00:00:00Z".parse().unwrap(),
            sale_id,
            shop_id,
            trace: None,
            reason: None,
            body: body.into(),
        }
    }

    const LINES: &str = r#"[{"item_no":"98","gross_number":"2","gross_turnover":"0.2"},{"item_no":"7","gross_number":"1","gross_turnover":"0.1"}]"#;

    #[test]
    fn version_1_of_recorded_is_read_as_today() {
        let old = stored(
            1,
            &format!(r#"{{"lines":{LINES},"content":"c","envelope":"e","sold_at":"2026-11-20T23:30:00Z"}}"#),
        );
        let recorded = old.recorded().unwrap();
        assert_eq!(recorded.totals.gross_turnover.to_string(), "0.3");
        assert_eq!(recorded.business_date.to_string(), "2026-11-20");
        let classic = stored(1, &format!(r#"{{"lines":{LINES},"content":"c","envelope":"e"}}"#));
        assert_eq!(classic.recorded().unwrap().business_date.to_string(), "2026-11-21");
    }

    #[test]
    fn what_is_written_today_reads_back() {
        let body = format!(
            r#"{{"lines":{LINES},"totals":{{"gross_number":"3","gross_turnover":"0.3"}},"business_date":"2026-11-21","content":"c","envelope":"e"}}"#
        );
        let event = stored(2, &body).read().unwrap();
        assert_eq!(event.to_stored().body, body);
        assert_eq!(event.key(), stored(2, "").key);
    }

    #[test]
    fn a_version_from_the_future_and_a_broken_body_are_told_without_quoting_it() {
        assert!(stored(3, "{}").read().err().unwrap().to_string().contains("version 3 is unknown"));
        let told = stored(2, r#"{"lines":"secret"}"#).read().err().unwrap().to_string();
        assert!(told.contains("column") && !told.contains("secret"), "{told}");
        assert!(stored(1, "[]").read().is_err());
    }
}

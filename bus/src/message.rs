use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::client::Network;
use crate::ids::{SaleId, ShopId, Thumbprint, TillId};
use crate::limits::{MAX_INLINE, json_bytes};
use crate::sale::Line;
use crate::trace::{TraceContext, if_in_form};

/// An SNS topic, by the name it has after `<service>-<stage>-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    ToDecrypt,
    ToProcess,
    DecryptErrors,
}

impl Topic {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ToDecrypt => "to-decrypt",
            Self::ToProcess => "to-process",
            Self::DecryptErrors => "decrypt-errors",
        }
    }
}

/// What travels: a JSON body and string attributes, as SNS and SQS carry them.
///
/// `Debug` shows neither body nor attributes' values: a body may be a sale in plaintext.
#[derive(Clone)]
pub struct Message {
    /// Unique per delivery source: the SQS message id, or a stream record's sequence number.
    pub id: String,
    pub attributes: HashMap<String, String>,
    pub body: Zeroizing<String>,
    /// When it was published, where that is known. A stream's records were not.
    pub sent: Option<Timestamp>,
}

impl Message {
    /// Wraps one of the published contracts.
    #[must_use]
    pub fn of<C: Contract>(content: &C) -> Self {
        // The contracts are plain structs with string keys: serde_json cannot fail on them.
        let body = Zeroizing::new(serde_json::to_string(content).unwrap_or_default());
        // SQS refuses two characters that JSON has nothing against.
        let body = if body.contains(['\u{fffe}', '\u{ffff}']) {
            Zeroizing::new(body.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff"))
        } else {
            body
        };
        Self { id: content.id(), attributes: content.attributes(), body, sent: None }
    }

    /// Reads the message as one of the published contracts.
    ///
    /// # Errors
    /// [`NotOurs`] if the body is not that contract's JSON.
    pub fn read<C: Contract>(&self) -> Result<C, NotOurs> {
        // serde's text may quote the body, so only the place is told.
        serde_json::from_str(&self.body).map_err(|e| NotOurs { topic: C::TOPIC.name(), column: e.column() })
    }

    /// Bytes of its body and attributes, as SNS counts them.
    #[must_use]
    pub fn size(&self) -> usize {
        let attributes =
            self.attributes.iter().map(|(name, value)| name.len() + value.len() + "String".len());
        self.body.len() + attributes.sum::<usize>()
    }

    /// Where in a trace it was published: its `traceparent`, or, of the event store's stream, the event's `trace`.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.attributes.get("traceparent").or_else(|| self.attributes.get("trace"))?.parse().ok()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({}, {} bytes)", self.id, self.body.len())
    }
}

/// A message on our topic that nobody of ours wrote.
#[derive(Debug, thiserror::Error)]
#[error("the body is not what {topic} carries (at column {column})")]
pub struct NotOurs {
    topic: &'static str,
    column: usize,
}

/// One published message type; each belongs to one topic.
pub trait Contract: Serialize + DeserializeOwned {
    const TOPIC: Topic;
    fn id(&self) -> String;
    /// What SNS filter policies may select on. Never anything of the sale's content.
    fn attributes(&self) -> HashMap<String, String>;
}

fn attributes<const N: usize>(
    shop_id: &ShopId,
    sale_id: &SaleId,
    trace: Option<TraceContext>,
    pairs: [(&str, &str); N],
) -> HashMap<String, String> {
    let trace = trace.map(|trace| trace.to_string());
    // SNS refuses empty attribute values.
    pairs
        .into_iter()
        .chain([("shop_id", shop_id.as_str()), ("sale_id", sale_id.as_str())])
        .chain(trace.as_deref().map(|trace| ("traceparent", trace)))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The encrypted sale as a till posted it, still closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "lowercase")]
pub enum Envelope {
    /// RSAES-OAEP-SHA-256 straight under the shop's key, in base64: at most 190 bytes of plaintext.
    Classic { content_base64: String },
    /// A compact JWE (RFC 7516), `RSA-OAEP-256` with `A256GCM`.
    Sealed { sealed: String },
}

impl Envelope {
    #[must_use]
    pub fn format(&self) -> &'static str {
        match self {
            Self::Classic { .. } => "classic",
            Self::Sealed { .. } => "sealed",
        }
    }

    /// The text as received.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Classic { content_base64 } => content_base64,
            Self::Sealed { sealed } => sealed,
        }
    }

    /// Bytes it has in an event or a message, where line breaks within base64 are two.
    #[must_use]
    pub fn bytes(&self) -> usize {
        json_bytes(self.text()) - "\"\"".len()
    }

    /// Whether a message has room for it.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        self.bytes() <= MAX_INLINE
    }
}

/// How an envelope travels on `to-decrypt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Carried {
    Inline(Envelope),
    /// SNS does not take it: the hash by which its `accepted` event is found in the event store.
    Accepted {
        accepted: String,
    },
}

/// Standard base64, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes a classic sale's content: base64 (RFC 4648) as clients write it, with or without padding,
/// in one line or in many.
#[must_use]
pub fn decode_content(base64: &str) -> Option<Vec<u8>> {
    let joined: String = base64.split_ascii_whitespace().collect();
    BASE64.decode(joined).ok()
}

/// Where an envelope came in, carried along so that a rejection can name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The network it came from.
    pub source: Network,
    pub accepted_at: Timestamp,
    /// Which try this is: 1, and one more each time a rejected sale is put through again.
    pub attempt: u32,
    /// With which shop's key it is to be opened, if that is not its own. Only an operator says so, who puts a rejected sale
    /// through again; what a till posts never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_with: Option<ShopId>,
    /// W3C `traceparent`: the till's, if it sent one, or where tracing is on that of whatever handled the sale last.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "if_in_form")]
    pub trace: Option<TraceContext>,
}

/// A sale whose form was checked and that is in the event store. On `to-decrypt` its envelope is [`Carried`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedSale<E = Envelope> {
    pub shop_id: ShopId,
    pub sale_id: SaleId,
    pub envelope: E,
    pub origin: Origin,
}

impl Contract for AcceptedSale<Carried> {
    const TOPIC: Topic = Topic::ToDecrypt;
    fn id(&self) -> String {
        self.sale_id.to_string()
    }
    fn attributes(&self) -> HashMap<String, String> {
        attributes(&self.shop_id, &self.sale_id, self.origin.trace, [])
    }
}

/// On `to-process`: a sale in plaintext. Cannot be printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecryptedSale {
    pub shop_id: ShopId,
    pub sale_id: SaleId,
    pub lines: Vec<Line>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sold_at: Option<Timestamp>,
    /// The key that opened it, where the envelope names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Thumbprint>,
    /// The till that signed it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<TillId>,
    /// SHA-256 of the envelope as accepted, in base64url: which of a sale's envelopes this came out of.
    pub envelope: String,
    pub origin: Origin,
}

impl DecryptedSale {
    /// The till it is of: who signed it, or what it says of itself if that is a till's name.
    #[must_use]
    pub fn till_id(&self) -> Option<TillId> {
        self.signed_by.clone().or_else(|| self.till.as_ref()?.parse().ok())
    }
}

impl Contract for DecryptedSale {
    const TOPIC: Topic = Topic::ToProcess;
    fn id(&self) -> String {
        self.sale_id.to_string()
    }
    fn attributes(&self) -> HashMap<String, String> {
        attributes(&self.shop_id, &self.sale_id, self.origin.trace, [])
    }
}

/// Why a sale can never be recorded as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Sealed with a key that is not the shop's.
    WrongKey,
    /// The shop has no key (any more).
    UnknownShop,
    /// Not an envelope at all.
    Malformed,
    /// The right key's name, but the content does not open, or is another sale's.
    Tampered,
    /// It opens, but what is inside is no sale.
    InvalidSale,
    /// Another sale was recorded under this id before.
    Conflict,
    /// Its envelope, which names no sale, came before as another.
    Replayed,
    /// No till signed it, and the shop takes no such sales.
    Unsigned,
    /// The till it names did not sign it.
    BadSignature,
    /// Signed by a till that the shop does not have.
    UnknownTill,
    /// Signed by a till that might no longer sign when the sale came.
    RevokedTill,
    /// Somebody gave its dead letter up, and said why.
    Dropped,
}

impl Reason {
    pub const ALL: [Self; 12] = [
        Self::WrongKey,
        Self::UnknownShop,
        Self::Malformed,
        Self::Tampered,
        Self::InvalidSale,
        Self::Conflict,
        Self::Replayed,
        Self::Unsigned,
        Self::BadSignature,
        Self::UnknownTill,
        Self::RevokedTill,
        Self::Dropped,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongKey => "wrong-key",
            Self::UnknownShop => "unknown-shop",
            Self::Malformed => "malformed",
            Self::Tampered => "tampered",
            Self::InvalidSale => "invalid-sale",
            Self::Conflict => "conflict",
            Self::Replayed => "replayed",
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad-signature",
            Self::UnknownTill => "unknown-till",
            Self::RevokedTill => "revoked-till",
            Self::Dropped => "dropped",
        }
    }

    /// Whether somebody is to do anything about a sale that was rejected for this: else what was sold is booked under its id
    /// or another, or was given up.
    #[must_use]
    pub fn needs_attention(self) -> bool {
        !matches!(self, Self::Conflict | Self::Replayed | Self::Dropped)
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| format!("must be one of {}", all()))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key by its name, and whose it is where a shop here has or had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedWith {
    pub kid: Thumbprint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shop_id: Option<ShopId>,
}

/// On `decrypt-errors`: a sale that was rejected. Of its content it holds the till's name in the open, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedSale {
    pub shop_id: ShopId,
    pub sale_id: SaleId,
    pub reason: Reason,
    /// For people: what exactly was wrong, without repeating the content.
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_with: Option<SealedWith>,
    /// The till it says it is of, where it opened so far that this can be read. Whoever has the shop's public key can
    /// write one, unless `reason` says that a till signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<TillId>,
    /// SHA-256 of the envelope as accepted, in base64url.
    pub envelope: String,
    /// The envelope itself, as closed as it came, where its key is what is wrong and a message has room for it:
    /// whoever wants to know whose key it is must try it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Envelope>,
    pub rejected_at: Timestamp,
    pub origin: Origin,
}

impl Contract for RejectedSale {
    const TOPIC: Topic = Topic::DecryptErrors;
    fn id(&self) -> String {
        // Each of a sale's envelopes has its own tries.
        format!("{}-{}-{}", self.sale_id, self.envelope, self.origin.attempt)
    }
    fn attributes(&self) -> HashMap<String, String> {
        let reason = [("reason", self.reason.as_str())];
        attributes(&self.shop_id, &self.sale_id, self.origin.trace, reason)
    }
}

//! The way to people: a short message to one phone, or an alert to whoever subscribed to the topic `alerts`.

/// Phones and the topic `alerts` on SNS.
#[cfg(feature = "aws")]
mod sns;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

#[cfg(feature = "aws")]
pub use sns::{SmsSender, SnsNotifier};

use crate::ids::ShopId;
use crate::subscriber::Retry;

/// Something somebody must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "channel", rename_all = "kebab-case")]
pub enum Notice {
    Sms(Sms),
    Alert(Alert),
}

/// A text message to one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sms {
    /// E.164, as `+31600000001`.
    pub to: String,
    /// At most 160 characters of the GSM 7-bit alphabet (3GPP TS 23.038), else it is more than one message.
    pub text: String,
    pub shop_id: ShopId,
}

/// A message to whoever subscribed to the topic `alerts`, in the words of each one's protocol.
///
/// `shop_id`, `reason` and `severity` are attributes that subscriptions can filter by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Fewer than 100 ASCII characters, no line break: what SNS takes for an e-mail's subject.
    pub subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shop_id: Option<ShopId>,
    pub reason: String,
    pub severity: Severity,
    pub texts: Texts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know: it is over.
    Info,
    /// Somebody should look today.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One alert as each protocol carries it
/// (<https://docs.aws.amazon.com/sns/latest/dg/sns-send-custom-platform-specific-payloads-mobile-devices.html>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texts {
    /// For protocols not named here.
    pub default: String,
    /// All of it, with what to do.
    pub email: String,
    /// For ICT's own phones.
    pub sms: String,
    /// JSON, for programs.
    pub https: String,
    /// Firebase's payload, JSON.
    #[serde(rename = "GCM")]
    pub gcm: String,
    /// Apple's payload, JSON.
    #[serde(rename = "APNS")]
    pub apns: String,
}

/// Whoever brings notices to people.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// MUST answer `Ok` only once the notice is sure to be on its way. It MAY arrive twice.
    ///
    /// # Errors
    /// [`Retry`] if it was not taken.
    async fn send(&self, notice: &Notice) -> Result<(), Retry>;
}

//! What SNS posts to an HTTP(S) subscription, and whether it is SNS that posts it
//! (<https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>).
//!
//! A signature by SNS says that some topic of some account sent the message. It is ours only if the topic is
//! one the operator named. From that topic's name follows the one host that its certificate and its
//! confirmation may come from, so nothing in a message can send us anywhere else.
//!
//! With raw message delivery SNS signs nothing, so raw messages cannot be taken.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use x509_cert::Certificate;
use x509_cert::der::DecodePem;
use x509_cert::der::oid::db::rfc5912::RSA_ENCRYPTION;

/// SNS tries a message for up to an hour.
const TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// A topic's Amazon Resource Name: `arn:<partition>:sns:<region>:<account>:<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicArn {
    text: String,
    host: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a topic is named as arn:aws:sns:eu-west-1:123456789012:name")]
pub struct InvalidTopic;

impl FromStr for TopicArn {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, InvalidTopic> {
        let ["arn", partition, "sns", region, account, name] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(InvalidTopic);
        };
        let word =
            |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let label = |t: &str| word(t) && !t.contains(['.', '_']);
        if !partition.starts_with("aws") || !label(region) || !label(account) || !word(name) {
            return Err(InvalidTopic);
        }
        let domain = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        Ok(Self { text: text.to_owned(), host: format!("sns.{region}.{domain}") })
    }
}

impl fmt::Display for TopicArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Kind {
    Notification,
    SubscriptionConfirmation,
    UnsubscribeConfirmation,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Notification => "Notification",
            Self::SubscriptionConfirmation => "SubscriptionConfirmation",
            Self::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        }
    }
}

/// A message as posted. Cannot be printed: it may hold a sale.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SnsMessage {
    #[serde(rename = "Type")]
    pub kind: Kind,
    message_id: String,
    pub topic_arn: String,
    #[serde(default)]
    subject: Option<String>,
    pub message: String,
    timestamp: String,
    signature_version: String,
    signature: String,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: String,
    #[serde(rename = "SubscribeURL", default)]
    subscribe_url: String,
    #[serde(default)]
    token: String,
}

/// Why a message is not taken for our topic's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    #[error("it is not what SNS posts (column {0})")]
    NotSns(usize),
    #[error("its topic is not one of --topic")]
    OtherTopic,
    #[error("its Timestamp is not within an hour of the time here; is a clock wrong?")]
    NotNow,
    #[error("{0} does not lead to the topic's SNS")]
    OtherHost(&'static str),
    #[error("the certificate is none with an RSA key")]
    NoCertificate,
    #[error("the certificate does not hold at this time")]
    CertificateNotValid,
    #[error("its SignatureVersion is neither 1 nor 2")]
    OtherVersion,
    #[error("the signature is not by the certificate's key")]
    WrongSignature,
}

impl SnsMessage {
    pub fn read(json: &[u8]) -> Result<Self, NotOurs> {
        serde_json::from_slice(json).map_err(|error| NotOurs::NotSns(error.column()))
    }

    /// Where to get the certificate that a message of these topics is signed with.
    pub fn certificate_url(&self, topics: &[TopicArn], now: Timestamp) -> Result<&str, NotOurs> {
        let topic = self.topic(topics)?;
        let at: Timestamp = self.timestamp.parse().map_err(|_| NotOurs::NotNow)?;
        if now.duration_since(at).abs() > TOLERANCE {
            return Err(NotOurs::NotNow);
        }
        let file = path(&self.signing_cert_url, topic).and_then(|path| path.strip_suffix(".pem"));
        match file {
            Some(file) if file.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
                Ok(&self.signing_cert_url)
            }
            _ => Err(NotOurs::OtherHost("SigningCertURL")),
        }
    }

    /// Where to confirm the subscription that this message asks for.
    pub fn confirmation_url(&self, topics: &[TopicArn]) -> Result<&str, NotOurs> {
        let query = path(&self.subscribe_url, self.topic(topics)?).filter(|path| path.starts_with('?'));
        query.map(|_| &*self.subscribe_url).ok_or(NotOurs::OtherHost("SubscribeURL"))
    }

    fn topic<'a>(&self, topics: &'a [TopicArn]) -> Result<&'a TopicArn, NotOurs> {
        topics.iter().find(|topic| topic.text == self.topic_arn).ok_or(NotOurs::OtherTopic)
    }

    /// Checks the signature. To be done before anything the message says is believed.
    pub fn verify(&self, certificate: &SigningCertificate, now: Timestamp) -> Result<(), NotOurs> {
        if !(certificate.not_before..=certificate.not_after).contains(&now.as_second()) {
            return Err(NotOurs::CertificateNotValid);
        }
        let algorithm: &RsaParameters = match &*self.signature_version {
            "1" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "2" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(NotOurs::OtherVersion),
        };
        let signature = BASE64_STANDARD.decode(&self.signature).map_err(|_| NotOurs::WrongSignature)?;
        UnparsedPublicKey::new(algorithm, &certificate.key)
            .verify(self.string_to_sign().as_bytes(), &signature)
            .map_err(|_| NotOurs::WrongSignature)
    }

    /// Names and values on lines of their own, in the names' order.
    fn string_to_sign(&self) -> String {
        let subject = self.subject.as_deref().map(|subject| ("Subject", subject));
        let head = [("Message", &*self.message), ("MessageId", &self.message_id)];
        let tail = [("TopicArn", &*self.topic_arn), ("Type", self.kind.name())];
        let middle: Vec<(&str, &str)> = match self.kind {
            Kind::Notification => subject.into_iter().chain([("Timestamp", &*self.timestamp)]).collect(),
            Kind::SubscriptionConfirmation | Kind::UnsubscribeConfirmation => vec![
                ("SubscribeURL", &self.subscribe_url),
                ("Timestamp", &self.timestamp),
                ("Token", &self.token),
            ],
        };
        let pairs = head.into_iter().chain(middle).chain(tail);
        pairs.flat_map(|(name, value)| [name, "\n", value, "\n"]).collect()
    }
}

/// What follows `https://<the topic's SNS>/`. No parsing: where a URL's host ends is read in more ways than
/// one, and this is the only way we ask for.
fn path<'a>(url: &'a str, topic: &TopicArn) -> Option<&'a str> {
    url.strip_prefix("https://")?.strip_prefix(&*topic.host)?.strip_prefix('/')
}

/// The certificate SNS signs with: its RSA key, and from when to when it holds, in seconds since 1970.
///
/// That it is SNS's follows from where it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningCertificate {
    key: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

impl SigningCertificate {
    pub fn from_pem(pem: &[u8]) -> Result<Self, NotOurs> {
        let certificate = Certificate::from_pem(pem).map_err(|_| NotOurs::NoCertificate)?.tbs_certificate;
        let info = certificate.subject_public_key_info;
        if info.algorithm.oid != RSA_ENCRYPTION {
            return Err(NotOurs::NoCertificate);
        }
        let seconds = |time: x509_cert::time::Time| {
            i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
        };
        Ok(Self {
            key: info.subject_public_key.raw_bytes().to_vec(),
            not_before: seconds(certificate.validity.not_before),
            not_after: seconds(certificate.validity.not_after),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:sns:eu-west-1:123456789012:kassa-dev-to-process";
    const NOW: &str = "2026-11-22T12:00:00Z";

    fn message(certificate: &str, subscribe: &str) -> SnsMessage {
        let json = serde_json::json!({
            "Type": "SubscriptionConfirmation", "MessageId": "id", "TopicArn": ARN, "Message": "text",
            "Timestamp": "2026-11-22T11:59:00.123Z", "SignatureVersion": "2", "Signature": "AAAA",
            "SigningCertURL": certificate, "SubscribeURL": subscribe, "Token": "t0",
        });
        SnsMessage::read(json.to_string().as_bytes()).ok().unwrap()
    }

    fn allowed(url: &str) -> bool {
        let topics = [ARN.parse().unwrap()];
        let message = message(url, url);
        message.certificate_url(&topics, NOW.parse().unwrap()).is_ok()
            || message.confirmation_url(&topics).is_ok()
    }

    #[test]
    fn a_topics_name_says_where_its_sns_is() {
        let host = |arn: &str| arn.parse::<TopicArn>().map(|topic| topic.host);
        assert_eq!(host(ARN).unwrap(), "sns.eu-west-1.amazonaws.com");
        assert_eq!(
            host("arn:aws-cn:sns:cn-north-1:123456789012:t.fifo").unwrap(),
            "sns.cn-north-1.amazonaws.com.cn"
        );
        for wrong in [
            "",
            "arn:aws:sqs:eu-west-1:123456789012:q",
            "arn:aws:sns::123456789012:t",
            "arn:aws:sns:evil.com/:123456789012:t",
            "arn:aws:sns:a.b:123456789012:t",
            "arn:aws:sns:eu-west-1:123456789012:",
            "arn:aws:sns:eu-west-1:123456789012:t:x",
        ] {
            assert_eq!(host(wrong), Err(InvalidTopic), "{wrong}");
        }
    }

    #[test]
    fn nothing_is_fetched_but_from_the_topics_sns() {
        assert!(allowed("https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem"));
        assert!(allowed("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=t0"));
        for url in [
            "",
            "http://sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem",
            "https://sns.eu-west-1.amazonaws.com@evil.example/a.pem",
            "https://sns.eu-west-1.amazonaws.com:8443/a.pem",
            "https://sns.eu-west-1.amazonaws.com\\@evil.example/a.pem",
            "https://evil.example/sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com/../a.pem",
            "https://sns.eu-west-1.amazonaws.com/a/b.pem",
            "https://sns.eu-west-1.amazonaws.com/a.pem?x",
            "https://sns.eu-west-1.amazonaws.com/a.crt",
            "https://bucket.s3.eu-west-1.amazonaws.com/a.pem",
        ] {
            assert!(!allowed(url), "{url}");
        }
    }

    #[test]
    fn what_is_signed_is_what_the_manual_says() {
        let confirmation = message("https://c", "https://s").string_to_sign();
        assert_eq!(
            confirmation,
            format!(
                "Message\ntext\nMessageId\nid\nSubscribeURL\nhttps://s\nTimestamp\n2026-11-22T11:59:00.123Z\n\
                 Token\nt0\nTopicArn\n{ARN}\nType\nSubscriptionConfirmation\n"
            )
        );
        let plain = SnsMessage { kind: Kind::Notification, ..message("", "") };
        let tail = format!("Timestamp\n2026-11-22T11:59:00.123Z\nTopicArn\n{ARN}\nType\nNotification\n");
        assert_eq!(plain.string_to_sign(), format!("Message\ntext\nMessageId\nid\n{tail}"));
        let with_subject = SnsMessage { subject: Some("about".into()), ..plain };
        assert_eq!(
            with_subject.string_to_sign(),
            format!("Message\ntext\nMessageId\nid\nSubject\nabout\n{tail}")
        );
    }

    #[test]
    fn other_topics_and_other_times_are_refused() {
        let url = "https://sns.eu-west-1.amazonaws.com/a.pem";
        let verdict = |topics: &[TopicArn], now: &str| {
            message(url, "").certificate_url(topics, now.parse().unwrap()).map(str::to_owned)
        };
        let ours = [ARN.parse().unwrap()];
        let other = ["arn:aws:sns:eu-west-1:999999999999:kassa-dev-to-process".parse().unwrap()];
        assert_eq!(verdict(&ours, NOW).as_deref(), Ok(url));
        assert_eq!(verdict(&other, NOW), Err(NotOurs::OtherTopic));
        assert_eq!(verdict(&[], NOW), Err(NotOurs::OtherTopic));
        assert_eq!(verdict(&ours, "2026-11-22T12:59:01Z"), Err(NotOurs::NotNow));
        assert_eq!(verdict(&ours, "2026-11-22T10:58:00Z"), Err(NotOurs::NotNow));
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        for pem in ["", "<html>", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(SigningCertificate::from_pem(pem.as_bytes()), Err(NotOurs::NoCertificate));
        }
    }
}

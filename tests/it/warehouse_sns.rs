//! Sales straight from a topic of SNS: what is signed by SNS for a topic of ours is taken, nothing else.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::webhook::WarehouseSale;
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::postgres::Postgres;
use crate::common::warehouse::{NOON, TOPIC, Warehouse, holds, is_problem, sale, sales};

const CERTIFICATE: &str = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem";
const CONFIRM: &str = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=t0";

/// Whoever signs with an RSA key and has a certificate for it.
struct Signer {
    folder: TempDir,
}

impl Signer {
    /// With a certificate for a day, made by OpenSSL.
    fn new() -> Self {
        let signer = Self { folder: tempfile::tempdir().unwrap() };
        let [key, certificate] = [signer.file("key"), signer.file("pem")];
        let made = Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=sns", "-keyout",
            ])
            .arg(key)
            .arg("-out")
            .arg(certificate)
            .output()
            .unwrap();
        assert!(made.status.success());
        signer
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn certificate(&self) -> Vec<u8> {
        fs::read(self.file("pem")).unwrap()
    }

    /// Signs a message's fields as SNS does.
    fn sign(&self, mut message: Value, version: &str) -> Value {
        let names: &[&str] = match message["Type"].as_str().unwrap() {
            "Notification" => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
        };
        let pairs = names.iter().filter_map(|name| Some(format!("{name}\n{}\n", message[*name].as_str()?)));
        fs::write(self.file("text"), pairs.collect::<String>()).unwrap();
        let hash = if version == "1" { "-sha1" } else { "-sha256" };
        let signed = Command::new("openssl")
            .args(["dgst", hash, "-sign"])
            .args([self.file("key"), self.file("text")])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        message["SignatureVersion"] = json!(version);
        message["Signature"] = json!(BASE64_STANDARD.encode(signed.stdout));
        message
    }
}

fn notification(sale: &WarehouseSale, now: Timestamp) -> Value {
    let decrypted = json!({
        "shop_id": sale.shop_id, "sale_id": sale.sale_id, "till": sale.till, "seq": sale.seq,
        "sold_at": sale.sold_at, "lines": sale.lines, "envelope": "hash",
        "origin": {"source": "192.0.2.7", "accepted_at": sale.accepted_at, "attempt": 1},
    });
    message("Notification", &decrypted.to_string(), now)
}

fn message(kind: &str, text: &str, now: Timestamp) -> Value {
    let mut message = json!({
        "Type": kind, "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "TopicArn": TOPIC, "Message": text,
        "Timestamp": now, "SigningCertURL": CERTIFICATE, "UnsubscribeURL": "https://sns.example/",
        "MessageAttributes": {"shop_id": {"Type": "String", "Value": "AMIS1"}},
    });
    if kind != "Notification" {
        message["SubscribeURL"] = json!(CONFIRM);
        message["Token"] = json!("t0");
    }
    message
}

/// A warehouse whose clock stands at now, within the certificate's day, with SNS answering.
async fn open(postgres: &Postgres, signer: &Signer) -> Warehouse {
    let warehouse = Warehouse::open(&postgres.url()).await;
    *warehouse.now.lock().unwrap() = Timestamp::now();
    let mut pages = warehouse.sns.pages.lock().unwrap();
    pages.insert(CERTIFICATE.into(), signer.certificate());
    pages.insert(CONFIRM.into(), b"<ConfirmSubscriptionResponse/>".to_vec());
    drop(pages);
    warehouse
}

async fn post(warehouse: &Warehouse, message: &Value) -> Response {
    let kind = message["Type"].as_str().unwrap_or_default().to_owned();
    let request = warehouse.post("/sns").header("x-amz-sns-message-type", kind);
    request
        .header("content-type", "text/plain; charset=UTF-8")
        .body(message.to_string())
        .send()
        .await
        .unwrap()
}

fn asked(warehouse: &Warehouse) -> Vec<String> {
    warehouse.sns.asked.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_confirmed_and_its_sales_are_loaded_once() {
    let (postgres, signer) = (Postgres::start(), Signer::new());
    let warehouse = open(&postgres, &signer).await;
    let now = warehouse.now();
    let confirmation = signer.sign(message("SubscriptionConfirmation", "You have chosen …", now), "1");
    assert_eq!(post(&warehouse, &confirmation).await.status(), 204);
    // either version, with a subject and without, and again
    let plain = notification(&sale(1), now);
    let mut with_subject = notification(&sale(2), now);
    with_subject["Subject"] = json!("a sale");
    for message in [signer.sign(plain, "1"), signer.sign(with_subject, "2")] {
        assert_eq!(post(&warehouse, &message).await.status(), 204);
        assert_eq!(post(&warehouse, &message).await.status(), 204);
    }
    // by the webhook, too
    assert_eq!(warehouse.deliver(&sales(1..4)).await.status(), 204);
    let ended = signer.sign(message("UnsubscribeConfirmation", "You have chosen …", now), "2");
    assert_eq!(post(&warehouse, &ended).await.status(), 204);
    holds(&postgres.client().await, &sales(1..4)).await;
    // the certificate was fetched once, and an unsubscription is not undone
    assert_eq!(asked(&warehouse), [CERTIFICATE, CONFIRM]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_our_topic_did_not_send_is_refused() {
    let (postgres, signer, stranger) = (Postgres::start(), Signer::new(), Signer::new());
    let warehouse = open(&postgres, &signer).await;
    let now = warehouse.now();
    let changed = |name: &str, value: &str| {
        let mut message = notification(&sale(1), now);
        message[name] = json!(value);
        message
    };
    // nothing is fetched for what is plainly not ours, signed or not
    for (name, value, says) in [
        ("TopicArn", "arn:aws:sns:eu-west-1:999999999999:kassa-dev-to-process", "--topic"),
        ("SigningCertURL", "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem", "SigningCertURL"),
        ("SigningCertURL", "http://sns.eu-west-1.amazonaws.com/a.pem", "SigningCertURL"),
        ("Timestamp", NOON.replace("2026", "2020").as_str(), "Timestamp"),
    ] {
        is_problem(post(&warehouse, &signer.sign(changed(name, value), "2")).await, 403, says).await;
    }
    let elsewhere = "https://sns.eu-west-1.amazonaws.com@evil.example/?Action=ConfirmSubscription";
    assert_eq!(asked(&warehouse), Vec::<String>::new());
    let mut confirmation = message("SubscriptionConfirmation", "", now);
    confirmation["SubscribeURL"] = json!(elsewhere);
    is_problem(post(&warehouse, &signer.sign(confirmation, "2")).await, 403, "SubscribeURL").await;
    assert_eq!(asked(&warehouse), [CERTIFICATE]);
    // signed by another key, for another version, or changed since
    is_problem(post(&warehouse, &stranger.sign(notification(&sale(1), now), "2")).await, 403, "signature")
        .await;
    let good = signer.sign(notification(&sale(1), now), "2");
    for (name, value) in [
        ("Message", json!(notification(&sale(2), now)["Message"])),
        ("MessageId", json!("other")),
        ("Subject", json!("added")),
        ("Timestamp", json!(now + SignedDuration::from_secs(1))),
        ("SignatureVersion", json!("1")),
        ("Signature", json!("AAAA")),
    ] {
        let mut tampered = good.clone();
        tampered[name] = value;
        is_problem(post(&warehouse, &tampered).await, 403, "signature").await;
    }
    let mut version = good.clone();
    version["SignatureVersion"] = json!("3");
    is_problem(post(&warehouse, &version).await, 403, "SignatureVersion").await;
    // what is not of SNS at all, or raw and so without a signature
    is_problem(post(&warehouse, &json!({"Type": "Notification"})).await, 403, "SNS").await;
    let raw = warehouse.post("/sns").header("x-amz-sns-rawdelivery", "true").body("{}");
    is_problem(raw.send().await.unwrap(), 403, "raw").await;
    assert_eq!(warehouse.deliver(&[]).await.status(), 204);
    assert_eq!(warehouse.deliver(&sales(9..10)).await.status(), 204);
    holds(&postgres.client().await, &sales(9..10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_hold_yet_or_any_more_is_refused() {
    let (postgres, signer) = (Postgres::start(), Signer::new());
    let warehouse = open(&postgres, &signer).await;
    let made = warehouse.now();
    for hours in [-2, 30] {
        let now = made + SignedDuration::from_hours(hours);
        *warehouse.now.lock().unwrap() = now;
        let message = signer.sign(notification(&sale(1), now), "2");
        is_problem(post(&warehouse, &message).await, 403, "does not hold").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_sns_cannot_be_asked_its_messages_are_to_come_again() {
    let (postgres, signer) = (Postgres::start(), Signer::new());
    let warehouse = open(&postgres, &signer).await;
    let pages = std::mem::take(&mut *warehouse.sns.pages.lock().unwrap());
    let confirmation = signer.sign(message("SubscriptionConfirmation", "", warehouse.now()), "2");
    is_problem(post(&warehouse, &confirmation).await, 503, "SNS").await;
    // a page that is no certificate is not kept
    warehouse.sns.pages.lock().unwrap().insert(CERTIFICATE.into(), b"<html>".to_vec());
    is_problem(post(&warehouse, &confirmation).await, 403, "certificate").await;
    *warehouse.sns.pages.lock().unwrap() = pages;
    assert_eq!(post(&warehouse, &confirmation).await.status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_that_is_no_sale_is_refused_without_repeating_it() {
    let (postgres, signer) = (Postgres::start(), Signer::new());
    let warehouse = open(&postgres, &signer).await;
    let message = signer.sign(message("Notification", "{\"secret\": 1}", warehouse.now()), "2");
    is_problem(post(&warehouse, &message).await, 400, "Message is no sale (column").await;
    let mut nul = sale(1);
    nul.till = Some("\0".into());
    let message = signer.sign(notification(&nul, warehouse.now()), "2");
    is_problem(post(&warehouse, &message).await, 400, "till").await;
}

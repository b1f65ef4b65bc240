//! What subscribers write, of sales that others could not read and of sales in the open.

use futures::future::join_all;
use jiff::Timestamp;
use kassa::till::{Format, Till};
use kassa_bus::attention::{Attention, Unbooked};
use kassa_bus::jwe::Jwe;
use kassa_bus::message::{Envelope, Reason, RejectedSale, SealedWith};
use kassa_bus::{Clock, Message, SaleId};
use kassa_pipeline::event::envelope_hash;
use serde_json::{Value, json};
use uuid::Uuid;

use super::webhook::{Webhook, create_table};
use super::{MARKS, embedded_metrics, have_nothing_of_a_sale, marked, sold_in_the_open, ten};
use crate::common::cloud::{Cloud, Proxy};
use crate::common::function::{Function, origin, scheduled_event, sqs_event};

/// What the auditor and the alerter get of a sale that was encrypted with another shop's key.
async fn rejected(till: &Till, shop: &str, format: Format) -> String {
    let sale = till.ring_up(vec![marked()]).await.unwrap();
    let request: Value = serde_json::from_str(&sale.body).unwrap();
    let text = |name: &str| request[name].as_str().unwrap().to_owned();
    let (closed, sealed_with) = match format {
        Format::Classic => (Envelope::Classic { content_base64: text("content_base64") }, None),
        Format::Sealed => {
            let kid = Jwe::parse(&text("sealed")).unwrap().kid;
            let sealed_with = SealedWith { kid, shop_id: Some(till.key_of.clone()) };
            (Envelope::Sealed { sealed: text("sealed") }, Some(sealed_with))
        }
    };
    let rejected = RejectedSale {
        shop_id: shop.parse().unwrap(),
        sale_id: sale.sale_id,
        reason: Reason::WrongKey,
        detail: "of the test".into(),
        sealed_with,
        till: None,
        envelope: envelope_hash(&closed),
        closed: Some(closed),
        rejected_at: Timestamp::now(),
        origin: origin(),
    };
    Message::of(&rejected).body.to_string()
}

/// Ten such sales of a shop, of every kind.
async fn ten_rejected_of(cloud: &Cloud, shop: &str, other: &str) -> Value {
    let formats = [Format::Sealed, Format::Classic];
    let tills = formats.map(|format| {
        let mut till =
            Till::new(&cloud.url, shop.parse().unwrap(), MARKS[0], format, Clock::system()).unwrap();
        till.key_of = other.parse().unwrap();
        till
    });
    let mut bodies = Vec::new();
    for n in 0..10 {
        bodies.push((n.to_string(), rejected(&tills[n % 2], shop, formats[n % 2]).await));
    }
    sqs_event(&bodies.iter().map(|(id, body)| (id.as_str(), body.as_str())).collect::<Vec<_>>())
}

pub async fn ten_rejected(cloud: &Cloud) -> Value {
    ten_rejected_of(cloud, "AMIS1", "AMIS2").await
}

pub async fn they_and_watch_write_one_line_a_batch_and_nothing_of_a_sale(cloud: &Cloud) {
    for level in ["info", "trace"] {
        let settings = [("RUST_LOG", level)];
        for (name, event) in [
            ("bad-key-auditor", ten_rejected(cloud).await),
            ("decrypt-error-alerter", ten_rejected(cloud).await),
            ("decrypt-error-alerter", scheduled_event()),
            ("watch", scheduled_event()),
        ] {
            // when it does what it is for
            let function = Function::start(cloud, name, &settings).await;
            let answer = function.api.invoke(event).await.unwrap();
            assert!(answer.is_null() || answer["batchItemFailures"] == json!([]), "{name}: {answer}");
            let lines = function.said();
            // then it says what it did, by the shop where there is one to tell, and nothing of what was sold
            let documents = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let metrics: Vec<Value> = documents.filter(|line| line["_aws"].is_object()).collect();
            metrics.iter().for_each(embedded_metrics);
            let own = metrics.iter().filter(|line| line["took_ms"].is_u64()).count();
            assert_eq!(own, 1, "{name}: {lines:#?}");
            assert!(level != "info" || lines.len() == metrics.len(), "{name}: {lines:#?}");
            have_nothing_of_a_sale(&lines);
            eprintln!("bytes of log of {name}, at {level}: {}", bytes(&lines));
        }
    }
    // and the webhook, of which the warehouse takes what it is sent
    for level in ["info", "trace"] {
        let webhook = Webhook::open(cloud, 204).await;
        webhook.gets(&ten_sold_in_the_open(cloud).await).await;
        let lines = webhook.minute(level).await;
        assert_eq!(webhook.took(), 10);
        assert!(level != "info" || lines.len() == 1, "{lines:#?}");
        eprintln!("bytes of log of warehouse-webhook, at {level}: {}", bytes(&lines));
        have_nothing_of_a_sale(&lines);
    }
}

fn bytes(lines: &[String]) -> usize {
    lines.iter().map(|line| line.len() + 1).sum()
}

async fn ten_sold_in_the_open(cloud: &Cloud) -> Vec<String> {
    ten(cloud).await.iter().map(sold_in_the_open).collect()
}

/// What the alerter writes of an incident that people are to be told of, without each service it uses.
pub async fn alerter_in_every_failure(cloud: &Cloud) -> Vec<String> {
    // given an incident of its own, that no deployed function attends to, of sales that are not booked
    let table = format!("logs-{}", Uuid::now_v7());
    cloud.boto(&format!("{}\nprint('null')", create_table(&table))).await;
    let proxy = Proxy::start(&cloud.endpoint).await;
    let settings = [
        ("RUST_LOG", "trace"),
        ("AWS_ENDPOINT_URL", proxy.url.as_str()),
        ("TABLE", &table),
        ("GROUP_WAIT", "1ms"),
    ];
    let alerter = Function::start(cloud, "decrypt-error-alerter", &settings).await;
    alerter.api.invoke(ten_rejected_of(cloud, "AMIS2", "AMIS1").await).await.unwrap();
    let client = aws_sdk_dynamodb::Client::new(&cloud.sdk_config().await);
    let (list, shop) = (Attention::new(client, "kassa-local-shops"), "AMIS2".parse().unwrap());
    let unbooked = Unbooked {
        sale_id: SaleId::new(Timestamp::now()),
        reason: Reason::WrongKey,
        till: None,
        sealed_with: None,
        since: Timestamp::now(),
    };
    list.put(&shop, &unbooked).await.unwrap();
    // when it cannot look at it, and then cannot send
    for service in ["dynamodb.*", "sns.*"] {
        proxy.throttle(service, 1.0, 7);
        let answer = alerter.api.invoke(scheduled_event()).await;
        proxy.calm();
        assert!(answer.is_err(), "without {service}: {answer:?}");
    }
    list.remove(&shop, &unbooked.sale_id).await.unwrap();
    alerter.said()
}

/// What the webhook writes without each service it uses, and of a warehouse that answers with what it was sent.
pub async fn webhook_in_every_failure(cloud: &Cloud) -> Vec<Vec<String>> {
    let sales = &ten_sold_in_the_open(cloud).await;
    let failures =
        [("sqs.*", 204), ("dynamodb.*", 204), ("secretsmanager.*", 204), ("-", 500), ("-", 422), ("-", 410)];
    let mut webhooks = Vec::new();
    for (service, status) in failures {
        let webhook = Webhook::open(cloud, status).await;
        webhook.gets(sales).await;
        if service != "-" {
            webhook.proxy.throttle(service, 1.0, 7);
        }
        webhooks.push(webhook);
    }
    let written = join_all(webhooks.iter().map(|webhook| webhook.minute("trace"))).await;
    for ((service, status), lines) in failures.iter().zip(&written) {
        // Nothing of it got through, and it says so; without its queue it has nothing to say it of.
        let failed = lines.iter().filter(|line| line.contains("delivery failed")).count();
        assert_eq!(failed, if *service == "sqs.*" { 0 } else { 10 }, "{service} {status}: {lines:#?}");
    }
    written
}

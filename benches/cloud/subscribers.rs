use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::{Value, json};

use crate::cloud::{Cloud, succeeded};
use crate::units::logs;

const AUDITOR: &str = "bad-key-auditor";
const ALERTER: &str = "decrypt-error-alerter";
const WEBHOOK: &str = "warehouse-webhook";

/// Sells through the deployed shop and prints what each subscriber used, as `src/cost/cost.toml` has it.
pub async fn measure(sales: u64, wrong: u64) {
    let cloud = Cloud::deployed().await;
    let (url, sent) = warehouse().await;
    cloud.serverless(&["deploy", &format!("--param=warehouseUrl={url}"), "--param=groupWait=1s"]).await;
    cloud.proxy.measure();
    cloud.proxy.reset();

    // With a key that is another shop's.
    sell(&cloud, wrong, &["--key-of", "AMIS2"]).await;
    let counted = format!("\"count\":{wrong}");
    cloud.until("all audited", &["audit", "keys"], |audit| audit.to_string().contains(&counted)).await;
    for (name, each) in [(AUDITOR, "sale with a wrong key"), (ALERTER, "rejected sale")] {
        let used = logs(&cloud, &[name]).await;
        let (write, read) = capacity(&cloud, name);
        let per = |n: f64| n / wrong as f64;
        let invocations = of(&used, name, "invocations");
        print(
            name,
            each,
            &[
                ("lambda_invocations", per(invocations)),
                ("lambda_gb_seconds", per(of(&used, name, "gb_seconds"))),
                ("sqs_requests", 1.0 + per(2.0 * invocations)),
                ("dynamodb_wru", per(write)),
                ("dynamodb_rru", per(read)),
                ("log_bytes", per(of(&used, name, "log_bytes"))),
            ],
        );
    }

    // And as it should be.
    let before = cloud.proxy.counts();
    sell(&cloud, sales, &[]).await;
    let recorded = |check: &Value| check["recorded"] == json!(sales);
    cloud.until("all recorded", &["check"], recorded).await;
    while cloud.boto(WAITING).await != json!(0) {
        minute(&cloud, WEBHOOK).await;
    }
    let used = logs(&cloud, &[WEBHOOK]).await;
    let after = cloud.proxy.counts();
    // Only who drains asks SQS itself.
    let calls = |counts: &BTreeMap<String, u64>| {
        counts.iter().filter(|(n, _)| n.starts_with("sqs.")).map(|(_, n)| *n).sum::<u64>()
    };
    let per = |n: f64| n / sales as f64;
    let (write, read) = capacity(&cloud, WEBHOOK);
    print(
        WEBHOOK,
        "sale",
        &[
            ("lambda_gb_seconds", per(of(&used, WEBHOOK, "gb_seconds"))),
            ("sqs_requests", 1.0 + per((calls(&after) - calls(&before)) as f64)),
            ("dynamodb_wru", per(write)),
            ("dynamodb_rru", per(read)),
            ("log_bytes", per(of(&used, WEBHOOK, "log_bytes"))),
            ("sent_bytes", per(sent.load(Ordering::Relaxed) as f64)),
        ],
    );

    // A minute in which nothing comes.
    for name in [ALERTER, WEBHOOK, "watch"] {
        let before = logs(&cloud, &[name]).await;
        let requests = cloud.proxy.counts();
        for _ in 0..20 {
            minute(&cloud, name).await;
        }
        let after = logs(&cloud, &[name]).await;
        let minutes = of(&after, name, "invocations") - of(&before, name, "invocations");
        let gb_seconds = of(&after, name, "gb_seconds") - of(&before, name, "gb_seconds");
        println!("# {name}: a minute takes {:.5} GB-seconds", gb_seconds / minutes);
        println!("# requests in {minutes} minutes: {:?} before, {:?} after", requests, cloud.proxy.counts());
    }
}

/// Messages in the webhook's queue.
const WAITING: &str = "
counts = aws('sqs').get_queue_attributes(QueueUrl=aws('sqs').get_queue_url(QueueName='kassa-local-warehouse-webhook')['QueueUrl'], AttributeNames=['All'])['Attributes']
print(json.dumps(int(counts['ApproximateNumberOfMessages']) + int(counts['ApproximateNumberOfMessagesNotVisible'])))";

/// Has a minute pass for a function.
async fn minute(cloud: &Cloud, name: &str) {
    let event = "json.dumps({'detail-type': 'Scheduled Event'})";
    let invoke =
        format!("aws('lambda').invoke(FunctionName='kassa-local-{name}', Payload={event})\nprint('null')");
    cloud.boto(&invoke).await;
}

async fn sell(cloud: &Cloud, count: u64, more: &[&str]) {
    let count = count.to_string();
    let args = ["sell", "--shop", "AMIS1", "--count", &count, "--concurrency", "32", "--stage", "local"];
    println!("{}", succeeded("sell", &cloud.kassa(&[&args[..], more].concat()).await));
}

/// Takes whatever comes, and counts its bytes.
async fn warehouse() -> (String, Arc<AtomicU64>) {
    let sent: Arc<AtomicU64> = Arc::default();
    let count = sent.clone();
    let take = move |body: Bytes| async move {
        count.fetch_add(body.len() as u64, Ordering::Relaxed);
        StatusCode::NO_CONTENT
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/sales", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().route("/sales", post(take))).into_future());
    (url, sent)
}

fn of(used: &Value, name: &str, what: &str) -> f64 {
    used[name][what].as_f64().unwrap()
}

/// Write and read units of the subscriber's own table.
fn capacity(cloud: &Cloud, name: &str) -> (f64, f64) {
    let table = format!("kassa-local-{name}");
    let of = cloud.proxy.capacity_by_table();
    let number = |n: rust_decimal::Decimal| n.to_string().parse::<f64>().unwrap();
    of.get(&table).map_or((0.0, 0.0), |capacity| (number(capacity.write), number(capacity.read)))
}

fn print(name: &str, each: &str, units: &[(&str, f64)]) {
    println!("name = \"{name}\"\neach = \"{each}\"\n[for_each]");
    for (unit, per) in units {
        println!("{unit} = \"{per:.4}\"");
    }
}

//! The subscribers on an emulated AWS: their own functions, queues, tables, rights and schedule.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::cloud::{Cloud, SOON};
use crate::common::postgres::Postgres;
use crate::common::process::accepted;

async fn sell(cloud: &Cloud, more: &[&str]) -> Value {
    let sold =
        cloud.kassa(&[&["sell", "--stage", "local", "--shop", "AMIS1", "--json"], more].concat()).await;
    accepted(&sold)
}

/// Has a minute pass for a function.
async fn minute(cloud: &Cloud, function: &str) {
    let invoke = format!(
        "answer = aws('lambda').invoke(FunctionName='kassa-local-{function}', Payload=json.dumps({{'source': 'aws.events', 'detail-type': 'Scheduled Event'}}))
print(json.dumps([answer.get('FunctionError'), answer['Payload'].read().decode()]))"
    );
    let answer = cloud.boto(&invoke).await;
    assert_eq!(answer[0], Value::Null, "{answer}");
}

/// The text messages that were sent, as the emulator keeps them.
async fn text_messages(cloud: &Cloud) -> Vec<Value> {
    let kept = reqwest::get(format!("{}/_ministack/sns/sms-messages", cloud.endpoint)).await.unwrap();
    let kept: Value = kept.json().await.unwrap();
    let all =
        kept["sms_messages"].as_object().unwrap().values().flat_map(|of| of.as_array().unwrap().clone());
    all.collect()
}

/// A queue that gets what alerts a filter lets through, and what it got so far.
async fn subscribe(cloud: &Cloud, name: &str, filter: &Value) {
    let subscribe = format!(
        "q, sns = aws('sqs'), aws('sns')
topic = [o['OutputValue'] for o in aws('cloudformation').describe_stacks(StackName='kassa-local')['Stacks'][0]['Outputs'] if o['OutputKey'] == 'AlertsTopic'][0]
url = q.create_queue(QueueName='{name}')['QueueUrl']
arn = q.get_queue_attributes(QueueUrl=url, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
policy = {{'Version': '2012-10-17', 'Statement': [{{'Effect': 'Allow', 'Principal': {{'Service': 'sns.amazonaws.com'}}, 'Action': 'sqs:SendMessage', 'Resource': arn}}]}}
q.set_queue_attributes(QueueUrl=url, Attributes={{'Policy': json.dumps(policy)}})
sns.subscribe(TopicArn=topic, Protocol='sqs', Endpoint=arn, Attributes={{'FilterPolicy': '{filter}'}})
print('null')"
    );
    cloud.boto(&subscribe).await;
}

async fn got(cloud: &Cloud, name: &str) -> Vec<Value> {
    let receive = format!(
        "q = aws('sqs')
messages = q.receive_message(QueueUrl=q.get_queue_url(QueueName='{name}')['QueueUrl'], MaxNumberOfMessages=10, VisibilityTimeout=0).get('Messages', [])
print(json.dumps([json.loads(m['Body']) for m in messages]))"
    );
    cloud.boto(&receive).await.as_array().unwrap().clone()
}

/// How many failures the alerter has not heard of. One that it hears of when sales are recorded again is a new one.
async fn on_its_way(cloud: &Cloud) -> u64 {
    let count = "q = aws('sqs')
url = q.get_queue_url(QueueName='kassa-local-decrypt-error-alerter')['QueueUrl']
names = ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible']
print(json.dumps(sum(int(n) for n in q.get_queue_attributes(QueueUrl=url, AttributeNames=names)['Attributes'].values())))";
    cloud.boto(count).await.as_u64().unwrap()
}

async fn until<T, F: Future<Output = T>>(what: &str, ask: impl Fn() -> F, right: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let answer = ask().await;
        if right(&answer) {
            return answer;
        }
        assert!(
            begun.elapsed() < Duration::from_mins(3),
            "in three minutes it did not come about that {what}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_with_the_wrong_key_is_told_once_however_many_functions_there_are() {
    // given a deployed shop, and ICT that wants alerts of one shop only
    let told = [
        "--param=groupWait=1s",
        "--param=resolveAfter=8s",
        "--param=alertEmail=ict@example.com",
        // Functions that are in each other's way again and again leave a message to its queue.
        "--param=subscriberVisibility=15",
    ];
    let cloud = Cloud::deployed_with(&[&told[..], &[SOON]].concat()).await;
    subscribe(&cloud, "of-amis1", &json!({"shop_id": ["AMIS1"]})).await;
    subscribe(&cloud, "of-amis2", &json!({"shop_id": ["AMIS2"]})).await;
    subscribe(&cloud, "only-info", &json!({"severity": ["info"]})).await;

    // when a till with another shop's key sells, far more than one function takes at once
    let sold = sell(&cloud, &["--key-of", "AMIS2", "--till", "till-9", "--count", "300"]).await;
    assert!(sold["outcomes"]["rejected"]["wrong-key"].as_u64().is_some_and(|told| told > 0), "{sold}");

    // then, by the minute of AWS itself, the manager gets one text message
    let sms = until("the manager is told", || text_messages(&cloud), |sms| !sms.is_empty()).await;
    assert!(sms[0].to_string().contains("+31600000001"), "{sms:?}");
    // and ICT one alert, in the words of its protocol
    let alerts = until("ICT is told", || got(&cloud, "of-amis1"), |alerts| !alerts.is_empty()).await;
    assert_eq!(alerts[0]["MessageAttributes"]["reason"]["Value"], "wrong-key");

    // and every failure is counted once, with key and till
    let audit = ["audit", "keys", "--since", "1h"];
    let audit = cloud.until("all are counted", &audit, |a| a.to_string().contains("\"count\":300")).await;
    assert!(audit.to_string().contains("AMIS2") && audit.to_string().contains("till-9"), "{audit}");

    // when two functions do the same minute, and then the till is mended
    tokio::join!(minute(&cloud, "decrypt-error-alerter"), minute(&cloud, "decrypt-error-alerter"));
    assert_eq!(text_messages(&cloud).await.len(), 1);
    until("nothing is on its way to the alerter", || on_its_way(&cloud), |on_its_way| *on_its_way == 0).await;
    sell(&cloud, &["--count", "5"]).await;
    cloud.ask(&["retry", "--shop", "AMIS1", "--opened-with", "AMIS2"]).await;
    cloud
        .until("the sales are in the rows", &["check"], |c| {
            c["recorded"] == 305 && c["mismatches"] == json!([])
        })
        .await;
    let told_twice = || async {
        minute(&cloud, "decrypt-error-alerter").await;
        text_messages(&cloud).await
    };
    let sms = until("it is over", told_twice, |sms| sms.len() >= 2).await;

    // then that was all
    minute(&cloud, "decrypt-error-alerter").await;
    assert_eq!((text_messages(&cloud).await.len(), sms.len()), (2, 2));
    assert_eq!(got(&cloud, "of-amis1").await.len(), 2);
    assert_eq!(got(&cloud, "only-info").await.len(), 1);
    assert_eq!(got(&cloud, "of-amis2").await.len(), 0);
    // and the auditor did not get what its filter leaves out
    let subscribed = cloud.boto("print(json.dumps([s['Protocol'] for s in aws('sns').list_subscriptions()['Subscriptions'] if s['TopicArn'].endswith('-alerts')]))").await;
    assert!(subscribed.as_array().unwrap().contains(&json!("email")), "{subscribed}");
}

/// `kassa warehouse`, stopped by whoever started it.
struct Receiver {
    child: Child,
    url: String,
}

impl Receiver {
    fn start(cloud: &Cloud, database: &str, listen: &str, secret: &str) -> Self {
        let mut command = cloud.command(Path::new(env!("CARGO_BIN_EXE_kassa")));
        command
            .args(["warehouse", "--database", database, "--listen", listen])
            .env("WAREHOUSE_SECRET", secret);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("http://"), "{line}");
        Self { child, url }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_was_down_gets_every_sale_once_in_plaintext_only_there() {
    // given a shop that has no warehouse, and so no queue in which its sales lie open
    let cloud = Cloud::deployed_with(&[SOON]).await;
    let queues = "print(json.dumps([u for u in aws('sqs').list_queues()['QueueUrls'] if 'warehouse' in u]))";
    assert_eq!(cloud.boto(queues).await, json!([]));
    // and then one that is down
    let listen = format!(
        "127.0.0.1:{}",
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    );
    cloud.serverless(&["deploy", SOON, &format!("--param=warehouseUrl=http://{listen}/sales")]).await;
    sell(&cloud, &["--count", "150"]).await;
    cloud
        .until("the sales are in the rows", &["check"], |c| {
            c["recorded"] == 150 && c["mismatches"] == json!([])
        })
        .await;
    minute(&cloud, "warehouse-webhook").await;
    let state = cloud.ask(&["webhook"]).await;
    assert!(state["failing"]["since"].is_string(), "{state}");

    // when it is there, with the secret that AWS made
    let secret = cloud.boto("print(json.dumps(aws('secretsmanager').get_secret_value(SecretId='kassa-local-warehouse')['SecretString']))").await;
    let postgres = Postgres::start();
    let receiver = Receiver::start(&cloud, &postgres.url(), &listen, secret.as_str().unwrap());
    assert_eq!(receiver.url, format!("http://{listen}"));
    let client = postgres.client().await;
    let held = "select count(distinct sale_id), coalesce(sum(gross_turnover), 0)::text from fact_sale_line";
    let loaded = || async {
        // The receiver makes its tables when it is first there.
        let row = client.query_one(held, &[]).await.ok();
        row.map_or_else(|| (0, String::new()), |row| (row.get::<_, i64>(0), row.get::<_, String>(1)))
    };
    // then, by the minute of AWS itself, it gets what waited, each sale once
    let (_, turnover) = until("all are loaded", &loaded, |(sales, _)| *sales == 150).await;

    // and the totals are those of the shop
    let rows = cloud.ask(&["stock"]).await;
    let of_days = rows.as_array().unwrap().iter().filter_map(|row| row["turnover"].as_str());
    let amount = |text: &str| text.parse::<rust_decimal::Decimal>().unwrap();
    assert_eq!(amount(&turnover), of_days.map(amount).sum());

    // and when the secret is rotated, deliveries carry the signatures of both
    let rotate = "aws('secretsmanager').put_secret_value(SecretId='kassa-local-warehouse', SecretString='A' * 44); print('null')";
    cloud.boto(rotate).await;
    cloud.kill("warehouse-webhook");
    sell(&cloud, &["--count", "20"]).await;
    let after_a_minute = || async {
        minute(&cloud, "warehouse-webhook").await;
        loaded().await
    };
    until("the old secret still does", after_a_minute, |(sales, _)| *sales == 170).await;
    assert!(!cloud.log().contains("gross_turnover"), "a sale is in a function's log");
}

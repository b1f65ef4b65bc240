//! The shop on an emulated AWS, deployed as a user deploys it, asked through its own HTTP API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kassa::till::{Format, Till};
use kassa_bus::amount::Amount;
use kassa_bus::{Clock, Line};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::common::cloud::{self, Cloud};
use crate::common::unopenable;

/// What failed comes again after ten seconds instead of thirty.
const AGAIN_SOON: &str = "--param=queueVisibility=10";

fn till(cloud: &Cloud, shop: &str, format: Format) -> Till {
    Till::new(&cloud.url, shop.parse().unwrap(), "till-1", format, Clock::system()).unwrap()
}

fn lines(item: &str, turnover: &str) -> Vec<Line> {
    vec![Line {
        item_no: item.parse().unwrap(),
        gross_number: Amount::from(1),
        gross_turnover: turnover.parse().unwrap(),
    }]
}

async fn post(cloud: &Cloud, body: impl Into<reqwest::Body>) -> Response {
    Client::new().post(format!("{}/shop", cloud.url)).body(body).send().await.unwrap()
}

async fn problem(response: Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (status, kind, response.json().await.unwrap())
}

async fn settled(cloud: &Cloud, id: &str, shop: &str, status: &str) -> Value {
    cloud.until(id, &["sale", id, "--shop", shop], |sale| sale["status"] == status).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deployed_shop_takes_every_kind_of_sale_and_its_books_balance() {
    let cloud = Cloud::deployed_with(&[AGAIN_SOON]).await;

    // Both formats, from clients that share no code with us; one encrypts with KMS itself.
    let mut sold = vec![
        (cloud.client("sealed.py", &["AMIS1"]).await, "AMIS1"),
        (cloud.client("classic.py", &["AMIS1"]).await, "AMIS1"),
        (cloud.client("classic.sh", &["AMIS2"]).await, "AMIS2"),
        (cloud.client("kms.py", &["AMIS2", "kassa-local-"]).await, "AMIS2"),
    ];
    // The same sale twice is one sale.
    let twice = till(&cloud, "AMIS1", Format::Sealed).ring_up(lines("98", "18.95")).await.unwrap();
    for _ in 0..2 {
        assert_eq!(post(&cloud, twice.body.clone()).await.status(), 202);
    }
    sold.push((twice.sale_id.to_string(), "AMIS1"));
    for (id, shop) in &sold {
        settled(&cloud, id, shop, "recorded").await;
    }

    // Rubbish, and a shop that is not there, are told as such.
    let (status, kind, told) = problem(post(&cloud, "hello").await).await;
    assert_eq!((status, kind.as_str(), &told["field"]), (400, "application/problem+json", &json!("body")));
    let (status, _, told) = problem(
        post(&cloud, json!({"shop_id": "NOWHERE", "content_base64": unopenable()}).to_string()).await,
    )
    .await;
    assert_eq!((status, &told["field"]), (404, &json!("shop_id")));
    let (status, ..) = problem(post(&cloud, vec![b'x'; 400 * 1024]).await).await;
    assert_eq!(status, 413);
    let unknown = Client::new().get(format!("{}/shop/NOWHERE/key", cloud.url)).send().await.unwrap();
    assert_eq!(unknown.status(), 404);

    // What no key opens is a fact, with the key it was sealed with where that can be told.
    let mut misconfigured = till(&cloud, "AMIS1", Format::Sealed);
    misconfigured.key_of = "AMIS2".parse().unwrap();
    let wrong_key = misconfigured.ring_up(lines("98", "18.95")).await.unwrap();
    assert_eq!(post(&cloud, wrong_key.body).await.status(), 202);
    let rejected = settled(&cloud, wrong_key.sale_id.as_str(), "AMIS1", "rejected").await;
    let why = &rejected["events"][1]["body"];
    assert_eq!((&why["reason"], &why["sealed_with"]["shop_id"]), (&json!("wrong-key"), &json!("AMIS2")));
    let rubbish = json!({"shop_id": "AMIS1", "message_id": "1-20261122", "content_base64": unopenable()});
    assert_eq!(post(&cloud, rubbish.to_string()).await.status(), 200);
    settled(&cloud, "1-20261122", "AMIS1", "rejected").await;

    // A key that is disabled is an error: the sale waits, and is recorded once the key is back.
    let waiting = till(&cloud, "AMIS2", Format::Classic).ring_up(lines("98", "18.95")).await.unwrap();
    cloud.boto("print(json.dumps(str(aws('kms').disable_key(KeyId=aws('kms').describe_key(KeyId='alias/kassa-local-AMIS2')['KeyMetadata']['KeyId']))))").await;
    assert_eq!(post(&cloud, waiting.body).await.status(), 200);
    let before = cloud.proxy.counts().get("kms.Decrypt").copied();
    while cloud.proxy.counts().get("kms.Decrypt").copied() == before {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(cloud.ask(&["sale", waiting.sale_id.as_str()]).await["status"], "pending");
    cloud.boto("k = aws('kms'); keys = [a['TargetKeyId'] for a in k.list_aliases()['Aliases'] if a['AliasName'] == 'alias/kassa-local-AMIS2']; print(json.dumps(str(k.enable_key(KeyId=keys[0]))))").await;
    settled(&cloud, waiting.sale_id.as_str(), "AMIS2", "recorded").await;

    // The books balance, and every question has the answer it has on one machine.
    let recorded = sold.len() + 1;
    let check = cloud.until("the books", &["check"], |c| c["mismatches"] == json!([])).await;
    assert_eq!((&check["accepted"], &check["recorded"]), (&json!(recorded + 2), &json!(recorded)));
    assert_eq!((&check["rejected"], &check["pending"]), (&json!(2), &json!(0)));
    let stock = cloud.ask(&["stock", "--shop", "AMIS2"]).await;
    let row = stock.as_array().unwrap().iter().find(|row| row["record_type"] == "s-00098").unwrap();
    assert_eq!((&row["stock"], &row["gross_turnover"]), (&json!("99998"), &json!("37.9")));
    let rebuilt = cloud.ask(&["rebuild"]).await;
    assert_eq!(rebuilt["sales"], json!(recorded));
    assert_eq!(cloud.ask(&["stock", "--shop", "AMIS2"]).await, stock);
    let events = cloud.kassa(&["events", "--shop", "AMIS2", "--stage", "local"]).await;
    assert_eq!(cloud::succeeded("events", &events).lines().count(), 6);
    assert_eq!(cloud.ask(&["apply"]).await, json!({"changes": [], "undeclared": []}));

    // A deployment without changes changes nothing; one with changes goes on selling.
    assert!(cloud.serverless(&["deploy", AGAIN_SOON]).await.contains("No changes to deploy"));
    cloud.serverless(&["deploy", AGAIN_SOON, "--param", "logLevel=TRACE"]).await;
    let sold = cloud.kassa(&["sell", "--shop", "AMIS1", "--count", "20", "--stage", "local"]).await;
    cloud::succeeded("sell", &sold);
    let marked = till(&cloud, "AMIS1", Format::Sealed).ring_up(lines("90002", "7712345.67")).await.unwrap();
    assert_eq!(post(&cloud, marked.body).await.status(), 202);
    settled(&cloud, marked.sale_id.as_str(), "AMIS1", "recorded").await;
    let right = |c: &Value| c["recorded"] == json!(recorded + 21) && c["mismatches"] == json!([]);
    cloud.until("21 more", &["check"], right).await;
    // At the finest level there is, no function's log holds anything of a sale.
    let levels = "print(json.dumps([f['Environment']['Variables']['RUST_LOG'] for f in aws('lambda').list_functions()['Functions']]))";
    assert_eq!(cloud.boto(levels).await, json!(vec!["TRACE"; 8]));
    let log = cloud.log();
    assert!(log.contains(wrong_key.sale_id.as_str()), "the functions' logs are not in it");
    assert!(!log.contains("7712345"));

    // Removed, it leaves nothing behind but the keys, and says so.
    let told = cloud.serverless(&["remove"]).await;
    assert!(told.contains("KMS keys"), "{told}");
    let left = cloud
        .boto(
            r"
print(json.dumps([
    aws('cloudformation').list_stacks(StackStatusFilter=['CREATE_COMPLETE', 'UPDATE_COMPLETE'])['StackSummaries'],
    aws('lambda').list_functions()['Functions'], aws('lambda').list_event_source_mappings()['EventSourceMappings'],
    aws('dynamodb').list_tables()['TableNames'], aws('sns').list_topics()['Topics'], aws('sqs').list_queues().get('QueueUrls', []),
    aws('logs').describe_log_groups()['logGroups'], aws('s3').list_buckets()['Buckets'],
    aws('apigatewayv2').get_apis()['Items'], [r['RoleName'] for r in aws('iam').list_roles()['Roles'] if 'kassa' in r['RoleName'].lower()],
], default=str))",
        )
        .await;
    assert_eq!(left, json!([[], [], [], [], [], [], [], [], [], []]));
    let gone = cloud.kassa(&["check", "--stage", "local"]).await;
    assert!(String::from_utf8_lossy(&gone.stderr).contains("npx serverless deploy --stage local"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_throttles_lost_answers_duplicates_and_poison_lose_and_double_nothing() {
    const SALES: usize = 200;
    // What is appended late, because DynamoDB failed, comes late to the stream.
    let cloud = Arc::new(Cloud::deployed_with(&[AGAIN_SOON, "--param=streamLag=10s"]).await);
    let till = Arc::new(till(&cloud, "AMIS1", Format::Sealed));

    // Given DynamoDB that throttles, fails and loses answers, and poison in both queues
    cloud.proxy.throttle("dynamodb.*", 0.2, 7);
    let poison = r#"
outputs = {o['OutputKey']: o['OutputValue'] for o in aws('cloudformation').describe_stacks(StackName='kassa-local')['Stacks'][0]['Outputs']}
for topic in ('ToDecryptTopic', 'ToProcessTopic'):
    for body in ('poison', '{"shop_id": "AMIS1"}', '[]'):
        aws('sns').publish(TopicArn=outputs[topic], Message=body)
print('null')"#;
    cloud.boto(poison).await;

    // when tills sell, each posting until it hears a yes, some sales twice, while decrypt is killed again and again
    let selling = {
        let (cloud, till) = (cloud.clone(), till.clone());
        tokio::spawn(async move {
            let sell = |n: usize| {
                let (till, cloud) = (till.clone(), cloud.clone());
                async move {
                    let sale = till.ring_up(lines("90001", "7.25")).await.unwrap();
                    till.post(&sale).await.unwrap();
                    if n.is_multiple_of(5) {
                        let again = post(&cloud, sale.body.clone()).await.status().as_u16();
                        assert!([202, 500, 503].contains(&again), "{again}");
                    }
                }
            };
            for batch in 0..SALES / 20 {
                futures::future::join_all((0..20).map(|n| sell(batch * 20 + n))).await;
            }
        })
    };
    // and the rows are made anew in the midst of it
    let rebuilding = {
        let cloud = cloud.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            cloud.ask(&["rebuild"]).await
        })
    };
    let mut killed = 0;
    while !selling.is_finished() {
        killed += cloud.kill("decrypt") + cloud.kill("process");
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    selling.await.unwrap();
    let rebuilt = rebuilding.await.unwrap();
    assert!(rebuilt["sales"].is_u64(), "{rebuilt}");
    assert!(killed > 0, "nothing was killed");
    let injected = cloud.proxy.injected();
    assert!(injected.refused > 10 && injected.denied > 5 && injected.cut > 5, "{injected:?}");
    cloud.proxy.calm();

    // then, with what was killed five times redriven, every sale that was answered yes is recorded once, the rows are
    // what they add up to, and the poison lies in its queues or with the dead letters, with nobody behind it.
    let begun = Instant::now();
    let (check, waiting) = loop {
        let waiting = cloud.boto(REDRIVE).await;
        let in_time = begun.elapsed() < Duration::from_mins(5);
        if waiting != json!({"decrypt": 3, "process": 3}) && in_time {
            tokio::time::sleep(Duration::from_millis(300)).await;
            continue;
        }
        let check = cloud.kassa(&["check", "--stage", "local", "--json"]).await;
        let check: Value = serde_json::from_slice(&check.stdout).unwrap_or_default();
        let right = check["recorded"] == json!(SALES) && check["mismatches"] == json!([]);
        if right || !in_time {
            break (check, waiting);
        }
    };
    assert_eq!(
        (&check["accepted"], &check["recorded"], &check["rejected"], &check["pending"], &check["mismatches"]),
        (&json!(SALES), &json!(SALES), &json!(0), &json!(0), &json!([]))
    );
    assert_eq!(waiting, json!({"decrypt": 3, "process": 3}));
    let stock = cloud.ask(&["stock", "--shop", "AMIS1"]).await;
    let row = stock.as_array().unwrap().iter().find(|row| row["record_type"] == "s-90001").unwrap();
    assert_eq!(row["stock"], json!((20_000 - SALES).to_string()));
}

/// Puts dead letters back in their queues, all but the poison, and says how many messages wait in both.
const REDRIVE: &str = r#"
q, waiting = aws('sqs'), {}
for stage in ('decrypt', 'process'):
    queue, dead = (q.get_queue_url(QueueName='kassa-local-' + stage + ending)['QueueUrl'] for ending in ('', '-dead-letters'))
    letters = q.receive_message(QueueUrl=dead, MaxNumberOfMessages=10, VisibilityTimeout=1, MessageAttributeNames=['All'])
    for letter in letters.get('Messages', []):
        if letter['Body'] not in ('poison', '{"shop_id": "AMIS1"}', '[]'):
            q.send_message(QueueUrl=queue, MessageBody=letter['Body'], MessageAttributes=letter.get('MessageAttributes', {}))
            q.delete_message(QueueUrl=dead, ReceiptHandle=letter['ReceiptHandle'])
    counts = [int(n) for url in (queue, dead) for name, n in q.get_queue_attributes(QueueUrl=url, AttributeNames=['All'])['Attributes'].items() if name in ('ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible')]
    waiting[stage] = sum(counts)
print(json.dumps(waiting))"#;

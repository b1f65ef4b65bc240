//! A stage as fc5a417 left it, taken over by the code of today: its rows in the emulator's tables, and everything that
//! reads them. Only the keys are others, as the emulator's KMS has its own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use kassa::till::{Format, Prepared, Till};
use kassa_bus::amount::Amount;
use kassa_bus::{Clock, Line};
use serde_json::{Value, json};

use crate::common::cloud::{self, Cloud, root};

/// The current keys of the shops, as that version's registry names them.
const KEYS: [(&str, &str); 2] = [
    ("AMIS1", "y_9Jw2tSXIC6CKF9zAZXLKB9WXdRRcDpnwuuD9afPEU"),
    ("AMIS2", "-n4qS8zfXrGXbEfkq-Hn3wS0WFWTKjZg_g3gT9KYhTI"),
];

/// The rows that version wrote, by table: two shops, three tills of which one signs, a key that was rotated, sales that
/// were recorded and rejected (wrong key, conflict, replayed), refunds, an item that nobody declared, what was told.
fn rows(keys: &BTreeMap<&str, String>) -> Value {
    let mut text = std::fs::read_to_string(root().join("tests/data/fc5a417/stage.json")).unwrap();
    for (shop, was) in KEYS {
        assert!(text.contains(was), "{shop}");
        text = text.replace(was, &keys[shop]);
    }
    serde_json::from_str(&text).unwrap()
}

async fn taken_over() -> Cloud {
    let cloud = Cloud::deployed().await;
    let keys = "
info = lambda shop: aws('dynamodb').get_item(TableName='kassa-local-shops', Key={'shop_id': {'S': shop}, 'record_type': {'S': 'info'}})['Item']
print(json.dumps({shop: info(shop)['keys']['L'][-1]['M']['kid']['S'] for shop in ('AMIS1', 'AMIS2')}))";
    let keys: BTreeMap<String, String> = serde_json::from_value(cloud.boto(keys).await).unwrap();
    let keys = keys.iter().map(|(shop, kid)| (shop.as_str(), kid.clone())).collect();
    // The events go through the stream, where that version's projection has long taken them: its checkpoint is behind
    // them, in the shard that the stage has.
    let load = r"
import time
db, rows = aws('dynamodb'), json.loads(ROWS)
sequence = lambda: [row['sequence']['S'] for row in db.scan(TableName='kassa-local-shops', ConsistentRead=True)['Items'] if row['record_type']['S'].startswith('shard#')]
for row in rows['events']:
    db.put_item(TableName='kassa-local-events', Item=row)
streams = aws('dynamodbstreams')
[stream] = streams.list_streams(TableName='kassa-local-events')['Streams']
[shard] = streams.describe_stream(StreamArn=stream['StreamArn'])['StreamDescription']['Shards']
at = streams.get_shard_iterator(StreamArn=stream['StreamArn'], ShardId=shard['ShardId'], ShardIteratorType='TRIM_HORIZON')['ShardIterator']
recorded = [r['dynamodb']['SequenceNumber'] for r in streams.get_records(ShardIterator=at)['Records'] if r['dynamodb']['NewImage']['kind']['S'] == 'recorded']
patience = time.monotonic() + 60
while sequence() != recorded[-1:]:
    assert time.monotonic() < patience, 'the projection does not come to its end'
    time.sleep(0.1)
for table in ('shops', 'bad-key-auditor', 'decrypt-error-alerter'):
    name = 'kassa-local-' + table
    keys = [key['AttributeName'] for key in db.describe_table(TableName=name)['Table']['KeySchema']]
    for row in db.scan(TableName=name)['Items']:
        db.delete_item(TableName=name, Key={key: row[key] for key in keys})
    for row in rows[table]:
        if row.get('record_type', {}).get('S', '').startswith('shard#'):
            row = dict(row, record_type={'S': 'shard#' + shard['ShardId']}, sequence={'S': recorded[-1]})
        db.put_item(TableName=name, Item=row)
print('null')";
    cloud.boto(&format!("ROWS = {}{load}", json!(rows(&keys).to_string()))).await;
    cloud
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_of_fc5a417_answers_every_question_and_is_applied_to_and_rebuilt() {
    let cloud = taken_over().await;

    // Its books balance, and every question has an answer.
    let balanced = json!({"accepted": 17, "recorded": 13, "rejected": 4, "pending": 0, "mismatches": []});
    assert_eq!(cloud.ask(&["check"]).await, balanced);
    let stock = cloud.ask(&["stock"]).await;
    let row = |stock: &Value, shop: &str, row: &str| {
        let all = stock.as_array().unwrap().iter();
        all.clone().find(|r| r["shop_id"] == shop && r["record_type"] == row).cloned().unwrap()
    };
    assert_eq!(row(&stock, "AMIS2", "s-00098")["stock"], "99992");
    assert_eq!(row(&stock, "AMIS2", "s-555123")["gross_turnover"], "-3.1");
    assert_eq!(row(&stock, "AMIS1", "d-2026-11-28")["turnover"], "237.49");
    let sale = cloud.ask(&["sale", "777-20261127", "--shop", "AMIS1"]).await;
    assert_eq!((&sale["status"], sale["events"].as_array().unwrap().len()), (&json!("recorded"), 2));
    let rejected = cloud.ask(&["rejected"]).await;
    let of = |reason: &str| rejected.as_array().unwrap().iter().filter(|r| r["reason"] == reason).count();
    assert_eq!((of("wrong-key"), of("replayed"), rejected.as_array().unwrap().len()), (2, 2, 4));
    let tills = cloud.ask(&["till", "list"]).await;
    assert_eq!((tills.as_array().unwrap().len(), &tills[0]["till"]), (1, &json!("till-1")), "{tills}");
    let keys = cloud.ask(&["key", "list"]).await;
    assert_eq!(keys.as_array().unwrap().len(), 3, "{keys}");
    let status = cloud.kassa(&["status", "--stage", "local", "--json"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["shops"].to_string().contains("AMIS2"), "{status}");
    let events = cloud.kassa(&["events", "--shop", "AMIS1", "--stage", "local"]).await;
    assert_eq!(cloud::succeeded("events", &events).lines().count(), 26);
    // shops.toml is applied to it, which makes no key anew and changes no stock.
    cloud::succeeded("apply", &cloud.kassa(&["apply", "--stage", "local"]).await);
    assert_eq!(cloud.ask(&["apply"]).await["changes"], json!([]));
    assert_eq!(cloud.ask(&["key", "list"]).await, keys);
    // A rebuild finds the rows that version wrote.
    assert_eq!(cloud.ask(&["rebuild"]).await["sales"], 13);
    assert_eq!(cloud.ask(&["stock"]).await, stock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_of_fc5a417_ends_what_was_on_its_way_and_sells_on() {
    let cloud = taken_over().await;
    let till = |name: &str| {
        Till::new(&cloud.url, "AMIS1".parse().unwrap(), name, Format::Sealed, Clock::system()).unwrap()
    };
    let lines = vec![Line {
        item_no: "98".parse().unwrap(),
        gross_number: Amount::from(1),
        gross_turnover: "18.95".parse().unwrap(),
    }];

    // Given three sales that it had accepted, of which one is nowhere, one is in a queue closed, and one opened,
    let mut accepted_sales = Vec::new();
    for _ in 0..3 {
        accepted_sales.push(accepted(&cloud, &till("till-5").ring_up(&*lines).await.unwrap()).await);
    }
    let [lost, closed, opened] = &accepted_sales[..] else { panic!("three") };
    publish(&cloud, "ToDecryptTopic", &closed.to_decrypt()).await;
    publish(&cloud, "ToProcessTopic", &opened.to_process()).await;
    for sale in [closed, opened] {
        cloud.until("on its way", &["sale", &sale.id], |sale| sale["status"] == "recorded").await;
    }
    assert_eq!(cloud.ask(&["reconcile"]).await["unsettled"], 1);
    cloud.until("what was lost", &["sale", &lost.id], |sale| sale["status"] == "recorded").await;

    // and new ones, of both formats and both shops, then all are recorded, on the rows that were there.
    for (client, shop) in [("sealed.py", "AMIS1"), ("classic.py", "AMIS2")] {
        let id = cloud.client(client, &[shop]).await;
        cloud.until(client, &["sale", &id, "--shop", shop], |sale| sale["status"] == "recorded").await;
    }
    let right = |c: &Value| c["recorded"] == 18 && c["mismatches"] == json!([]);
    let check = cloud.until("five more", &["check"], right).await;
    assert_eq!((&check["accepted"], &check["pending"]), (&json!(22), &json!(0)));

    // Subscribers go on with what they knew: one more of a failure that is known already.
    let mut wrong = till("till-4");
    wrong.key_of = "AMIS2".parse().unwrap();
    let sale = wrong.ring_up(&*lines).await.unwrap();
    wrong.post(&sale).await.unwrap();
    cloud.until("rejected", &["sale", sale.sale_id.as_str()], |sale| sale["status"] == "rejected").await;
    let incident = "
document = aws('dynamodb').get_item(TableName='kassa-local-decrypt-error-alerter', Key={'group': {'S': 'incidents'}, 'name': {'S': 'AMIS1#wrong-key'}})['Item']['document']['S']
print(json.dumps(json.loads(document)['failures']['count']))";
    let begun = Instant::now();
    while cloud.boto(incident).await != 3 {
        assert!(begun.elapsed() < Duration::from_mins(1), "the incident is not the one that was open");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let audit = cloud.ask(&["audit", "keys", "--since", "92d"]).await;
    assert!(audit.to_string().contains("A0bwOPw-Q3XAdwZtGlp2ZqLkoC3Dadx_tTGMueyFNdw"), "{audit}");
}

/// A sale as that version accepted it.
struct Accepted {
    id: String,
    sealed: String,
    hash: String,
}

/// Puts its event as that version wrote it.
async fn accepted(cloud: &Cloud, sale: &Prepared) -> Accepted {
    let request: Value = serde_json::from_str(&sale.body).unwrap();
    let sealed = request["sealed"].as_str().unwrap().to_owned();
    let (id, hash) = (sale.sale_id.to_string(), hash(&sealed));
    let millis = i64::from_str_radix(&id.replace('-', "")[..12], 16).unwrap();
    let day = Timestamp::from_millisecond(millis).unwrap().strftime("%F").to_string();
    let text = |text: String| json!({"S": text});
    let body = json!({"format": "sealed", "sealed": sealed, "source": "192.0.2.7"});
    let row = json!({
        "stream": text(format!("AMIS1#{day}")), "event": text(format!("{id}#accepted#{hash}")),
        "kind": text("accepted".into()), "version": {"N": "1"}, "at": text(Timestamp::now().to_string()),
        "sale_id": text(id.clone()), "shop_id": text("AMIS1".into()), "body": text(body.to_string()),
    });
    let put = "aws('dynamodb').put_item(TableName='kassa-local-events', Item=json.loads(ROW)); print('null')";
    cloud.boto(&format!("ROW = {}\n{put}", json!(row.to_string()))).await;
    Accepted { id, sealed, hash }
}

/// How an accepted event names its envelope.
fn hash(sealed: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, sealed.as_bytes()))
}

#[test]
fn what_these_tests_write_is_what_that_version_wrote() {
    let rows = rows(&KEYS.map(|(shop, kid)| (shop, kid.to_owned())).into());
    let names = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut sealed = 0;
    for row in rows["events"].as_array().unwrap().iter().filter(|row| row["kind"]["S"] == "accepted") {
        assert_eq!(names(row), ["at", "body", "event", "kind", "sale_id", "shop_id", "stream", "version"]);
        let body: Value = serde_json::from_str(row["body"]["S"].as_str().unwrap()).unwrap();
        if let Some(envelope) = body["sealed"].as_str() {
            assert_eq!(names(&body), ["format", "sealed", "source"]);
            assert!(row["event"]["S"].as_str().unwrap().ends_with(&format!("#accepted#{}", hash(envelope))));
            sealed += 1;
        }
    }
    assert!(sealed > 5, "{sealed}");
}

/// Messages as that version published them.
impl Accepted {
    fn origin() -> Value {
        json!({"source": "192.0.2.7", "accepted_at": Timestamp::now().to_string(), "attempt": 1})
    }

    fn to_decrypt(&self) -> Value {
        let envelope = json!({"format": "sealed", "sealed": self.sealed});
        json!({"shop_id": "AMIS1", "sale_id": self.id, "envelope": envelope, "origin": Self::origin()})
    }

    fn to_process(&self) -> Value {
        json!({
            "shop_id": "AMIS1", "sale_id": self.id, "till": "till-5", "seq": 3, "sold_at": "2026-11-28T03:56:00Z",
            "lines": [{"item_no": "98", "gross_number": "1", "gross_turnover": "18.95"}],
            "envelope": self.hash, "origin": Self::origin(),
        })
    }
}

async fn publish(cloud: &Cloud, topic: &str, message: &Value) {
    let publish = r"
outputs = {o['OutputKey']: o['OutputValue'] for o in aws('cloudformation').describe_stacks(StackName='kassa-local')['Stacks'][0]['Outputs']}
message = json.loads(MESSAGE)
attributes = {name: {'DataType': 'String', 'StringValue': message[name]} for name in ('shop_id', 'sale_id')}
aws('sns').publish(TopicArn=outputs[TOPIC], Message=MESSAGE, MessageAttributes=attributes)
print('null')";
    cloud.boto(&format!("TOPIC, MESSAGE = {}, {}{publish}", json!(topic), json!(message.to_string()))).await;
}

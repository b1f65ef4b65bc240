//! What queues gave up: listed, shown, sent back, dropped with a reason that is kept.

use std::collections::HashMap;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kassa::cloud::SqsOffice;
use kassa::dead_letters::DeadLetterOffice;
use kassa::embedded::{OpenShop, Sync, Up};
use kassa::shops::Shops;
use kassa::till::{Format, Prepared, Till};
use kassa_bus::local::DeadLetter;
use kassa_bus::message::{AcceptedSale, Envelope, Origin};
use kassa_bus::{Clock, Line, Message, Settings};
use kassa_pipeline::event::{Accepted, Event, Fact};
use kassa_pipeline::event_store::Scan;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::cloud::Cloud;
use crate::common::process::kassa;

async fn open(data: &Path) -> OpenShop {
    let up = Up {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: data.to_owned(),
        shops: Shops::read(None).unwrap(),
        sync: Sync::Normal,
        clock: Clock::system(),
        settings: Settings::none(),
        tls: None,
    };
    OpenShop::open(up).await.unwrap()
}

async fn ring_up(shop: &OpenShop) -> Prepared {
    let till = Till::new(&shop.occupant.url, "AMIS1".parse().unwrap(), "t", Format::Sealed, Clock::system());
    let line = Line {
        item_no: "98".parse().unwrap(),
        gross_number: "1".parse().unwrap(),
        gross_turnover: "18.95".parse().unwrap(),
    };
    till.unwrap().ring_up(vec![line]).await.unwrap()
}

/// A sale that was accepted and that decrypt gave up: its event, and its message among the dead letters.
async fn given_up(shop: &OpenShop) -> String {
    let sale = ring_up(shop).await;
    let body: Value = serde_json::from_str(&sale.body).unwrap();
    let envelope = Envelope::Sealed { sealed: body["sealed"].as_str().unwrap().to_owned() };
    let (now, source) = (Clock::system().now(), "192.0.2.7".to_owned());
    let accepted = AcceptedSale {
        shop_id: "AMIS1".parse().unwrap(),
        sale_id: sale.sale_id.clone(),
        envelope: envelope.clone(),
        origin: Origin {
            source: source.clone(),
            accepted_at: now,
            attempt: 1,
            opened_with: None,
            trace: None,
        },
    };
    let fact = Fact::Accepted(Accepted { envelope, source });
    let (shop_id, sale_id) = (accepted.shop_id.clone(), accepted.sale_id.clone());
    shop.store.events.append(&Event { shop_id, sale_id, at: now, trace: None, fact }).await.unwrap();
    let message = kassa_pipeline::claim_check::message(&accepted);
    bury(shop, "decrypt", message).await;
    sale.sale_id.to_string()
}

async fn bury(shop: &OpenShop, queue: &'static str, message: Message) {
    let letters = shop.store.kept(&Clock::system()).dead_letters;
    letters.keep(DeadLetter { queue, message, receives: 5, why: "KMS was away".into() }).await.unwrap();
}

async fn runs(args: &[&str], data: &Path) -> Output {
    let mut all: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    all.extend(["--data".to_owned(), data.display().to_string()]);
    // The shop is in this process, and has to go on meanwhile.
    tokio::task::spawn_blocking(move || kassa(&all.iter().map(String::as_str).collect::<Vec<_>>()))
        .await
        .unwrap()
}

async fn asked(args: &[&str], data: &Path) -> Value {
    let output = runs(&[args, &["--json"]].concat(), data).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn letters(data: &Path, queue: &str) -> u64 {
    let queues = asked(&["dead-letters"], data).await;
    let given = queues.as_array().unwrap().iter().find(|given| given["queue"] == queue);
    given.unwrap()["letters"].as_u64().unwrap()
}

async fn becomes(data: &Path, sale: &str, status: &str) -> Value {
    let begun = Instant::now();
    loop {
        let history = asked(&["sale", sale], data).await;
        if history["status"] == status {
            return history;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "not {status}: {history}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn balanced(data: &Path) {
    assert_eq!(asked(&["check"], data).await["mismatches"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_shown_closed_and_sent_back_once_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let shop = open(data).await;
    let sales = [given_up(&shop).await, given_up(&shop).await];
    assert_eq!(letters(data, "decrypt").await, 2);
    // when somebody looks
    let shown = asked(&["dead-letters", "show", "--queue", "decrypt"], data).await;
    let first = &shown[0];
    assert_eq!((&first["shop_id"], &first["why"]), (&json!("AMIS1"), &json!("KMS was away")));
    assert!(sales.contains(&first["sale_id"].as_str().unwrap().to_owned()));
    let text = runs(&["dead-letters", "show", "--queue", "decrypt"], data).await.stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&sales[0]) && !text.contains("sealed"), "{text}");
    let listed = String::from_utf8(runs(&["dead-letters"], data).await.stdout).unwrap();
    assert!(listed.contains("kassa dead-letters redrive"), "{listed}");
    // then they are still there, and go back when they are sent
    assert_eq!(asked(&["dead-letters", "redrive", "--queue", "decrypt"], data).await["sent"], 2);
    for sale in &sales {
        becomes(data, sale, "recorded").await;
    }
    assert_eq!(letters(data, "decrypt").await, 0);
    balanced(data).await;
    // and a queue that is not there is said to be none
    let none = runs(&["dead-letters", "redrive", "--queue", "nobody"], data).await;
    assert!(String::from_utf8(none.stderr).unwrap().contains("there are: decrypt, process"));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dropped_without_a_reason_and_what_was_can_be_put_through_later() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let shop = open(data).await;
    let sale = given_up(&shop).await;
    let other = given_up(&shop).await;
    let shown = asked(&["dead-letters", "show", "--queue", "decrypt"], data).await;
    let ids: Vec<_> = shown.as_array().unwrap().iter().collect();
    let id = ids.iter().find(|letter| letter["sale_id"] == *sale).unwrap()["id"].as_str().unwrap();
    // when no reason is given, or none to speak of
    let drop = ["dead-letters", "drop", "--queue", "decrypt", "--id", id];
    for why in [&[][..], &["--why", "  "]] {
        assert_eq!(runs(&[&drop, why].concat(), data).await.status.code(), Some(2));
    }
    assert_eq!(letters(data, "decrypt").await, 2);
    // and then one
    let why = ["--why", "a till from a trade fair"];
    assert_eq!(asked(&[&drop[..], &why].concat(), data).await["dropped"], 1);
    // then the sale is rejected, and says why; the other one waits
    let history = becomes(data, &sale, "rejected").await;
    let end = &history["events"][1]["body"];
    assert_eq!(end["reason"], "dropped");
    assert!(end["detail"].as_str().unwrap().contains("a till from a trade fair"), "{end}");
    assert_eq!(letters(data, "decrypt").await, 1);
    becomes(data, &other, "pending").await;
    let rejected = asked(&["rejected", "--reason", "dropped"], data).await;
    assert_eq!(rejected[0]["sale_id"], *sale);
    balanced(data).await;
    // and it can be put through after all
    asked(&["retry", "--shop", "AMIS1", "--sale", &sale], data).await;
    becomes(data, &sale, "recorded").await;
    balanced(data).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscribers_letter_leaves_its_sale_as_it_is_and_a_note_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let shop = open(data).await;
    let sale = given_up(&shop).await;
    asked(&["dead-letters", "redrive"], data).await;
    becomes(data, &sale, "recorded").await;
    // given a letter of a sale, and one that is nobody's
    let attributes = HashMap::from([("shop_id".into(), "AMIS1".into()), ("sale_id".into(), sale.clone())]);
    let message = |id: &str, attributes| Message {
        id: id.into(),
        attributes,
        body: "anything".to_owned().into(),
        sent: None,
    };
    bury(&shop, "bad-key-auditor", message("one", attributes)).await;
    bury(&shop, "bad-key-auditor", message("two", HashMap::new())).await;
    let books = shop.store.events.clone();
    shop.close().await;
    // when they are dropped, of a shop that is closed
    let redrive = runs(&["dead-letters", "redrive"], data).await;
    assert!(String::from_utf8(redrive.stderr).unwrap().contains("kassa up"));
    let drop = ["dead-letters", "drop", "--queue", "bad-key-auditor", "--why", "rubbish"];
    assert_eq!(asked(&drop, data).await["dropped"], 2);
    // then the sale is what it was, with a note; and the books balance
    let history = becomes(data, &sale, "recorded").await;
    let kinds: Vec<_> =
        history["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["accepted", "recorded", "dropped"]);
    let page = books.scan(Scan::default(), None).await.unwrap();
    let nobodys: Vec<_> = page.events.iter().filter(|event| event.shop_id.as_str() == "none").collect();
    assert!(nobodys.len() == 1 && nobodys[0].body.contains("rubbish"));
    balanced(data).await;
    asked(&["rebuild"], data).await;
    balanced(data).await;
}

#[tokio::test]
async fn on_aws_letters_are_listed_shown_sent_back_and_dropped() {
    let cloud = Cloud::deployed().await;
    cloud.until("the shop is open", &["check"], |check| check["mismatches"] == json!([])).await;
    let put = r#"
import boto3, json
sqs = boto3.client("sqs")
url = sqs.get_queue_url(QueueName="kassa-local-bad-key-auditor-dead-letters")["QueueUrl"]
text = lambda value: {"DataType": "String", "StringValue": value}
for n in range(12):
    sqs.send_message(QueueUrl=url, MessageBody="anything", MessageAttributes={
        "shop_id": text("AMIS1"), "sale_id": text(f"{n}-20261122"), "why": text("poison")})
print(json.dumps(url))
"#;
    cloud.boto(put).await;
    let of = |queues: &Value, name: &str| {
        let given = queues.as_array().unwrap().iter().find(|given| given["queue"] == name);
        given.unwrap_or_else(|| panic!("{name} in {queues}"))["letters"].as_u64().unwrap()
    };
    let auditors = "bad-key-auditor";
    assert_eq!(of(&cloud.ask(&["dead-letters"]).await, auditors), 12);
    // when they are looked at, they stay
    for _ in 0..2 {
        let shown = cloud.ask(&["dead-letters", "show", "--queue", auditors]).await;
        assert_eq!((shown.as_array().unwrap().len(), &shown[0]["why"]), (12, &json!("poison")));
    }
    // and one is dropped, and why is kept
    let shown = cloud.ask(&["dead-letters", "show", "--queue", auditors]).await;
    let (id, sale) = (shown[0]["id"].as_str().unwrap(), shown[0]["sale_id"].as_str().unwrap());
    let drop = ["dead-letters", "drop", "--queue", auditors, "--id", id, "--why", "rubbish"];
    assert_eq!(cloud.ask(&drop).await["dropped"], 1);
    let history = cloud.ask(&["sale", sale]).await;
    assert_eq!(history["events"][0]["body"]["why"], "rubbish");
    // and the others are sent back to the function, which has no use for them either
    assert_eq!(cloud.ask(&["dead-letters", "redrive", "--queue", auditors]).await["sent"], 11);
    let none = |queues: &Value| of(queues, auditors) < 11;
    cloud.until("they are gone from there", &["dead-letters"], none).await;
}

/// SQS as far as moving messages goes, which no emulator here knows.
#[derive(Clone, Default)]
struct Sqs {
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

async fn sqs(State(sqs): State<Sqs>, headers: HeaderMap, body: String) -> (StatusCode, String) {
    let what = headers["x-amz-target"].to_str().unwrap().rsplit('.').next().unwrap().to_owned();
    let asked: Value = serde_json::from_str(&body).unwrap();
    let before = sqs.asked.lock().unwrap().iter().filter(|(other, _)| *other == what).count();
    sqs.asked.lock().unwrap().push((what.clone(), asked.clone()));
    let answer = match what.as_str() {
        "GetQueueUrl" => json!({"QueueUrl": format!("http://sqs/{}", asked["QueueName"].as_str().unwrap())}),
        "GetQueueAttributes" => {
            json!({"Attributes": {"ApproximateNumberOfMessages": "30", "QueueArn": "arn:aws:sqs:eu-west-1:1:dead"}})
        }
        "StartMessageMoveTask" => json!({"TaskHandle": "task"}),
        "ListMessageMoveTasks" => {
            let (status, moved) = if before == 0 { ("RUNNING", 10) } else { ("COMPLETED", 30) };
            json!({"Results": [{"Status": status, "ApproximateNumberOfMessagesMoved": moved}]})
        }
        other => panic!("{other} is not to be asked"),
    };
    (StatusCode::OK, answer.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_sqs_can_move_them_itself_it_does() {
    let fake = Sqs::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(sqs).with_state(fake.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .endpoint_url(url)
        .build();
    let office = SqsOffice::new(aws_sdk_sqs::Client::from_conf(config), "kassa-prod");
    let told = Mutex::new(Vec::new());
    let moved =
        office.redrive("decrypt", &|so_far, of| told.lock().unwrap().push((so_far, of))).await.unwrap();
    assert_eq!((moved, told.into_inner().unwrap()), (30, vec![(10, 30), (30, 30)]));
    let asked = fake.asked.lock().unwrap().clone();
    let named = |what: &str| asked.iter().find(|(other, _)| other == what).unwrap().1.clone();
    assert_eq!(named("GetQueueUrl")["QueueName"], "kassa-prod-decrypt-dead-letters");
    assert_eq!(named("StartMessageMoveTask")["SourceArn"], "arn:aws:sqs:eu-west-1:1:dead");
    // and what project left is no message that could be moved
    let why = office.redrive("project", &|_, _| {}).await.unwrap_err().to_string();
    assert!(why.contains("kassa rebuild"), "{why}");
    serving.abort();
}

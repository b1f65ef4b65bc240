//! `CloudWatch` as a monitor: what is asked of it, page by page, and what its refusals come to. The emulator, which
//! neither pages nor refuses nor reckons, has its turn in `deployed_status.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_kms::config::Credentials;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use jiff::{SignedDuration, Timestamp};
use kassa::monitor::kept::Kept;
use kassa::monitor::{CloudWatch, MetricId, Monitor, MonitorError, Query, Stat, State as Alarmed, What};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Answers in the order it was given, in the protocol the SDK speaks: CBOR over HTTP
/// (<https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html>).
struct Fake {
    asked: Asked,
    server: JoinHandle<()>,
    client: aws_sdk_cloudwatch::Client,
    monitor: CloudWatch,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Answers = Arc<Mutex<VecDeque<(u16, Value)>>>;
type Asked = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

async fn answer(
    State((answers, asked)): State<(Answers, Asked)>,
    Path(operation): Path<String>,
    body: Bytes,
) -> impl IntoResponse {
    asked.lock().unwrap().push((operation, body.to_vec()));
    let mut answers = answers.lock().unwrap();
    // The last one is given again and again: a refusal is tried again by the SDK.
    let (status, answer) =
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.expect("an answer");
    let headers = [("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor")];
    (StatusCode::from_u16(status).unwrap(), headers, cbor(&answer))
}

/// RFC 8949, as much of it as answers need. A text that is a time becomes one.
fn cbor(value: &Value) -> Vec<u8> {
    let head = |major: u8, length: usize| {
        let mut head = vec![major * 0x20 + 26];
        head.extend(u32::try_from(length).unwrap().to_be_bytes());
        head
    };
    let number = |n: f64| [vec![0xfb], n.to_be_bytes().to_vec()].concat();
    match value {
        Value::String(text) => match text.parse::<Timestamp>() {
            #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
            Ok(time) => [vec![0xc1], number(time.as_second() as f64)].concat(),
            Err(_) => [head(3, text.len()), text.as_bytes().to_vec()].concat(),
        },
        Value::Number(n) => number(n.as_f64().unwrap()),
        Value::Array(all) => [head(4, all.len()), all.iter().flat_map(cbor).collect()].concat(),
        Value::Object(all) => {
            let pair = |(name, value): (&String, &Value)| [cbor(&json!(name)), cbor(value)].concat();
            [head(5, all.len()), all.iter().flat_map(pair).collect()].concat()
        }
        Value::Bool(_) | Value::Null => unreachable!("no answer needs it"),
    }
}

impl Fake {
    async fn answering(answers: &[(u16, Value)]) -> Self {
        let (answers, asked): (Answers, Asked) =
            (Arc::new(Mutex::new(answers.to_vec().into())), Arc::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/service/GraniteServiceVersion20100801/operation/{operation}", post(answer))
            .with_state((answers, asked.clone()));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let config = aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12())
            .endpoint_url(&url)
            .region("eu-west-1")
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            // A refusal is tried again as often as ever, and sooner.
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
            .load()
            .await;
        let client = aws_sdk_cloudwatch::Client::new(&config);
        let monitor = CloudWatch::new(client.clone(), "kassa-dev", "api1");
        Self { asked, server, client, monitor }
    }

    /// How often an operation was asked, and whether all of it said this.
    fn asked(&self, operation: &str, said: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        let of = |(name, body): &&(String, Vec<u8>)| {
            name == operation && String::from_utf8_lossy(body).contains(said)
        };
        asked.iter().filter(of).count()
    }
}

fn metric(id: &str) -> Query {
    let dimensions = BTreeMap::from([("function".to_owned(), "decrypt".to_owned())]);
    let metric = MetricId { namespace: "kassa-dev".into(), name: "hop_latency".into(), dimensions };
    Query {
        id: id.into(),
        what: What::Metric(metric, Stat::Percentile(99.0)),
        label: Some("how long".into()),
        period: 60,
        shown: true,
    }
}

fn hour() -> (Timestamp, Timestamp) {
    ("2026-11-22T12:00:00Z".parse().unwrap(), "2026-11-22T13:00:00Z".parse().unwrap())
}

fn result(id: &str, label: &str, minutes: &[(u8, f64)]) -> Value {
    let at = |(minute, _): &(u8, f64)| json!(format!("2026-11-22T12:{minute:02}:00Z"));
    json!({
        "Id": id, "Label": label, "StatusCode": "Complete",
        "Timestamps": minutes.iter().map(at).collect::<Vec<_>>(),
        "Values": minutes.iter().map(|(_, value)| value).collect::<Vec<_>>(),
    })
}

#[tokio::test]
async fn a_line_over_several_pages_is_one_line_and_lines_called_the_same_stay_apart() {
    let pages = [
        json!({"MetricDataResults": [result("b", "found", &[(0, 1.0)]), result("b", "found", &[(0, 10.0)])], "NextToken": "more"}),
        json!({"MetricDataResults": [result("b", "found", &[(1, 2.0)]), result("b", "found", &[(1, 20.0)]), result("a", "how long", &[(1, 7.5)])]}),
    ];
    let fake = Fake::answering(&pages.map(|page| (200, page))).await;
    let search = r#"SEARCH('{"kassa-dev",function} hop_latency', 'p99', 60)"#;
    let search = Query { what: What::Expression(search.into()), label: None, ..metric("b") };
    let (from, to) = hour();
    let lines = fake.monitor.data(&[metric("a"), search], from, to).await.unwrap();

    let told: Vec<_> =
        lines.iter().map(|line| (line.id.as_str(), line.points.iter().map(|(_, v)| *v).collect())).collect();
    assert_eq!(told, [("a", vec![7.5]), ("b", vec![1.0, 2.0]), ("b", vec![10.0, 20.0])]);
    assert_eq!(lines[1].points[1].0, "2026-11-22T12:01:00Z".parse().unwrap());
    // The expression goes there as it is, the statistic by CloudWatch's name, the token to the second page alone.
    for (said, times) in
        [(r#"SEARCH('{"kassa-dev",function} hop_latency', 'p99', 60)"#, 2), ("p99", 2), ("more", 1)]
    {
        assert_eq!(fake.asked("GetMetricData", said), times, "{said}");
    }
}

#[tokio::test]
async fn more_queries_than_one_request_takes_are_several_requests() {
    let fake = Fake::answering(&[(200, json!({"MetricDataResults": []}))]).await;
    let queries: Vec<_> = (0..1_201).map(|n| metric(&format!("q{n}"))).collect();
    let (from, to) = hour();
    assert_eq!(fake.monitor.data(&queries, from, to).await.unwrap(), []);
    assert_eq!(fake.asked("GetMetricData", ""), 3);
    assert_eq!(fake.monitor.data(&[], from, to).await.unwrap(), []);
    assert_eq!(fake.asked("GetMetricData", ""), 3);
}

#[tokio::test]
async fn however_many_ask_the_same_within_a_minute_cloudwatch_is_asked_once_and_a_refusal_is_not_kept() {
    let refused = (403, json!({"__type": "com.amazonaws.cloudwatch#AccessDeniedException"}));
    let line = json!({"MetricDataResults": [result("a", "how long", &[(0, 1.0)])]});
    let fake = Fake::answering(&[refused, (200, line)]).await;
    let client = fake.client.clone();
    let minute = Duration::from_mins(1);
    let kept = Kept::new(Arc::new(CloudWatch::new(client, "kassa-dev", "api1")), minute, minute);
    let (from, to) = hour();
    assert!(kept.data(&[metric("a")], from, to).await.is_err());
    let later = to + SignedDuration::from_secs(59);
    for to in [to, to, later] {
        assert_eq!(kept.data(&[metric("a")], from, to).await.unwrap()[0].points[0].1.to_string(), "1");
    }
    assert_eq!(fake.asked("GetMetricData", ""), 2);
    // Something else, and the next minute, are other questions.
    kept.data(&[metric("a"), metric("b")], from, to).await.unwrap();
    kept.data(&[metric("a")], from, later + SignedDuration::from_secs(1)).await.unwrap();
    assert_eq!(fake.asked("GetMetricData", ""), 4);
}

#[tokio::test]
async fn alarms_of_both_kinds_and_all_pages_are_told_by_their_own_names_in_the_files_order() {
    let alarm = |name: &str, state: &str| {
        json!({
            "AlarmName": name, "StateValue": state, "StateReason": "because", "AlarmDescription": "what to do",
            "StateUpdatedTimestamp": "2026-11-22T12:30:00Z", "StateTransitionedTimestamp": "2026-11-22T12:10:00Z",
        })
    };
    let pages = [
        json!({"CompositeAlarms": [alarm("kassa-dev-shop-is-down", "ALARM")], "NextToken": "more"}),
        json!({"MetricAlarms": [
            alarm("kassa-dev-dead-letters", "INSUFFICIENT_DATA"),
            alarm("kassa-dev-decrypt-waits", "OK"),
            // A stage called dev-2 of the same service, and one that somebody made by hand.
            alarm("kassa-dev-2-dead-letters", "ALARM"),
            alarm("kassa-dev-homemade", "ALARM"),
        ]}),
    ];
    let fake = Fake::answering(&pages.map(|page| (200, page))).await;
    let alarms = fake.monitor.alarms().await.unwrap();
    let told: Vec<_> = alarms.iter().map(|alarm| (alarm.name.as_str(), alarm.state)).collect();
    assert_eq!(
        told,
        [
            ("decrypt-waits", Alarmed::Ok),
            ("dead-letters", Alarmed::InsufficientData),
            ("shop-is-down", Alarmed::Alarm)
        ]
    );
    // Since it came into its state, not since its reason changed last.
    assert_eq!(alarms[2].since, "2026-11-22T12:10:00Z".parse().unwrap());
    assert_eq!((alarms[2].why.as_str(), alarms[2].description.as_str()), ("because", "what to do"));
    assert_eq!(fake.asked("DescribeAlarms", "CompositeAlarm"), 2);
}

#[tokio::test]
async fn why_an_alarm_is_on_is_told_in_plain_words() {
    // given alarms as CloudWatch describes them, of which one watches five minutes and has measured in some of them
    let measured = json!({
        "version": "1.0", "queryDate": "2026-11-22T13:50:30.123+0000", "statistic": "SampleCount", "period": 60,
        "recentDatapoints": [0.5, 0.0], "threshold": 1.0,
        "evaluatedDatapoints": [
            {"timestamp": "2026-11-22T13:48:00.000+0000", "sampleCount": 1.0, "value": 0.0},
            {"timestamp": "2026-11-22T13:46:00.000+0000", "sampleCount": 1.0, "value": 0.5},
        ],
    });
    let share = json!({"version": "1.0", "queryDate": "2026-11-22T13:50:30.123+0000", "recentDatapoints": [37.256], "threshold": 10.0});
    let stood_for = json!({"triggeringAlarms": [
        {"arn": "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:kassa-dev-accept-fails", "state": {"value": "ALARM"}},
        {"arn": "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:kassa-dev-sales-stuck", "state": {"value": "OK"}},
    ]});
    let alarm = |name: &str, data: &Value| {
        json!({
            "AlarmName": format!("kassa-dev-{name}"), "StateValue": "ALARM", "StateReasonData": data.to_string(),
            "StateReason": "Threshold Crossed: 1 out of the last 1 datapoints [37.256 (22/11/26 13:45:00)] was greater than …",
            "StateUpdatedTimestamp": "2026-11-22T13:51:00Z",
        })
    };
    let page = json!({
        "CompositeAlarms": [alarm("shop-is-down", &stood_for)],
        "MetricAlarms": [alarm("watch-is-silent", &measured), alarm("rejected-share", &share)],
    });
    let fake = Fake::answering(&[(200, page)]).await;
    // then each says what it has measured, when it goes off, and nothing of datapoints and thresholds
    let alarms = fake.monitor.alarms().await.unwrap();
    let why = |name: &str| alarms.iter().find(|alarm| alarm.name == name).unwrap().why.as_str();
    assert_eq!(
        why("watch-is-silent"),
        "Measured in the last 5 minutes: nothing, 0.5, nothing, 0, nothing. It goes off at less than 1, or of nothing, each time."
    );
    assert_eq!(why("rejected-share"), "Measured in the last 5 minutes: 37.26. It goes off at 10 or more.");
    assert_eq!(why("shop-is-down"), "The alarm accept-fails is on.");
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let (from, to) = hour();
    for (status, kind, says) in [
        (400, "ThrottlingException", "try again in a minute"),
        (403, "AccessDeniedException", "no right to cloudwatch:GetMetricData"),
        (500, "InternalServiceFault", "are AWS_REGION and AWS_ENDPOINT_URL as they should be?"),
    ] {
        let answer = json!({"__type": format!("com.amazonaws.cloudwatch#{kind}"), "message": "so there"});
        let fake = Fake::answering(&[(status, answer)]).await;
        let error = fake.monitor.data(&[metric("a")], from, to).await.unwrap_err();
        assert!(matches!(error, MonitorError::Unavailable(_)));
        let told = error.to_string();
        assert!(told.contains(says) && told.contains("metrics cannot be read"), "{kind}: {told}");
        let told = fake.monitor.alarms().await.unwrap_err().to_string();
        assert!(told.contains(&says.replace("GetMetricData", "DescribeAlarms")), "{kind}: {told}");
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_is_named() {
    let failed = json!({
        "Id": "e", "StatusCode": "InternalError", "Timestamps": [], "Values": [],
        "Messages": [{"Code": "ArithmeticError", "Value": "divided by a word"}],
    });
    let fake = Fake::answering(&[(200, json!({"MetricDataResults": [failed]}))]).await;
    let (from, to) = hour();
    let error = fake.monitor.data(&[metric("e")], from, to).await.unwrap_err();
    assert_eq!(error.to_string(), "e: InternalError: divided by a word");
}

//! `kassa status` of a shop on an emulated AWS: what `CloudWatch` knows, what the books say, and what is told when
//! nothing can be had. The emulator makes no metrics of logs and none of its own, so the test puts what AWS would.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use serde_json::{Value, json};

use crate::common::cloud::{self, Cloud};

/// Puts values into metrics, three minutes ago: by namespace, name, dimensions and values.
async fn put(cloud: &Cloud, metrics: &[(&str, &str, Value, Value)]) {
    let put = "
from datetime import datetime, timedelta, timezone
at = datetime.now(timezone.utc) - timedelta(minutes=3)
for namespace, name, dimensions, values in json.loads(METRICS):
    dimensions = [{'Name': n, 'Value': v} for n, v in dimensions.items()]
    datum = {'MetricName': name, 'Dimensions': dimensions, 'Timestamp': at, 'Values': values}
    aws('cloudwatch').put_metric_data(Namespace=namespace, MetricData=[datum])
print(json.dumps(None))";
    let metrics = json!(json!(metrics).to_string());
    cloud.boto(&format!("METRICS = {metrics}{put}")).await;
}

/// `kassa status --stage local`, whatever its exit code.
async fn status(cloud: &Cloud, more: &[&str]) -> (Option<i32>, String, String) {
    let output = cloud.kassa(&[&["status", "--stage", "local"], more].concat()).await;
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), told(&output.stdout), told(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stages_status_is_what_cloudwatch_and_the_books_say() {
    let cloud = Cloud::deployed().await;
    let sold = cloud.kassa(&["sell", "--shop", "AMIS1", "--count", "3", "--stage", "local"]).await;
    cloud::succeeded("sell", &sold);
    let decrypt = json!({"function": "decrypt"});
    let queue = |name: &str| json!({"QueueName": format!("kassa-local-{name}")});
    put(
        &cloud,
        &[
            ("kassa-local", "hop_latency", decrypt.clone(), json!([100.0, 200.0, 300.0, 400.0, 500.0])),
            ("kassa-local", "failed", decrypt, json!([2.0])),
            ("kassa-local", "recorded", json!({}), json!([3.0])),
            ("kassa-local", "pending", json!({}), json!([7.0])),
            ("AWS/SQS", "ApproximateNumberOfMessagesVisible", queue("decrypt"), json!([41.0])),
            ("AWS/SQS", "ApproximateAgeOfOldestMessage", queue("decrypt"), json!([90.0])),
        ],
    )
    .await;

    // When nothing has gone off:
    let fresh = "print(json.dumps([aws('cloudwatch').set_alarm_state(AlarmName=a['AlarmName'], StateValue='OK', StateReason='quiet') and a['AlarmName'] for a in aws('cloudwatch').describe_alarms()['MetricAlarms']]))";
    let deployed = cloud.boto(fresh).await.as_array().unwrap().len();
    assert!(deployed > 0, "the deployment made no alarm");
    let told = cloud.until("the books", &["status"], |s| s["shops"][0]["today"]["sales"] == json!(3)).await;
    let health = &told["health"];
    let decrypt = &health["hops"][1];
    assert_eq!((&decrypt["name"], &decrypt["per_minute"]), (&json!("decrypt"), &json!(1.0)));
    assert_eq!((&decrypt["failed"], &decrypt["p50"]), (&json!(2.0), &json!(300.0)));
    assert_eq!(
        (&decrypt["queue"]["waiting"], &decrypt["queue"]["oldest_seconds"]),
        (&json!(41.0), &json!(90.0))
    );
    assert_eq!((&health["pending"], &told["place"]), (&json!(7.0), &json!("kassa-local, eu-west-1")));
    let minutes = health["recorded"].as_array().unwrap();
    assert!(minutes.len() == 60 && minutes.contains(&json!(3.0)), "{minutes:?}");
    assert_eq!(health["alarms"].as_array().unwrap().len(), deployed);
    let (code, text, _) = status(&cloud, &[]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("● All is well."), "{text}");

    // When an alarm goes off, its name, since when and why are told, and the command that asks this stage.
    let name = health["alarms"][0]["name"].as_str().unwrap();
    let alarm = format!(
        "print(json.dumps(str(aws('cloudwatch').set_alarm_state(AlarmName='kassa-local-{name}', StateValue='ALARM', StateReason='the test says so'))))"
    );
    cloud.boto(&alarm).await;
    let (code, text, _) = status(&cloud, &[]).await;
    assert_eq!(code, Some(1), "{text}");
    for said in [name, "the test says so", "since"] {
        assert!(text.contains(said), "{said} in\n{text}");
    }
    let (code, text, _) = status(&cloud, &["--json"]).await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &told["health"]["alarms"][0]["state"]), (Some(1), &json!("ALARM")));
    assert!(told["shops"][0]["last_sale"].is_string(), "{told}");

    // The stage's console shows the same in a browser.
    let mut console = cloud.command(Path::new(env!("CARGO_BIN_EXE_kassa")));
    console.args(["console", "--stage", "local", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut console = console.spawn().unwrap();
    let mut lines = BufReader::new(console.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("The console of kassa-local, eu-west-1 is at http://127.0.0.1:"), "{first}");
    let url = first.split_whitespace().last().unwrap().trim_end_matches('/');
    let page = |path: &str| reqwest::get(format!("{url}{path}"));
    let begun = Instant::now();
    loop {
        let sales = page("/sales").await.unwrap().text().await.unwrap();
        if sales.contains("AMIS1") && sales.contains("till-1") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{sales}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let alarms = page("/alarms").await.unwrap().text().await.unwrap();
    assert!(alarms.contains("the test says so"), "{alarms}");
    for path in
        ["/", "/dashboards/sales", "/dashboards/operations", "/dashboards/keys", "/stock/AMIS1", "/incidents"]
    {
        let answer = page(path).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert!(Command::new("kill").args(["-INT", &console.id().to_string()]).status().unwrap().success());
    assert_eq!(console.wait().unwrap().code(), Some(0));

    // When CloudWatch throttles, that is said, and what to do.
    let upstream = cloud.endpoint.clone();
    let refusing = Router::new().route("/service/{service}/operation/{operation}", post(throttled)).fallback(
        move |uri: Uri, headers: HeaderMap, body: axum::body::Bytes| {
            forward(upstream.clone(), uri, headers, body)
        },
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, refusing).await.unwrap() });
    let mut command = cloud.command(Path::new(env!("CARGO_BIN_EXE_kassa")));
    command.args(["status", "--stage", "local"]).env("AWS_ENDPOINT_URL", &url);
    let output = cloud.run(command).await;
    server.abort();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told.contains("CloudWatch refuses further requests") && told.contains("try again in a minute"),
        "{told}"
    );
}

/// CBOR for `{"__type": "com.amazonaws.cloudwatch#ThrottlingException"}`.
async fn throttled() -> (StatusCode, [(&'static str, &'static str); 2], Vec<u8>) {
    let kind = "com.amazonaws.cloudwatch#ThrottlingException";
    let mut body = b"\xa1\x66__type\x78".to_vec();
    body.push(u8::try_from(kind.len()).unwrap());
    body.extend(kind.bytes());
    (
        StatusCode::BAD_REQUEST,
        [("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor")],
        body,
    )
}

async fn forward(
    upstream: String,
    uri: Uri,
    mut headers: HeaderMap,
    body: axum::body::Bytes,
) -> (StatusCode, Vec<u8>) {
    headers.remove("content-length");
    let sent =
        reqwest::Client::new().post(format!("{upstream}{}", uri.path())).headers(headers).body(body).send();
    let answer = sent.await.unwrap();
    (answer.status(), answer.bytes().await.unwrap().to_vec())
}

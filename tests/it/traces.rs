//! One trace per sale: what whoever collects traces gets of the shop, on one machine and deployed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::cloud::{self, Cloud};
use crate::common::otlp::{CLIENT, CONSUMER, Collector, INTERNAL, PRODUCER, Receiver, SERVER, Seen};
use crate::common::process::{Up, accepted, command, json};
use crate::common::runtime_api::RuntimeApi;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TILLS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// An open shop, told these variables.
struct Shop {
    up: Up,
    folder: TempDir,
}

impl Shop {
    fn open(told: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { up: Up::start_told(folder.path(), told), folder }
    }

    /// Be a till that is told these variables.
    fn sell(&self, told: &[(&str, &str)], args: &[&str]) -> Value {
        let mut till = command(&["sell", "--shop", "AMIS1", "--json", "--url", &self.up.url]);
        let output = till.args(args).envs(told.iter().copied()).output().unwrap();
        accepted(&output)
    }

    fn ask(&self, args: &[&str]) -> Value {
        json(&[args, &["--data", self.folder.path().to_str().unwrap(), "--json"]].concat())
    }

    /// Posts as a till that is not ours would.
    async fn posts(&self, headers: &[(&'static str, &'static str)], body: &str) -> u16 {
        let post = reqwest::Client::new().post(format!("{}/shop", self.up.url)).body(body.to_owned());
        let post = headers.iter().fold(post, |post, (name, value)| post.header(*name, *value));
        post.send().await.unwrap().status().as_u16()
    }

    fn log(&self) -> String {
        String::from_utf8(self.up.log.lock().unwrap().clone()).unwrap()
    }

    /// Ends what was begun and exports what is left.
    fn close(self) {
        assert!(self.up.terminate().success());
    }
}

#[track_caller]
fn one<'a>(spans: &'a [Seen], what: &str, right: impl Fn(&Seen) -> bool) -> &'a Seen {
    let found: Vec<_> = spans.iter().filter(|span| right(span)).collect();
    assert_eq!(found.len(), 1, "{what}: {found:#?} of {:?}", names(spans));
    found[0]
}

fn names(spans: &[Seen]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

#[track_caller]
fn says(span: &Seen, attributes: &[(&str, &str)]) {
    for (name, value) in attributes {
        assert_eq!(span.attributes.get(*name).map(String::as_str), Some(*value), "{name} of {span:#?}");
    }
}

/// The way of a sale, each span the child of the one before; what brings messages is called so. Gives the last.
#[track_caller]
fn the_way_of_a_sale(spans: &[Seen], sale: &str, publishes: &str, delivers: &str) -> Seen {
    let till = one(spans, "the till's", |s| s.kind == CLIENT && s.resource["service.name"] == "till");
    assert_eq!((till.name.as_str(), till.parent.as_str(), &till.error), ("POST /shop", "", &None));
    says(
        till,
        &[("http.request.method", "POST"), ("http.response.status_code", "202"), ("kassa.sale_id", sale)],
    );
    let mut above = till;
    let way = [
        ("POST /shop", SERVER, ""),
        ("publish to-decrypt", PRODUCER, publishes),
        ("process to-decrypt", CONSUMER, delivers),
        ("publish to-process", PRODUCER, publishes),
        ("process to-process", CONSUMER, delivers),
        ("process events", CONSUMER, ""),
    ];
    for (name, kind, system) in way {
        let span = one(spans, name, |s| s.name == name && s.kind == kind);
        assert_eq!((&span.parent, &span.error), (&above.id, &None), "{name} is not below {}", above.name);
        assert_eq!((span.trace.as_str(), span.sampled), (above.trace.as_str(), true));
        says(span, &[("kassa.shop_id", "AMIS1"), ("kassa.sale_id", sale)]);
        if !system.is_empty() {
            let (operation, topic) = name.split_once(' ').unwrap();
            let kind = if kind == PRODUCER { "send" } else { "process" };
            says(span, &[("messaging.system", system), ("messaging.destination.name", topic)]);
            says(span, &[("messaging.operation.name", operation), ("messaging.operation.type", kind)]);
        }
        above = span;
    }
    let door = one(spans, "the door's", |s| s.kind == SERVER);
    says(
        door,
        &[("http.request.method", "POST"), ("http.route", "/shop"), ("http.response.status_code", "202")],
    );
    says(above, &[("faas.document.collection", "events"), ("faas.document.operation", "insert")]);
    for (of, what) in [("POST /shop", SERVER), ("process to-process", CONSUMER)] {
        let above = one(spans, of, |s| s.name == of && s.kind == what);
        let append = |s: &Seen| {
            s.parent == above.id && s.kind == CLIENT && s.attributes["db.operation.name"] != "GetItem"
        };
        let append = one(spans, "the append", append);
        says(append, &[("db.system.name", "aws.dynamodb")]);
        let name =
            format!("{} {}", append.attributes["db.operation.name"], append.attributes["db.collection.name"]);
        assert_eq!(append.name, name);
    }
    above.clone()
}

fn reached_the_read_model(spans: &[Seen]) -> bool {
    spans.iter().any(|span| span.name == "process events")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_one_trace_from_till_to_read_model() {
    let receiver = Receiver::start().await;
    let collector = Collector::before(&receiver).await;
    let told = [
        (ENDPOINT, collector.url.as_str()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let shop = Shop::open(&told);
    let sold = shop.sell(&told, &["--count", "1"]);
    let sale = sold["last_sale"].as_str().unwrap();
    // Each program exports by itself: the till when it ends, the shop every second.
    let has_all = |spans: &[Seen]| {
        let of_till = spans.iter().find(|s| s.resource["service.name"] == "till" && s.kind == CLIENT);
        of_till.is_some_and(|till| {
            reached_the_read_model(
                &spans.iter().filter(|s| s.trace == till.trace).cloned().collect::<Vec<_>>(),
            )
        })
    };
    let spans = receiver.until("a whole trace", has_all).await;
    let till = one(&spans, "the till's", |s| s.kind == CLIENT && s.resource["service.name"] == "till");
    let trace = receiver.trace(&till.trace);
    let projected = the_way_of_a_sale(&trace, sale, "kassa", "kassa");
    for span in &trace {
        assert_eq!(span.resource["deployment.environment.name"], "test");
        assert!(["till", "kassa"].contains(&span.resource["service.name"].as_str()));
        assert!(span.nanoseconds < 60_000_000_000);
    }
    // The events' own traces lead to where they were made.
    let history = shop.ask(&["sale", sale]);
    let recorded = history["events"].as_array().unwrap().iter().find(|e| e["kind"] == "recorded").unwrap();
    let at = recorded["trace"].as_str().unwrap();
    assert_eq!((&at[3..35], &at[36..52]), (till.trace.as_str(), projected.parent.as_str()));
    shop.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_linked_to_the_traces_of_its_messages_and_they_to_it() {
    let receiver = Receiver::start().await;
    let told = [(ENDPOINT, receiver.url.as_str())];
    let shop = Shop::open(&told);
    shop.sell(&told, &["--count", "400", "--concurrency", "64"]);
    shop.close();
    let spans = receiver.spans();
    for (function, topic) in [("decrypt", "to-decrypt"), ("process", "to-process"), ("project", "events")] {
        let messages =
            |batch: &Seen| batch.attributes.get("messaging.batch.message_count")?.parse::<usize>().ok();
        let batch = spans.iter().filter(|s| s.name == function).max_by_key(|s| messages(s)).unwrap();
        let many = messages(batch).unwrap();
        assert!(many > 1, "no batch of {function} has more than one message");
        assert_eq!((batch.kind, batch.parent.as_str()), (CONSUMER, ""));
        let name = format!("process {topic}");
        let back = |s: &&Seen| s.name == name && s.links.contains(&(batch.trace.clone(), batch.id.clone()));
        let each: Vec<_> = spans.iter().filter(back).collect();
        assert_eq!(each.len(), many);
        let traces: BTreeSet<&str> = each.iter().map(|s| s.trace.as_str()).collect();
        assert_eq!(traces.len(), many);
        let published: BTreeSet<_> = each.iter().map(|s| (s.trace.clone(), s.parent.clone())).collect();
        let linked: BTreeSet<_> = batch.links.iter().cloned().collect();
        assert_eq!(linked.len(), many.min(128));
        assert!(linked.is_subset(&published));
    }
    // Each of the sales came all the way, and each span's parent is there.
    let ids: BTreeSet<(&str, &str)> = spans.iter().map(|s| (s.trace.as_str(), s.id.as_str())).collect();
    assert_eq!(ids.len(), spans.len());
    assert_eq!(spans.iter().filter(|s| s.name == "process events").count(), 400);
    for span in spans.iter().filter(|s| !s.parent.is_empty()) {
        assert!(ids.contains(&(span.trace.as_str(), span.parent.as_str())), "{span:#?}");
    }
    // A request for many messages is told of as one.
    let request = spans.iter().find(|s| s.name == "publish to-process" && s.kind == CLIENT).expect("a batch");
    assert_eq!(request.links.len().to_string(), request.attributes["messaging.batch.message_count"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_sale_leaves_with_its_trace_and_a_rejection_is_found_by_the_logs_trace_id() {
    let receiver = Receiver::start().await;
    let told = [(ENDPOINT, receiver.url.as_str())];
    let shop = Shop::open(&told);
    let file = shop.folder.path().join("sale.json");
    let marked =
        r#"{"sales":[{"item_no":"90002","gross_number":"7123456.5","gross_turnover":"7712345.67"}]}"#;
    std::fs::write(&file, marked).unwrap();
    let file = file.to_str().unwrap();
    for more in [&["--format", "sealed"][..], &["--format", "classic"], &["--key-of", "AMIS2"]] {
        shop.sell(&told, &[&["--file", file], more].concat());
    }
    shop.up.settled();
    let log = shop.log();
    shop.close();
    let bodies = receiver.bodies().concat();
    let contains = |what: &str| bodies.windows(what.len()).any(|window| window == what.as_bytes());
    assert!(contains("kassa.sale_id") && contains("AMIS1"));
    for mark in ["7712345", "7123456", "90002"] {
        assert!(!contains(mark), "{mark} is in a span");
    }
    let spans = receiver.spans();
    let reject = one(&spans, "the rejection", |s| s.name == "reject");
    says(reject, &[("error.type", "wrong-key")]);
    assert_eq!((reject.kind, reject.error.as_deref()), (INTERNAL, Some("sealed with AMIS2's key")));
    let line = log.lines().find(|line| line.contains("sale rejected")).expect("a line in the log");
    assert!(line.contains(&format!("trace_id={}", reject.trace)), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_share_of_traces_one_with_an_error_is_exported_whole() {
    let receiver = Receiver::start().await;
    let told = [(ENDPOINT, receiver.url.as_str()), ("OTEL_TRACES_SAMPLER", "always_off")];
    let shop = Shop::open(&told);
    shop.sell(&[], &["--count", "50"]);
    shop.sell(&[], &["--count", "1", "--key-of", "AMIS2"]);
    // Here the sampler does not ask whether the till's own trace is sampled.
    let refused = shop.posts(&[("traceparent", TILLS)], "{}").await;
    assert_eq!(refused, 400);
    shop.up.settled();
    shop.close();
    let spans = receiver.spans();
    let rejected = one(&spans, "the rejection", |s| s.name == "reject");
    // A reader of the trace sees where the sale came in and how it came there.
    let trace = receiver.trace(&rejected.trace);
    for name in ["POST /shop", "publish to-decrypt", "process to-decrypt", "publish decrypt-errors"] {
        one(&trace, name, |s| s.name == name);
    }
    assert!(trace.len() < spans.len() + 1 && spans.iter().all(|s| !s.sampled));
    // Of the others nothing: their sales, that is, since a span of them would be in a trace of its own.
    let others: BTreeSet<&str> =
        spans.iter().filter(|s| s.trace != rejected.trace).map(|s| s.name.as_str()).collect();
    assert_eq!(others, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_in_the_trace_that_its_headers_name() {
    let receiver = Receiver::start().await;
    let shop =
        Shop::open(&[(ENDPOINT, receiver.url.as_str()), ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s%20p")]);
    let xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    let root = "Root=1-67891233-abcdef012345678912345678";
    shop.posts(&[("traceparent", TILLS), ("tracestate", "vendor=1"), ("x-amzn-trace-id", xray)], "{}").await;
    shop.posts(&[("X-Amzn-Trace-Id", xray)], "{}").await;
    shop.posts(&[("X-Amzn-Trace-Id", root)], "{}").await;
    shop.posts(&[("traceparent", "00-nothing-like-it-01")], "{}").await;
    shop.posts(&[("traceparent", &TILLS[..53]), ("x-amzn-trace-id", "Root=1-x-y")], "{}").await;
    let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    shop.posts(&[("traceparent", unsampled)], "{}").await;
    shop.close();
    let spans: Vec<Seen> = receiver.spans().into_iter().filter(|s| s.kind == SERVER).collect();
    assert_eq!(spans.len(), 5);
    let of = |trace: &str| one(&spans, trace, |s| s.trace == trace);
    let tills = of("4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((tills.parent.as_str(), tills.state.as_str()), ("00f067aa0ba902b7", "vendor=1"));
    assert_eq!(of("5759e988bd862e3fe1be46a994272793").parent, "53995c3f42cd8ad8");
    assert_eq!(of("67891233abcdef012345678912345678").parent, "");
    for span in &spans {
        says(span, &[("http.response.status_code", "400")]);
        assert_eq!(span.error, None, "what a client does wrong is no error of the shop");
    }
    for headers in receiver.headers() {
        assert_eq!(headers["api-key"], "s p");
        assert_eq!(headers["content-type"], "application/x-protobuf");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tracing_is_off_nothing_is_sent_and_the_tills_traceparent_is_carried_on() {
    let receiver = Receiver::start().await;
    let off = [(ENDPOINT, receiver.url.as_str()), ("OTEL_SDK_DISABLED", "true")];
    let shop = Shop::open(&off);
    let silent = shop.sell(&off, &["--count", "1"]);
    let asked = shop.sell(&off, &["--count", "1", "--traceparent"]);
    shop.up.settled();
    let traces = |sold: &Value| {
        let history = shop.ask(&["sale", sold["last_sale"].as_str().unwrap()]);
        let events = history["events"].as_array().unwrap().clone();
        events.into_iter().map(|event| event["trace"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(traces(&silent), [Value::Null, Value::Null]);
    let carried = traces(&asked);
    assert!(carried[0].as_str().is_some_and(|t| t.len() == 55), "{carried:?}");
    assert_eq!(carried[0], carried[1]);
    shop.close();
    assert_eq!(receiver.bodies().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_down_silent_or_refuses_costs_no_sale() {
    // One that takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = format!("http://{}", silent.local_addr().unwrap());
    let refuses = Receiver::start().await;
    refuses.refuse(Some(StatusCode::SERVICE_UNAVAILABLE));
    for url in ["http://127.0.0.1:9", hangs.as_str(), refuses.url.as_str()] {
        let told = [(ENDPOINT, url)];
        let shop = Shop::open(&told);
        let begun = Instant::now();
        let sold = shop.sell(&told, &["--count", "300"]);
        assert_eq!((&sold["accepted"], &sold["failed"]), (&json!(300), &json!(0)));
        shop.up.settled();
        assert_eq!(shop.ask(&["check"])["recorded"], 300);
        let told = || shop.log().lines().filter(|line| line.contains("traces cannot be exported")).count();
        while told() == 0 && begun.elapsed() < Duration::from_mins(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(told(), 1, "{url}: {}", shop.log());
        shop.close();
        // The till and the shop each wait for it a second, and at their end once more.
        assert!(begun.elapsed() < Duration::from_mins(1), "{url} cost {:?}", begun.elapsed());
    }
    // It is asked once by each and once at their ends, and left alone for half a minute in between.
    assert!((2..=4).contains(&refuses.bodies().len()), "{}", refuses.bodies().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_wrong_is_named() {
    for (name, value) in
        [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_SAMPLER", "sometimes"), (ENDPOINT, "nowhere")]
    {
        let folder = tempfile::tempdir().unwrap();
        let up = command(&["up", "--listen", "127.0.0.1:0", "--data", folder.path().to_str().unwrap()])
            .envs([(ENDPOINT, "http://127.0.0.1:9"), (name, value)])
            .output()
            .unwrap();
        let told = String::from_utf8(up.stderr).unwrap();
        assert!(!up.status.success() && told.contains(&format!("{name} must be")), "{told}");
    }
}

/// Through SNS, SQS and the stream, by the real functions.
#[tokio::test(flavor = "multi_thread")]
async fn on_aws_a_sale_is_one_trace_from_till_to_read_model() {
    let receiver = Receiver::start().await;
    let cloud = Cloud::deployed_with(&[&format!("--param=otlpEndpoint={}", receiver.url)]).await;
    let mut till = cloud.command(env!("CARGO_BIN_EXE_kassa").as_ref());
    till.args(["sell", "--stage", "local", "--shop", "AMIS1", "--count", "12", "--json"]);
    till.env(ENDPOINT, &receiver.url);
    let sold: Value = serde_json::from_str(&cloud::succeeded("sell", &cloud.run(till).await)).unwrap();
    let projected = |spans: &[Seen]| spans.iter().filter(|s| s.name == "process events").count() >= 12;
    let spans = receiver.until("whole traces", projected).await;
    let sale = sold["last_sale"].as_str().unwrap();
    let till = one(&spans, "the till's", |s| {
        s.kind == CLIENT && s.attributes.get("kassa.sale_id").is_some_and(|id| id == sale)
    });
    let trace = receiver.trace(&till.trace);
    the_way_of_a_sale(&trace, sale, "aws_sns", "aws_sqs");
    // Each span is its function's.
    for (name, kind, function) in [
        ("POST /shop", SERVER, "accept"),
        ("process to-decrypt", CONSUMER, "decrypt"),
        ("process to-process", CONSUMER, "process"),
        ("process events", CONSUMER, "project"),
    ] {
        let span = one(&trace, name, |s| s.name == name && s.kind == kind);
        assert_eq!(span.resource["faas.name"], format!("kassa-local-{function}"));
        assert_eq!(span.resource["service.namespace"], "kassa-local");
        let told = if kind == SERVER {
            span
        } else {
            let (trace, id) = &span.links[0];
            one(&spans, "the batch's", |s| s.trace == *trace && s.id == *id)
        };
        let trigger = match function {
            "accept" => "http",
            "project" => "datasource",
            _ => "pubsub",
        };
        says(told, &[("faas.trigger", trigger)]);
        assert!(
            told.attributes.contains_key("faas.coldstart")
                && told.attributes.contains_key("faas.invocation_id")
        );
    }
    assert!(spans.iter().any(|s| s.name == "KMS/Decrypt" && s.attributes["rpc.system"] == "aws-api"));
    a_function_exports_before_it_takes_the_next_event_and_errors_at_any_share(&cloud).await;
}

/// Over a stand-in of the runtime API, where it is the test that says when the next event comes.
async fn a_function_exports_before_it_takes_the_next_event_and_errors_at_any_share(cloud: &Cloud) {
    let receiver = Receiver::start().await;
    let api = RuntimeApi::start().await;
    let mut function = std::process::Command::new(cloud.bootstrap("pipeline"));
    function.env_clear().envs(api.env("decrypt")).envs(cloud.function_settings("decrypt"));
    function.envs([(ENDPOINT, receiver.url.as_str()), ("OTEL_TRACES_SAMPLER_ARG", "0")]);
    let mut function = function.stdout(std::process::Stdio::null()).spawn().unwrap();
    let record = |id: &str, attributes: Value, system: Value| {
        let mut record = json!({"messageId": id, "body": "rubbish", "attributes": system, "messageAttributes": {}, "eventSource": "aws:sqs"});
        for (name, value) in attributes.as_object().unwrap() {
            record["messageAttributes"][name] = json!({"dataType": "String", "stringValue": value});
        }
        record
    };
    let xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0";
    let unsampled = TILLS.replace("-01", "-00");
    let event = json!({"Records": [
        record("a", json!({"traceparent": unsampled}), json!({"AWSTraceHeader": xray})),
        record("b", json!({}), json!({"AWSTraceHeader": xray})),
    ]});
    api.invoke(event.clone()).await.unwrap();
    // The answer to this one is there when the spans of the one before were exported.
    api.invoke(json!({"Records": [{"eventSource": "aws:sqs", "messageId": "c"}]})).await.unwrap();
    let spans = receiver.spans();
    let of = |id: &str| {
        one(&spans, id, |s| s.attributes.get("messaging.message.id").is_some_and(|there| there == id))
    };
    assert_eq!((of("a").trace.as_str(), of("a").parent.as_str()), (&TILLS[3..35], &TILLS[36..52]));
    assert_eq!(
        (of("b").trace.as_str(), of("b").parent.as_str()),
        ("5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8")
    );
    let batch =
        one(&spans, "the batch's", |s| s.name == "decrypt" && s.attributes["faas.coldstart"] == "true");
    assert_eq!(batch.error.as_deref(), Some("2 of 2 messages failed"));
    // Lambda's own trace was sampled by X-Ray.
    assert!(batch.links.iter().any(|(_, span)| span == "53995c3f42cd8ad8"));
    let _ = function.kill();
    let _ = function.wait();
}

use serde_json::{Value, json};

use crate::cloud::{Cloud, succeeded};

/// Sells through the deployed shop and prints what each sale used, as `src/cost/cost.toml` has it.
pub async fn measure(format: &str, sales: u64) {
    let cloud = Cloud::deployed().await;
    // One at a time, what a function waits for is its own requests; under load it is the emulator's one core.
    let one_by_one = [
        "sell",
        "--shop",
        "AMIS2",
        "--format",
        format,
        "--count",
        "100",
        "--concurrency",
        "1",
        "--stage",
        "local",
    ];
    succeeded("sell", &cloud.kassa(&one_by_one).await);
    cloud.until("all recorded", &["stock", "--shop", "AMIS2"], |rows| all_projected(rows, 100)).await;
    let idle = logs(&cloud, &HANDLERS).await;
    let gb_seconds = |handler: &str| {
        idle[handler]["gb_seconds"].as_f64().unwrap() / idle[handler]["invocations"].as_f64().unwrap()
    };
    let window = Window::open(&cloud);
    cloud.proxy.measure();
    cloud.proxy.reset();
    let count = sales.to_string();
    let sold = [
        "sell",
        "--shop",
        "AMIS1",
        "--format",
        format,
        "--count",
        &count,
        "--concurrency",
        "32",
        "--stage",
        "local",
    ];
    println!("{}", succeeded("sell", &cloud.kassa(&sold).await));
    cloud.until("all recorded", &["stock", "--shop", "AMIS1"], |rows| all_projected(rows, sales)).await;
    drop(window);
    // What the command itself asks is not the shop's.
    let (counts, capacity) = (cloud.proxy.counts(), cloud.proxy.capacity());
    let by_table = cloud.proxy.capacity_by_table();
    let check = cloud.ask(&["check"]).await;
    assert_eq!((&check["recorded"], &check["mismatches"]), (&json!(sales + 100), &json!([])));

    let functions = logs(&cloud, &HANDLERS).await;
    let of = |handler: &str, what: &str| {
        functions[handler][what].as_f64().unwrap() - idle[handler][what].as_f64().unwrap()
    };
    let invocations: f64 = HANDLERS.iter().map(|h| of(h, "invocations")).sum();
    let batches = of("decrypt", "invocations") + of("process", "invocations");
    let calls = |prefix: &str| {
        counts.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, n)| *n as f64).sum::<f64>()
    };
    let per_sale = |n: f64| n / sales as f64;
    println!(
        "# {format}: {counts:?}\n# {by_table:?}, conditions that failed: {}",
        cloud.proxy.failed_conditions()
    );
    println!("# {functions}");
    println!("[measured.{format}]");
    for (name, units) in [
        ("api_requests", 1.0),
        ("lambda_invocations", per_sale(invocations)),
        ("lambda_gb_seconds", per_sale(HANDLERS.iter().map(|h| of(h, "invocations") * gb_seconds(h)).sum())),
        ("sns_publishes", per_sale(calls("sns."))),
        // SNS sends each message to its queue; a batch is received once and deleted once.
        ("sqs_requests", 2.0 + per_sale(2.0 * batches)),
        ("kms_requests", per_sale(calls("kms."))),
        ("log_bytes", per_sale(HANDLERS.iter().map(|h| of(h, "log_bytes")).sum())),
        ("stored_bytes", stored(&cloud).await / (sales + 100) as f64),
    ] {
        println!("{name} = \"{units:.4}\"");
    }
    let sales = rust_decimal::Decimal::from(sales);
    println!(
        "dynamodb_wru = \"{:.4}\"\ndynamodb_rru = \"{:.4}\"",
        capacity.write / sales,
        capacity.read / sales
    );
}

fn all_projected(rows: &Value, sales: u64) -> bool {
    let days =
        rows.as_array().into_iter().flatten().filter_map(|row| row["sales"].as_str()?.parse::<u64>().ok());
    days.sum::<u64>() == sales
}

/// Bytes of a sale's events: names and values, and the hundred that `DynamoDB` counts for each item
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>).
async fn stored(cloud: &Cloud) -> f64 {
    let size = "
items = [item for page in aws('dynamodb').get_paginator('scan').paginate(TableName='kassa-local-events', Limit=500) for item in page['Items']]
print(json.dumps(sum(100 + sum(len(name) + len(next(iter(value.values())).encode()) for name, value in item.items()) for item in items)))";
    cloud.boto(size).await.as_f64().unwrap()
}

/// The emulator ignores the stream's batching window, so its mapping is held back for that long at a time.
struct Window(std::process::Child);

impl Window {
    fn open(cloud: &Cloud) -> Self {
        let code = "
import boto3, time
functions = boto3.client('lambda')
[mapping] = [m for m in functions.list_event_source_mappings()['EventSourceMappings'] if ':dynamodb:' in m['EventSourceArn']]
while True:
    functions.update_event_source_mapping(UUID=mapping['UUID'], Enabled=False)
    time.sleep(mapping['MaximumBatchingWindowInSeconds'])
    functions.update_event_source_mapping(UUID=mapping['UUID'], Enabled=True)
    time.sleep(0.3)";
        Self(cloud.command(&crate::cloud::python()).args(["-c", code]).spawn().unwrap())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

const HANDLERS: [&str; 4] = ["accept", "decrypt", "process", "project"];

/// What these functions' logs say of them.
pub async fn logs(cloud: &Cloud, handlers: &[&str]) -> Value {
    cloud.boto(&format!("handlers = {}{LOGS}", json!(handlers))).await
}

/// Invocations and time as the emulator reports them, and the bytes of our own lines: Lambda's own, which the
/// emulator writes all the same, are switched off on AWS.
const LOGS: &str = r"
import re
logs, found = aws('logs'), {}
for handler in handlers:
    group = '/aws/lambda/kassa-local-' + handler
    function = {'invocations': 0, 'gb_seconds': 0.0, 'log_bytes': 0}
    for stream in (s for page in logs.get_paginator('describe_log_streams').paginate(logGroupName=group) for s in page['logStreams']):
        token = None
        while True:
            page = logs.get_log_events(logGroupName=group, logStreamName=stream['logStreamName'], startFromHead=True, **({'nextToken': token} if token else {}))
            for event in page['events']:
                message = event['message']
                report = re.match(r'REPORT .*Billed Duration: (\d+) ms\s+Memory Size: (\d+) MB', message)
                if report:
                    function['invocations'] += 1
                    function['gb_seconds'] += int(report[1]) / 1000 * int(report[2]) / 1024
                elif message.startswith('{'):
                    function['log_bytes'] += len(message.encode())
            if page['nextForwardToken'] == token or not page['events']:
                break
            token = page['nextForwardToken']
    found[handler] = function
print(json.dumps(found))";

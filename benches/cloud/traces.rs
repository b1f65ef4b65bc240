use kassa::till::{Format, Prepared, Till};
use kassa_bus::{Clock, TraceContext};
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::function::{Function, accepted, decrypted, line, sqs_event};
use crate::otlp::Receiver;

const BATCH: usize = 10;
const BATCHES: usize = 12;
const ROUNDS: usize = 15;

/// Of how many sales one is traced; none where tracing is off.
const SHARES: [Option<usize>; 4] = [None, Some(1), Some(20), Some(usize::MAX)];

/// What traces add to the CPU time that decrypt and process take for a sale, requests to AWS and all: batches of ten, each
/// of the functions in an environment of its own for each share, in turns.
pub async fn added(cloud: &Cloud) {
    let receiver = Receiver::start().await;
    let till =
        Till::new(&cloud.url, "AMIS1".parse().unwrap(), "till-1", Format::Sealed, Clock::system()).unwrap();
    let mut medians = [0.0; SHARES.len()];
    for (handler, body) in [("decrypt", accepted as fn(&Prepared) -> String), ("process", decrypted)] {
        let mut functions = Vec::new();
        for share in SHARES {
            let url = if share.is_some() { receiver.url.as_str() } else { "" };
            functions.push(Function::start(cloud, handler, &[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]).await);
        }
        let mut times = [(); SHARES.len()].map(|()| Vec::new());
        // The first round is not counted: what is made once is made in it.
        for round in 0..=ROUNDS {
            for at in 0..SHARES.len() {
                let at = (at + round) % SHARES.len();
                let mut events = Vec::new();
                for _ in 0..BATCHES {
                    events.push(batch(&till, SHARES[at], body).await);
                }
                let begun = functions[at].cpu();
                for event in events {
                    let answer = functions[at].api.invoke(event).await.unwrap();
                    assert_eq!(answer, json!({"batchItemFailures": []}));
                }
                let took = functions[at].cpu().saturating_sub(begun);
                if round > 0 {
                    times[at].push(took);
                }
            }
        }
        for (median, times) in medians.iter_mut().zip(&mut times) {
            times.sort();
            *median += times[ROUNDS / 2].as_secs_f64() * 1e6 / (BATCH * BATCHES) as f64;
        }
    }
    println!("CPU time of a sale in decrypt and process: {:.0} µs without traces", medians[0]);
    for (share, median) in SHARES.iter().zip(medians).skip(1) {
        let of = match share {
            Some(1) => "every sale".to_owned(),
            Some(usize::MAX) => "sales with an error only".to_owned(),
            many => format!("one sale in {}", many.unwrap()),
        };
        println!(
            "  traces of {of} add {:.0} µs, {:.1} %",
            median - medians[0],
            (median / medians[0] - 1.0) * 100.0
        );
    }
}

async fn batch(till: &Till, share: Option<usize>, body: fn(&Prepared) -> String) -> Value {
    let mut records = Vec::new();
    for n in 0..BATCH {
        records.push((n.to_string(), body(&till.ring_up(vec![line(), line(), line()]).await.unwrap())));
    }
    let records: Vec<_> = records.iter().map(|(id, body)| (id.as_str(), body.as_str())).collect();
    let mut event = sqs_event(&records);
    for record in event["Records"].as_array_mut().unwrap() {
        if let Some(share) = share {
            let accepts = TraceContext::random().to_string();
            let sampled = rand::random_range(0..share) == 0;
            let accepts = if sampled { accepts } else { accepts[..53].to_owned() + "00" };
            record["messageAttributes"]["traceparent"] =
                json!({"stringValue": accepts, "dataType": "String"});
        }
    }
    event
}

//! Topics, queues and the stream: how messages come, and what becomes of those that fail.

use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::process::Process;
use kassa_pipeline::project::Project;
use serde_json::{Value, json};

use super::cloudformation::{ALERTER, AUDITOR, WEBHOOK, capital, every_stage, list, short};

const DAYS_14: u64 = 14 * 24 * 3600;

#[test]
fn topics_are_encrypted_and_take_tls_only() {
    for (stage, template) in every_stage() {
        let topics: Vec<_> = template.all("AWS::SNS::Topic").collect();
        assert_eq!(topics.len(), 4);
        for (topic, of) in topics {
            // Alarms cannot publish to a topic under that key.
            let key = if topic == "AlertsTopic" { json!(null) } else { json!("alias/aws/sns") };
            assert_eq!(of["KmsMasterKeyId"], key, "{stage} {topic}");
            assert!(refuses_plain_http(template.of(&format!("{topic}Policy"))), "{stage} {topic}");
        }
    }
}

#[test]
fn queues_are_encrypted_take_tls_only_and_keep_messages_14_days() {
    for (stage, template) in every_stage() {
        let policies: Vec<_> = template.all("AWS::SQS::QueuePolicy").map(|(_, policy)| policy).collect();
        for (queue, of) in template.all("AWS::SQS::Queue") {
            assert_eq!(of["SqsManagedSseEnabled"], true, "{stage} {queue}");
            assert_eq!(of["MessageRetentionPeriod"], DAYS_14, "{stage} {queue}");
            let reference = json!({"Ref": queue});
            let policy = policies.iter().find(|p| list(&p["Queues"]).contains(&&reference)).unwrap();
            assert!(refuses_plain_http(policy), "{stage} {queue}");
        }
    }
}

#[test]
fn a_message_outlasts_its_batch_and_after_five_tries_is_a_dead_letter() {
    for (stage, template) in every_stage() {
        for handler in [Decrypt::NAME, Process::NAME, AUDITOR, ALERTER] {
            let name = capital(handler);
            let queue = template.of(&format!("{name}Queue"));
            let timeout = template.function(handler)["Timeout"].as_u64().unwrap();
            let mapping = template.mapping(handler).unwrap();
            let window = mapping["MaximumBatchingWindowInSeconds"].as_u64().unwrap();
            let visibility = queue["VisibilityTimeout"].as_u64().unwrap();
            assert!(visibility >= 6 * timeout + window, "{stage} {handler}: {visibility} s");
            let dead_letters = json!({"Fn::GetAtt": [format!("{name}DeadLetters"), "Arn"]});
            let redrive = json!({"deadLetterTargetArn": dead_letters, "maxReceiveCount": 5});
            assert_eq!(queue["RedrivePolicy"], redrive, "{stage} {handler}");

            assert_eq!(short(&mapping["EventSourceArn"]), format!("{name}Queue.Arn"));
            let size = match handler {
                AUDITOR => (100, 5),
                // As many as it folds into a document at once, and people are told to the second.
                ALERTER => (99, 1),
                _ => (10, 1),
            };
            assert_eq!((mapping["BatchSize"].as_u64().unwrap(), window), size, "{stage} {handler}");
            assert_eq!(mapping["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
        }
    }
}

#[test]
fn only_its_topic_fills_a_queue_and_with_the_message_as_it_was_sent() {
    for (stage, template) in every_stage() {
        for (handler, topic) in [
            (Decrypt::NAME, "ToDecryptTopic"),
            (Process::NAME, "ToProcessTopic"),
            (AUDITOR, "DecryptErrorsTopic"),
            (ALERTER, "DecryptErrorsTopic"),
            (WEBHOOK, "ToProcessTopic"),
        ] {
            let name = capital(handler);
            let subscription = template.of(&format!("{name}Subscription"));
            assert_eq!(subscription["RawMessageDelivery"], true, "{stage} {handler}");
            assert_eq!(short(&subscription["TopicArn"]), topic);
            assert_eq!(short(&subscription["Endpoint"]), format!("{name}Queue.Arn"));

            let policy = template.of(&format!("{name}QueuePolicy"));
            let statements = policy["PolicyDocument"]["Statement"].as_array().unwrap();
            let allows: Vec<_> = statements.iter().filter(|s| s["Effect"] == "Allow").collect();
            let [allow] = allows[..] else { panic!("{stage} {handler}: {allows:?}") };
            assert_eq!(allow["Principal"], json!({"Service": "sns.amazonaws.com"}));
            assert_eq!(allow["Action"], "sqs:SendMessage");
            assert_eq!(allow["Condition"], json!({"ArnEquals": {"aws:SourceArn": {"Ref": topic}}}));
        }
    }
}

#[test]
fn the_stream_is_tried_again_for_as_long_as_it_lasts_and_what_is_given_up_is_told() {
    for (stage, template) in every_stage() {
        let mut mapping = template.mapping(Project::NAME).unwrap().clone();
        mapping
            .as_object_mut()
            .unwrap()
            .retain(|key, _| !["FunctionName", "Enabled"].contains(&key.as_str()));
        let pattern = &mut mapping["FilterCriteria"]["Filters"][0]["Pattern"];
        *pattern = serde_json::from_str(pattern.as_str().unwrap()).unwrap();
        let recorded = json!({"eventName": ["INSERT"], "dynamodb": {"NewImage": {"kind": {"S": ["recorded", "rejected"]}}}});
        let wanted = json!({
            "EventSourceArn": {"Fn::GetAtt": ["EventsTable", "StreamArn"]},
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": 1000,
            "MaximumBatchingWindowInSeconds": 5,
            "TumblingWindowInSeconds": 900,
            "FilterCriteria": {"Filters": [{"Pattern": recorded}]},
            "BisectBatchOnFunctionError": true,
            "MaximumRetryAttempts": 10_000,
            "MaximumRecordAgeInSeconds": 23 * 3600,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["ProjectFailures", "Arn"]}}},
        });
        assert_eq!(mapping, wanted, "{stage}");
    }
}

fn refuses_plain_http(policy: &Value) -> bool {
    policy["PolicyDocument"]["Statement"].as_array().unwrap().iter().any(|statement| {
        statement["Effect"] == "Deny"
            && statement["Principal"] == "*"
            && statement["Condition"]["Bool"] == json!({"aws:SecureTransport": false})
    })
}

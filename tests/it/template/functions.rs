//! The functions: what they run on, what they are told, what they may do.

use std::collections::BTreeSet;

use kassa_pipeline::accept::Accept;
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::process::Process;
use kassa_pipeline::project::Project;
use kassa_pipeline::reconcile::Reconcile;
use kassa_pipeline::watch::Watch;
use serde_json::json;

use super::cloudformation::{
    ALL_ON, capital, every_stage, everyone, framework, handlers, other, set, short, template,
};

#[test]
fn the_functions_are_the_bootstraps_stages_and_subscribers() {
    for (stage, template) in every_stage() {
        let functions: BTreeSet<_> = template
            .all("AWS::Lambda::Function")
            .map(|(_, of)| of["Handler"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(functions, handlers().map(str::to_owned).collect(), "{stage}");
    }
}

#[test]
fn functions_run_on_arm64_and_locally_on_x86_64() {
    for (stage, template) in every_stage().chain([("other", other())]) {
        let architecture = if ["local", "other"].contains(&stage) { "x86_64" } else { "arm64" };
        for handler in handlers() {
            let function = template.function(handler);
            assert_eq!(function["Architectures"], json!([architecture]), "{stage} {handler}");
            assert_eq!(function["Runtime"], "provided.al2023", "{stage} {handler}");
        }
    }
}

#[test]
fn logs_are_ours_and_end() {
    for (stage, template) in every_stage() {
        for handler in handlers() {
            let logging =
                json!({"LogFormat": "JSON", "SystemLogLevel": "WARN", "ApplicationLogLevel": "INFO"});
            assert_eq!(template.function(handler)["LoggingConfig"], logging, "{stage} {handler}");
            let group = template.of(&format!("{}LogGroup", framework(handler)));
            assert_eq!(group["RetentionInDays"], 30, "{stage} {handler}");
        }
    }
    assert_eq!(other().of("AcceptLogGroup")["RetentionInDays"], 7);
    assert_eq!(other().function(Accept::NAME)["LoggingConfig"]["ApplicationLogLevel"], "DEBUG");
}

#[test]
fn a_function_is_told_what_it_needs_and_no_more() {
    for (stage, template) in every_stage() {
        let told = |handler: &str, more: &[&str]| {
            let mut wanted: BTreeSet<_> = set(more).into_iter().chain(everyone(stage)).collect();
            wanted.insert("SHOPS_TABLE=ShopsTable".to_owned());
            assert_eq!(template.settings(handler), wanted, "{stage} {handler}");
        };
        let (events, errors) = ("EVENTS_TABLE=EventsTable", "DECRYPT_ERRORS_TOPIC=DecryptErrorsTopic");
        let (to_decrypt, to_process) = ("TO_DECRYPT_TOPIC=ToDecryptTopic", "TO_PROCESS_TOPIC=ToProcessTopic");
        let keys = format!("KEY_PREFIX=kassa-{stage}-");
        let shard: &[_] = match stage {
            "local" => &["STREAM_SHARD=shardId-00000000000000000000-00000000"],
            _ => &[],
        };
        let rates = if stage == "local" { ["10000", "10000"] } else { ["100", "500"] };
        let [till_rate, shop_rate] =
            [("TILL_RATE", rates[0]), ("SHOP_RATE", rates[1])].map(|(name, rate)| format!("{name}={rate}"));
        told(Accept::NAME, &[events, to_decrypt, &keys, &till_rate, &shop_rate]);
        told(Decrypt::NAME, &[events, to_process, errors, &keys]);
        told(Process::NAME, &[events, errors]);
        told(Project::NAME, shard);
        told(Watch::NAME, &[events]);
        told(Reconcile::NAME, &[events, to_decrypt, "RECONCILE_AFTER=5m", "RECONCILE_MOST=3000"]);
    }
}

#[test]
fn traces_go_where_the_parameters_say() {
    let headers = "otlpHeaders={{resolve:secretsmanager:kassa-otlp}}";
    let params = ["otlpEndpoint=https://collector.example.com", headers, "traceSampling=0.1"];
    let params = params.map(|param| ["--param", param]).concat();
    let template = template("dev", &[&ALL_ON[..], &params].concat());
    for handler in handlers() {
        let settings = template.settings(handler);
        for setting in [
            "OTEL_EXPORTER_OTLP_ENDPOINT=https://collector.example.com",
            "OTEL_EXPORTER_OTLP_HEADERS={{resolve:secretsmanager:kassa-otlp}}",
            "OTEL_TRACES_SAMPLER_ARG=0.1",
        ] {
            assert!(settings.contains(setting), "{handler} has not {setting}");
        }
    }
}

#[test]
fn a_secret_comes_from_secrets_manager_and_stands_nowhere() {
    for (stage, template) in every_stage() {
        // What is secret is made there, and told by where it is.
        for (name, secret) in template.all("AWS::SecretsManager::Secret") {
            assert!(
                secret["SecretString"].is_null() && secret["GenerateSecretString"].is_object(),
                "{stage} {name}"
            );
        }
        let names = ["SECRET", "TOKEN", "PASSWORD", "CREDENTIAL", "PRIVATE", "HEADERS"];
        for handler in handlers() {
            for setting in template.settings(handler) {
                let (name, value) = setting.split_once('=').unwrap();
                let is_secret =
                    names.iter().any(|part| name.contains(part)) && !name.contains("ALLOW_PRIVATE");
                let kept = value.ends_with("Secret.Id") || value.starts_with("{{resolve:secretsmanager:");
                assert!(!is_secret || kept, "{stage} {handler}: {setting}");
            }
        }
    }
}

#[test]
fn a_role_may_do_what_its_function_does_and_no_more() {
    for (stage, template) in every_stage() {
        let may = |handler: &str, more: &[&str]| {
            let name = capital(handler);
            let logs =
                ["CreateLogStream", "PutLogEvents"].map(|action| format!("logs:{action} {name}LogGroup.Arn"));
            // A right of its own in the emulator only.
            let local = if stage == "local" { more } else { &[] };
            let topics = local.iter().filter_map(|allowed| allowed.strip_prefix("sns:Publish "));
            let in_batches = topics.map(|topic| format!("sns:PublishBatch {topic}"));
            let wanted: BTreeSet<_> = set(more).into_iter().chain(logs).chain(in_batches).collect();
            assert_eq!(template.allowed(&format!("{name}Role")), wanted, "{stage} {handler}");
            assert_eq!(short(&template.function(handler)["Role"]), format!("{name}Role.Arn"));
        };
        let with_key = |action: &str| {
            let arn = |resource: &str| {
                format!("arn:${{AWS::Partition}}:kms:${{AWS::Region}}:${{AWS::AccountId}}:{resource}")
            };
            let named = format!(r#"{{"StringLike":{{"kms:RequestAlias":"alias/kassa-{stage}-*"}}}}"#);
            [
                format!("{action} {} if {named}", arn("key/*")),
                format!("{action} {}", arn(&format!("alias/kassa-{stage}-*"))),
            ]
        };
        let [get, get_as_emulated] = with_key("kms:GetPublicKey");
        may(
            Accept::NAME,
            &[
                "dynamodb:PutItem EventsTable.Arn",
                // No event's body, in which is what was sold.
                "dynamodb:Query EventsTable.Arn if {\"ForAllValues:StringEquals\":{\"dynamodb:Attributes\":[\"stream\",\"event\",\"kind\",\"version\",\"at\",\"sale_id\",\"shop_id\",\"reason\"]},\"StringEqualsIfExists\":{\"dynamodb:Select\":\"SPECIFIC_ATTRIBUTES\"}}",
                "dynamodb:GetItem ShopsTable.Arn",
                "sns:Publish ToDecryptTopic",
                &get,
                &get_as_emulated,
            ],
        );
        let list = |action: &str| {
            let attributes = [
                "shop_id",
                "record_type",
                "reason",
                "since",
                "till",
                "kid",
                "key_of",
                "taken",
                "days",
                "all_days",
                "changed",
            ];
            let condition = json!({"ForAllValues:StringEquals": {"dynamodb:Attributes": attributes}});
            format!("dynamodb:{action} ShopsTable.Arn if {condition}")
        };
        let [put, update] = ["PutItem", "UpdateItem"].map(list);
        let [open, open_as_emulated] = with_key("kms:Decrypt");
        may(
            Decrypt::NAME,
            &[
                "dynamodb:PutItem EventsTable.Arn",
                "dynamodb:GetItem EventsTable.Arn",
                "dynamodb:BatchGetItem EventsTable.Arn",
                "dynamodb:GetItem ShopsTable.Arn",
                &put,
                &update,
                "sns:Publish ToProcessTopic",
                "sns:Publish DecryptErrorsTopic",
                &open,
                &open_as_emulated,
                "sqs:ReceiveMessage DecryptQueue.Arn",
                "sqs:DeleteMessage DecryptQueue.Arn",
                "sqs:GetQueueAttributes DecryptQueue.Arn",
            ],
        );
        may(
            Process::NAME,
            &[
                "dynamodb:PutItem EventsTable.Arn",
                "dynamodb:BatchGetItem EventsTable.Arn",
                "dynamodb:GetItem ShopsTable.Arn",
                &put,
                &update,
                "sns:Publish DecryptErrorsTopic",
                "sqs:ReceiveMessage ProcessQueue.Arn",
                "sqs:DeleteMessage ProcessQueue.Arn",
                "sqs:GetQueueAttributes ProcessQueue.Arn",
            ],
        );
        may(
            Project::NAME,
            &[
                "dynamodb:GetItem ShopsTable.Arn",
                "dynamodb:UpdateItem ShopsTable.Arn",
                "dynamodb:ConditionCheckItem ShopsTable.Arn",
                "dynamodb:DeleteItem ShopsTable.Arn",
                "dynamodb:GetRecords EventsTable.StreamArn",
                "dynamodb:GetShardIterator EventsTable.StreamArn",
                "dynamodb:DescribeStream EventsTable.StreamArn",
                "dynamodb:ListStreams EventsTable.StreamArn",
                "sqs:SendMessage ProjectFailures.Arn",
            ],
        );
        may(
            Watch::NAME,
            &[
                "dynamodb:Query EventsTable.Arn",
                "dynamodb:GetItem ShopsTable.Arn",
                "dynamodb:Query ShopsTable.Arn",
            ],
        );
        may(
            Reconcile::NAME,
            &[
                "dynamodb:Query EventsTable.Arn",
                "dynamodb:BatchGetItem EventsTable.Arn",
                "dynamodb:GetItem ShopsTable.Arn",
                "dynamodb:Query ShopsTable.Arn",
                "dynamodb:DeleteItem ShopsTable.Arn",
                &put,
                &update,
                "dynamodb:PutItem ShopsTable.Arn if {\"ForAllValues:StringEquals\":{\"dynamodb:LeadingKeys\":[\"#reconcile\"]}}",
                "sns:Publish ToDecryptTopic",
            ],
        );
        assert_eq!(template.all("AWS::IAM::Role").count(), handlers().count(), "{stage}");
    }
}

#[test]
fn a_wildcard_stands_only_where_aws_takes_no_less() {
    // A key's id is known only once there is a shop; which keys are meant says the condition on the alias. The
    // second is the same for the emulator, and on AWS, where an alias is no resource of these actions, nothing.
    // A phone number is no resource at all: it is what is no topic.
    let excused = |allowed: &str| {
        let keys = allowed.contains(":key/* if {\"StringLike\":{\"kms:RequestAlias\":\"alias/kassa-");
        let phones = allowed == "sns:Publish not arn:${AWS::Partition}:sns:*:*:*";
        keys || phones || allowed.contains(":alias/kassa-")
    };
    for (stage, template) in every_stage() {
        for (role, _) in template.all("AWS::IAM::Role") {
            for allowed in template.allowed(role).iter().filter(|allowed| allowed.contains('*')) {
                assert!(excused(allowed), "{stage} {role}: {allowed}");
            }
        }
    }
}

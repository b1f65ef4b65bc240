//! What a block of `subscribers/deploy.yml` comes to.

use std::collections::BTreeSet;
use std::fs;
use std::time::SystemTime;

use kassa_pipeline::reconcile::Reconcile;
use kassa_pipeline::watch::Watch;
use serde_json::{Value, json};

use super::cloudformation::{
    ALERTER, ALL_ON, AUDITOR, SUBSCRIBERS, Template, WEBHOOK, capital, every_stage, everyone, framework,
    other, set, short, template,
};
use super::package::{Tool, copy_sources, package, root, said};

#[test]
fn each_block_is_a_subscriber() {
    let blocks = fs::read_to_string(root().join("subscribers/deploy.yml")).unwrap();
    let names = blocks.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    assert_eq!(names.map(|line| line.trim_end_matches(':')).collect::<Vec<_>>(), SUBSCRIBERS);
    let all: Vec<_> = kassa_subscribers::all().into_iter().map(|entry| entry.name).collect();
    assert_eq!(all, SUBSCRIBERS);
}

#[test]
fn a_subscriber_is_told_what_it_needs_and_no_more() {
    for (stage, template) in every_stage() {
        let told = |name: &str, more: &[&str]| {
            let subscribers = [format!("STAGE={stage}"), format!("TABLE={}Table", capital(name))];
            let wanted: BTreeSet<_> =
                set(more).into_iter().chain(everyone(stage)).chain(subscribers).collect();
            assert_eq!(template.settings(name), wanted, "{stage} {name}");
        };
        let (shops, alerts) = ("SHOPS_TABLE=ShopsTable", "ALERTS_TOPIC=AlertsTopic");
        let keys = format!("KEY_PREFIX=kassa-{stage}-");
        told(AUDITOR, &[shops, &keys, "AUDIT_TRIALS=20", "AUDIT_TRIAL_RATE=600"]);
        let when = ["GROUP_WAIT=30s", "REPEAT_INTERVAL=4h", "RESOLVE_AFTER=10m"];
        let sms = ["SMS_SENDER=Kassa", "SMS_MAX_PRICE=0.50"];
        told(ALERTER, &[&[shops, alerts, "QUEUE_URL=DecryptErrorAlerterQueue"], &when[..], &sms].concat());
        let anywhere = stage == "local";
        told(
            WEBHOOK,
            &[
                alerts,
                "QUEUE_URL=WarehouseWebhookQueue",
                "DEAD_LETTERS_URL=WarehouseWebhookDeadLetters",
                "WAREHOUSE_URL=https://warehouse.example.com/sales",
                "WAREHOUSE_SECRET=WarehouseSecret.Id",
                &format!("WAREHOUSE_ALLOW_HTTP={anywhere}"),
                &format!("WAREHOUSE_ALLOW_PRIVATE={anywhere}"),
            ],
        );
    }
}

#[test]
fn what_a_subscriber_is_told_can_be_ones_own() {
    let other = other();
    let told =
        |name: &str, wanted: &[&str]| assert!(other.settings(name).is_superset(&set(wanted)), "{name}");
    told(AUDITOR, &["AUDIT_TRIALS=0", "AUDIT_TRIAL_RATE=60", "KEY_PREFIX=till-"]);
    told(ALERTER, &["GROUP_WAIT=1m", "REPEAT_INTERVAL=1h", "RESOLVE_AFTER=5m"]);
    told(ALERTER, &["SMS_SENDER=Shop", "SMS_MAX_PRICE=0.10"]);
    told(WEBHOOK, &["WAREHOUSE_ALLOW_HTTP=false", "WAREHOUSE_ALLOW_PRIVATE=true"]);
}

#[test]
fn a_subscribers_role_may_do_what_it_does_and_no_more() {
    for (stage, template) in every_stage() {
        let may = |name: &str, take: &[&str], more: &[&str]| {
            let id = capital(name);
            let table = ["GetItem", "BatchGetItem", "Query", "PutItem"];
            let table = table.map(|action| format!("dynamodb:{action} {id}Table.Arn"));
            let log = ["CreateLogStream", "PutLogEvents"];
            let log = log.map(|action| format!("logs:{action} {}LogGroup.Arn", framework(name)));
            let take = take.iter().map(|action| format!("sqs:{action} {id}Queue.Arn"));
            let wanted: BTreeSet<_> = set(more).into_iter().chain(table).chain(log).chain(take).collect();
            assert_eq!(template.allowed(&format!("{id}Role")), wanted, "{stage} {name}");
            assert_eq!(short(&template.function(name)["Role"]), format!("{id}Role.Arn"));
        };
        let brought = ["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"];
        let shops = ["dynamodb:GetItem ShopsTable.Arn", "dynamodb:Query ShopsTable.Arn"];
        let key = "kms:Decrypt arn:${AWS::Partition}:kms:${AWS::Region}:${AWS::AccountId}:";
        let named = format!(r#"{{"StringLike":{{"kms:RequestAlias":"alias/kassa-{stage}-*"}}}}"#);
        let keys = [format!("{key}key/* if {named}"), format!("{key}alias/kassa-{stage}-*")];
        may(AUDITOR, &brought, &[&shops[..], &[&keys[0], &keys[1]]].concat());
        let phones = "sns:Publish not arn:${AWS::Partition}:sns:*:*:*";
        let itself = "sqs:SendMessage DecryptErrorAlerterQueue.Arn";
        may(ALERTER, &brought, &[&shops[..], &[itself, "sns:Publish AlertsTopic", phones]].concat());
        let drains = match stage {
            // The emulator's name for the same rights.
            "local" => ["ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"],
            _ => ["ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"],
        };
        may(
            WEBHOOK,
            &drains,
            &[
                "sqs:SendMessage WarehouseWebhookDeadLetters.Arn",
                "sns:Publish AlertsTopic",
                "secretsmanager:GetSecretValue WarehouseSecret.Id",
            ],
        );
    }
}

#[test]
fn a_subscriber_gets_what_it_asks_for() {
    for (stage, template) in every_stage() {
        let filter =
            |name: &str| template.of(&format!("{}Subscription", capital(name)))["FilterPolicy"].clone();
        assert_eq!(filter(AUDITOR), json!({"reason": ["wrong-key"]}), "{stage}");
        for name in [ALERTER, WEBHOOK] {
            assert_eq!(filter(name), Value::Null, "{stage} {name}");
        }
    }
}

#[test]
fn who_is_called_once_a_minute_alone_is_done_before_the_next() {
    for (stage, template) in every_stage() {
        let timeout = |name: &str| template.function(name)["Timeout"].as_u64().unwrap();
        for name in [Watch::NAME, Reconcile::NAME, WEBHOOK] {
            assert!(template.mapping(name).is_none(), "{stage} {name}");
            assert!(timeout(name) < 60, "{stage} {name}: {} s", timeout(name));
        }
        let timeout = timeout(WEBHOOK);
        let queue = template.of("WarehouseWebhookQueue");
        let visibility = queue["VisibilityTimeout"].as_u64().unwrap();
        assert!(visibility > timeout, "{stage}: {visibility} s");
        let dead_letters = json!({"Fn::GetAtt": ["WarehouseWebhookDeadLetters", "Arn"]});
        let redrive = json!({"deadLetterTargetArn": dead_letters, "maxReceiveCount": 1000});
        assert_eq!(queue["RedrivePolicy"], redrive, "{stage}");
    }
}

#[test]
fn a_minute_that_failed_is_left_to_the_next() {
    for (stage, template) in every_stage() {
        for name in [Watch::NAME, Reconcile::NAME, ALERTER, WEBHOOK] {
            let rule = template.schedule(name).unwrap();
            assert_eq!(rule["ScheduleExpression"], "rate(1 minute)", "{stage} {name}");
            assert_eq!(rule["State"], "ENABLED", "{stage} {name}");
            let function = format!("{}LambdaFunction", framework(name));
            let permission = template.of(&format!("{}LambdaPermissionEventsRuleSchedule1", framework(name)));
            assert_eq!(short(&permission["FunctionName"]), format!("{function}.Arn"));
            assert_eq!(permission["Principal"], "events.amazonaws.com");
            let invoked = template.of(&format!("{}LambdaEvConf", framework(name)));
            assert_eq!(
                (&invoked["MaximumRetryAttempts"], &invoked["MaximumEventAgeInSeconds"]),
                (&json!(0), &json!(60)),
                "{stage} {name}"
            );
        }
        assert!(template.schedule(AUDITOR).is_none(), "{stage}");
    }
}

#[test]
fn a_subscribers_table_is_by_group_and_name_and_forgets() {
    for (stage, template) in every_stage() {
        for name in SUBSCRIBERS {
            let table = template.of(&format!("{}Table", capital(name)));
            assert_eq!(table["TableName"], format!("kassa-{stage}-{name}"));
            let key = json!([
                {"AttributeName": "group", "KeyType": "HASH"},
                {"AttributeName": "name", "KeyType": "RANGE"},
            ]);
            assert_eq!(table["KeySchema"], key, "{stage} {name}");
            let expiry = json!({"AttributeName": "expires", "Enabled": true});
            assert_eq!(table["TimeToLiveSpecification"], expiry, "{stage} {name}");
        }
    }
}

#[test]
fn without_a_warehouse_there_is_nothing_of_one() {
    let template = template("prod", &[]);
    for part in ["Resources", "Outputs"] {
        let named = |name: &&String| name.contains("Warehouse");
        assert_eq!(template.0[part].as_object().unwrap().keys().find(named), None);
    }
}

#[test]
fn alerts_go_to_whom_the_deployment_names() {
    let told = |template: &Template| -> BTreeSet<String> {
        let subscriptions = template.all("AWS::SNS::Subscription").map(|(_, of)| of);
        let alerts = subscriptions.filter(|of| of["TopicArn"] == json!({"Ref": "AlertsTopic"}));
        alerts.map(|of| format!("{} {}", short(&of["Protocol"]), short(&of["Endpoint"]))).collect()
    };
    for (stage, all_on) in every_stage() {
        assert_eq!(told(&all_on), set(&["email ict@example.com", "sms +31612345678"]), "{stage}");
        assert_eq!(told(&template(stage, &[])), set(&[]), "{stage}");
    }
    let email_only = template("dev", &["--param", "alertEmail=ict@example.com"]);
    assert_eq!(told(&email_only), set(&["email ict@example.com"]));
}

#[test]
fn the_warehouses_secret_is_base64_of_a_key_whatever_it_comes_to() {
    for (stage, template) in every_stage() {
        let made = &template.of("WarehouseSecret")["GenerateSecretString"];
        // 33 bytes, where Standard Webhooks asks for 24 to 64.
        assert_eq!(made["PasswordLength"], 44, "{stage}");
        assert_eq!(made["ExcludePunctuation"], true, "{stage}");
        assert_ne!(made["IncludeSpace"], true, "{stage}");
        // What the emulator goes by.
        let punctuation: String = ('!'..='~').filter(char::is_ascii_punctuation).collect();
        assert_eq!(made["ExcludeCharacters"], punctuation, "{stage}");
    }
}

#[test]
fn what_is_wrong_with_a_block_is_told() {
    let long = "bad-key-auditor-of-a-name-that-nobody-would-type-twice";
    for (instead, told) in [
        (format!("{long}:\n  topic: DecryptErrorsTopic"), format!("{long} is too long a name")),
        ("BadKeyAuditor:\n  topic: DecryptErrorsTopic".into(), "BadKeyAuditor must be words".into()),
        ("auditor:\n  topic: DecryptErrorsTopic\n  filtr: {}".into(), "auditor says filtr".into()),
        ("auditor:\n  batch: 100".into(), "auditor says no topic".into()),
    ] {
        let copy = tempfile::tempdir().unwrap();
        copy_sources(copy.path());
        fs::write(copy.path().join("subscribers/deploy.yml"), instead).unwrap();
        let output = package(copy.path(), Tool::Osls, ".", &[], SystemTime::now());
        assert!(!output.status.success());
        let wanted = format!("subscribers/deploy.yml: {told}");
        assert!(said(&output).contains(&wanted), "{wanted}\n{}", said(&output));
    }
}

#[test]
fn what_failed_comes_again_when_it_is_told_to_and_a_time_that_is_none_is_refused() {
    let visibility = |template: &Template, queue: &str| template.of(queue)["VisibilityTimeout"].clone();
    let sooner = template("dev", &[&["--param", "subscriberVisibility=15"], &ALL_ON[..]].concat());
    let usual = template("dev", &ALL_ON);
    assert_eq!(visibility(&sooner, "BadKeyAuditorQueue"), 15);
    assert_eq!(visibility(&usual, "BadKeyAuditorQueue"), 365);
    // Who takes the messages itself keeps them for as long as it works.
    assert_eq!(visibility(&sooner, "WarehouseWebhookQueue"), visibility(&usual, "WarehouseWebhookQueue"));

    let copy = tempfile::tempdir().unwrap();
    copy_sources(copy.path());
    let wrong = ["--param", "subscriberVisibility=soon"];
    let output = package(copy.path(), Tool::Osls, ".", &wrong, SystemTime::now());
    assert!(!output.status.success());
    assert!(said(&output).contains("param subscriberVisibility is soon; it must be a number of seconds"));
}

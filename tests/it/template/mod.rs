//! The compiled template: above all what the emulator ignores, so that no deployment on it could tell.

mod cloudformation;
mod functions;
mod messages;
mod monitoring;
mod package;
mod subscribers;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use serde_json::json;

use self::cloudformation::{
    ALL_ON, DOMAIN, STAGES, Template, every_stage, file, other, set, short, template,
};
use self::package::{LATER, Tool, compiled, copy_sources, installed, packaged, read, said};

#[test]
fn osls_and_serverless_3_compile_the_same_template() {
    for stage in STAGES {
        for more in [&everything()[..], &[]] {
            let [ours, theirs] = [Tool::Osls, Tool::Serverless3].map(|tool| {
                let mut template = read(&file(tool, stage, more));
                for (name, resource) in template["Resources"].as_object_mut().unwrap() {
                    if resource["Type"] != "AWS::Lambda::Function" {
                        continue;
                    }
                    // It holds when it was packaged.
                    let key = resource["Properties"]["Code"]["S3Key"].take();
                    let key = key.as_str().unwrap();
                    assert!(
                        key.ends_with("/pipeline.zip") || key.ends_with("/subscribers.zip"),
                        "{name}: {key}"
                    );
                }
                template
            });
            assert_eq!(ours, theirs, "{stage}, {more:?}");
        }
    }
}

#[test]
fn cfn_lint_finds_nothing() {
    let mut templates = vec![compiled(Tool::Osls, "deploy/certificate", &DOMAIN)];
    for stage in ["dev", "prod"] {
        templates.extend([file(Tool::Osls, stage, &[]), file(Tool::Osls, stage, &everything())]);
    }
    // A DependsOn that a reference implies: the framework writes them.
    let implied = "W3005";
    lint(&[implied], &templates);
    // An action AWS has not: the emulator asks for the right to PublishBatch.
    lint(&[implied, "W3037"], &[file(Tool::Osls, "local", &[]), file(Tool::Osls, "local", &everything())]);
}

fn everything() -> Vec<&'static str> {
    [&DOMAIN[..], &ALL_ON].concat()
}

/// Not again where neither template nor linter is another: it takes longer than all else here.
#[track_caller]
fn lint(ignored: &[&str], templates: &[PathBuf]) {
    let linter = fs::read_to_string(package::root().join("deploy/requirements.txt")).unwrap();
    let how = format!("{ignored:?}\n{linter}");
    let linted = |template: &PathBuf| template.with_extension("linted");
    let was_linted = |template: &PathBuf| fs::read_to_string(linted(template)).is_ok_and(|was| was == how);
    let templates: Vec<_> = templates.iter().filter(|template| !was_linted(template)).collect();
    if templates.is_empty() {
        return;
    }
    let mut lint = Command::new(installed(".venv/bin/cfn-lint"));
    lint.args(["-r", "eu-west-1", "-i"]).args(ignored).arg("-t").args(&templates);
    let output = lint.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    for template in templates {
        fs::write(linted(template), &how).unwrap();
    }
}

#[test]
fn tables_are_encrypted_and_restorable_and_in_prod_they_stay() {
    for (stage, template) in every_stage() {
        let stays = stage == "prod";
        for (table, of) in template.all("AWS::DynamoDB::Table") {
            assert_eq!(of["SSESpecification"], json!({"SSEEnabled": true}), "{stage} {table}");
            assert_eq!(of["PointInTimeRecoverySpecification"], json!({"PointInTimeRecoveryEnabled": true}));
            assert_eq!(of["DeletionProtectionEnabled"], stays, "{stage} {table}");
            assert_eq!(of["BillingMode"], "PAY_PER_REQUEST");
            for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
                assert_eq!(
                    template.resource(table)[policy],
                    if stays { "Retain" } else { "Delete" },
                    "{stage}"
                );
            }
        }
        assert_eq!(template.of("EventsTable")["StreamSpecification"], json!({"StreamViewType": "NEW_IMAGE"}));
    }
}

#[test]
fn the_api_is_throttled_and_has_two_routes() {
    for (template, rate, burst) in [(template("prod", &[]), "500", "1000"), (other(), "7", "8")] {
        let settings = &template.of("HttpApiStage")["DefaultRouteSettings"];
        let limit = |name: &str| settings[name].to_string().replace('"', "");
        assert_eq!(
            (limit("ThrottlingRateLimit"), limit("ThrottlingBurstLimit")),
            (rate.to_owned(), burst.to_owned())
        );
        let routes = template
            .all("AWS::ApiGatewayV2::Route")
            .map(|(_, of)| of["RouteKey"].as_str().unwrap().to_owned());
        assert_eq!(
            routes.collect::<BTreeSet<_>>(),
            set(&["POST /shop", "GET /shop/{shop_id}/key", "GET /shop/{shop_id}/sales/{sale_id}"])
        );
    }
}

#[test]
fn the_outputs_are_what_the_command_reads() {
    for (stage, template) in every_stage() {
        let of_the_framework = ["ServerlessDeploymentBucketName", "HttpApiId", "HttpApiUrl"];
        let mut outputs = template.0["Outputs"].as_object().unwrap().clone();
        outputs.retain(|name, _| !of_the_framework.contains(&name.as_str()));
        let outputs: BTreeMap<_, _> = outputs.iter().map(|(k, v)| (k.as_str(), short(&v["Value"]))).collect();
        let url = match stage {
            "local" => "http://127.0.0.1:4566/_aws/execute-api/${HttpApi}/$default",
            _ => "https://${HttpApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}",
        };
        let prefix = format!("kassa-{stage}-");
        let resources = [
            "EventsTable",
            "ShopsTable",
            "ToDecryptTopic",
            "ToProcessTopic",
            "DecryptErrorsTopic",
            "AlertsTopic",
            "BadKeyAuditorTable",
            "DecryptErrorAlerterTable",
            "WarehouseWebhookTable",
        ];
        let lag = if stage == "local" { "2s" } else { "15s" };
        let others = [
            ("ShopUrl", url),
            ("KeyPrefix", &prefix),
            ("StreamLag", lag),
            ("WarehouseSecret", "WarehouseSecret.Id"),
        ];
        let wanted = resources.map(|name| (name, name)).into_iter().chain(others);
        assert_eq!(outputs, wanted.map(|(k, v)| (k, v.to_owned())).collect(), "{stage}");
    }
    assert_eq!(other().0["Outputs"]["KeyPrefix"]["Value"], "till-");
}

#[test]
fn names_begin_with_service_and_stage() {
    let kinds = [
        ("AWS::DynamoDB::Table", "TableName", "kassa-prod-"),
        ("AWS::SNS::Topic", "TopicName", "kassa-prod-"),
        ("AWS::SQS::Queue", "QueueName", "kassa-prod-"),
        ("AWS::Lambda::Function", "FunctionName", "kassa-prod-"),
        ("AWS::IAM::Role", "RoleName", "kassa-prod-eu-west-1-"),
        ("AWS::ApiGatewayV2::Api", "Name", "kassa-prod"),
        ("AWS::Logs::LogGroup", "LogGroupName", "/aws/lambda/kassa-prod-"),
        ("AWS::SecretsManager::Secret", "Name", "kassa-prod-"),
        ("AWS::CloudWatch::Dashboard", "DashboardName", "kassa-prod-"),
        ("AWS::CloudWatch::Alarm", "AlarmName", "kassa-prod-"),
        ("AWS::CloudWatch::CompositeAlarm", "AlarmName", "kassa-prod-"),
    ];
    let template = template("prod", &ALL_ON);
    for (kind, property, prefix) in kinds {
        assert!(template.all(kind).count() > 0, "{kind}");
        for (resource, of) in template.all(kind) {
            assert!(of[property].as_str().unwrap().starts_with(prefix), "{resource}: {}", of[property]);
        }
    }
}

#[test]
fn a_stage_of_another_name_is_as_dev() {
    let text = |stage| template(stage, &[]).0.to_string();
    let sandbox = Template(serde_json::from_str(&text("sandbox").replace("sandbox", "dev")).unwrap());
    let dev = template("dev", &[]);
    for name in
        dev.0["Resources"].as_object().unwrap().keys().filter(|name| !name.ends_with("LambdaFunction"))
    {
        assert_eq!(sandbox.resource(name), dev.resource(name), "{name}");
    }
}

#[test]
fn a_domain_has_tls_1_2_its_own_certificate_and_a_record() {
    for stage in STAGES {
        let template = template(stage, &DOMAIN);
        let [configuration] = &template.of("Domain")["DomainNameConfigurations"].as_array().unwrap()[..]
        else {
            panic!("{stage}")
        };
        assert_eq!(configuration["SecurityPolicy"], "TLS_1_2", "{stage}");
        let certificate = format!("kassa-{stage}-certificate");
        assert_eq!(configuration["CertificateArn"], json!({"Fn::ImportValue": certificate}));
        assert_eq!(short(&template.of("DomainMapping")["ApiId"]), "HttpApi");
        let record = template.of("DomainRecord");
        assert_eq!(
            (&record["Name"], &record["HostedZoneId"]),
            (&json!("shop.example.com"), &json!("Z0123456789ABC"))
        );
        assert_eq!(short(&record["AliasTarget"]["DNSName"]), "Domain.RegionalDomainName");
        assert_eq!(short(&template.0["Outputs"]["ShopUrl"]["Value"]), "https://${Domain}");
    }
}

#[test]
fn without_a_domain_there_is_nothing_of_one() {
    for (stage, template) in every_stage() {
        for kind in
            ["AWS::ApiGatewayV2::DomainName", "AWS::ApiGatewayV2::ApiMapping", "AWS::Route53::RecordSet"]
        {
            assert_eq!(template.all(kind).count(), 0, "{stage} {kind}");
        }
    }
}

#[test]
fn a_domain_without_its_zone_is_refused() {
    let copy = tempfile::tempdir().unwrap();
    copy_sources(copy.path());
    let output = package::package(copy.path(), Tool::Osls, ".", &DOMAIN[..2], SystemTime::now());
    assert!(!output.status.success());
    assert!(said(&output).contains("also needs --param hostedZoneId="), "{}", said(&output));
}

#[test]
fn the_certificate_is_validated_by_dns_and_outlives_its_stack() {
    let template = Template(read(&compiled(Tool::Osls, "deploy/certificate", &DOMAIN)));
    assert_eq!(template.of("Certificate")["ValidationMethod"], "DNS");
    assert_eq!(template.0["Outputs"]["Certificate"]["Export"]["Name"], "kassa-dev-certificate");
    for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
        assert_eq!(template.resource("Certificate")[policy], "Retain");
    }
}

#[test]
fn the_same_code_is_the_same_zip_whenever_it_was_built() {
    let zips = [SystemTime::now(), SystemTime::now() - LATER].map(|built| {
        let copy = tempfile::tempdir().unwrap();
        copy_sources(copy.path());
        let output = package::package(copy.path(), Tool::Osls, ".", &[], built);
        assert!(output.status.success(), "{}", said(&output));
        ["pipeline.zip", "subscribers.zip"].map(|zip| fs::read(packaged(copy.path(), ".", zip)).unwrap())
    });
    assert_eq!(zips[0], zips[1]);
}

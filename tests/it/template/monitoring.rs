//! Dashboards and alarms: that what is deployed is what is in `dashboards/`, and names what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use kassa::monitor::alarms::{Alarm, Alarms, Comparison, Missing, Watch};
use kassa::monitor::dashboard::{BODIES, Content, Dashboard};
use kassa::monitor::placeholders::Placeholders;
use kassa::monitor::{MetricId, What};
use serde_json::{Value, json};

use super::cloudformation::{ALL_ON, Template, every_stage, set, template};
use super::package::{Tool, copy_sources, package, said};

const NAMES: [&str; 3] = ["sales", "operations", "keys"];

fn with(stack: &str) -> Placeholders<'_> {
    Placeholders { stack, region: "eu-west-1", account: "123456789012", api: "a1b2c3" }
}

fn alarms(stage: &str) -> Alarms {
    Alarms::of(&with(&format!("kassa-{stage}"))).unwrap()
}

/// A text with what `CloudFormation` puts in.
fn filled(text: &str) -> String {
    let text = text.replace("${AWS::Region}", "eu-west-1").replace("${AWS::AccountId}", "123456789012");
    let text = text.replace("${AWS::Partition}", "aws").replace("${HttpApi}", "a1b2c3");
    assert!(!text.contains("${"), "{text}");
    text
}

fn body(template: &Template, name: &str) -> String {
    let resource = format!("{}Dashboard", super::cloudformation::capital(name));
    filled(template.of(&resource)["DashboardBody"]["Fn::Sub"].as_str().unwrap())
}

#[test]
fn the_deployed_dashboards_are_the_folders() {
    for (stage, template) in every_stage() {
        let stack = format!("kassa-{stage}");
        let names: BTreeSet<_> = template
            .all("AWS::CloudWatch::Dashboard")
            .map(|(_, of)| of["DashboardName"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, NAMES.map(|name| format!("{stack}-{name}")).into());
        for (name, file) in BODIES {
            let mut wanted = Dashboard::read(file, &with(&stack)).unwrap();
            if stage == "local" {
                only_plain(&mut wanted, stage);
            }
            let deployed = Dashboard::read(&body(&template, name), &with(&stack)).unwrap();
            assert_eq!(deployed, wanted, "{stage} {name}");
        }
    }
}

/// On the emulator there are neither composites nor alarms that need metric math.
fn only_plain(dashboard: &mut Dashboard, stage: &str) {
    let plain: BTreeSet<_> = alarms(stage).alarms.into_iter().filter(plain).map(|alarm| alarm.name).collect();
    for widget in &mut dashboard.widgets {
        if let Content::Alarms { alarms, .. } = &mut widget.content {
            alarms.retain(|name| plain.contains(name));
        }
    }
    dashboard.widgets.retain(|w| !matches!(&w.content, Content::Alarms { alarms, .. } if alarms.is_empty()));
}

fn plain(alarm: &Alarm) -> bool {
    matches!(alarm.what, Watch::Metric(..))
}

/// Every metric that dashboards and alarms name.
fn named(stage: &str) -> Vec<MetricId> {
    let stack = format!("kassa-{stage}");
    let mut found = Vec::new();
    for (_, file) in BODIES {
        for widget in Dashboard::read(file, &with(&stack)).unwrap().widgets {
            let Content::Metrics(metrics) = widget.content else { continue };
            found.extend(metrics.rows.into_iter().filter_map(|row| match row.query.what {
                What::Metric(metric, _) => Some(metric),
                What::Expression(_) => None,
            }));
        }
    }
    for alarm in alarms(stage).alarms {
        match alarm.what {
            Watch::Metric(metric, _) => found.push(metric),
            Watch::Math { metrics, .. } => found.extend(metrics.into_iter().filter_map(|q| match q.what {
                What::Metric(metric, _) => Some(metric),
                What::Expression(_) => None,
            })),
        }
    }
    found
}

#[test]
fn functions_queues_and_tables_on_dashboards_are_those_deployed() {
    let template = template("prod", &ALL_ON);
    let named = named("prod");
    let kinds = [
        ("AWS::Lambda::Function", "FunctionName"),
        ("AWS::SQS::Queue", "QueueName"),
        ("AWS::DynamoDB::Table", "TableName"),
    ];
    for (kind, property) in kinds {
        let deployed: BTreeSet<_> =
            template.all(kind).map(|(_, of)| of[property].as_str().unwrap().to_owned()).collect();
        let watched: BTreeSet<_> = named.iter().filter_map(|m| m.dimensions.get(property).cloned()).collect();
        assert_eq!(watched, deployed, "{property}");
    }
    let functions: BTreeSet<_> = template
        .all("AWS::Lambda::Function")
        .map(|(_, of)| of["Handler"].as_str().unwrap().to_owned())
        .collect();
    let watched: BTreeSet<_> = named.iter().filter_map(|m| m.dimensions.get("function").cloned()).collect();
    assert!(watched.is_subset(&functions), "{watched:?}");
}

#[test]
fn what_a_function_costs_is_counted_with_the_memory_it_has() {
    let template = template("prod", &ALL_ON);
    let memory: BTreeMap<_, _> = template
        .all("AWS::Lambda::Function")
        .map(|(_, of)| (of["FunctionName"].as_str().unwrap().to_owned(), of["MemorySize"].as_u64().unwrap()))
        .collect();
    let mut counted = 0;
    let dashboard = Dashboard::named("operations", &with("kassa-prod")).unwrap().unwrap();
    for widget in dashboard.widgets {
        let Content::Metrics(metrics) = widget.content else { continue };
        let mut seen = BTreeMap::new();
        for row in metrics.rows {
            let Some((megabytes, _)) = row.query.id.strip_prefix("mb").and_then(|id| id.split_once('_'))
            else {
                continue;
            };
            let What::Metric(metric, _) = row.query.what else { panic!("{}", row.query.id) };
            seen.insert(metric.dimensions["FunctionName"].clone(), megabytes.parse().unwrap());
        }
        if !seen.is_empty() {
            assert_eq!(seen, memory, "{}", metrics.title);
            counted += 1;
        }
    }
    assert_eq!(counted, 2);
}

#[test]
fn the_deployed_alarms_are_the_files_and_say_what_it_says() {
    for stage in ["dev", "prod"] {
        let template = template(stage, &ALL_ON);
        let Alarms { alarms, composites } = alarms(stage);
        let count = |kind| template.all(kind).count();
        assert_eq!(count("AWS::CloudWatch::Alarm"), alarms.len());
        assert_eq!(count("AWS::CloudWatch::CompositeAlarm"), composites.len());
        for alarm in &alarms {
            let of = deployed(&template, &alarm.name);
            assert_eq!(of["AlarmName"], format!("kassa-{stage}-{}", alarm.name));
            assert_eq!(of["AlarmDescription"], alarm.description());
            judged_as_said(of, alarm);
            watches_what_it_says(of, alarm);
            tells(of, alarm.actions);
        }
        for composite in &composites {
            let of = deployed(&template, &composite.name);
            assert_eq!(of["AlarmDescription"], composite.description());
            tells(of, true);
            let rule: Vec<_> =
                composite.any.iter().map(|name| format!("ALARM(\"${{{}}}\")", id(name))).collect();
            assert_eq!(of["AlarmRule"]["Fn::Sub"], rule.join(" OR "));
            match &composite.suppressed_by {
                Some(by) => assert_eq!(of["ActionsSuppressor"], json!({"Fn::GetAtt": [id(by), "Arn"]})),
                None => assert!(of.get("ActionsSuppressor").is_none()),
            }
            let periods = ["ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod"];
            let said = periods.map(|period| of[period].as_u64().unwrap_or_default());
            assert_eq!(said, [u64::from(composite.wait), u64::from(composite.extension)]);
        }
    }
}

fn id(name: &str) -> String {
    format!("{}Alarm", super::cloudformation::capital(name))
}

#[track_caller]
fn deployed<'a>(template: &'a Template, name: &str) -> &'a Value {
    template.of(&id(name))
}

#[track_caller]
fn tells(of: &Value, people: bool) {
    let topic = if people { json!([{"Ref": "AlertsTopic"}]) } else { json!(null) };
    for action in ["AlarmActions", "OKActions"] {
        assert_eq!(of[action], topic, "{}", of["AlarmName"]);
    }
    assert_eq!(of["InsufficientDataActions"], json!(null));
}

#[track_caller]
fn judged_as_said(of: &Value, alarm: &Alarm) {
    let missing = match alarm.missing {
        Missing::Missing => "missing",
        Missing::Ignore => "ignore",
        Missing::Breaching => "breaching",
        Missing::NotBreaching => "notBreaching",
    };
    let comparison = match alarm.comparison {
        Comparison::AtLeast => "GreaterThanOrEqualToThreshold",
        Comparison::Above => "GreaterThanThreshold",
        Comparison::AtMost => "LessThanOrEqualToThreshold",
        Comparison::Below => "LessThanThreshold",
    };
    assert_eq!((&of["TreatMissingData"], &of["ComparisonOperator"]), (&json!(missing), &json!(comparison)));
    assert_eq!(of["Threshold"].as_f64(), Some(alarm.threshold));
    let (m, n) = (&of["DatapointsToAlarm"], &of["EvaluationPeriods"]);
    assert_eq!((m, n), (&json!(alarm.datapoints_to_alarm), &json!(alarm.evaluation_periods)));
}

#[track_caller]
fn watches_what_it_says(of: &Value, alarm: &Alarm) {
    match &alarm.what {
        Watch::Metric(metric, stat) => {
            assert_eq!(metric_of(of), *metric, "{}", alarm.name);
            let said = [&of["Statistic"], &of["ExtendedStatistic"]].into_iter().find_map(Value::as_str);
            assert_eq!((said, &of["Period"]), (Some(String::from(*stat).as_str()), &json!(alarm.period)));
        }
        Watch::Math { metrics, expression } => {
            let queries = of["Metrics"].as_array().unwrap();
            let (shown, hidden): (Vec<&Value>, Vec<&Value>) =
                queries.iter().partition(|query| query["ReturnData"] == true);
            assert_eq!(shown.len(), 1, "{}", alarm.name);
            assert_eq!(
                (&shown[0]["Expression"], &shown[0]["Period"]),
                (&json!(expression), &json!(alarm.period))
            );
            assert_eq!(hidden.len(), metrics.len());
            for query in metrics {
                let said = hidden.iter().find(|said| said["Id"] == query.id).unwrap();
                let stat = &said["MetricStat"];
                let told =
                    What::Metric(metric_of(&stat["Metric"]), stat["Stat"].as_str().unwrap().parse().unwrap());
                assert_eq!((&told, &stat["Period"]), (&query.what, &json!(alarm.period)), "{}", query.id);
            }
        }
    }
}

fn metric_of(said: &Value) -> MetricId {
    let none = Vec::new();
    let dimensions = said["Dimensions"].as_array().unwrap_or(&none).iter().map(|dimension| {
        let value = match &dimension["Value"] {
            Value::String(text) => text.clone(),
            reference => {
                assert_eq!(*reference, json!({"Ref": "HttpApi"}));
                "a1b2c3".to_owned()
            }
        };
        (dimension["Name"].as_str().unwrap().to_owned(), value)
    });
    MetricId {
        namespace: said["Namespace"].as_str().unwrap().to_owned(),
        name: said["MetricName"].as_str().unwrap().to_owned(),
        dimensions: dimensions.collect(),
    }
}

#[test]
fn where_alarms_are_plain_each_speaks_for_itself() {
    let template = template("local", &ALL_ON);
    assert_eq!(template.all("AWS::CloudWatch::CompositeAlarm").count(), 0);
    let plain: BTreeSet<_> =
        alarms("local").alarms.into_iter().filter(plain).map(|alarm| id(&alarm.name)).collect();
    let deployed = template.all("AWS::CloudWatch::Alarm").map(|(resource, of)| {
        tells(of, true);
        resource.to_owned()
    });
    assert_eq!(deployed.collect::<BTreeSet<_>>(), plain);
}

#[test]
fn without_a_warehouse_nothing_waits_for_it() {
    let resource = "WarehouseWaitsAlarm";
    assert!(template("prod", &ALL_ON).0["Resources"].get(resource).is_some());
    let without = template("prod", &[]);
    assert!(without.0["Resources"].get(resource).is_none());
    assert!(!body(&without, "operations").contains("warehouse-waits"));
}

#[test]
fn alarms_of_this_account_may_publish_alerts_and_nobody_elses() {
    for (stage, template) in every_stage() {
        let policy = &template.of("AlertsTopicPolicy")["PolicyDocument"]["Statement"];
        let allowed: Vec<_> = policy.as_array().unwrap().iter().filter(|s| s["Effect"] == "Allow").collect();
        let wanted = json!({
            "Effect": "Allow",
            "Principal": {"Service": "cloudwatch.amazonaws.com"},
            "Action": "sns:Publish",
            "Resource": {"Ref": "AlertsTopic"},
            "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
        });
        assert_eq!(allowed, [&wanted], "{stage}");
    }
}

#[test]
fn the_runbooks_address_can_be_ones_own() {
    let template = template("prod", &["--param", "runbookUrl=https://wiki.example.com/kassa"]);
    let Alarms { alarms, composites } = alarms("prod");
    let names = alarms.iter().map(|a| &a.name).chain(composites.iter().map(|c| &c.name));
    for name in names.filter(|name| *name != "warehouse-waits") {
        let description = deployed(&template, name)["AlarmDescription"].as_str().unwrap();
        assert!(
            description.ends_with(&format!("\nMore: https://wiki.example.com/kassa#{name}")),
            "{description}"
        );
    }
}

#[test]
fn a_way_of_monitoring_that_there_is_not_is_refused() {
    let copy = tempfile::tempdir().unwrap();
    copy_sources(copy.path());
    let output = package(copy.path(), Tool::Osls, ".", &["--param", "monitoring=some"], SystemTime::now());
    assert!(!output.status.success());
    assert!(said(&output).contains("it is all or plain"), "{}", said(&output));
    assert_eq!(set(&NAMES).len(), BODIES.len());
}

//! A compiled template, and what is asked of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kassa_pipeline::accept::Accept;
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::process::Process;
use kassa_pipeline::project::Project;
use kassa_pipeline::reconcile::Reconcile;
use kassa_pipeline::watch::Watch;
use serde_json::{Value, json};

use super::package::{Tool, compiled, read};

pub const STAGES: [&str; 3] = ["local", "dev", "prod"];
pub const DOMAIN: [&str; 4] =
    ["--param", "domain=shop.example.com", "--param", "hostedZoneId=Z0123456789ABC"];
/// What of the subscribers is there only where it is asked for.
pub const ALL_ON: [&str; 6] = [
    "--param",
    "warehouseUrl=https://warehouse.example.com/sales",
    "--param",
    "alertEmail=ict@example.com",
    "--param",
    "alertPhone=+31612345678",
];
pub const STAGE_FUNCTIONS: [&str; 6] =
    [Accept::NAME, Decrypt::NAME, Process::NAME, Project::NAME, Watch::NAME, Reconcile::NAME];
pub const AUDITOR: &str = "bad-key-auditor";
pub const ALERTER: &str = "decrypt-error-alerter";
pub const WEBHOOK: &str = "warehouse-webhook";
pub const SUBSCRIBERS: [&str; 3] = [AUDITOR, ALERTER, WEBHOOK];

pub fn handlers() -> impl Iterator<Item = &'static str> {
    STAGE_FUNCTIONS.into_iter().chain(SUBSCRIBERS)
}

pub fn file(tool: Tool, stage: &str, more: &[&str]) -> PathBuf {
    compiled(tool, ".", &[&["--stage", stage], more].concat())
}

pub fn template(stage: &str, more: &[&str]) -> Template {
    Template(read(&file(Tool::Osls, stage, more)))
}

/// Stage dev with every parameter that may be one's own.
pub fn other() -> Template {
    let params = [
        "architecture=x86_64",
        "auditTrials=0",
        "auditTrialRate=60",
        "groupWait=1m",
        "keyPrefix=till-",
        "logLevel=DEBUG",
        "logRetention=7",
        "repeatInterval=1h",
        "resolveAfter=5m",
        "smsMaxPrice=0.10",
        "smsSender=Shop",
        "throttleBurst=8",
        "throttleRate=7",
        "warehousePrivate=true",
    ];
    let params = params.map(|param| ["--param", param]).concat();
    template("dev", &[&ALL_ON[..], &params].concat())
}

/// Every stage with all subscribers on.
pub fn every_stage() -> impl Iterator<Item = (&'static str, Template)> {
    STAGES.into_iter().map(|stage| (stage, template(stage, &ALL_ON)))
}

pub struct Template(pub Value);

impl Template {
    #[track_caller]
    pub fn resource(&self, name: &str) -> &Value {
        self.0["Resources"].get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[track_caller]
    pub fn of(&self, name: &str) -> &Value {
        &self.resource(name)["Properties"]
    }

    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let resources = self.0["Resources"].as_object().unwrap().iter();
        resources.filter(move |(_, r)| r["Type"] == kind).map(|(name, r)| (name.as_str(), &r["Properties"]))
    }

    pub fn function(&self, handler: &str) -> &Value {
        self.of(&format!("{}LambdaFunction", framework(handler)))
    }

    /// "NAME=value" of each of the function's settings.
    pub fn settings(&self, handler: &str) -> BTreeSet<String> {
        let settings = self.function(handler)["Environment"]["Variables"].as_object().unwrap();
        settings.iter().map(|(name, value)| format!("{name}={}", short(value))).collect()
    }

    /// What of the function's messages Lambda is told: how they come. None where it takes them itself.
    pub fn mapping(&self, handler: &str) -> Option<&Value> {
        let function = self.arn(handler);
        let mut mappings = self.all("AWS::Lambda::EventSourceMapping");
        mappings.find(|(_, mapping)| mapping["FunctionName"] == function).map(|(_, mapping)| mapping)
    }

    /// When the function is called besides.
    pub fn schedule(&self, handler: &str) -> Option<&Value> {
        let function = self.arn(handler);
        let mut rules = self.all("AWS::Events::Rule");
        rules.find(|(_, rule)| rule["Targets"][0]["Arn"] == function).map(|(_, rule)| rule)
    }

    #[track_caller]
    fn arn(&self, handler: &str) -> Value {
        self.function(handler);
        json!({"Fn::GetAtt": [format!("{}LambdaFunction", framework(handler)), "Arn"]})
    }

    /// "action resource" of each statement, with the condition where there is one; "action not resource" of one that
    /// excludes it.
    pub fn allowed(&self, role: &str) -> BTreeSet<String> {
        let policies = self.of(role)["Policies"].as_array().unwrap();
        let statements = policies.iter().flat_map(|p| p["PolicyDocument"]["Statement"].as_array().unwrap());
        let mut allowed = BTreeSet::new();
        for statement in statements {
            assert_eq!(statement["Effect"], "Allow");
            let (not, resources) = match statement.get("NotResource") {
                Some(excluded) => ("not ", excluded),
                None => ("", &statement["Resource"]),
            };
            let condition = statement.get("Condition").map(|c| format!(" if {c}")).unwrap_or_default();
            for action in list(&statement["Action"]) {
                let action = action.as_str().unwrap();
                for resource in list(resources) {
                    allowed.insert(format!("{action} {not}{}{condition}", short(resource)));
                }
            }
        }
        allowed
    }
}

/// What our own resources of a function begin with: `BadKeyAuditor`.
pub fn capital(name: &str) -> String {
    name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// What the framework's begin with: `BadDashkeyDashauditor`.
pub fn framework(name: &str) -> String {
    capital(&name.replace('-', "Dash"))
}

pub fn list(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |values| values.iter().collect())
}

/// A reference as YAML has it: `Table` or `Table.Arn`.
pub fn short(reference: &Value) -> String {
    if let Some(attribute) = reference["Fn::GetAtt"].as_array() {
        return attribute.iter().map(|part| part.as_str().unwrap()).collect::<Vec<_>>().join(".");
    }
    let text = [&reference["Ref"], &reference["Fn::Sub"], reference].into_iter().find_map(Value::as_str);
    text.unwrap_or_else(|| panic!("{reference}")).to_owned()
}

pub fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

/// What every function of a stage is told.
pub fn everyone(stage: &str) -> Vec<String> {
    // The emulator does not tell them their level.
    let level = (stage == "local").then(|| "RUST_LOG=INFO".to_owned());
    level.into_iter().chain([format!("METRICS_NAMESPACE=kassa-{stage}")]).collect()
}

//! A compiled template, and what is asked of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kassa_pipeline::accept::Accept;
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::process::Process;
use kassa_pipeline::project::Project;
use serde_json::{Value, json};

use crate::package::{Tool, compiled, read};

pub const STAGES: [&str; 3] = ["local", "dev", "prod"];
pub const DOMAIN: [&str; 4] =
    ["--param", "domain=shop.example.com", "--param", "hostedZoneId=Z0123456789ABC"];
pub const HANDLERS: [&str; 4] = [Accept::NAME, Decrypt::NAME, Process::NAME, Project::NAME];

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
        "keyPrefix=till-",
        "logLevel=debug",
        "logRetention=7",
        "throttleBurst=8",
        "throttleRate=7",
    ];
    template("dev", &params.map(|param| ["--param", param]).concat())
}

pub fn every_stage() -> impl Iterator<Item = (&'static str, Template)> {
    STAGES.into_iter().map(|stage| (stage, template(stage, &[])))
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
        self.of(&format!("{}LambdaFunction", capital(handler)))
    }

    /// What of the function's messages Lambda is told: how they come.
    pub fn mapping(&self, handler: &str) -> &Value {
        let function = json!({"Fn::GetAtt": [format!("{}LambdaFunction", capital(handler)), "Arn"]});
        let mut mappings = self.all("AWS::Lambda::EventSourceMapping");
        mappings.find(|(_, mapping)| mapping["FunctionName"] == function).unwrap().1
    }

    /// "action resource" of each statement, with the condition where there is one.
    pub fn allowed(&self, role: &str) -> BTreeSet<String> {
        let policies = self.of(role)["Policies"].as_array().unwrap();
        let statements = policies.iter().flat_map(|p| p["PolicyDocument"]["Statement"].as_array().unwrap());
        let mut allowed = BTreeSet::new();
        for statement in statements {
            assert_eq!(statement["Effect"], "Allow");
            for action in list(&statement["Action"]) {
                for resource in list(&statement["Resource"]) {
                    let condition =
                        statement.get("Condition").map(|c| format!(" if {c}")).unwrap_or_default();
                    allowed.insert(format!("{} {}{condition}", action.as_str().unwrap(), short(resource)));
                }
            }
        }
        allowed
    }
}

pub fn capital(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
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

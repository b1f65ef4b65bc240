//! A stage that an earlier version deployed is updated in place: what keeps something, or is known by a name outside, is
//! not made anew.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cloudformation::{ALL_ON, template};
use super::package::{read, root};

/// What keeps something, or what somebody outside has the address of: replaced, it would be empty, or elsewhere.
const KEPT: [&str; 8] = [
    "AWS::ApiGatewayV2::Api",
    "AWS::DynamoDB::Table",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::SecretsManager::Secret",
];

/// Of prod, with all subscribers on, at fc5a417: each resource's properties that `CloudFormation` replaces it for
/// (<https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-template-resource-type-ref.html>,
/// "Update requires"), and a table's stream, which has another ARN once its view is another.
fn before() -> Value {
    read(&root().join("tests/data/fc5a417/template.json"))
}

#[test]
fn a_stage_of_fc5a417_is_updated_in_place() {
    let (before, now) = (before(), template("prod", &ALL_ON));
    let mut kept = BTreeMap::<&str, usize>::new();
    for (id, was) in before["Resources"].as_object().unwrap() {
        let is = now.0["Resources"].get(id).unwrap_or(&Value::Null);
        let kind = was["Type"].as_str().unwrap();
        if KEPT.contains(&kind) {
            assert_eq!(is["Type"], kind, "{id} is gone, with what it keeps");
            *kept.entry(kind).or_default() += 1;
        }
        if is["Type"] != kind {
            continue;
        }
        for (property, value) in was["Properties"].as_object().unwrap() {
            assert_eq!(&is["Properties"][property], value, "{id} would be replaced for its {property}");
        }
    }
    assert_eq!(kept.keys().copied().collect::<Vec<_>>(), KEPT, "of each kind there is one");
    for (output, was) in before["Outputs"].as_object().unwrap() {
        assert_eq!(now.0["Outputs"][output]["Value"], was["Value"], "the output {output}");
    }
}

/// `CloudFormation` makes what is new before it removes what is gone, and AWS has one of a name.
#[test]
fn no_name_that_fc5a417_gave_goes_over_to_another_resource() {
    let (before, now) = (before(), template("prod", &ALL_ON));
    let name = |of: &Value| {
        let properties = of["Properties"].as_object()?;
        let is_name = |property: &str| property.ends_with("Name") && property != "StageName";
        let found = properties.iter().find(|(property, value)| is_name(property) && value.is_string());
        found.map(|(_, value)| format!("{} {}", of["Type"], value))
    };
    let names = |of: &Value| -> BTreeMap<String, String> {
        let resources = of["Resources"].as_object().unwrap().iter();
        resources.filter_map(|(id, resource)| Some((name(resource)?, id.clone()))).collect()
    };
    let (before, now) = (names(&before), names(&now.0));
    assert!(before.len() > 60, "{}", before.len());
    for (name, id) in &before {
        assert!(now.get(name).is_none_or(|now| now == id), "{name} was {id}'s, and is {now:?}'s");
    }
}

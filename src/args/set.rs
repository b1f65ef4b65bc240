//! What `--set` may name: the settings of subscribers, which their `deploy.yml` has, and those of the shop on one machine.

use std::collections::BTreeSet;

/// Those that no subscriber's block names.
const OTHERS: [&str; 20] = [
    "MINUTE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "RECONCILE_AFTER",
    "RECONCILE_MOST",
    "SCHEDULE_INTERVAL",
    "SHOP_RATE",
    "TILL_RATE",
    "WAREHOUSE_TIMEOUT",
];

fn known() -> impl Iterator<Item = &'static str> {
    kassa_subscribers::settings().chain(OTHERS)
}

/// A setting and its value.
///
/// # Errors
/// What is wrong with the text, in words.
pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE, as GROUP_WAIT=5s")?;
    if known().any(|known| known == name) {
        return Ok((name.to_owned(), value.to_owned()));
    }
    let upper = name.to_ascii_uppercase().replace('-', "_");
    let near = known().min_by_key(|known| strsim::damerau_levenshtein(&upper, known));
    let near = near.filter(|near| strsim::normalized_damerau_levenshtein(&upper, near) >= 0.6);
    let all = || known().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
    Err(near.map_or_else(
        || format!("there is no setting {name}; there are: {}", all()),
        |near| format!("there is no setting {name}; is {near} meant?"),
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_setting_that_is_not_there_is_refused_with_the_one_that_is_meant() {
        assert_eq!(setting("GROUP_WAIT=5s"), Ok(("GROUP_WAIT".into(), "5s".into())));
        assert_eq!(setting("WAREHOUSE_URL="), Ok(("WAREHOUSE_URL".into(), String::new())));
        for (wrong, says) in [
            ("GROUPWAIT=5s", "is GROUP_WAIT meant?"),
            ("group-wait=5s", "is GROUP_WAIT meant?"),
            ("RESOLVE_AFTR=1m", "is RESOLVE_AFTER meant?"),
            ("NONSENSE=1", "there are: ALERTS_TOPIC, AUDIT_TRIALS"),
            ("=1", "there are: "),
            ("GROUP_WAIT", "must be NAME=VALUE"),
        ] {
            let error = setting(wrong).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    /// So that no setting is added that could not be set.
    #[test]
    fn every_setting_that_is_read_on_one_machine_is_known() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut folders: Vec<_> =
            ["pipeline/src", "subscribers/src", "bus/src/trace"].map(|f| root.join(f)).into();
        let mut names = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with("main.rs") {
                    let text = std::fs::read_to_string(path).unwrap();
                    let quoted = text
                        .split('"')
                        .skip(1)
                        .step_by(2)
                        .filter(|text| text.trim_matches('_').contains('_'));
                    let upper = |text: &&str| text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
                    names.extend(quoted.filter(upper).map(str::to_owned));
                }
            }
        }
        names.retain(|name| name != "CARGO_PKG_VERSION");
        assert!(names.len() > 15, "{names:?}");
        for name in names {
            assert!(known().any(|known| known == name), "{name} could not be set");
        }
    }
}

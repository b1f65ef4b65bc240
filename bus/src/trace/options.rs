use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use percent_encoding::percent_decode_str;

use super::sampler::ErrorsKept;
use crate::settings::{SettingError, Settings};

/// What OpenTelemetry's variables say
/// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
pub(super) struct Options {
    /// Where spans are posted.
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// How long one export may take, all in all.
    pub timeout: Duration,
    pub sampler: ErrorsKept,
    /// What makes the spans.
    pub resource: Resource,
}

/// Whoever waits for an export waits no longer; OpenTelemetry's own ten seconds are more than a function has.
const TIMEOUT: Duration = Duration::from_secs(1);

impl Options {
    /// Nothing where no endpoint is given, or tracing is switched off.
    ///
    /// # Errors
    /// [`SettingError`] if a variable asks for what is not there.
    pub fn of(
        settings: &Settings,
        resource: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Option<Self>, SettingError> {
        if switched_off(settings)? {
            return Ok(None);
        }
        let Some(url) = url(settings)? else { return Ok(None) };
        let millis = settings.count("OTEL_EXPORTER_OTLP_TIMEOUT", duration_millis(TIMEOUT))?;
        let mut headers = pairs(settings, "OTEL_EXPORTER_OTLP_HEADERS")?;
        headers.extend(pairs(settings, "OTEL_EXPORTER_OTLP_TRACES_HEADERS")?);
        Ok(Some(Self {
            url,
            headers,
            timeout: Duration::from_millis(millis),
            sampler: ErrorsKept::of(settings)?,
            resource: self::resource(settings, resource)?,
        }))
    }
}

fn switched_off(settings: &Settings) -> Result<bool, SettingError> {
    let protocol = ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"];
    if let Some(name) =
        protocol.into_iter().find(|name| settings.optional(name).is_some_and(|p| p != "http/protobuf"))
    {
        return Err(SettingError::Wrong { name, what: "http/protobuf, which is what there is" });
    }
    match settings.optional("OTEL_TRACES_EXPORTER") {
        None | Some("otlp") => settings.flag("OTEL_SDK_DISABLED"),
        Some("none") => Ok(true),
        Some(_) => Err(SettingError::Wrong { name: "OTEL_TRACES_EXPORTER", what: "otlp or none" }),
    }
}

fn url(settings: &Settings) -> Result<Option<String>, SettingError> {
    let all = settings.optional("OTEL_EXPORTER_OTLP_ENDPOINT");
    let (name, url) = match settings.optional("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        Some(url) => ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url.to_owned()),
        None => match all {
            Some(all) => ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}/v1/traces", all.trim_end_matches('/'))),
            None => return Ok(None),
        },
    };
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let right = |rest: &str| !rest.starts_with('/') && rest.bytes().all(|b| b.is_ascii_graphic());
    match rest {
        Some(rest) if right(rest) => Ok(Some(url)),
        _ => Err(SettingError::Wrong { name, what: "a URL, as http://127.0.0.1:4318" }),
    }
}

/// Who makes the spans: what is known by itself, and over it what is said.
fn resource(
    settings: &Settings,
    known: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<Resource, SettingError> {
    let service =
        settings.optional("OTEL_SERVICE_NAME").map(|name| KeyValue::new("service.name", name.to_owned()));
    let said = pairs(settings, "OTEL_RESOURCE_ATTRIBUTES")?;
    Ok(Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(known.into_iter().map(|(name, value)| KeyValue::new(name, value)))
        .with_attributes(said.into_iter().map(|(name, value)| KeyValue::new(name, value)))
        .with_attributes(service)
        .build())
}

/// `name=value,name=value`, with what would be in the way in percent signs.
fn pairs(settings: &Settings, name: &'static str) -> Result<Vec<(String, String)>, SettingError> {
    let wrong = SettingError::Wrong { name, what: "name=value,name=value, with commas in a value as %2C" };
    let said = settings.optional(name).unwrap_or_default();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned())).filter(|(name, _)| !name.is_empty())
    };
    let pairs = said.split(',').filter(|part| !part.trim().is_empty()).map(pair);
    pairs.collect::<Option<_>>().ok_or(wrong)
}

fn duration_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(said: &[(&str, &str)]) -> Result<Option<Options>, SettingError> {
        let said = said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Options::of(&Settings::none().with(said), [("service.name", "kassa".to_owned())])
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn without_an_endpoint_or_switched_off_there_is_nothing() {
        for off in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "true")],
            &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(options(off).unwrap().is_none());
        }
    }

    #[test]
    fn the_variables_mean_what_opentelemetry_says() {
        let given = options(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b%2Cc, x-other = 1,"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=said"),
            ("OTEL_SERVICE_NAME", "till"),
        ]);
        let given = given.unwrap().unwrap();
        assert_eq!(given.url, "http://collector:4318/v1/traces");
        let headers = [("api-key", "a b,c"), ("x-other", "1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(given.headers, headers);
        assert_eq!(given.timeout, Duration::from_millis(250));
        let of = |name: &str| given.resource.get(&name.to_owned().into()).map(|value| value.to_string());
        assert_eq!(of("service.name").as_deref(), Some("till"));
        assert_eq!(of("deployment.environment.name").as_deref(), Some("prod"));
        assert_eq!(of("telemetry.sdk.language").as_deref(), Some("rust"));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector/own");
        assert_eq!(options(&[ENDPOINT, own]).unwrap().unwrap().url, "https://collector/own");
    }

    #[test]
    fn what_cannot_be_is_named() {
        for wrong in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http:///v1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%ff"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
        ] {
            let told = options(&[ENDPOINT, wrong]).err().unwrap().to_string();
            assert!(told.contains(wrong.0), "{told}");
        }
    }
}

use std::time::Duration;

use super::sampler::Sampler;
use crate::settings::{SettingError, Settings};

/// What OpenTelemetry's variables say
/// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
pub(super) struct Options {
    /// Where spans are posted.
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// How long one export may take, all in all.
    pub timeout: Duration,
    pub sampler: Sampler,
    /// What makes the spans.
    pub resource: Vec<(String, String)>,
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
            sampler: Sampler::of(settings)?,
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
) -> Result<Vec<(String, String)>, SettingError> {
    let sdk = [("name", "kassa"), ("language", "rust"), ("version", env!("CARGO_PKG_VERSION"))];
    let sdk = sdk.map(|(name, value)| (format!("telemetry.sdk.{name}"), value.to_owned()));
    let service = settings.optional("OTEL_SERVICE_NAME").map(|name| ("service.name".into(), name.to_owned()));
    let known = known.into_iter().map(|(name, value)| (name.to_owned(), value));
    let said = pairs(settings, "OTEL_RESOURCE_ATTRIBUTES")?;
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in sdk.into_iter().chain(known).chain(said).chain(service) {
        match all.iter_mut().find(|(there, _)| *there == name) {
            Some((_, there)) => *there = value,
            None => all.push((name, value)),
        }
    }
    Ok(all)
}

/// `name=value,name=value`, with what would be in the way in percent signs.
fn pairs(settings: &Settings, name: &'static str) -> Result<Vec<(String, String)>, SettingError> {
    let wrong = SettingError::Wrong { name, what: "name=value,name=value, with commas in a value as %2C" };
    let said = settings.optional(name).unwrap_or_default();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim().to_owned(), decoded(value.trim())?)).filter(|(name, _)| !name.is_empty())
    };
    let pairs = said.split(',').filter(|part| !part.trim().is_empty()).map(pair);
    pairs.collect::<Option<_>>().ok_or(wrong)
}

/// RFC 3986, section 2.1.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
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
        let of = |name: &str| {
            let mut all = given.resource.iter().filter(|(there, _)| there == name);
            (all.next().map(|(_, value)| value.as_str()), all.count())
        };
        assert_eq!(of("service.name"), (Some("till"), 0));
        assert_eq!(of("deployment.environment.name"), (Some("prod"), 0));
        assert_eq!(of("telemetry.sdk.language"), (Some("rust"), 0));
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
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
        ] {
            let told = options(&[ENDPOINT, wrong]).err().unwrap().to_string();
            assert!(told.contains(wrong.0), "{told}");
        }
    }
}

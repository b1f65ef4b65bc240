use std::collections::HashMap;
use std::time::Duration;

use jiff::SignedDuration;

/// Settings of a function or of a shop on one machine: the environment, read once at start.
#[derive(Clone)]
pub struct Settings(HashMap<String, String>);

/// Why a function does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("the environment variable {0} is missing; deploy.yml sets it")]
    Missing(&'static str),
    #[error("the environment variable {name} must be {what}")]
    Wrong { name: &'static str, what: &'static str },
}

impl Settings {
    #[must_use]
    pub fn from_env() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// Nothing but defaults.
    #[must_use]
    pub fn none() -> Self {
        Self(HashMap::new())
    }

    /// These, and over them the given ones.
    #[must_use]
    pub fn with(mut self, given: impl IntoIterator<Item = (String, String)>) -> Self {
        self.0.extend(given);
        self
    }

    /// A setting that may be absent or empty.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A setting in the form it must have.
    fn in_form(
        &self,
        name: &'static str,
        what: &'static str,
        right: impl Fn(&str) -> bool,
    ) -> Result<&str, SettingError> {
        let value = self.0.get(name).ok_or(SettingError::Missing(name))?;
        if right(value) { Ok(value) } else { Err(SettingError::Wrong { name, what }) }
    }

    /// A setting that is there.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn text(&self, name: &'static str) -> Result<&str, SettingError> {
        self.in_form(name, "set to something", |value| !value.is_empty())
    }

    /// A setting that has a default, parsed.
    fn parsed<T>(
        &self,
        name: &'static str,
        what: &'static str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, SettingError> {
        let Some(value) = self.optional(name) else { return Ok(default) };
        parse(value).ok_or(SettingError::Wrong { name, what })
    }

    /// A length of time.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn duration(&self, name: &'static str, default: Duration) -> Result<Duration, SettingError> {
        let parse = |v: &str| Duration::try_from(v.parse::<SignedDuration>().ok()?).ok();
        self.parsed(name, "a length of time, as 30s, 10m or 4h", default, parse)
    }

    /// A number of things.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn count(&self, name: &'static str, default: u64) -> Result<u64, SettingError> {
        self.parsed(name, "a whole number", default, |v| v.parse().ok())
    }

    /// Yes or no; no if it is not said.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn flag(&self, name: &'static str) -> Result<bool, SettingError> {
        self.parsed(name, "true or false", false, |v| v.parse().ok())
    }

    /// A `DynamoDB` table's name.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn table(&self, name: &'static str) -> Result<&str, SettingError> {
        let right = |v: &str| (3..=255).contains(&v.len()) && v.bytes().all(|b| word(b) || b == b'.');
        self.in_form(name, "a table's name (3 to 255 letters, digits, '_', '-', '.')", right)
    }

    /// An SNS topic's ARN.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn topic(&self, name: &'static str) -> Result<&str, SettingError> {
        let right = |v: &str| {
            let parts: Vec<&str> = v.split(':').collect();
            matches!(parts[..], ["arn", _, "sns", _, _, topic] if !topic.is_empty())
        };
        self.in_form(name, "an SNS topic's ARN (arn:aws:sns:<region>:<account>:<topic>)", right)
    }

    /// What stands before a shop's id in its key's alias; may be empty.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn key_prefix(&self, name: &'static str) -> Result<&str, SettingError> {
        let right = |v: &str| v.len() <= 150 && v.bytes().all(|b| word(b) || b == b'/');
        self.in_form(name, "the beginning of a key alias (letters, digits, '/', '_', '-')", right)
    }
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_missing_or_wrong_setting_is_named() {
        let given =
            settings(&[("T", "kassa-dev-events"), ("A", "arn:aws:sns:eu-west-1:1:x"), ("P", ""), ("E", "")]);
        assert_eq!(given.table("T"), Ok("kassa-dev-events"));
        assert_eq!(given.topic("A"), Ok("arn:aws:sns:eu-west-1:1:x"));
        assert_eq!(given.key_prefix("P"), Ok(""));
        assert_eq!(given.optional("E"), None);
        assert_eq!(given.count("E", 20), Ok(20));
        for wrong in
            [given.table("A"), given.topic("T"), given.table("GONE"), given.text("E"), given.key_prefix("A")]
        {
            let told = wrong.unwrap_err().to_string();
            assert!(
                ["A", "T", "GONE", "E"].iter().any(|n| told.contains(&format!("variable {n} "))),
                "{told}"
            );
        }
    }
}

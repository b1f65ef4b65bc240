//! What the files in `dashboards/` leave open, because it differs between deployments.

use serde_json::Value;

/// What stands for `${stack}`, `${region}`, `${account}` and `${api}`.
#[derive(Debug, Clone, Copy)]
pub struct Placeholders<'a> {
    /// `<service>-<stage>`: the namespace of our metrics and what the names of functions, queues and tables begin with.
    pub stack: &'a str,
    pub region: &'a str,
    pub account: &'a str,
    /// The API's id.
    pub api: &'a str,
}

impl<'a> Placeholders<'a> {
    /// For whoever draws and evaluates here: region and account only tell `CloudWatch` where to look.
    #[must_use]
    pub fn of(stack: &'a str, api: &'a str) -> Self {
        Self { stack, region: "", account: "", api }
    }

    /// The text with its placeholders filled in.
    ///
    /// # Errors
    /// Names the placeholder that there is nothing for.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) =
                after.split_once('}').ok_or_else(|| format!("{text:?}: a ${{ without its }}"))?;
            filled.push_str(before);
            filled.push_str(match name {
                "stack" => self.stack,
                "region" => self.region,
                "account" => self.account,
                "api" => self.api,
                _ => return Err(format!("${{{name}}} is no placeholder: stack, region, account, api")),
            });
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// The JSON with the placeholders of all its texts filled in, those of names included.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub fn fill_all(&self, json: Value) -> Result<Value, String> {
        Ok(match json {
            Value::String(text) => Value::String(self.fill(&text)?),
            Value::Array(all) => {
                Value::Array(all.into_iter().map(|v| self.fill_all(v)).collect::<Result<_, _>>()?)
            }
            Value::Object(all) => Value::Object(
                all.into_iter()
                    .map(|(k, v)| Ok((self.fill(&k)?, self.fill_all(v)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_open_is_filled_in_and_what_nobody_knows_is_named() {
        let with = Placeholders { stack: "kassa-dev", region: "eu-west-1", account: "1", api: "a1" };
        let filled = with.fill_all(json!({"a": ["${stack}-x ${api}", 1], "${stack}": null}));
        assert_eq!(filled.unwrap(), json!({"a": ["kassa-dev-x a1", 1], "kassa-dev": null}));
        assert!(with.fill("${stage}").unwrap_err().contains("${stage}"));
        assert!(with.fill("${stack").is_err());
    }
}

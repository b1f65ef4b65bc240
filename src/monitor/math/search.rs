//! `SEARCH`: which metrics are meant
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html>).

use super::super::MetricId;

/// Which metrics are meant: those of a schema, if there is one, that a condition holds for.
///
/// Partial matches (words without quotes) are taken more widely than `CloudWatch` takes them: any part of the name or
/// value, in any case.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    schema: Option<(String, Vec<String>)>,
    condition: Option<Condition>,
}

#[derive(Debug, Clone, PartialEq)]
enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// What is looked at, or everything; and what it must be, or must contain.
    Is {
        what: Option<String>,
        text: String,
        exactly: bool,
    },
}

/// What `CloudWatch` takes of a search, in characters.
const LONGEST: usize = 1_024;

/// Parentheses within each other.
const DEEPEST: usize = 20;

impl Search {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.chars().count() > LONGEST {
            return Err(format!("a search has at most {LONGEST} characters"));
        }
        let mut tokens = tokens(text)?;
        tokens.reverse();
        let schema = (tokens.last() == Some(&Token::Mark('{'))).then(|| schema(&mut tokens)).transpose()?;
        let condition = if tokens.is_empty() { None } else { Some(any(&mut tokens, 0)?) };
        match tokens.pop() {
            None if schema.is_none() && condition.is_none() => Err("it searches for nothing".into()),
            None => Ok(Self { schema, condition }),
            Some(token) => Err(format!("{token:?} was not expected")),
        }
    }

    /// Whether the metric is one of those meant.
    #[must_use]
    pub fn finds(&self, metric: &MetricId) -> bool {
        let in_schema = self.schema.as_ref().is_none_or(|(namespace, dimensions)| {
            metric.namespace == *namespace
                && metric.dimensions.len() == dimensions.len()
                && dimensions.iter().all(|dimension| metric.dimensions.contains_key(dimension))
        });
        in_schema && self.condition.as_ref().is_none_or(|condition| condition.holds(metric))
    }
}

impl Condition {
    fn holds(&self, metric: &MetricId) -> bool {
        match self {
            Self::All(all) => all.iter().all(|condition| condition.holds(metric)),
            Self::Any(any) => any.iter().any(|condition| condition.holds(metric)),
            Self::Not(condition) => !condition.holds(metric),
            Self::Is { what, text, exactly } => {
                let is = |value: &str| {
                    if *exactly { value == text } else { value.to_lowercase().contains(&text.to_lowercase()) }
                };
                match what.as_deref() {
                    Some("MetricName") => is(&metric.name),
                    Some("Namespace") => is(&metric.namespace),
                    Some(dimension) => metric.dimensions.get(dimension).is_some_and(|value| is(value)),
                    None => {
                        is(&metric.name)
                            || is(&metric.namespace)
                            || metric.dimensions.iter().any(|(name, value)| is(name) || is(value))
                    }
                }
            }
        }
    }

    /// What stands behind `name=` is about that name.
    fn about(self, name: &str) -> Self {
        let all = |list: Vec<Self>| list.into_iter().map(|condition| condition.about(name)).collect();
        match self {
            Self::All(list) => Self::All(all(list)),
            Self::Any(list) => Self::Any(all(list)),
            Self::Not(condition) => Self::Not(Box::new(condition.about(name))),
            Self::Is { text, exactly, .. } => Self::Is { what: Some(name.to_owned()), text, exactly },
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Mark(char),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '{' | '}' | '(' | ')' | '=' | ',' => found.push(Token::Mark(c)),
            '"' => {
                let mut quoted = String::new();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some('\\') => quoted.extend(rest.next()),
                        Some(c) => quoted.push(c),
                        None => return Err("quotes that do not end".into()),
                    }
                }
                found.push(Token::Quoted(quoted));
            }
            c if c.is_whitespace() => {}
            c => {
                let mut word = String::from(c);
                while let Some(c) = rest.next_if(|c| !c.is_whitespace() && !"{}()=,\"".contains(*c)) {
                    word.push(c);
                }
                found.push(Token::Word(word));
            }
        }
    }
    Ok(found)
}

/// What a name within { } may have only in quotes. (The documentation has `AWS/EC2` without.)
fn needs_quotes(c: char) -> bool {
    !c.is_ascii_alphanumeric() && c != '/'
}

/// `{namespace, dimension, …}`. The next token is the last in the list.
fn schema(tokens: &mut Vec<Token>) -> Result<(String, Vec<String>), String> {
    let mut names = Vec::new();
    tokens.pop();
    loop {
        match tokens.pop() {
            Some(Token::Word(name)) if name.contains(needs_quotes) => {
                return Err(format!("{name} stands in quotes within {{ }}: CloudWatch takes no other"));
            }
            Some(Token::Word(name) | Token::Quoted(name)) => names.push(name),
            _ => return Err("within { } stand a namespace and dimensions, with commas between".into()),
        }
        match tokens.pop() {
            Some(Token::Mark(',')) => {}
            Some(Token::Mark('}')) => break,
            _ => return Err("the schema does not end with }".into()),
        }
    }
    // CloudWatch's own examples have a comma behind the schema at times.
    tokens.pop_if(|token| *token == Token::Mark(','));
    let namespace = names.remove(0);
    Ok((namespace, names))
}

fn any(tokens: &mut Vec<Token>, depth: usize) -> Result<Condition, String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".into());
    }
    let mut list = vec![all(tokens, depth)?];
    while tokens.pop_if(|token| is_word(token, "OR")).is_some() {
        list.push(all(tokens, depth)?);
    }
    Ok(if list.len() == 1 { list.remove(0) } else { Condition::Any(list) })
}

fn all(tokens: &mut Vec<Token>, depth: usize) -> Result<Condition, String> {
    let mut list = vec![term(tokens, depth)?];
    loop {
        tokens.pop_if(|token| is_word(token, "AND"));
        match tokens.last() {
            None | Some(Token::Mark(')')) => break,
            Some(token) if is_word(token, "OR") => break,
            Some(_) => list.push(term(tokens, depth)?),
        }
    }
    Ok(if list.len() == 1 { list.remove(0) } else { Condition::All(list) })
}

fn term(tokens: &mut Vec<Token>, depth: usize) -> Result<Condition, String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".into());
    }
    let is = |text, exactly| Condition::Is { what: None, text, exactly };
    match tokens.pop() {
        Some(Token::Mark('(')) => {
            let inner = any(tokens, depth + 1)?;
            match tokens.pop() {
                Some(Token::Mark(')')) => Ok(inner),
                _ => Err("a ( without its )".into()),
            }
        }
        Some(Token::Word(word)) if word == "NOT" => Ok(Condition::Not(Box::new(term(tokens, depth + 1)?))),
        Some(Token::Word(name) | Token::Quoted(name)) if tokens.last() == Some(&Token::Mark('=')) => {
            tokens.pop();
            Ok(term(tokens, depth + 1)?.about(&name))
        }
        Some(Token::Word(text)) => Ok(is(text, false)),
        Some(Token::Quoted(text)) => Ok(is(text, true)),
        Some(token) => Err(format!("{token:?} was not expected")),
        None => Err("it ends where something is missing".into()),
    }
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word == wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metric(name: &str, dimensions: &[(&str, &str)]) -> MetricId {
        let dimensions = dimensions.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        MetricId { namespace: "kassa-local".into(), name: name.into(), dimensions }
    }

    fn finds(search: &str, metric: &MetricId) -> bool {
        Search::parse(search).unwrap().finds(metric)
    }

    #[test]
    fn a_schema_is_a_namespace_and_exactly_these_dimensions() {
        let turnover = metric("turnover", &[("shop_id", "AMIS1")]);
        assert!(finds(r#"{"kassa-local","shop_id"} MetricName="turnover""#, &turnover));
        assert!(finds(r#"{"kassa-local", "shop_id"}"#, &turnover));
        assert!(!finds(r#"{"kassa-local"}"#, &turnover));
        assert!(!finds(r#"{"kassa-local","shop_id",class}"#, &turnover));
        assert!(!finds(r#"{"kassa-prod","shop_id"}"#, &turnover));
        assert!(!finds(r#"{"kassa-local","shop_id"} MetricName="turnover_today""#, &turnover));
        assert!(!finds("{AWS/Lambda,FunctionName}", &turnover));
    }

    #[test]
    fn terms_are_exact_in_quotes_and_partial_without_and_can_be_combined() {
        let wrong = metric("wrong_keys", &[("shop_id", "AMIS1"), ("class", "known")]);
        assert!(finds(r#"MetricName="wrong_keys" class="known""#, &wrong));
        assert!(!finds(r#"MetricName="wrong_keys" AND class="unknown""#, &wrong));
        assert!(finds(r#"class=("unknown" OR "known")"#, &wrong));
        assert!(finds("MetricName=wrong NOT amis2", &wrong));
        assert!(!finds("wrong NOT (AMIS2 OR amis1)", &wrong));
        assert!(!finds(r#""wrong""#, &wrong));
        assert!(!finds(r#"nothing="known""#, &wrong));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, why) in [
            ("", "nothing"),
            ("{a", "end"),
            ("{}", "namespace"),
            ("{kassa-local}", "kassa-local stands in quotes"),
            (r#"{"kassa-local",shop_id}"#, "shop_id stands in quotes"),
            ("(a", "without its )"),
            (r#""a"#, "quotes"),
            ("a OR", "missing"),
            ("a )", "not expected"),
        ] {
            let told = Search::parse(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"([a-z]|[{}()=," \\]|NOT |OR |AND ){0,80}"#) {
            let _ = Search::parse(&text);
        }
    }
}

//! From an expression's text to its tree.

use std::fmt;
use std::iter::Peekable;
use std::vec::IntoIter;

/// What an expression says.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Number(f64),
    /// In single or double quotes.
    Text(String),
    /// A query.
    Id(String),
    /// A word in capitals that is an argument: `REPEAT`, `DESC`.
    Word(String),
    Negative(Box<Self>),
    Operation(Op, Box<Self>, Box<Self>),
    Call {
        function: String,
        arguments: Vec<Self>,
    },
    Array(Vec<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Or,
    And,
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
    Plus,
    Minus,
    Times,
    Over,
    Power,
}

/// What is wrong with a text, and at which of its characters, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub at: usize,
    pub why: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at, self.why)
    }
}

/// What `CloudWatch` takes of an expression, in characters.
const LONGEST: usize = 2_048;

/// Parentheses within each other. Bounds what a hostile text makes the parser's stack do.
const DEEPEST: usize = 50;

/// Operations one after the other. What reads the tree goes down as far.
const MOST: usize = 200;

/// Reads an expression
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html#metric-math-syntax>).
///
/// # Errors
/// [`SyntaxError`].
pub fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.chars().count() > LONGEST {
        return Err(wrong(LONGEST + 1, format!("an expression has at most {LONGEST} characters")));
    }
    let end = text.chars().count() + 1;
    let tokens = tokens(text)?;
    if let Some((at, _)) = tokens.iter().filter(|(_, token)| matches!(token, Token::Op(_))).nth(MOST) {
        return Err(wrong(*at, format!("an expression has at most {MOST} operations")));
    }
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), end, depth: 0 };
    let expression = parser.expression(0)?;
    match parser.tokens.next() {
        None => Ok(expression),
        Some((at, token)) => Err(wrong(at, format!("{token} was not expected"))),
    }
}

fn wrong(at: usize, why: impl Into<String>) -> SyntaxError {
    SyntaxError { at, why: why.into() }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Text(String),
    Word(String),
    Op(Op),
    Mark(char),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) | Self::Word(text) => write!(f, "{text:?}"),
            Self::Op(op) => write!(f, "{op:?}"),
            Self::Mark(mark) => write!(f, "{mark:?}"),
        }
    }
}

/// Each with the place where it begins.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let all: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(&c) = all.get(next) {
        let begin = next;
        let length = |belongs: fn(char) -> bool| all[begin..].iter().take_while(|c| belongs(**c)).count();
        next += 1;
        let token = match c {
            c if c.is_whitespace() => continue,
            '0'..='9' | '.' => {
                next = begin + length(|c| c.is_ascii_digit() || c == '.');
                let number: String = all[begin..next].iter().collect();
                let number = number.parse();
                Token::Number(number.map_err(|_| wrong(begin + 1, "this is no number"))?)
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                next = begin + length(|c| c.is_ascii_alphanumeric() || c == '_');
                match &*all[begin..next].iter().collect::<String>() {
                    "AND" => Token::Op(Op::And),
                    "OR" => Token::Op(Op::Or),
                    word => Token::Word(word.to_owned()),
                }
            }
            '\'' | '"' => {
                let (text, behind) = quoted(&all, begin)?;
                next = behind;
                Token::Text(text)
            }
            '(' | ')' | '[' | ']' | ',' => Token::Mark(c),
            _ => {
                let (op, characters) = operator(c, all.get(next).copied())
                    .ok_or_else(|| wrong(begin + 1, format!("{c:?} means nothing here")))?;
                next = begin + characters;
                Token::Op(op)
            }
        };
        found.push((begin + 1, token));
    }
    Ok(found)
}

/// The text in the quotes that begin there, and the place behind them. A backslash takes the next character as it is
/// and stays: whoever searches needs it.
fn quoted(all: &[char], begin: usize) -> Result<(String, usize), SyntaxError> {
    let quote = all[begin];
    let mut text = String::new();
    let mut rest = all.iter().enumerate().skip(begin + 1);
    while let Some((at, &c)) = rest.next() {
        if c == quote {
            return Ok((text, at + 1));
        }
        text.push(c);
        if c == '\\'
            && let Some((_, &escaped)) = rest.next()
        {
            text.push(escaped);
        }
    }
    Err(wrong(begin + 1, "these quotes do not end"))
}

fn operator(first: char, second: Option<char>) -> Option<(Op, usize)> {
    Some(match (first, second) {
        ('=', Some('=')) => (Op::Equal, 2),
        ('!', Some('=')) => (Op::NotEqual, 2),
        ('<', Some('=')) => (Op::LessOrEqual, 2),
        ('>', Some('=')) => (Op::GreaterOrEqual, 2),
        ('&', Some('&')) => (Op::And, 2),
        ('|', Some('|')) => (Op::Or, 2),
        ('<', _) => (Op::Less, 1),
        ('>', _) => (Op::Greater, 1),
        ('+', _) => (Op::Plus, 1),
        ('-', _) => (Op::Minus, 1),
        ('*', _) => (Op::Times, 1),
        ('/', _) => (Op::Over, 1),
        ('^', _) => (Op::Power, 1),
        _ => return None,
    })
}

impl Op {
    /// What binds more tightly is done first.
    fn binds(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Equal
            | Self::NotEqual
            | Self::LessOrEqual
            | Self::GreaterOrEqual
            | Self::Less
            | Self::Greater => 3,
            Self::Plus | Self::Minus => 4,
            Self::Times | Self::Over => 5,
            Self::Power => 7,
        }
    }
}

/// A sign binds more tightly than a product, less than a power.
const SIGN: u8 = 6;

struct Parser {
    tokens: Peekable<IntoIter<(usize, Token)>>,
    end: usize,
    depth: usize,
}

impl Parser {
    /// Operands and operators that bind at least so tightly.
    fn expression(&mut self, tightly: u8) -> Result<Expr, SyntaxError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let at = self.tokens.peek().map_or(self.end, |(at, _)| *at);
            return Err(wrong(at, "this is nested too deeply"));
        }
        let mut left = self.operand()?;
        while let Some((_, Token::Op(op))) = self.tokens.peek() {
            let op = *op;
            if op.binds() < tightly {
                break;
            }
            self.tokens.next();
            // What is left of it is done first, but for powers.
            let right = self.expression(op.binds() + u8::from(op != Op::Power))?;
            left = Expr::Operation(op, Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<Expr, SyntaxError> {
        let Some((at, token)) = self.tokens.next() else {
            return Err(wrong(self.end, "the expression ends here, and something is missing"));
        };
        match token {
            Token::Number(number) => Ok(Expr::Number(number)),
            Token::Text(text) => Ok(Expr::Text(text)),
            Token::Op(Op::Minus) => Ok(Expr::Negative(Box::new(self.expression(SIGN)?))),
            Token::Mark('(') => {
                let inner = self.expression(0)?;
                self.mark(')')?;
                Ok(inner)
            }
            Token::Mark('[') => Ok(Expr::Array(self.list(']')?)),
            Token::Word(word) if matches!(self.tokens.peek(), Some((_, Token::Mark('(')))) => {
                self.tokens.next();
                Ok(Expr::Call { function: word, arguments: self.list(')')? })
            }
            Token::Word(word) if word.starts_with(|c: char| c.is_ascii_lowercase()) => Ok(Expr::Id(word)),
            Token::Word(word) if word.starts_with(|c: char| c.is_ascii_uppercase()) => Ok(Expr::Word(word)),
            token => Err(wrong(at, format!("{token} was not expected"))),
        }
    }

    /// Up to the mark, with commas between.
    fn list(&mut self, end: char) -> Result<Vec<Expr>, SyntaxError> {
        let mut list = Vec::new();
        if self.tokens.next_if(|(_, token)| *token == Token::Mark(end)).is_some() {
            return Ok(list);
        }
        loop {
            list.push(self.expression(0)?);
            if self.tokens.next_if(|(_, token)| *token == Token::Mark(',')).is_none() {
                self.mark(end)?;
                return Ok(list);
            }
        }
    }

    fn mark(&mut self, wanted: char) -> Result<(), SyntaxError> {
        match self.tokens.next() {
            Some((_, Token::Mark(mark))) if mark == wanted => Ok(()),
            Some((at, token)) => Err(wrong(at, format!("{wanted:?} was expected, not {token}"))),
            None => Err(wrong(self.end, format!("the expression ends here, and {wanted:?} is missing"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it is done, in parentheses.
    fn read(text: &str) -> String {
        fn show(expression: &Expr) -> String {
            let all = |list: &[Expr]| list.iter().map(show).collect::<Vec<_>>().join(", ");
            match expression {
                Expr::Number(number) => number.to_string(),
                Expr::Text(text) => format!("{text:?}"),
                Expr::Id(word) | Expr::Word(word) => word.clone(),
                Expr::Negative(of) => format!("-{}", show(of)),
                Expr::Operation(op, a, b) => format!("({} {op:?} {})", show(a), show(b)),
                Expr::Call { function, arguments } => format!("{function}({})", all(arguments)),
                Expr::Array(list) => format!("[{}]", all(list)),
            }
        }
        parse(text).map_or_else(|error| error.to_string(), |expression| show(&expression))
    }

    #[test]
    fn products_come_before_sums_before_comparisons_before_logic() {
        assert_eq!(read("a+b*c-d"), "((a Plus (b Times c)) Minus d)");
        assert_eq!(read("-a*2 > 1 AND b<=2||c"), "((((-a Times 2) Greater 1) And (b LessOrEqual 2)) Or c)");
        assert_eq!(read("a/b/c"), "((a Over b) Over c)");
        assert_eq!(read("2^3^2"), "(2 Power (3 Power 2))");
        assert_eq!(
            read("IF(m1>1, [m1, 2], FILL(m2, REPEAT))"),
            "IF((m1 Greater 1), [m1, 2], FILL(m2, REPEAT))"
        );
        assert_eq!(
            read(r#"METRICS("a")+SEARCH('{n} x="\"y"', 'Sum', 60)"#),
            r#"(METRICS("a") Plus SEARCH("{n} x=\"\\\"y\"", "Sum", 60))"#
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        assert_eq!(read("m1 +"), "at character 5: the expression ends here, and something is missing");
        assert_eq!(read("m1 m2"), r#"at character 4: "m2" was not expected"#);
        assert_eq!(read("SUM(m1"), "at character 7: the expression ends here, and ')' is missing");
        assert_eq!(read("m1 $ 2"), "at character 4: '$' means nothing here");
        assert_eq!(read("SUM('m1)"), "at character 5: these quotes do not end");
        assert_eq!(read("1.2.3"), "at character 1: this is no number");
        assert!(read(&"(".repeat(2_000)).contains("nested too deeply"));
        assert!(read(&"-".repeat(150)).contains("nested too deeply"));
        assert!(read(&"-".repeat(2_000)).contains("at most"));
        assert!(read(&"1+".repeat(1_000)).contains("at most 200 operations"));
        assert!(read(&"1+".repeat(2_000)).contains("at most 2048 characters"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_text_that_looks_like_an_expression_makes_it_panic(
            text in r#"([a-z0-9]{1,2}|[-+*/^<>=!&|(),\[\]'" ]|SUM\(|IF\(|AND|OR|REPEAT){0,60}"#
        ) {
            let _ = parse(&text);
        }
    }
}

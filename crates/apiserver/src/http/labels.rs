//! Label selectors as text, read as Kubernetes reads them: `a=b,c in (d,e),!f,g>1`.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::json;

use crate::error::FieldError;
use crate::strategy::{label_key, label_value};

/// One condition on an object's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Missing(String),
    /// The label is a number above this.
    Above(String, i64),
    /// The label is a number below this.
    Below(String, i64),
}

impl Requirement {
    pub(super) fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| label(key)?.parse::<i64>().ok();
        match self {
            Self::In(key, values) => label(key).is_some_and(|l| values.contains(l)),
            Self::NotIn(key, values) => label(key).is_none_or(|l| !values.contains(l)),
            Self::Exists(key) => label(key).is_some(),
            Self::Missing(key) => label(key).is_none(),
            Self::Above(key, least) => number(key).is_some_and(|n| n > *least),
            Self::Below(key, most) => number(key).is_some_and(|n| n < *most),
        }
    }
}

/// Reads a selector; the error is in the words of Kubernetes.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser { tokens: tokens(text).into_iter().peekable() };
    let mut all = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(all),
            Token::Word(_) | Token::Symbol("!") => {}
            other => return Err(format!("found '{other}', expected: !, identifier, or 'end of string'")),
        }
        let one = parser.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
        all.push(one);
        match parser.next() {
            Token::End => return Ok(all),
            Token::Symbol(",") => match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(format!("found '{other}', expected: identifier after ','")),
            },
            other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

impl std::fmt::Display for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(text) => out.write_str(text),
            Self::Symbol(text) => out.write_str(text),
            Self::End => Ok(()),
        }
    }
}

/// Two characters before one, so that the longest counts.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Vec<Token> {
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let symbol = SYMBOLS.into_iter().find_map(|s| Some((s, rest.strip_prefix(s)?)));
        rest = match symbol {
            Some((symbol, after)) => {
                all.push(Token::Symbol(symbol));
                after
            }
            None => {
                let ends = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<') || is_space(c);
                let (word, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
                all.push(Token::Word(word.to_owned()));
                after
            }
        }
        .trim_start_matches(is_space);
    }
    all
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

struct Parser {
    tokens: Peekable<IntoIter<Token>>,
}

impl Parser {
    fn peek(&mut self) -> Token {
        self.tokens.peek().cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let missing = self.peek() == Token::Symbol("!");
        if missing {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(format!("found '{other}', expected: identifier")),
        };
        if let Some(rule) = label_key(&key).first() {
            let error = FieldError::invalid("<nil>", &json!(key), rule);
            return Err(format!("{}: {}", error.field, error.message));
        }
        if missing {
            return Ok(Requirement::Missing(key));
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(Requirement::Exists(key));
        }
        match self.next() {
            Token::Word(word) if word == "in" => Ok(Requirement::In(key.clone(), self.values(&key)?)),
            Token::Word(word) if word == "notin" => Ok(Requirement::NotIn(key.clone(), self.values(&key)?)),
            Token::Symbol("=" | "==") => {
                Ok(Requirement::In(key.clone(), BTreeSet::from([self.value(&key)?])))
            }
            Token::Symbol("!=") => Ok(Requirement::NotIn(key.clone(), BTreeSet::from([self.value(&key)?]))),
            Token::Symbol(">") => Ok(Requirement::Above(key.clone(), self.number(&key)?)),
            Token::Symbol("<") => Ok(Requirement::Below(key.clone(), self.number(&key)?)),
            other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    /// The one value behind an operator, which may be empty.
    fn value(&mut self, key: &str) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => checked(key, 0, value),
            other => Err(format!("found '{other}', expected: identifier")),
        }
    }

    fn number(&mut self, key: &str) -> Result<i64, String> {
        let value = self.value(key)?;
        let rule = "for 'Gt', 'Lt' operators, the value must be an integer";
        value.parse().map_err(|_| {
            let error = FieldError::invalid("values[0]", &json!(value), rule);
            format!("{}: {}", error.field, error.message)
        })
    }

    /// `(a,b)`; what is missing beside a comma is an empty value.
    fn values(&mut self, key: &str) -> Result<BTreeSet<String>, String> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(format!("found '{other}' expected: '('")),
        }
        match self.peek() {
            Token::Word(_) | Token::Symbol(",") | Token::Symbol(")") => {}
            other => return Err(format!("found '{other}', expected: ',', ')' or identifier")),
        }
        let mut all = BTreeSet::new();
        loop {
            let value = match self.peek() {
                Token::Word(value) => {
                    self.next();
                    value
                }
                Token::Symbol("," | ")") => String::new(),
                other => return Err(format!("found '{other}', expected: ',', or identifier")),
            };
            all.insert(value);
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => break,
                other => return Err(format!("found '{other}', expected: ',' or ')'")),
            }
        }
        // By the alphabet, as messages number them.
        for (place, value) in all.iter().enumerate() {
            checked(key, place, value.clone())?;
        }
        Ok(all)
    }
}

fn checked(key: &str, place: usize, value: String) -> Result<String, String> {
    match label_value(&value).first() {
        None => Ok(value),
        Some(rule) => {
            let error = FieldError::invalid(&format!("values[{place}][{key}]"), &json!(value), rule);
            Err(format!("{}: {}", error.field, error.message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_as_kubernetes_tells_it() {
        for (text, why) in [
            ("==", "found '==', expected: !, identifier, or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("!=", "found '!=', expected: !, identifier, or 'end of string'"),
        ] {
            assert_eq!(parse(text).unwrap_err(), why, "{text}");
        }
        let number = parse("a>x").unwrap_err();
        assert!(number.ends_with("for 'Gt', 'Lt' operators, the value must be an integer"), "{number}");
        assert!(parse("a=-b").unwrap_err().contains("values[0][a]: Invalid value: \"-b\""));
    }

    #[test]
    fn numbers_are_compared() {
        let read = |text: &str| parse(text).unwrap().remove(0);
        let label = |value: &'static str| move |_: &str| Some(value);
        assert!(read("a>9").matches(label("10")) && !read("a>9").matches(label("9")));
        assert!(read("a<9").matches(label("-1")) && !read("a<9").matches(label("x")));
        assert!(!read("a<9").matches(|_: &str| None));
    }

    #[test]
    fn a_list_may_have_empty_values() {
        let values = |text: &str| match parse(text).unwrap().remove(0) {
            Requirement::In(_, values) => values.into_iter().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(values("a in ()"), [""]);
        assert_eq!(values("a in (,b)"), ["", "b"]);
        assert_eq!(values("a in (b,)"), ["", "b"]);
        assert_eq!(values("a in (in, notin)"), ["in", "notin"]);
    }
}

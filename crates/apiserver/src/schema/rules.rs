//! `x-kubernetes-validations`: rules in the Common Expression Language.
//!
//! A rule that this server cannot evaluate, since it is written with functions that it lacks, is skipped; the
//! definition's status names it. What evaluating costs is bounded before it starts.

mod convert;
mod cost;
mod functions;
mod walk;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use cel::parser::PrattParser;
use cel::{Context, ExecutionError, IdedExpr, Value as Cel};
use serde_json::Value;

pub(super) use walk::{check, skipped};

/// Bytes of one rule.
const MAX_RULE: usize = 16 * 1024;
/// Bytes of stack to read a rule with.
const PARSER_STACK: usize = 64 << 20;

/// One rule of a schema.
#[derive(Debug)]
pub(super) struct Rule {
    text: String,
    message: Option<String>,
    message_expression: Option<Expression>,
    reason: Option<String>,
    /// Path from the rule's place to the field that is told, such as `.spec.a`.
    field_path: String,
    /// Whether it is asked for new objects too, with an optional old one; this server cannot.
    optional_old: bool,
    rule: Expression,
}

/// An expression, compiled when it is first needed.
#[derive(Debug)]
struct Expression {
    text: String,
    compiled: OnceLock<Result<Compiled, String>>,
}

#[derive(Debug)]
struct Compiled {
    expression: IdedExpr,
    cost: cost::Cost,
    uses_old: bool,
}

/// How an evaluation ended.
enum Outcome {
    Value(Cel),
    /// The rule is wrong for this object: told to the client.
    Failed(String),
    /// Nothing can be said.
    Skipped,
}

impl Rule {
    /// The rules of a schema's node.
    pub(super) fn all(schema: &Value) -> Vec<Self> {
        let list = schema["x-kubernetes-validations"].as_array();
        list.into_iter().flatten().filter_map(Self::new).collect()
    }

    fn new(rule: &Value) -> Option<Self> {
        let text = |name: &str| rule[name].as_str().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        Some(Self {
            text: text("rule")?,
            message: text("message"),
            message_expression: text("messageExpression").map(Expression::new),
            reason: text("reason"),
            field_path: text("fieldPath").unwrap_or_default(),
            optional_old: rule["optionalOldSelf"] == Value::Bool(true),
            rule: Expression::new(text("rule")?),
        })
    }

    /// What the rule says of itself.
    fn told(&self) -> String {
        self.message.clone().unwrap_or_else(|| format!("failed rule: {}", self.text))
    }

    /// Why the rule is never evaluated here, if so.
    fn unsupported(&self) -> Option<String> {
        if self.optional_old {
            return Some(format!("{:?}: optionalOldSelf", self.text));
        }
        self.rule.get().err().map(|why| format!("{:?}: {why}", self.text))
    }
}

impl Expression {
    fn new(text: String) -> Self {
        Self { text, compiled: OnceLock::new() }
    }

    fn get(&self) -> Result<&Compiled, &str> {
        self.compiled.get_or_init(|| compile(&self.text)).as_ref().map_err(String::as_str)
    }
}

/// In a thread of its own, whose stack holds what the parser's recursion may take.
fn compile(text: &str) -> Result<Compiled, String> {
    if text.len() > MAX_RULE {
        return Err("too long".into());
    }
    let text = text.to_owned();
    let thread = std::thread::Builder::new().stack_size(PARSER_STACK).spawn(move || parse(&text));
    let parsed = thread.map_err(|e| e.to_string())?.join();
    // The parser is another's; whatever it does with odd text, this server goes on.
    parsed.unwrap_or_else(|_| Err("not understood".into()))
}

fn parse(text: &str) -> Result<Compiled, String> {
    let expression = PrattParser::new().parse(text);
    let expression =
        expression.map_err(|e| e.to_string().lines().next().unwrap_or("not understood").to_owned())?;
    let cost = cost::Cost::of(&expression).ok_or("nested too deep")?;
    let references = expression.references();
    if let Some(unknown) = references.functions().into_iter().find(|f| !functions::is_known(f)) {
        return Err(format!("the function {unknown} is not supported"));
    }
    let uses_old = references.has_variable("oldSelf");
    Ok(Compiled { expression, cost, uses_old })
}

fn evaluate(compiled: &Compiled, this: &Cel, old: Option<&Cel>) -> Outcome {
    let mut context = Context::with_env(functions::environment().clone());
    functions::add(&mut context);
    context.add_variable_from_value("self", this.clone());
    if let Some(old) = old {
        context.add_variable_from_value("oldSelf", old.clone());
    }
    match catch_unwind(AssertUnwindSafe(|| context.resolve(&compiled.expression))) {
        Ok(Ok(value)) => Outcome::Value(value),
        Ok(Err(error)) => failure(&error),
        Err(_) => Outcome::Skipped,
    }
}

/// Which errors are the object's fault, in Kubernetes' words.
fn failure(error: &ExecutionError) -> Outcome {
    match error {
        ExecutionError::NoSuchKey(key) => Outcome::Failed(format!("no such key: {key}")),
        ExecutionError::IndexOutOfBounds(index) => {
            Outcome::Failed(format!("index out of bounds: {}", convert::shown(index)))
        }
        ExecutionError::DivisionByZero(_) => Outcome::Failed("division by zero".into()),
        ExecutionError::RemainderByZero(_) => Outcome::Failed("modulus by zero".into()),
        ExecutionError::Overflow(..) => Outcome::Failed("integer overflow".into()),
        _ => Outcome::Skipped,
    }
}

#[cfg(test)]
mod tests;

//! What an evaluation costs at most, known before it starts: the library cannot be stopped on its way.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr};
use serde_json::Value;

/// Steps that all rules of one object may take.
pub(super) const BUDGET: u64 = 10_000_000;

/// Levels of an expression: each takes some ten kilobytes of stack to evaluate.
const MAX_DEPTH: u32 = 40;

/// The measure of an expression.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Cost {
    nodes: u64,
    /// Loops inside loops.
    nesting: u32,
    /// Operators that may make a list longer.
    growing: u64,
    /// Items of the longest list or map that is written out.
    written: u64,
    /// Whether it makes lists of texts.
    splits: bool,
    /// Expressions inside expressions: where the walk is, and the most.
    level: u32,
    deepest: u32,
}

impl Cost {
    /// None for an expression that is nested too deep to be evaluated.
    pub(super) fn of(expression: &IdedExpr) -> Option<Self> {
        let mut cost = Self::default();
        cost.add(expression, 0);
        (cost.deepest <= MAX_DEPTH).then_some(cost)
    }

    fn add(&mut self, expression: &IdedExpr, depth: u32) {
        self.level += 1;
        self.deepest = self.deepest.max(self.level);
        self.count(expression, depth);
        self.level -= 1;
    }

    fn count(&mut self, expression: &IdedExpr, depth: u32) {
        self.nodes += 1;
        self.nesting = self.nesting.max(depth);
        match &expression.expr {
            Expr::Call(call) => {
                match call.func_name.as_str() {
                    "_+_" => self.growing += 1,
                    "split" => self.splits = true,
                    _ => {}
                }
                call.target.iter().for_each(|target| self.add(target, depth));
                call.args.iter().for_each(|arg| self.add(arg, depth));
            }
            Expr::Comprehension(all) => {
                self.add(&all.iter_range, depth);
                self.add(&all.accu_init, depth);
                self.add(&all.loop_cond, depth + 1);
                self.add(&all.loop_step, depth + 1);
                self.add(&all.result, depth);
            }
            Expr::List(list) => {
                self.written = self.written.max(list.elements.len() as u64);
                list.elements.iter().for_each(|e| self.add(e, depth));
            }
            Expr::Select(select) => self.add(&select.operand, depth),
            Expr::Map(map) => {
                self.written = self.written.max(map.entries.len() as u64);
                map.entries.iter().for_each(|e| self.entry(&e.expr, depth));
            }
            Expr::Struct(fields) => fields.entries.iter().for_each(|e| self.entry(&e.expr, depth)),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn entry(&mut self, entry: &EntryExpr, depth: u32) {
        match entry {
            EntryExpr::StructField(field) => self.add(&field.value, depth),
            EntryExpr::MapEntry(entry) => {
                self.add(&entry.key, depth);
                self.add(&entry.value, depth);
            }
        }
    }

    /// Steps on a value, at most.
    pub(super) fn on(self, value: &Value) -> u64 {
        let longest = longest(value, self.splits).max(self.written).max(1);
        let rounds = longest.saturating_mul(self.growing + 1).saturating_pow(self.nesting);
        self.nodes.saturating_mul(rounds)
    }
}

/// Items of the longest list or map in a value, or bytes of the longest text.
fn longest(value: &Value, texts: bool) -> u64 {
    match value {
        Value::String(text) if texts => text.len() as u64,
        Value::Array(list) => list.iter().map(|v| longest(v, texts)).fold(list.len() as u64, u64::max),
        Value::Object(map) => map.values().map(|v| longest(v, texts)).fold(map.len() as u64, u64::max),
        _ => 0,
    }
}

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::oracle::Proto;

/// More members than this are shown in groups.
const LIMIT: usize = 40;

/// Whom a row or column stands for.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) workload: String,
    pub(super) is_node: bool,
}

/// Which protocols failed between two, in which family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// In IPv4 and in IPv6, a bit each.
    failed: [u8; 2],
    /// Whether anything came out as it should in IPv4, in IPv6.
    passed: [bool; 2],
}

impl Cell {
    pub(super) fn fail(&mut self, v6: bool, proto: Proto) {
        self.failed[usize::from(v6)] |= match proto {
            Proto::Icmp => 1,
            Proto::Tcp => 2,
            Proto::Udp => 4,
        };
    }

    pub(super) fn pass(&mut self, v6: bool) {
        self.passed[usize::from(v6)] = true;
    }

    fn merge(&mut self, other: Cell) {
        for family in [0, 1] {
            self.failed[family] |= other.failed[family];
            self.passed[family] |= other.passed[family];
        }
    }

    fn sign(self) -> char {
        let [v4, v6] = self.failed;
        match v4 | v6 {
            0 => '✓',
            // A family alone is told where the other is as it should be.
            _ if v6 == 0 && self.passed[1] => '4',
            _ if v4 == 0 && self.passed[0] => '6',
            1 => 'I',
            2 => 'T',
            4 => 'U',
            _ => '✗',
        }
    }
}

/// Rows send, columns receive. Each column's name stands above it, at the end of its line.
pub(super) fn render(names: &[Name], cells: &BTreeMap<(usize, usize), Cell>, colour: bool) -> String {
    let (labels, group) = groups(names);
    let mut grouped: BTreeMap<(usize, usize), Cell> = BTreeMap::new();
    for ((from, to), cell) in cells {
        if let (Some(from), Some(to)) = (group.get(*from), group.get(*to)) {
            grouped.entry((*from, *to)).or_default().merge(*cell);
        }
    }
    draw(&labels, &grouped, colour)
}

fn draw(labels: &[String], cells: &BTreeMap<(usize, usize), Cell>, colour: bool) -> String {
    let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max(9);
    let mut text = format!("{:width$}  to\n", "from");
    for (column, label) in labels.iter().enumerate() {
        let _ = writeln!(text, "{:width$}  {}┌ {label}", "", "│ ".repeat(column));
    }
    for (row, label) in labels.iter().enumerate() {
        let _ = write!(text, "{label:width$} ");
        for column in 0..labels.len() {
            let sign = cells.get(&(row, column)).map_or('·', |cell| cell.sign());
            let _ = match (colour, sign) {
                (true, '✓') => write!(text, " \x1b[32m✓\x1b[0m"),
                (true, '4' | '6' | 'I' | 'T' | 'U' | '✗') => write!(text, " \x1b[31m{sign}\x1b[0m"),
                _ => write!(text, " {sign}"),
            };
        }
        text.push('\n');
    }
    text.push_str(&legend(cells));
    text
}

/// Explains the signs that occur.
fn legend(cells: &BTreeMap<(usize, usize), Cell>) -> String {
    let signs: BTreeSet<char> = cells.values().map(|cell| cell.sign()).collect();
    let mut parts = Vec::new();
    for (sign, meaning) in [
        ('✓', "as it should be"),
        ('4', "IPv4 is not"),
        ('6', "IPv6 is not"),
        ('I', "ICMP is not"),
        ('T', "TCP is not"),
        ('U', "UDP is not"),
        ('✗', "more than one is not"),
    ] {
        if signs.contains(&sign) {
            parts.push(format!("{sign} {meaning}"));
        }
    }
    parts.push("· not probed".to_owned());
    format!("{}\n", parts.join("   "))
}

/// The rows' labels and each member's row: one each when they are few, otherwise by node, by
/// workload or by namespace, whichever is the finest that fits.
fn groups(names: &[Name]) -> (Vec<String>, Vec<usize>) {
    let single = |name: &Name| name.name.clone();
    let node = |name: &Name| match name.is_node {
        true => name.name.clone(),
        false => format!("pods on {}", name.node),
    };
    let workload = |name: &Name| name.workload.clone();
    let namespace = |name: &Name| match name.is_node {
        true => "nodes".to_owned(),
        false => name.name.split('/').next().unwrap_or_default().to_owned(),
    };
    let kinds: [&dyn Fn(&Name) -> String; 4] = [&single, &workload, &node, &namespace];
    let fits = kinds.iter().map(|kind| group_by(names, kind)).find(|(labels, _)| labels.len() <= LIMIT);
    fits.unwrap_or_else(|| group_by(names, &|name| if name.is_node { "nodes" } else { "pods" }.to_owned()))
}

fn group_by(names: &[Name], key: &dyn Fn(&Name) -> String) -> (Vec<String>, Vec<usize>) {
    let mut labels: Vec<String> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let place = |name: &Name| {
        let label = key(name);
        *places.entry(label.clone()).or_insert_with(|| {
            labels.push(label);
            labels.len() - 1
        })
    };
    let group = names.iter().map(place).collect();
    (labels, group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str, node: &str) -> Name {
        let is_node = name.starts_with("node/");
        Name { name: name.into(), node: node.into(), workload: format!("{name}-w"), is_node }
    }

    #[test]
    fn rows_and_columns_are_named() {
        let names = [name("shop/web-0", "node1"), name("shop/db-0", "node2"), name("node/node1", "node1")];
        let mut lossy = Cell::default();
        lossy.fail(false, Proto::Tcp);
        let mut dead = lossy;
        dead.fail(false, Proto::Udp);
        let mut ok = Cell::default();
        ok.pass(false);
        let mut six = ok;
        six.fail(true, Proto::Icmp);
        let cells = [
            ((2, 2), six),
            ((0, 0), ok),
            ((0, 1), lossy),
            ((0, 2), dead),
            ((1, 0), ok),
            ((1, 1), ok),
            ((2, 0), ok),
        ];
        let text = render(&names, &cells.into_iter().collect(), false);
        let expected = "\
from        to
            ┌ shop/web-0
            │ ┌ shop/db-0
            │ │ ┌ node/node1
shop/web-0  ✓ T ✗
shop/db-0   ✓ ✓ ·
node/node1  ✓ · 6
✓ as it should be   6 IPv6 is not   T TCP is not   ✗ more than one is not   · not probed
";
        assert_eq!(text, expected);
    }

    #[test]
    fn many_are_shown_in_groups_and_one_failure_marks_its_group() {
        let mut names: Vec<Name> =
            (0..60).map(|i| name(&format!("ns{}/p{i}", i % 3), &format!("node{}", i % 2))).collect();
        names.push(name("node/node0", "node0"));
        let mut bad = Cell::default();
        bad.fail(false, Proto::Icmp);
        let cells = [((0, 1), Cell::default()), ((2, 3), bad)].into_iter().collect();
        let text = render(&names, &cells, false);
        assert!(text.contains("pods on node0  · I ·"), "{text}");
        assert_eq!(text.lines().count(), 1 + 3 + 3 + 1);
    }
}

//! What a misspelt word may have meant.

/// `; did you mean X?` for the nearest of `known`, or nothing.
pub(super) fn hint<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let wanted = plain(word);
    // Longer words are no keys, and the comparison costs their product.
    let known = known.filter(|_| word.len() <= 64);
    let nearest = known.map(|known| (distance(&wanted, &plain(known)), known)).min();
    let near = |distance: usize| distance <= 1 + word.len() / 5;
    match nearest {
        Some((distance, known)) if near(distance) && word.len() > 1 => format!("; did you mean {known}?"),
        _ => String::new(),
    }
}

/// Edits of one character between two words, a swap of neighbours counting once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_meant() {
        let known = || ["isGateway", "ipMasq", "mtu", "rangeStart"].into_iter();
        assert_eq!(hint("isGatway", known()), "; did you mean isGateway?");
        assert_eq!(hint("ipmasq", known()), "; did you mean ipMasq?");
        assert_eq!(hint("range_start", known()), "; did you mean rangeStart?");
        assert_eq!(hint("mut", known()), "; did you mean mtu?");
        assert_eq!(hint("colour", known()), "");
        assert_eq!(hint("x", known()), "");
    }
}

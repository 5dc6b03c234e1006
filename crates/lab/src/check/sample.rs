use super::world::World;
use super::{CheckOptions, SAMPLE};

/// The pairs to probe, by their places in the members, and how many there are in all. Nodes do
/// not probe nodes: that is the underlay alone.
pub(super) fn pairs(world: &World, options: CheckOptions) -> (Vec<(usize, usize)>, usize) {
    let count = world.members.len();
    let wanted = |(from, to): &(usize, usize)| {
        let is_node = |at: usize| world.members.get(at).is_some_and(|m| m.is_node());
        !(is_node(*from) && is_node(*to))
    };
    let mut pairs: Vec<(usize, usize)> =
        (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(wanted).collect();
    let all = pairs.len();
    let limit = options.sample.unwrap_or(SAMPLE);
    if limit < all {
        choose(&mut pairs, limit, options.seed);
    }
    (pairs, all)
}

/// The connections to Services to try, and how many there are in all.
pub(super) fn knocks(world: &World, options: CheckOptions) -> (Vec<(usize, usize)>, usize) {
    let mut knocks = super::services::knocks(world);
    let all = knocks.len();
    let limit = options.sample.unwrap_or(SAMPLE);
    if limit < all {
        choose(&mut knocks, limit, options.seed);
    }
    (knocks, all)
}

/// The first steps of a Fisher-Yates shuffle; the chosen are put back in order.
fn choose(pairs: &mut Vec<(usize, usize)>, limit: usize, seed: u64) {
    let mut state = seed;
    for place in 0..limit {
        let left = (pairs.len() - place) as u64;
        let other = place + (splitmix64(&mut state) % left) as usize;
        pairs.swap(place, other);
    }
    pairs.truncate(limit);
    pairs.sort_unstable();
}

/// Steele, Lea and Flood's generator: small, and the same on every machine.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::world;

    #[test]
    fn every_ordered_pair_but_node_to_node() {
        let (pairs, all) = pairs(&world(), CheckOptions::default());
        assert_eq!((pairs.len(), all), (5 * 5 - 2 * 2, 21));
        assert!(pairs.contains(&(0, 0)));
        assert!(!pairs.contains(&(3, 4)));
    }

    #[test]
    fn a_sample_follows_from_its_seed_and_has_no_pair_twice() {
        let sample =
            |seed| pairs(&world(), CheckOptions { sample: Some(12), seed, ..CheckOptions::default() }).0;
        let one = sample(7);
        assert_eq!(one, sample(7));
        assert_ne!(one, sample(8));
        let mut unique = one.clone();
        unique.dedup();
        assert_eq!(unique.len(), 12);
    }
}

//! RFC 7606, case by case: what comes of each malformed attribute on a session with another AS and on one inside.

use super::*;
use Outcome::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The routes are believed, and nothing is said.
    Fine,
    /// The routes are believed without the attribute.
    Discarded,
    /// The routes are as if withdrawn.
    Withdrawn,
    /// The session ends.
    Reset(Reason),
}

/// Name, flags, type, value, what comes of it outside and inside.
type Case = (&'static str, u8, u8, Vec<u8>, Outcome, Outcome);

const WELL: u8 = 0x40;
const OPT: u8 = 0x80;
const BOTH: u8 = 0xc0;

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    [&[flags, code, value.len() as u8], value].concat()
}

fn origin() -> Vec<u8> {
    attribute(WELL, 1, &[0])
}

fn path() -> Vec<u8> {
    attribute(WELL, 2, &[2, 1, 0, 0, 0xfd, 0xe9])
}

fn next_hop() -> Vec<u8> {
    attribute(WELL, 3, &[192, 0, 2, 1])
}

fn body(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| (part.len() as u16).to_be_bytes();
    [&length(withdrawn)[..], withdrawn, &length(attributes), attributes, nlri].concat()
}

fn outcome(body: &[u8], terms: &Negotiated) -> Outcome {
    let bytes = message(2, body);
    let frame = frame(&bytes, true).unwrap().unwrap();
    let update = match Message::decode(&frame, Some(terms)) {
        Ok(Message::Update(update)) => update,
        Err(error) => return Reset(error.reason),
        other => panic!("{other:?}"),
    };
    let worst = update.malformed.iter().map(|malformed| malformed.action).max();
    let withdrawn: Vec<Nlri> = update.withdrawn().flat_map(|list| list.iter()).collect();
    let announced: Vec<Nlri> = update.into_announced().flat_map(|(_, list)| list.iter()).collect();
    match worst {
        Some(Action::Withdraw) => {
            assert!(announced.is_empty());
            assert_eq!(withdrawn, [v4("10.0.0.0/8")]);
            Withdrawn
        }
        worst => {
            assert_eq!(announced, [v4("10.0.0.0/8")]);
            if worst.is_some() { Discarded } else { Fine }
        }
    }
}

/// Cases of one attribute, put in the place of the good one of its type.
fn replaced(with: &[u8]) -> Vec<u8> {
    let good = [(1, origin()), (2, path()), (3, next_hop())];
    let others: Vec<u8> =
        good.into_iter().filter(|(code, _)| with[1] != *code).flat_map(|(_, good)| good).collect();
    body(&[], &[with, &others].concat(), &[8, 10])
}

#[test]
fn each_attribute_by_itself() {
    let unrecognised = Reset(Reason::UNRECOGNISED);
    let cases: Vec<Case> = vec![
        ("good", WELL, 1, vec![2], Fine, Fine),
        ("origin of length 0", WELL, 1, vec![], Withdrawn, Withdrawn),
        ("origin of length 2", WELL, 1, vec![0, 0], Withdrawn, Withdrawn),
        ("origin 3", WELL, 1, vec![3], Withdrawn, Withdrawn),
        ("origin 255", WELL, 1, vec![255], Withdrawn, Withdrawn),
        ("origin optional", BOTH, 1, vec![0], Withdrawn, Withdrawn),
        ("origin not transitive", 0, 1, vec![0], Withdrawn, Withdrawn),
        ("path empty", WELL, 2, vec![], Withdrawn, Fine),
        ("path of a segment of none", WELL, 2, vec![2, 0], Withdrawn, Withdrawn),
        ("path, a good segment and one of none", WELL, 2, vec![2, 1, 0, 0, 0, 1, 2, 0], Withdrawn, Withdrawn),
        ("path of 255 in room for one", WELL, 2, vec![2, 255, 0, 0, 0, 1], Withdrawn, Withdrawn),
        ("path with a byte too much", WELL, 2, vec![2, 1, 0, 0, 0, 1, 2], Withdrawn, Withdrawn),
        ("path of kind 0", WELL, 2, vec![0, 1, 0, 0, 0, 1], Withdrawn, Withdrawn),
        ("path of kind 5", WELL, 2, vec![5, 1, 0, 0, 0, 1], Withdrawn, Withdrawn),
        ("path with AS 0", WELL, 2, vec![2, 2, 0, 0, 0, 1, 0, 0, 0, 0], Withdrawn, Withdrawn),
        ("path of a set", WELL, 2, vec![1, 1, 0, 0, 0, 1], Fine, Fine),
        ("path of a confederation", WELL, 2, vec![3, 1, 0, 0, 0, 1], Withdrawn, Fine),
        ("path of a confederation's set", WELL, 2, vec![4, 1, 0, 0, 0, 1], Withdrawn, Fine),
        ("path optional", OPT | WELL, 2, vec![2, 1, 0, 0, 0, 1], Withdrawn, Withdrawn),
        ("next hop of length 0", WELL, 3, vec![], Withdrawn, Withdrawn),
        ("next hop of length 3", WELL, 3, vec![192, 0, 2], Withdrawn, Withdrawn),
        ("next hop of length 16", WELL, 3, vec![1; 16], Withdrawn, Withdrawn),
        ("next hop 0.0.0.0", WELL, 3, vec![0; 4], Withdrawn, Withdrawn),
        ("next hop 127.0.0.1", WELL, 3, vec![127, 0, 0, 1], Withdrawn, Withdrawn),
        ("next hop 224.0.0.1", WELL, 3, vec![224, 0, 0, 1], Withdrawn, Withdrawn),
        ("next hop 255.255.255.255", WELL, 3, vec![255; 4], Withdrawn, Withdrawn),
        ("next hop optional", BOTH, 3, vec![192, 0, 2, 1], Withdrawn, Withdrawn),
        ("MED", OPT, 4, vec![0, 0, 0, 9], Fine, Fine),
        ("MED of length 0", OPT, 4, vec![], Withdrawn, Withdrawn),
        ("MED of length 5", OPT, 4, vec![0; 5], Withdrawn, Withdrawn),
        ("MED well-known", WELL, 4, vec![0; 4], Withdrawn, Withdrawn),
        ("MED transitive", BOTH, 4, vec![0; 4], Withdrawn, Withdrawn),
        ("local-pref", WELL, 5, vec![0; 4], Discarded, Fine),
        ("local-pref of length 0", WELL, 5, vec![], Discarded, Withdrawn),
        ("local-pref of length 3", WELL, 5, vec![0; 3], Discarded, Withdrawn),
        ("local-pref optional", OPT, 5, vec![0; 4], Discarded, Withdrawn),
        ("atomic aggregate", WELL, 6, vec![], Fine, Fine),
        ("atomic aggregate of length 1", WELL, 6, vec![0], Discarded, Discarded),
        ("atomic aggregate optional", BOTH, 6, vec![], Withdrawn, Withdrawn),
        ("aggregator", BOTH, 7, vec![0, 0, 0, 1, 10, 0, 0, 1], Fine, Fine),
        ("aggregator of length 0", BOTH, 7, vec![], Discarded, Discarded),
        ("aggregator of length 6", BOTH, 7, vec![1; 6], Discarded, Discarded),
        ("aggregator of length 9", BOTH, 7, vec![1; 9], Discarded, Discarded),
        ("aggregator AS 0", BOTH, 7, vec![0, 0, 0, 0, 10, 0, 0, 1], Discarded, Discarded),
        ("aggregator well-known", WELL, 7, vec![1; 8], Withdrawn, Withdrawn),
        ("communities", BOTH, 8, vec![1; 252], Fine, Fine),
        ("communities of length 0", BOTH, 8, vec![], Withdrawn, Withdrawn),
        ("communities of length 3", BOTH, 8, vec![1; 3], Withdrawn, Withdrawn),
        ("communities of length 253", BOTH, 8, vec![1; 253], Withdrawn, Withdrawn),
        ("communities not transitive", OPT, 8, vec![1; 4], Withdrawn, Withdrawn),
        ("originator", OPT, 9, vec![1; 4], Discarded, Fine),
        ("originator of length 0", OPT, 9, vec![], Discarded, Withdrawn),
        ("originator of length 5", OPT, 9, vec![1; 5], Discarded, Withdrawn),
        ("originator transitive", BOTH, 9, vec![1; 4], Discarded, Withdrawn),
        ("clusters", OPT, 10, vec![1; 252], Discarded, Fine),
        ("clusters of length 0", OPT, 10, vec![], Discarded, Withdrawn),
        ("clusters of length 255", OPT, 10, vec![1; 255], Discarded, Withdrawn),
        ("clusters well-known", WELL, 10, vec![1; 4], Discarded, Withdrawn),
        ("extended communities", BOTH, 16, vec![1; 16], Fine, Fine),
        ("extended communities of length 0", BOTH, 16, vec![], Withdrawn, Withdrawn),
        ("extended communities of length 7", BOTH, 16, vec![1; 7], Withdrawn, Withdrawn),
        ("extended communities of length 12", BOTH, 16, vec![1; 12], Withdrawn, Withdrawn),
        ("extended communities not transitive", OPT, 16, vec![1; 8], Withdrawn, Withdrawn),
        ("AS4_PATH among four octets", BOTH, 17, vec![2, 1, 0, 0, 0, 1], Discarded, Discarded),
        ("AS4_PATH, malformed", BOTH, 17, vec![2, 0], Discarded, Discarded),
        ("AS4_AGGREGATOR among four octets", BOTH, 18, vec![1; 8], Discarded, Discarded),
        ("AS4_AGGREGATOR of length 3", BOTH, 18, vec![1; 3], Discarded, Discarded),
        ("large communities", BOTH, 32, vec![1; 24], Fine, Fine),
        ("large communities of length 0", BOTH, 32, vec![], Withdrawn, Withdrawn),
        ("large communities of length 8", BOTH, 32, vec![1; 8], Withdrawn, Withdrawn),
        ("large communities of length 13", BOTH, 32, vec![1; 13], Withdrawn, Withdrawn),
        ("large communities well-known", WELL, 32, vec![1; 12], Withdrawn, Withdrawn),
        ("unknown optional", OPT, 99, vec![1], Fine, Fine),
        ("unknown transitive", BOTH, 99, vec![], Fine, Fine),
        ("unknown of type 255", BOTH, 255, vec![1; 200], Fine, Fine),
        ("unknown of type 0", OPT, 0, vec![], Fine, Fine),
        ("unknown well-known", WELL, 99, vec![1], unrecognised, unrecognised),
        ("unknown, no flags", 0, 99, vec![1], unrecognised, unrecognised),
        ("unknown well-known of type 255", WELL, 255, vec![], unrecognised, unrecognised),
    ];
    for (name, flags, code, value, outside, inside) in cases {
        let body = replaced(&attribute(flags, code, &value));
        assert_eq!(outcome(&body, &terms(Relation::External)), outside, "{name}, outside");
        assert_eq!(outcome(&body, &terms(Relation::Internal)), inside, "{name}, inside");
        // Twice: the first counts, and whatever the second is.
        let mut twice = attribute(flags, code, &value);
        twice.extend(attribute(0, code, &[9; 9]));
        let at = |outcome| if outcome == Fine { Discarded } else { outcome };
        assert_eq!(outcome_of_twice(&twice, Relation::External), at(outside), "{name} twice, outside");
        assert_eq!(outcome_of_twice(&twice, Relation::Internal), at(inside), "{name} twice, inside");
    }
}

fn outcome_of_twice(twice: &[u8], relation: Relation) -> Outcome {
    outcome(&replaced(twice), &terms(relation))
}

#[test]
fn what_is_missing_or_runs_over() {
    let (outside, inside) = (terms(Relation::External), terms(Relation::Internal));
    let all = [origin(), path(), next_hop()];
    for missing in 0..3 {
        let rest: Vec<u8> =
            all.iter().enumerate().filter(|(i, _)| *i != missing).flat_map(|(_, a)| a.clone()).collect();
        for terms in [&outside, &inside] {
            assert_eq!(outcome(&body(&[], &rest, &[8, 10]), terms), Withdrawn, "attribute {}", missing + 1);
        }
    }
    assert_eq!(outcome(&body(&[], &[], &[8, 10]), &outside), Withdrawn);
    let all = all.concat();
    let with = |more: &[u8]| body(&[], &[&all[..], more].concat(), &[8, 10]);
    // Over the attributes' end, in each place that it can happen.
    for more in
        [&[BOTH, 8, 200, 1][..], &[BOTH, 8], &[BOTH], &[BOTH | 0x10, 8, 0], &[BOTH | 0x10, 8, 0xff, 0xff, 1]]
    {
        assert_eq!(outcome(&with(more), &outside), Withdrawn, "{more:?}");
    }
    // The worst of several counts.
    assert_eq!(
        outcome(&with(&[attribute(WELL, 6, &[1]), attribute(OPT, 4, &[])].concat()), &inside),
        Withdrawn
    );
    // A short value with a length of two octets is as good.
    assert_eq!(outcome(&with(&[OPT | 0x10, 4, 0, 4, 0, 0, 0, 1]), &outside), Fine);
    // Without routes there is nothing to withdraw, and no way to know that there were none (RFC 7606 5.2).
    let list = Reset(Reason::ATTRIBUTE_LIST);
    assert_eq!(outcome(&body(&[], &attribute(WELL, 1, &[7]), &[]), &outside), list);
    assert_eq!(outcome(&body(&[8, 10], &attribute(OPT, 4, &[]), &[]), &outside), list);
}

#[test]
fn prefixes_that_cannot_be_read_end_the_session() {
    let terms = terms(Relation::External);
    let all = [origin(), path(), next_hop()].concat();
    let network = Reset(Reason::NETWORK);
    for nlri in [&[33, 10, 0, 0, 0, 0][..], &[255], &[24, 10, 0], &[8, 10, 8]] {
        assert_eq!(outcome(&body(&[], &all, nlri), &terms), network, "{nlri:?}");
        assert_eq!(outcome(&body(nlri, &[], &[]), &terms), network, "{nlri:?} withdrawn");
    }
    let list = Reset(Reason::ATTRIBUTE_LIST);
    // Lengths over the message's end.
    assert_eq!(outcome(&[0, 9, 0, 0], &terms), list);
    assert_eq!(outcome(&[0xff, 0xff, 0, 0], &terms), list);
    assert_eq!(outcome(&[0, 2, 0, 0, 0], &terms), list);
    assert_eq!(outcome(&[0, 0, 0, 9, 1], &terms), list);
    assert_eq!(outcome(&[0, 0, 0xff, 0xff, 1], &terms), list);
    // Host bits mean nothing: this is 10.0.0.0/8.
    assert_eq!(outcome(&body(&[], &all, &[8, 10]), &terms), Fine);
    let bytes = message(2, &body(&[], &all, &[12, 10, 0xff]));
    let read = updates(&bytes, &terms).remove(0);
    let routes: Vec<Nlri> = read.into_announced().flat_map(|(_, list)| list.iter()).collect();
    assert_eq!(routes, [v4("10.240.0.0/12")]);
}

#[test]
fn multiprotocol_attributes() {
    let outside = terms(Relation::External);
    let global = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let base = [origin(), path()].concat();
    let reach =
        |flags: u8, value: &[u8]| body(&[], &[attribute(flags, 14, value), base.clone()].concat(), &[]);
    let v6 = |hop: &[u8], rest: &[u8]| [&[0, 2, 1, hop.len() as u8], hop, rest].concat();
    let reset = Reset(Reason::OPTIONAL_ATTRIBUTE);
    let broken: [Vec<u8>; 11] = [
        vec![],
        vec![0, 2],
        vec![0, 2, 1],
        vec![0, 2, 1, 16],
        v6(&global, &[]),
        v6(&global[..15], &[0]),
        v6(&[&global[..], &[0]].concat(), &[0]),
        v6(&[1; 48], &[0]),
        v6(&global, &[0, 129, 1]),
        v6(&global, &[0, 64, 0x20, 1]),
        // An IPv6 next hop for IPv4 that was not agreed on.
        [&[0, 1, 1, 16], &global[..], &[0, 8, 10]].concat(),
    ];
    for value in broken {
        assert_eq!(outcome(&reach(OPT, &value), &outside), reset, "{value:?}");
    }
    // A family that nobody spoke of is passed over, and so is what is in it.
    let read = |body: &[u8]| {
        let bytes = message(2, body);
        let update = updates(&bytes, &outside).remove(0);
        let withdrawn: Vec<Nlri> = update.withdrawn().flat_map(|list| list.iter()).collect();
        (withdrawn, update.end_of_rib, update.into_announced().count())
    };
    assert_eq!(read(&reach(OPT, &[0, 25, 70, 4, 1, 2, 3, 4, 0, 9])), (vec![], None, 0));
    let unreach = |value: &[u8]| body(&[], &attribute(OPT, 15, value), &[]);
    assert_eq!(read(&unreach(&[0, 25, 70])), (vec![], None, 0));
    assert_eq!(read(&unreach(&[0, 2, 1])), (vec![], Some(Family::Ipv6), 0));
    assert_eq!(read(&unreach(&[0, 1, 1])), (vec![], Some(Family::Ipv4), 0));
    for value in [&[][..], &[0, 2], &[0, 2, 1, 129], &[0, 2, 1, 64, 1]] {
        assert_eq!(outcome(&unreach(value), &outside), reset, "{value:?}");
    }
    // Either of them twice.
    let list = Reset(Reason::ATTRIBUTE_LIST);
    let twice = [attribute(OPT, 15, &[0, 2, 1]), attribute(OPT, 15, &[0, 2, 1])].concat();
    assert_eq!(outcome(&body(&[], &twice, &[]), &outside), list);
    // What can be read is withdrawn: wrong flags, no origin, next hops that lead nowhere.
    let route = [0, 16, 0x20, 1];
    let v6_net = Nlri { prefix: "2001::/16".parse().unwrap(), path: 0 };
    let gone = (vec![v6_net], None, 0);
    assert_eq!(read(&reach(BOTH, &v6(&global, &route))), gone);
    assert_eq!(read(&body(&[], &[attribute(OPT, 14, &v6(&global, &route)), path()].concat(), &[])), gone);
    for hop in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
        let hop = hop.parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert_eq!(read(&reach(OPT, &v6(&hop, &route))), gone, "{hop:?}");
    }
    assert_eq!(read(&reach(OPT, &v6(&global, &route))).2, 1);
}

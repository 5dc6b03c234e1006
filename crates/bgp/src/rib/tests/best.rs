//! The decision, and what is taken in at all.

use super::*;
use crate::message::{Community, Origin};
use Relation::{External, Internal};

const PREFIX: &str = "10.1.0.0/16";

/// How a peer stands to us, and what is special about its route.
type Side<'a> = (Relation, &'a dyn Fn(&mut Attributes));

/// Two peers tell a route; the second loses by that step, whoever came first.
fn second_loses(step: Step, one: Side<'_>, two: Side<'_>) {
    for order in [[0, 1], [1, 0]] {
        let mut world = World::new();
        world.rib.set_metric([10, 0, 9, 9].into(), None);
        world.rib.set_metric([10, 0, 9, 8].into(), Some(7));
        let sides = [one, two];
        for (relation, _) in sides {
            world.peer(relation, |peer, _| peer.route_server = true);
        }
        for at in order {
            let mut attributes = route(at as u8 + 1, sides[at].0);
            sides[at].1(&mut attributes);
            world.announce(at, PREFIX, &attributes);
        }
        let verdicts: BTreeMap<PeerId, Verdict> =
            world.rib.explain(&net(PREFIX)).into_iter().map(|(path, verdict)| (path.peer, verdict)).collect();
        assert_eq!(verdicts[&world.peers[0].id], Verdict::Best, "{step}");
        let lost = if step > Step::Metric { Verdict::Multipath(step) } else { Verdict::Lost(step) };
        assert_eq!(verdicts[&world.peers[1].id], lost, "{step}");
    }
}

#[test]
fn each_step_decides_in_its_turn() {
    let same: &dyn Fn(&mut Attributes) = &|_| {};
    let inside = (Internal, same);
    let (a, b) = ((External, same), (Internal, same));
    // Each with what the steps after it would decide the other way.
    second_loses(
        Step::NextHop,
        inside,
        (External, &|of| {
            of.next_hop = NextHop::V4([10, 0, 9, 9].into());
            of.local_pref = Some(900);
        }),
    );
    second_loses(
        Step::LongLivedStale,
        (Internal, &|of| of.local_pref = Some(1)),
        (Internal, &|of| {
            of.communities = [Community::LLGR_STALE].into();
        }),
    );
    second_loses(
        Step::LocalPref,
        (Internal, &|of| {
            of.local_pref = Some(101);
            of.as_path = AsPath::sequence(&[7; 9]);
        }),
        a,
    );
    second_loses(
        Step::AsPath,
        (Internal, &|of| of.origin = Origin::Egp),
        (External, &|of| of.as_path = AsPath::sequence(&[7, 7])),
    );
    second_loses(
        Step::Origin,
        (Internal, &|of| of.med = Some(9)),
        (Internal, &|of| of.origin = Origin::Incomplete),
    );
    let med = |med: u32, asn: u32| {
        move |of: &mut Attributes| {
            of.as_path = AsPath::sequence(&[asn, 7]);
            of.med = Some(med);
        }
    };
    second_loses(Step::Med, (Internal, &med(1, 6)), (External, &med(2, 6)));
    second_loses(Step::External, (External, &med(2, 6)), (Internal, &med(1, 8)));
    second_loses(
        Step::External,
        (External, &|of| of.next_hop = NextHop::V4([10, 0, 9, 8].into())),
        (Internal, &|of| {
            of.as_path = AsPath::sequence(&[7]);
        }),
    );
    second_loses(
        Step::Metric,
        b,
        (Internal, &|of| {
            of.next_hop = NextHop::V4([10, 0, 9, 8].into());
            of.originator = Some([1, 1, 1, 1].into());
        }),
    );
    second_loses(Step::Identifier, b, b);
    let through = |clusters: usize, id: u8| {
        move |of: &mut Attributes| {
            of.originator = Some([9, 9, 9, id].into());
            of.cluster_list = vec![[9, 9, 9, 9].into(); clusters].into();
        }
    };
    second_loses(Step::Identifier, (Internal, &through(4, 1)), (Internal, &through(1, 2)));
    second_loses(Step::Clusters, (Internal, &through(1, 1)), (Internal, &through(2, 1)));
    second_loses(Step::Address, (Internal, &through(1, 1)), (Internal, &through(1, 1)));
}

#[test]
fn meds_are_compared_within_an_as_whatever_came_first() {
    // The classic: A beats B by MED, B beats C, C beats A.
    let routes = [(1, 6, 10), (2, 6, 5), (3, 8, 0)];
    let mut bests = BTreeSet::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = World::new();
        routes.iter().for_each(|_| {
            world.peer(Internal, |_, _| {});
        });
        for at in order {
            let (number, asn, med) = routes[at];
            let mut attributes = route(number, Internal);
            attributes.as_path = AsPath::sequence(&[asn, 9]);
            attributes.med = Some(med);
            world.announce(at, PREFIX, &attributes);
        }
        bests.insert(world.best(PREFIX));
    }
    assert_eq!(bests, [Some(1)].into());
}

#[test]
fn equal_paths_share_the_packets() {
    let mut world = World::new();
    for number in 1..=3 {
        world.peer(Internal, |_, _| {});
        world.announce(usize::from(number) - 1, PREFIX, &route(number, Internal));
    }
    let hops = |world: &World| -> Vec<IpAddr> {
        world.rib.next_hops(&net(PREFIX)).iter().map(NextHop::address).collect()
    };
    let all: Vec<IpAddr> = (1..=3).map(|number| [10, 0, 0, number].into()).collect();
    assert_eq!(hops(&world), all);
    world.rib.set_metric(all[0], None);
    assert_eq!(world.rib.flush(usize::MAX).changed, [net(PREFIX)]);
    assert_eq!(hops(&world), all[1..]);
    // What is our own needs no next hop.
    world.rib.originate(net(PREFIX), route(100, Internal));
    assert!(hops(&world).is_empty());
    world.rib.withdraw(&net(PREFIX));
    assert_eq!(hops(&world), all[1..]);
}

#[test]
fn what_must_not_be_taken_is_refused_and_takes_the_old_one_away() {
    let refused: [(Refusal, Side<'_>); 6] = [
        (Refusal::AsLoop, (External, &|of| of.as_path = AsPath::sequence(&[OURS + 1, OURS]))),
        (Refusal::ReflectionLoop, (Internal, &|of| of.originator = Some(config().id))),
        (Refusal::ReflectionLoop, (Internal, &|of| of.cluster_list = [config().id].into())),
        (Refusal::FirstAs, (External, &|of| of.as_path = AsPath::sequence(&[9]))),
        (Refusal::OwnNextHop, (External, &|of| of.next_hop = NextHop::V4(config().id))),
        (Refusal::Policy, (External, &|of| of.as_path = AsPath::sequence(&[OURS + 1; 12]))),
    ];
    for (refusal, (relation, change)) in refused {
        let mut world = World::new();
        world.peer(relation, |peer, _| {
            let short = policy::Rule {
                matches: vec![policy::Match::PathLength(0..=9)],
                set: vec![],
                then: policy::Verdict::Accept,
            };
            peer.import =
                Some(Arc::new(policy::Policy { rules: vec![short], otherwise: policy::Verdict::Reject }));
        });
        world.announce(0, PREFIX, &route(1, relation));
        assert_eq!(world.best(PREFIX), Some(0));
        let mut attributes = route(1, relation);
        change(&mut attributes);
        world.announce(0, PREFIX, &attributes);
        assert_eq!(world.best(PREFIX), None, "{refusal:?}");
        let id = world.peers[0].id;
        assert_eq!(world.rib.counters(id).refused[refusal as usize], 1, "{refusal:?}");
        assert_eq!(world.rib.counters(id).paths.ipv4, 0);
        world.drain();
        assert!(world.rib.is_empty());
    }
    // Prefixes that nobody routes, from anyone.
    let mut world = World::new();
    world.peer(Internal, |_, _| {});
    world.announce(0, "127.0.0.0/8", &route(1, Internal));
    assert!(world.rib.is_empty());
    assert_eq!(world.rib.counters(world.peers[0].id).refused[Refusal::Prefix as usize], 1);
}

#[test]
fn without_policy_nothing_goes_to_or_comes_from_others_rfc_8212() {
    let mut world = World::new();
    let outside = world.peer(External, |peer, _| (peer.import, peer.export) = (None, None));
    let inside = world.peer(Internal, |_, _| {});
    world.announce(outside, PREFIX, &route(1, External));
    world.announce(inside, "10.2.0.0/16", &route(2, Internal));
    world.drain();
    assert_eq!(world.best(PREFIX), None);
    assert!(world.peers[outside].routes.is_empty());
}

#[test]
fn too_many_prefixes_are_told() {
    let mut world = World::new();
    world.peer(Internal, |peer, _| peer.max_prefixes.ipv4 = Some(2));
    let attributes = route(1, Internal);
    world.announce(0, "10.1.0.0/16", &attributes);
    world.announce(0, "10.2.0.0/16", &attributes);
    world.announce(0, "10.2.0.0/16", &attributes);
    let more = world.announce_path(0, "10.3.0.0/16", 0, &attributes);
    assert_eq!(more, Err(TooMany { family: Family::Ipv4, limit: 2 }));
    world.withdraw(0, "10.1.0.0/16", 0);
    world.announce(0, "10.2.0.0/16", &attributes);
}

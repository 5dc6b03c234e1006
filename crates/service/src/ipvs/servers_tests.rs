use proptest::prelude::*;
use weft_kernel::ipvs::Scheduler;

use super::*;

fn key(protocol: u8) -> ServerKey {
    ServerKey { at: "10.96.0.1:80".parse().unwrap(), protocol }
}

fn socket(last: u8) -> SocketAddr {
    SocketAddr::new([10, 244, 0, last].into(), 8080)
}

fn wanted(to: &[u8]) -> Wanted {
    Wanted {
        server: Server::new(Scheduler::RoundRobin, None),
        to: to.iter().map(|last| socket(*last)).collect(),
    }
}

/// Does what is to be done; says it in words.
fn step(servers: &mut Servers, protocol: u8, wanted: Option<&Wanted>, drains: bool) -> String {
    let mut steps = Steps::default();
    servers.compare(&key(protocol), wanted, drains, &mut steps);
    let mut words = Vec::new();
    for change in steps.first.iter().chain(&steps.last) {
        servers.note(change);
        let last = |at: &SocketAddr| at.ip().to_string().rsplit('.').next().unwrap().to_owned();
        words.push(match change {
            Change::Add(..) => "add".to_owned(),
            Change::Set(..) => "set".to_owned(),
            Change::Remove(_) => "remove".to_owned(),
            Change::AddDestination(_, at, weight) => format!("+{}={weight}", last(at)),
            Change::SetDestination(_, at, weight) => format!("{}={weight}", last(at)),
            Change::RemoveDestination(_, at) => format!("-{}", last(at)),
        });
    }
    words.join(" ")
}

fn ended(servers: &mut Servers, last: u8) {
    let server = servers.0.values_mut().next().unwrap();
    server.to.get_mut(&socket(last)).unwrap().connections = Some(0);
}

#[test]
fn an_endpoint_that_goes_is_waited_for() {
    let mut servers = Servers::default();
    let to = |list: &[u8]| Some(wanted(list));
    assert_eq!(step(&mut servers, 6, to(&[1, 2]).as_ref(), true), "add +1=1 +2=1");
    assert_eq!(step(&mut servers, 6, to(&[1, 2]).as_ref(), true), "");
    assert_eq!(step(&mut servers, 6, to(&[1, 3]).as_ref(), true), "+3=1 2=0");
    assert_eq!(
        step(&mut servers, 6, to(&[1, 3]).as_ref(), true),
        "",
        "its connections are not known to have ended"
    );
    assert_eq!(step(&mut servers, 6, to(&[1, 2]).as_ref(), true), "2=1 3=0", "it comes back");
    ended(&mut servers, 3);
    assert_eq!(step(&mut servers, 6, to(&[1, 2]).as_ref(), true), "-3");
    assert_eq!(step(&mut servers, 6, None, true), "1=0 2=0");
    ended(&mut servers, 1);
    assert_eq!(step(&mut servers, 6, None, true), "-1");
    ended(&mut servers, 2);
    assert_eq!(step(&mut servers, 6, None, true), "remove");
    assert!(!servers.any_at(key(6).at.ip()));
}

#[test]
fn who_does_not_wait_is_led_anew_at_once() {
    let mut servers = Servers::default();
    step(&mut servers, 6, Some(&wanted(&[1, 2])), false);
    assert_eq!(step(&mut servers, 6, Some(&wanted(&[1])), false), "-2");
    assert_eq!(step(&mut servers, 6, None, false), "remove");
}

proptest! {
    /// Whatever there was: who is wanted is there with its weight, and who is not gets nothing new.
    #[test]
    fn history_does_not_matter(
        history in proptest::collection::vec(proptest::option::of(proptest::collection::btree_set(1..6u8, 0..5)), 1..8),
        drains: bool,
    ) {
        let mut servers = Servers::default();
        for list in &history {
            let list = list.as_ref().map(|list| wanted(&list.iter().copied().collect::<Vec<_>>()));
            step(&mut servers, 6, list.as_ref(), drains);
        }
        let last = history.last().unwrap();
        let found = servers.0.get(&key(6));
        let open: BTreeSet<SocketAddr> = found.into_iter().flat_map(|server| &server.to)
            .filter(|(_, known)| known.weight != 0).map(|(at, _)| *at).collect();
        let expected = last.iter().flatten().map(|last| socket(*last)).collect::<BTreeSet<_>>();
        prop_assert_eq!(open, expected);
        prop_assert!(last.is_none() || found.is_some());
        prop_assert!(drains || last.is_some() || found.is_none());
    }
}

use proptest::prelude::*;
use weft_model::Mac;

use super::super::lease::Unusable;
use super::super::message::Options;
use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 50);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn client() -> Client {
    let mut provided = Options::default();
    provided.set(option::CLIENT_ID, *b"\0pod/net/eth0");
    let requested = vec![option::SUBNET_MASK, option::ROUTER];
    let (first_wait, longest_wait) = (s(4), s(64));
    Client::new(Config { mac: MAC, provided, requested, broadcast: false, first_wait, longest_wait }, 7)
}

fn sent(client: &mut Client) -> Vec<Transmit> {
    std::iter::from_fn(|| client.poll_transmit()).collect()
}

fn events(client: &mut Client) -> Vec<Event> {
    std::iter::from_fn(|| client.poll_event()).collect()
}

fn message(transmit: &Transmit) -> Message {
    match transmit {
        Transmit::Broadcast { message: bytes, .. } | Transmit::Unicast { message: bytes, .. } => {
            Message::decode(bytes).unwrap()
        }
        Transmit::Probe(_) => panic!("a probe"),
    }
}

/// What the server answers to a message.
fn answer(to: &Message, kind: u8, more: &[(u8, &[u8])]) -> Vec<u8> {
    let mut reply = Message { reply: true, yours: ADDRESS, ..Message::request(kind, to.xid, MAC) };
    reply.options.set(option::SERVER_ID, SERVER.octets());
    reply.options.set(option::SUBNET_MASK, [255, 255, 255, 0]);
    reply.options.set(option::LEASE_TIME, 1000u32.to_be_bytes());
    for (code, value) in more {
        reply.options.set(*code, *value);
    }
    reply.encode()
}

/// A client that has just asked for an address and got an offer.
fn requesting() -> (Client, Message) {
    let mut client = client();
    client.start(s(0));
    let discover = message(&sent(&mut client)[0]);
    client.handle_message(&answer(&discover, kind::OFFER, &[]), s(1));
    let request = message(&sent(&mut client)[0]);
    (client, request)
}

fn bound() -> Client {
    let (mut client, request) = requesting();
    client.handle_message(&answer(&request, kind::ACK, &[]), s(1));
    for _ in 0..2 {
        assert_eq!(sent(&mut client), [Transmit::Probe(ADDRESS)]);
        client.handle_timeout(client.poll_timeout().unwrap());
    }
    assert!(matches!(&events(&mut client)[..], [Event::Bound(lease)] if lease.address.addr() == ADDRESS));
    client
}

#[test]
fn an_address_is_found_probed_and_bound() {
    let mut client = client();
    client.start(s(0));
    let discover = message(&sent(&mut client)[0]);
    assert_eq!((discover.kind(), discover.mac, discover.broadcast), (Some(kind::DISCOVER), MAC, false));
    assert_eq!(discover.options.get(option::CLIENT_ID), Some(&b"\0pod/net/eth0"[..]));
    assert_eq!(discover.options.get(option::PARAMETERS), Some(&[1, 3][..]));
    client.handle_message(&answer(&discover, kind::OFFER, &[]), s(2));
    let request = message(&sent(&mut client)[0]);
    assert_eq!((request.kind(), request.secs), (Some(kind::REQUEST), 2));
    assert_eq!(request.options.address(option::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(request.options.address(option::SERVER_ID), Some(SERVER));
    let client = bound();
    assert_eq!(client.poll_timeout(), Some(s(501)));
    assert!(!client.listens());
}

#[test]
fn waits_double_to_the_longest_with_a_second_of_jitter() {
    let mut client = client();
    client.start(s(0));
    let mut now = s(0);
    for wait in [4, 8, 16, 32, 64, 64] {
        let next = client.poll_timeout().unwrap();
        assert!(s(wait - 1) <= next - now && next - now <= s(wait + 1), "{wait}: {:?}", next - now);
        client.handle_timeout(next - Duration::from_millis(1));
        assert_eq!(client.poll_timeout(), Some(next), "too early");
        client.handle_timeout(next);
        now = next;
    }
    let kinds: Vec<_> = sent(&mut client).iter().map(|t| message(t).kind()).collect();
    assert_eq!(kinds, [Some(kind::DISCOVER); 7]);
}

#[test]
fn what_is_for_another_client_is_passed_over() {
    let mut client = client();
    client.start(s(0));
    let discover = message(&sent(&mut client)[0]);
    let fair = Message::decode(&answer(&discover, kind::OFFER, &[])).unwrap();
    let mut stranger = fair.clone();
    stranger.options.set(option::CLIENT_ID, *b"\0other");
    let strangers = [
        Message { xid: fair.xid ^ 1, ..fair.clone() },
        Message { mac: Mac([2; 6]), ..fair.clone() },
        Message { reply: false, ..fair.clone() },
        stranger,
    ];
    for wrong in strangers {
        client.handle_message(&wrong.encode(), s(1));
        assert!(sent(&mut client).is_empty() && events(&mut client).is_empty(), "{wrong:?}");
    }
    client.handle_message(&fair.encode(), s(1));
    assert_eq!(sent(&mut client).len(), 1);
}

#[test]
fn of_two_servers_the_first_is_taken_and_the_others_ack_is_not() {
    let (mut client, request) = requesting();
    let other: [(u8, &[u8]); 1] = [(option::SERVER_ID, &[10, 1, 0, 2])];
    client.handle_message(&answer(&request, kind::OFFER, &other), s(1));
    client.handle_message(&answer(&request, kind::ACK, &other), s(1));
    client.handle_message(&answer(&request, kind::NAK, &other), s(1));
    assert!(sent(&mut client).is_empty() && events(&mut client).is_empty());
    client.handle_message(&answer(&request, kind::ACK, &[]), s(1));
    assert_eq!(sent(&mut client), [Transmit::Probe(ADDRESS)]);
}

#[test]
fn an_offer_of_no_use_is_passed_over_and_says_why() {
    let mut client = client();
    client.start(s(0));
    let discover = message(&sent(&mut client)[0]);
    client.handle_message(&answer(&discover, kind::OFFER, &[(option::LEASE_TIME, &[0; 4])]), s(1));
    assert_eq!(events(&mut client), [Event::PassedOver(Unusable::Short(0))]);
    assert!(sent(&mut client).is_empty());
}

#[test]
fn an_address_that_is_taken_is_declined_and_a_second_time_waits() {
    let (mut client, request) = requesting();
    client.handle_message(&answer(&request, kind::ACK, &[]), s(1));
    sent(&mut client);
    client.handle_conflict(s(2));
    assert_eq!(events(&mut client), [Event::Lost(ADDRESS, Loss::Taken)]);
    let [decline, discover] = &sent(&mut client)[..] else { panic!("DECLINE and DISCOVER") };
    let (decline, discover) = (message(decline), message(discover));
    assert_eq!((decline.kind(), discover.kind()), (Some(kind::DECLINE), Some(kind::DISCOVER)));
    assert_eq!(decline.options.address(option::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!(decline.options.get(option::PARAMETERS), None);
    client.handle_message(&answer(&discover, kind::OFFER, &[]), s(2));
    let request = message(&sent(&mut client)[0]);
    client.handle_message(&answer(&request, kind::ACK, &[]), s(2));
    sent(&mut client);
    client.handle_conflict(s(3));
    assert_eq!(sent(&mut client).len(), 1, "a DECLINE alone");
    assert_eq!(client.poll_timeout(), Some(s(13)));
}

#[test]
fn a_lease_is_renewed_by_its_server_then_by_any_and_then_it_is_over() {
    let mut client = bound();
    client.handle_timeout(s(501));
    let [Transmit::Unicast { from: ADDRESS, to: SERVER, message: bytes }] = &sent(&mut client)[..] else {
        panic!("a unicast")
    };
    let renew = Message::decode(bytes).unwrap();
    assert_eq!((renew.kind(), renew.client), (Some(kind::REQUEST), ADDRESS));
    assert_eq!(renew.options.get(option::SERVER_ID), None);
    assert_eq!(renew.options.get(option::REQUESTED_ADDRESS), None);
    // Half of what is left until T2, a minute at least.
    assert_eq!(client.poll_timeout(), Some(s(501 + (876 - 501) / 2) + Duration::from_millis(500)));
    let mut rebinding = Vec::new();
    loop {
        let next = client.poll_timeout().unwrap();
        client.handle_timeout(next);
        if let [Event::Lost(ADDRESS, Loss::Expired)] = events(&mut client)[..] {
            assert_eq!(next, s(1001));
            break;
        }
        rebinding.extend(
            sent(&mut client).into_iter().filter(|t| matches!(t, Transmit::Broadcast { from: ADDRESS, .. })),
        );
    }
    assert_eq!(rebinding.len(), 3, "at T2, half way and a minute later");
    assert_eq!(message(&sent(&mut client)[0]).kind(), Some(kind::DISCOVER));
}

#[test]
fn an_extension_counts_from_its_request() {
    let mut client = bound();
    client.handle_timeout(s(501));
    let renew = message(&sent(&mut client)[0]);
    client.handle_message(&answer(&renew, kind::ACK, &[]), s(503));
    assert!(matches!(&events(&mut client)[..], [Event::Bound(lease)] if lease.expiry == Some(s(1501))));
}

#[test]
fn another_server_may_extend_and_change_its_address() {
    let mut client = bound();
    client.handle_timeout(s(900));
    let rebind = message(&sent(&mut client)[0]);
    let moved: [(u8, &[u8]); 1] = [(option::SERVER_ID, &[10, 1, 0, 7])];
    client.handle_message(&answer(&rebind, kind::ACK, &moved), s(900));
    events(&mut client);
    client.handle_timeout(s(1400));
    let to = Ipv4Addr::new(10, 1, 0, 7);
    assert!(matches!(&sent(&mut client)[..], [Transmit::Unicast { to: other, .. }] if *other == to));
}

#[test]
fn a_refusal_ends_the_lease_and_another_address_replaces_it() {
    let mut client = bound();
    client.handle_timeout(s(501));
    let renew = message(&sent(&mut client)[0]);
    client.handle_message(&answer(&renew, kind::NAK, &[]), s(502));
    assert_eq!(events(&mut client), [Event::Lost(ADDRESS, Loss::Refused)]);
    assert_eq!(message(&sent(&mut client)[0]).kind(), Some(kind::DISCOVER));
    let mut client = bound();
    client.handle_timeout(s(501));
    let renew = message(&sent(&mut client)[0]);
    let mut other = Message::decode(&answer(&renew, kind::ACK, &[])).unwrap();
    other.yours = Ipv4Addr::new(10, 1, 0, 51);
    client.handle_message(&other.encode(), s(502));
    assert!(matches!(
        &events(&mut client)[..],
        [Event::Lost(ADDRESS, Loss::Changed), Event::Bound(lease)] if lease.address.addr() == other.yours
    ));
}

#[test]
fn a_lease_from_before_a_restart_is_asked_for_and_kept_when_nobody_answers() {
    let lease = bound().lease().unwrap().clone();
    let mut client = client();
    client.resume(lease.clone(), s(100));
    let request = message(&sent(&mut client)[0]);
    assert_eq!(request.options.address(option::REQUESTED_ADDRESS), Some(ADDRESS));
    assert_eq!((request.options.get(option::SERVER_ID), request.client), (None, Ipv4Addr::UNSPECIFIED));
    while events(&mut client).is_empty() {
        client.handle_timeout(client.poll_timeout().unwrap());
    }
    assert_eq!(client.lease(), Some(&lease));
    assert_eq!(client.poll_timeout(), lease.renewal);
    client.resume(lease, s(2000));
    assert_eq!(events(&mut client), [Event::Lost(ADDRESS, Loss::Expired)]);
}

#[test]
fn a_release_goes_to_the_server_with_the_identifier_alone() {
    let mut client = bound();
    client.release(s(10));
    let [Transmit::Unicast { to: SERVER, message: bytes, .. }] = &sent(&mut client)[..] else {
        panic!("unicast")
    };
    let release = Message::decode(bytes).unwrap();
    assert_eq!((release.kind(), release.client), (Some(kind::RELEASE), ADDRESS));
    assert!(
        release.options.get(option::CLIENT_ID).is_some() && release.options.get(option::PARAMETERS).is_none()
    );
    assert_eq!((client.poll_timeout(), client.lease()), (None, None));
    client.release(s(11));
    assert!(sent(&mut client).is_empty());
}

#[test]
fn a_lease_without_end_is_never_renewed() {
    let (mut client, request) = requesting();
    client.handle_message(&answer(&request, kind::ACK, &[(option::LEASE_TIME, &[0xff; 4])]), s(1));
    while events(&mut client).is_empty() {
        client.handle_timeout(client.poll_timeout().unwrap());
    }
    assert_eq!(client.poll_timeout(), None);
}

proptest! {
    /// Whatever comes in at whatever time: no panic, always either something to wait for or a
    /// lease without end, and never more to send than a few messages for each thing that came in.
    #[test]
    fn no_server_brings_it_out_of_step(
        steps in prop::collection::vec(
            (0u8..9, 0u64..700, any::<[u8; 4]>(), prop::collection::vec(any::<u8>(), 0..30)), 1..60,
        ),
    ) {
        let mut client = client();
        let mut now = s(0);
        client.start(now);
        let mut last = None;
        for (what, wait, number, bytes) in steps {
            let out = sent(&mut client);
            prop_assert!(out.len() <= 3, "{out:?}");
            last = out.into_iter().rev().find(|t| !matches!(t, Transmit::Probe(_))).or(last);
            now += s(wait);
            let seen = message(last.as_ref().unwrap());
            match what {
                0 => client.handle_conflict(now),
                1..=3 => client.handle_timeout(now),
                4 => client.handle_message(&bytes, now),
                5 => client.handle_message(&answer(&seen, kind::OFFER, &[(number[0], &bytes)]), now),
                6 => client.handle_message(&answer(&seen, kind::ACK, &[(51, &number), (number[0], &bytes)]), now),
                7 => client.handle_message(&answer(&seen, kind::NAK, &[]), now),
                _ => client.handle_message(&answer(&seen, kind::ACK, &[(51, &number)]), now),
            }
            events(&mut client);
            let endless = client.lease().is_some_and(|lease| lease.expiry.is_none());
            prop_assert!(client.poll_timeout().is_some() || endless);
        }
    }
}

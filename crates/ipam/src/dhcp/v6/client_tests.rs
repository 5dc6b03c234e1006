use proptest::prelude::*;

use super::*;

const DUID: [u8; 4] = [0, 4, 1, 1];
const IAID: u32 = 9;
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x50);

fn client(rapid_commit: bool) -> Client {
    Client::new(Config { duid: DUID.to_vec(), iaid: IAID, requested: vec![option::DNS], rapid_commit }, 3)
}

fn sent(client: &mut Client) -> Vec<Message> {
    std::iter::from_fn(|| client.poll_transmit()).map(|t| Message::decode(&t.0).unwrap()).collect()
}

fn events(client: &mut Client) -> Vec<Event> {
    std::iter::from_fn(|| client.poll_event()).collect()
}

fn association(address: Ipv6Addr, t1: u32, t2: u32, preferred: u32, valid: u32) -> Vec<u8> {
    let mut inner = Options::default();
    let value = [&address.octets()[..], &preferred.to_be_bytes(), &valid.to_be_bytes()].concat();
    inner.push(option::IA_ADDRESS, value);
    let mut bytes = [IAID, t1, t2].map(u32::to_be_bytes).concat();
    inner.encode(&mut bytes);
    bytes
}

fn answer(to: &Message, kind: u8, server: &[u8], more: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut options = Options::default();
    options.push(option::CLIENT_ID, DUID);
    options.push(option::SERVER_ID, server);
    for (code, value) in more {
        options.push(*code, &value[..]);
    }
    Message { kind, id: to.id, options }.encode()
}

fn address() -> (u16, Vec<u8>) {
    (option::IA_NA, association(ADDRESS, 0, 0, 600, 1000))
}

fn bound() -> Client {
    let mut client = client(true);
    client.start(s(0));
    let solicit = sent(&mut client).remove(0);
    let reply = answer(&solicit, kind::REPLY, b"one", &[address(), (option::RAPID_COMMIT, vec![])]);
    client.handle_message(&reply, s(0));
    assert!(matches!(&events(&mut client)[..], [Event::Bound(lease)] if lease.address == ADDRESS));
    client
}

#[test]
fn the_server_that_wants_it_most_within_the_first_second_is_asked() {
    let mut client = client(false);
    client.start(s(0));
    let solicit = sent(&mut client).remove(0);
    assert_eq!((solicit.kind, solicit.options.get(option::RAPID_COMMIT)), (kind::SOLICIT, None));
    for (server, preference) in [(b"one", 1), (b"two", 7), (b"six", 3)] {
        let more = [address(), (option::PREFERENCE, vec![preference])];
        client.handle_message(&answer(&solicit, kind::ADVERTISE, server, &more), s(0));
        assert!(sent(&mut client).is_empty());
    }
    let first = client.poll_timeout().unwrap();
    assert!(s(1) <= first && first <= s(1) + Duration::from_millis(200), "{first:?}");
    client.handle_timeout(first);
    let request = sent(&mut client).remove(0);
    assert_eq!((request.kind, request.options.get(option::SERVER_ID)), (kind::REQUEST, Some(&b"two"[..])));
    client.handle_message(&answer(&request, kind::REPLY, b"one", &[address()]), s(2));
    assert!(events(&mut client).is_empty(), "another server's");
    client.handle_message(&answer(&request, kind::REPLY, b"two", &[address()]), s(2));
    assert!(matches!(&events(&mut client)[..], [Event::Bound(_)]));
}

#[test]
fn a_server_of_preference_255_is_not_kept_waiting() {
    let mut client = client(false);
    client.start(s(0));
    let solicit = sent(&mut client).remove(0);
    let more = [address(), (option::PREFERENCE, vec![255])];
    client.handle_message(&answer(&solicit, kind::ADVERTISE, b"one", &more), s(0));
    assert_eq!(sent(&mut client).remove(0).kind, kind::REQUEST);
}

#[test]
fn a_lease_is_renewed_rebound_and_then_it_is_over() {
    let mut client = bound();
    assert_eq!(client.poll_timeout(), Some(s(300)), "half of the preferred time");
    client.handle_timeout(s(300));
    let renew = sent(&mut client).remove(0);
    assert_eq!((renew.kind, renew.options.get(option::SERVER_ID)), (kind::RENEW, Some(&b"one"[..])));
    let mut kinds = Vec::new();
    let lost = loop {
        client.handle_timeout(client.poll_timeout().unwrap());
        kinds.extend(sent(&mut client).iter().map(|m| m.kind));
        if let Some(event) = events(&mut client).pop() {
            break event;
        }
    };
    assert_eq!(lost, Event::Lost(ADDRESS, Loss::Expired));
    kinds.dedup();
    assert_eq!(kinds, [kind::RENEW, kind::REBIND, kind::SOLICIT]);
}

#[test]
fn a_server_that_forgot_is_asked_to_give_it_again() {
    let mut client = bound();
    client.handle_timeout(s(300));
    let renew = sent(&mut client).remove(0);
    let mut status = Options::default();
    status.push(option::STATUS, [0, 3]);
    let mut bytes = [IAID, 0, 0].map(u32::to_be_bytes).concat();
    status.encode(&mut bytes);
    client.handle_message(&answer(&renew, kind::REPLY, b"one", &[(option::IA_NA, bytes)]), s(301));
    let request = sent(&mut client).remove(0);
    assert_eq!(request.kind, kind::REQUEST);
    client.handle_message(&answer(&request, kind::REPLY, b"one", &[address()]), s(301));
    assert!(matches!(&events(&mut client)[..], [Event::Bound(lease)] if lease.expiry == Some(s(1301))));
}

#[test]
fn an_address_with_no_time_left_is_over_and_another_one_replaces_it() {
    let mut client = bound();
    client.handle_timeout(s(300));
    let renew = sent(&mut client).remove(0);
    let ended = (option::IA_NA, association(ADDRESS, 0, 0, 0, 0));
    client.handle_message(&answer(&renew, kind::REPLY, b"one", &[ended]), s(301));
    assert_eq!(events(&mut client), [Event::Lost(ADDRESS, Loss::Refused)]);
    let other = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x51);
    let mut client = bound();
    client.handle_timeout(s(300));
    let renew = sent(&mut client).remove(0);
    let changed = (option::IA_NA, association(other, 0, 0, 600, 1000));
    client.handle_message(&answer(&renew, kind::REPLY, b"one", &[changed]), s(301));
    assert!(matches!(
        &events(&mut client)[..],
        [Event::Lost(ADDRESS, Loss::Changed), Event::Bound(lease)] if lease.address == other
    ));
}

#[test]
fn after_a_restart_the_address_is_confirmed_or_another_one_looked_for() {
    let lease = bound().lease().unwrap().clone();
    for (status, kept) in [(0, true), (4, false)] {
        let mut client = client(true);
        client.resume(lease.clone(), s(10));
        let confirm = sent(&mut client).remove(0);
        assert_eq!((confirm.kind, confirm.options.get(option::SERVER_ID)), (kind::CONFIRM, None));
        let more = [(option::STATUS, vec![0, status])];
        client.handle_message(&answer(&confirm, kind::REPLY, b"two", &more), s(10));
        assert_eq!(matches!(&events(&mut client)[..], [Event::Bound(_)]), kept);
    }
    let mut client = client(true);
    client.resume(lease.clone(), s(10));
    while events(&mut client).is_empty() {
        client.handle_timeout(client.poll_timeout().unwrap());
    }
    assert_eq!(client.lease(), Some(&lease), "nobody answers");
    client.resume(lease, s(2000));
    assert_eq!(events(&mut client), [Event::Lost(ADDRESS, Loss::Expired)]);
}

#[test]
fn a_release_ends_with_the_answer_or_after_four_messages() {
    let mut client = bound();
    client.release(s(1));
    let release = sent(&mut client).remove(0);
    assert_eq!((release.kind, release.options.get(option::SERVER_ID)), (kind::RELEASE, Some(&b"one"[..])));
    client.handle_message(&answer(&release, kind::REPLY, b"one", &[]), s(1));
    assert_eq!(events(&mut client), [Event::Released]);
    let mut client = bound();
    client.release(s(1));
    let mut count = sent(&mut client).len();
    while events(&mut client).is_empty() {
        client.handle_timeout(client.poll_timeout().unwrap());
        count += sent(&mut client).len();
    }
    assert_eq!((count, client.poll_timeout()), (4, None));
}

#[test]
fn an_address_that_is_taken_is_declined() {
    let mut client = bound();
    client.handle_conflict(s(2));
    let kinds: Vec<u8> = sent(&mut client).iter().map(|m| m.kind).collect();
    assert_eq!(kinds, [kind::DECLINE, kind::SOLICIT]);
    assert_eq!(events(&mut client), [Event::Lost(ADDRESS, Loss::Taken)]);
}

#[test]
fn settings_come_without_an_address_too() {
    let mut client = client(false);
    client.inform(s(0));
    let question = sent(&mut client).remove(0);
    assert_eq!((question.kind, question.options.get(option::IA_NA)), (kind::INFORMATION_REQUEST, None));
    let dns = (option::DNS, ADDRESS.octets().to_vec());
    client.handle_message(&answer(&question, kind::REPLY, b"one", &[dns]), s(0));
    assert!(
        matches!(&events(&mut client)[..], [Event::Informed(options)] if options.get(option::DNS).is_some())
    );
}

#[test]
fn what_a_reply_says_about_the_network() {
    let mut client = client(true);
    client.start(s(0));
    let solicit = sent(&mut client).remove(0);
    let mut time = Options::default();
    time.push(1, ADDRESS.octets());
    time.push(3, *b"\x04time\0");
    let mut ntp = Vec::new();
    time.encode(&mut ntp);
    let more = [
        address(),
        (option::RAPID_COMMIT, vec![]),
        (option::DNS, [ADDRESS.octets(), ADDRESS.octets()].concat()),
        (option::SEARCH, b"\x04shop\x07example\0".to_vec()),
        (option::NTP, ntp),
    ];
    client.handle_message(&answer(&solicit, kind::REPLY, b"one", &more), s(0));
    let settings = client.lease().unwrap().settings();
    assert_eq!((settings.dns_servers.len(), settings.ntp_servers), (2, vec![ADDRESS.into()]));
    assert_eq!(settings.search, ["shop.example"]);
}

proptest! {
    #[test]
    fn no_server_brings_it_out_of_step(
        steps in prop::collection::vec(
            (0u8..8, 0u64..400, any::<[u32; 4]>(), prop::collection::vec(any::<u8>(), 0..40)), 1..60,
        ),
    ) {
        let mut client = client(true);
        let mut now = s(0);
        client.start(now);
        let mut last = None;
        for (what, wait, [t1, t2, preferred, valid], bytes) in steps {
            let mut out = sent(&mut client);
            prop_assert!(out.len() <= 3);
            last = out.pop().or(last);
            now += s(wait);
            let seen = last.as_ref().unwrap();
            let ia = (option::IA_NA, association(ADDRESS, t1, t2, preferred, valid));
            let rapid = (option::RAPID_COMMIT, vec![]);
            match what {
                0 => client.handle_conflict(now),
                1..=3 => client.handle_timeout(now),
                4 => client.handle_message(&bytes, now),
                5 => client.handle_message(&answer(seen, kind::ADVERTISE, b"one", &[ia]), now),
                6 => client.handle_message(&answer(seen, kind::REPLY, b"one", &[ia, rapid]), now),
                _ => client.handle_message(&answer(seen, kind::REPLY, b"one", &[(t1 as u16 % 60, bytes)]), now),
            }
            events(&mut client);
            let endless = client.lease().is_some_and(|lease| lease.expiry.is_none());
            prop_assert!(client.poll_timeout().is_some() || endless);
        }
    }
}

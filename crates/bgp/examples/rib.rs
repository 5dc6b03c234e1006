//! How long routes take on a CPU, and how much memory, from a peer's bytes to what other peers are sent; without sockets.
//! Ten /24 in each UPDATE, which has a MED of its own, as bench/ has it for BIRD.
//!
//! usage: cargo run --release -p weft-bgp --example rib

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::{IpNet, Ipv4Net};
use weft_bgp::Family;
use weft_bgp::PerFamily;
use weft_bgp::message::{
    self, AsPath, Attributes, Capabilities, Message, Negotiated, NextHop, Nlri, Open, Relation,
};
use weft_bgp::rib::{Config, Peer, PeerId, Rib};

const OURS: u32 = 64512;

fn terms(number: u32, relation: Relation) -> Negotiated {
    let open = |asn, id: u32| {
        let capabilities = Capabilities {
            families: Some(PerFamily { ipv4: true, ipv6: false }),
            four_octet_as: Some(asn),
            ..Capabilities::default()
        };
        Open { asn, hold: 90, id: Ipv4Addr::from_bits(0x0a00_0000 + id), capabilities }
    };
    let theirs = if relation == Relation::Internal { OURS } else { 65001 };
    Negotiated::new(&open(OURS, 0), &open(theirs, number), relation)
}

/// The UPDATEs of `count` routes.
fn feed(terms: &Negotiated, count: u32, med: u32) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for first in (0..count).step_by(10) {
        let mut attributes = Attributes::new(NextHop::V4(Ipv4Addr::new(192, 0, 2, 1)));
        attributes.as_path = AsPath::sequence(&[65001, 65100, 65200]);
        attributes.med = Some(med + first / 10);
        let prefix = |i: u32| -> Result<IpNet> {
            Ok(Ipv4Net::new(Ipv4Addr::from_bits((1 << 24) + i * 256), 24)?.into())
        };
        let routes: Result<Vec<Nlri>> =
            (first..count.min(first + 10)).map(|i| Ok(Nlri { prefix: prefix(i)?, path: 0 })).collect();
        message::announce(&mut out, terms, &attributes, Family::Ipv4, routes?)?;
    }
    Ok(out)
}

fn rib() -> Rib {
    let id = Ipv4Addr::new(10, 0, 0, 0);
    Rib::new(Config { asn: OURS, confederation: None, id, cluster: None, addresses: Default::default() })
}

fn peer(rib: &mut Rib, number: u32, relation: Relation) -> (PeerId, Negotiated) {
    let mut config = Peer::new(Ipv4Addr::from_bits(0x0a00_0000 + number).into());
    config.import = Some(std::sync::Arc::new(weft_bgp::policy::Policy::accept()));
    config.client = true;
    let terms = terms(number, relation);
    let id = rib.add_peer(config);
    rib.up(id, &terms);
    (id, terms)
}

/// Reads a stream into the RIB as a session would hand it over, deciding now and then.
fn read(
    rib: &mut Rib,
    from: PeerId,
    terms: &Negotiated,
    mut stream: &[u8],
    mut then: impl FnMut(&mut Rib),
) -> Result<()> {
    let mut updates = 0;
    while let Some(frame) = message::frame(stream, terms.extended_messages)? {
        stream = &stream[frame.length()..];
        let Message::Update(update) = Message::decode(&frame, Some(terms))? else { continue };
        rib.handle_update(from, update)?;
        updates += 1;
        if updates % 200 == 0 {
            rib.flush(usize::MAX);
            then(rib);
        }
    }
    rib.flush(usize::MAX);
    then(rib);
    Ok(())
}

/// How long this thread, the only one, has been on a CPU: what a busy machine takes from it does not count.
fn on_cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(Duration::from_nanos(stat.split(' ').next().context("no time on CPU")?.parse()?))
}

/// Resident memory in bytes.
fn resident() -> Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split(' ').nth(1).context("no resident pages")?.parse()?;
    Ok(pages * 4096)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn received(count: u32, peers: u32) -> Result<()> {
    let mut times = Vec::new();
    let mut memory = 0;
    for _ in 0..5 {
        let feeds: Result<Vec<_>> =
            (1..=peers).map(|i| feed(&terms(i, Relation::External), count, i * 1_000_000)).collect();
        let feeds = feeds?;
        let (mut rib, before) = (rib(), resident()?);
        let start = on_cpu()?;
        for (feed, number) in feeds.iter().zip(1..) {
            let (id, terms) = peer(&mut rib, number, Relation::External);
            read(&mut rib, id, &terms, feed, |_| {})?;
        }
        times.push(on_cpu()? - start);
        memory = memory.max(resident()?.saturating_sub(before));
        ensure!(rib.len() == count as usize);
    }
    let paths = (count * peers) as usize;
    println!(
        "{count} prefixes from {peers} peers: {:?}, {} MiB, {} bytes for each path",
        median(times),
        memory >> 20,
        memory / paths
    );
    Ok(())
}

fn reflected(count: u32, clients: u32) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let (mut rib, feed) = (rib(), feed(&terms(1, Relation::Internal), count, 0)?);
        let (from, terms) = peer(&mut rib, 1, Relation::Internal);
        let sinks: Vec<PeerId> = (2..2 + clients).map(|i| peer(&mut rib, i, Relation::Internal).0).collect();
        let mut sent = 0;
        let mut drain = |rib: &mut Rib| {
            for sink in sinks.iter().chain([&from]) {
                while let Some(bytes) = rib.poll_transmit(*sink) {
                    sent += bytes.len();
                }
            }
        };
        drain(&mut rib);
        let start = on_cpu()?;
        read(&mut rib, from, &terms, &feed, &mut drain)?;
        times.push(on_cpu()? - start);
        ensure!(sent > feed.len() * clients as usize);
    }
    println!("{count} routes from one client to {clients} others: {:?}", median(times));
    Ok(())
}

fn decoded(count: u32) -> Result<()> {
    let terms = terms(1, Relation::External);
    let mut out = Vec::new();
    let attributes = Attributes {
        as_path: AsPath::sequence(&[65001]),
        ..Attributes::new(NextHop::V4([192, 0, 2, 1].into()))
    };
    for first in (0..count).step_by(200) {
        let route = |i: u32| Nlri {
            prefix: Ipv4Net::new_assert(Ipv4Addr::from_bits((1 << 24) + i * 256), 24).into(),
            path: 0,
        };
        message::announce(&mut out, &terms, &attributes, Family::Ipv4, (first..first + 200).map(route))?;
    }
    // The kernel counts in ticks.
    let rounds = 500;
    let start = on_cpu()?;
    for _ in 0..rounds {
        let (mut rest, mut seen) = (&out[..], 0);
        while let Some(frame) = message::frame(rest, false)? {
            rest = &rest[frame.length()..];
            if let Message::Update(update) = Message::decode(&frame, Some(&terms))? {
                seen += update.into_announced().map(|(_, list)| list.iter().count()).sum::<usize>();
            }
        }
        ensure!(seen == count as usize);
    }
    println!("{count} prefixes decoded, 200 in each UPDATE: {:?}", (on_cpu()? - start) / rounds);
    Ok(())
}

fn main() -> Result<()> {
    decoded(100_000)?;
    received(500_000, 1)?;
    received(250_000, 4)?;
    received(1_000_000, 4)?;
    reflected(100_000, 10)?;
    reflected(100_000, 100)
}

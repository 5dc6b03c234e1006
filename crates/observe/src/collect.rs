//! Watches every place while the probe is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use weft_kernel::capture::{Capture, Frame, PacketKind};
use weft_kernel::nft::{
    ChainKind, Expr, Family, Hook, Nft, Rule, Ruleset, Side, Table, TraceEvent, TraceMonitor, Transaction,
    Verdict,
};

use crate::decode::{self, Packet, proto};
use crate::probe::{Place, Probe, Role, Signature};
use crate::report::Protocol;
use crate::{Error, Result};

/// How the name of the temporary table starts that marks the probe for nftables' own trace; a
/// number follows, so that traces at the same time do not meet.
pub const TRACE_TABLE: &str = "weft-trace";

// Before every chain of others: raw is at -300.
const FIRST: i32 = -450;
// Connections of others that begin meanwhile; more of them than this are not looked at.
const MOST_FRAMES: usize = 20_000;
const SLICE: Duration = Duration::from_millis(50);

/// A frame that may be the probe's, and where.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) place: usize,
    pub(crate) frame: Frame,
}

impl Sighting {
    pub(crate) fn packet(&self) -> Option<Packet<'_>> {
        if self.frame.ethernet { decode::frame(&self.frame.bytes) } else { decode::packet(&self.frame.bytes) }
    }
}

/// A drop by nftables, with the rule in words.
#[derive(Clone, Debug)]
pub(crate) struct Dropped {
    pub(crate) place: usize,
    pub(crate) text: String,
}

/// The open sockets: everything from now on is seen.
pub(crate) struct Watch {
    captures: Vec<(usize, Capture)>,
    tracers: Vec<Tracer>,
    sightings: Vec<Sighting>,
}

struct Tracer {
    place: usize,
    monitor: TraceMonitor,
    events: Vec<TraceEvent>,
    /// Owns the temporary table: the kernel removes it when this closes, whatever happens to us.
    nft: Nft,
}

impl Watch {
    /// Opens a capture in each of `watched` (indexes into `places`), and a trace where there are
    /// nftables to drop anything.
    pub(crate) fn open(places: &[Place], watched: &[usize], probe: &Probe) -> Result<Watch> {
        let mut watch = Watch { captures: Vec::new(), tracers: Vec::new(), sightings: Vec::new() };
        for &place in watched {
            let netns = &places[place].netns;
            let at = |source| Error::Watch { place: places[place].name.clone(), source };
            watch.captures.push((place, Capture::open_in(netns).map_err(at)?));
            let at = |source| Error::Watch { place: places[place].name.clone(), source };
            let mut nft = Nft::open_in(netns).map_err(at)?;
            // Without nftables in the kernel there is nothing that drops by it.
            let Ok(tables) = nft.tables() else { continue };
            if tables.iter().all(|t| t.name.starts_with(TRACE_TABLE)) {
                continue;
            }
            let monitor = TraceMonitor::open_in(netns).map_err(at)?;
            let at = |source| Error::Watch { place: places[place].name.clone(), source };
            nft.apply(&marking(probe, &table_name(&nft))).map_err(at)?;
            watch.tracers.push(Tracer { place, monitor, events: Vec::new(), nft });
        }
        Ok(watch)
    }

    /// Collects until the answer is back at the source, the probe is known to be dropped, or the
    /// time is over.
    pub(crate) fn run(&mut self, signature: &mut Signature, probe: &Probe, from: usize) -> Result<()> {
        let deadline = Instant::now() + probe.timeout;
        loop {
            self.drain(signature)?;
            self.learn_sequence(signature, from);
            if self.finished(signature, from) {
                // What happened before the last frame is in the sockets by now.
                return self.drain(signature);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.wait(left.min(SLICE))?;
        }
    }

    /// What was seen, and how many frames were missed.
    pub(crate) fn sightings(&mut self) -> Result<(Vec<Sighting>, u32)> {
        let mut missed = 0;
        for (_, capture) in &mut self.captures {
            missed += capture.dropped().map_err(Error::Kernel)?;
        }
        Ok((std::mem::take(&mut self.sightings), missed))
    }

    /// Where nftables dropped the probe or its answer.
    pub(crate) fn dropped(&mut self, signature: &Signature) -> Vec<Dropped> {
        let mut out = Vec::new();
        for tracer in &mut self.tracers {
            for event in tracer.drops(signature) {
                out.push(Dropped { place: tracer.place, text: tracer.explain(&event) });
            }
        }
        out
    }

    fn finished(&self, signature: &Signature, from: usize) -> bool {
        let answered = self.sightings.iter().filter(|s| s.place == from).any(|s| {
            let role = s.packet().and_then(|p| signature.role(&p));
            let ends = matches!(role, Some(Role::Reply | Role::Refusal(_)));
            ends && s.frame.kind == PacketKind::Host
        });
        answered || self.tracers.iter().any(|t| !t.drops(signature).is_empty())
    }

    fn learn_sequence(&self, signature: &mut Signature, from: usize) {
        if signature.proto == Protocol::Tcp && signature.tcp_seq.is_none() {
            let at_source = self.sightings.iter().filter(|s| s.place == from);
            signature.tcp_seq = at_source.filter_map(|s| signature.syn(&s.packet()?)).next();
        }
    }

    fn drain(&mut self, signature: &Signature) -> Result<()> {
        for (place, capture) in &mut self.captures {
            while let Some(frame) = capture.try_next().map_err(Error::Kernel)? {
                let sighting = Sighting { place: *place, frame };
                let keep = sighting.packet().is_some_and(|p| signature.candidate(&p));
                if keep && self.sightings.len() < MOST_FRAMES {
                    self.sightings.push(sighting);
                }
            }
        }
        for tracer in &mut self.tracers {
            tracer.events.extend(tracer.monitor.ready().map_err(Error::Kernel)?);
        }
        Ok(())
    }

    fn wait(&self, time: Duration) -> Result<()> {
        let mut fds: Vec<PollFd<'_>> =
            self.captures.iter().map(|(_, c)| PollFd::new(c, PollFlags::IN)).collect();
        fds.extend(self.tracers.iter().map(|t| PollFd::new(&t.monitor, PollFlags::IN)));
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        match poll(&mut fds, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(Error::Send(e.into())),
        }
    }
}

impl Tracer {
    /// The drops of packets that are ours: one event of each packet shows its headers.
    fn drops(&self, signature: &Signature) -> Vec<TraceEvent> {
        let ours: BTreeSet<u32> =
            self.events.iter().filter(|e| is_ours(e, signature)).map(|e| e.id).collect();
        let drops = self.events.iter().filter(|e| e.verdict == Verdict::Drop && ours.contains(&e.id));
        // A packet ends once: one event for each.
        drops.map(|e| (e.id, e.clone())).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    fn explain(&mut self, event: &TraceEvent) -> String {
        let wher = format!("table {} chain {}", event.table, event.chain);
        let Some(handle) = event.handle else { return format!("by the policy of nft {wher}") };
        let rules = self.nft.rules(event.table.family, &event.table.name).unwrap_or_default();
        match rules.iter().find(|r| r.handle == handle) {
            Some(rule) => format!("by the nft rule `{}` in {wher}", rule.rule),
            None => format!("by the nft rule with handle {handle} in {wher}"),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // The kernel does it too when the socket closes, but a child forked by another thread
        // may hold the socket a little longer.
        let mut transaction = Transaction::default();
        transaction.delete_table(&Table::new(Family::Inet, &table_name(&self.nft)));
        let _ = self.nft.apply(&transaction);
    }
}

fn table_name(nft: &Nft) -> String {
    format!("{TRACE_TABLE}-{}", nft.port())
}

fn is_ours(event: &TraceEvent, signature: &Signature) -> bool {
    let Some((ip, rest)) = decode::split(&event.network, &event.transport) else { return false };
    let packet = Packet { macs: None, outer: None, ip, transport: decode::transport(&ip, &rest) };
    signature.role(&packet).is_some()
}

/// Marks what goes to the probe's destination and what comes from there.
fn marking(probe: &Probe, name: &str) -> Transaction {
    let number = match (probe.proto, probe.dst.is_ipv4()) {
        (Protocol::Icmp, true) => proto::ICMP,
        (Protocol::Icmp, false) => proto::ICMPV6,
        (Protocol::Tcp, _) => proto::TCP,
        (Protocol::Udp, _) => proto::UDP,
    };
    let rule = |address: Expr, side: Side| {
        let port = (probe.proto != Protocol::Icmp).then_some(Expr::Port { side, port: probe.port });
        let exprs = [Expr::l4proto(number), address].into_iter().chain(port).chain([Expr::Trace]);
        Rule::new("weft trace", exprs)
    };
    let dst = IpNet::from(probe.dst);
    let rules = vec![rule(Expr::daddr(dst), Side::Destination), rule(Expr::saddr(dst), Side::Source)];
    let table = Ruleset::new(Family::Inet, name)
        .with_base_chain("prerouting", ChainKind::Filter, Hook::Prerouting, FIRST, rules.clone())
        .with_base_chain("output", ChainKind::Filter, Hook::Output, FIRST, rules);
    let mut transaction = Transaction::default();
    table.add_to(&mut transaction, true);
    transaction
}

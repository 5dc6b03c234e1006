use crate::collect::Watch;
use crate::path::{self, Observation};
use crate::probe::{Place, Probe, Role};
use crate::report::{Finding, FindingKind, Outcome, Trace};
use crate::tables::Tables;
use crate::{Error, Result, send, verdict};

/// Sends the probe and reports what was seen of it. Blocks until the answer is back, at most
/// about the probe's timeout.
///
/// While it runs, a table whose name starts with [`crate::TRACE_TABLE`] exists in those places that have nftables
/// tables, so that a drop can be named; it vanishes with the sockets, even if this process dies.
pub fn trace(places: &[Place], probe: &Probe) -> Result<Trace> {
    let same = same_namespaces(places)?;
    let canonical = |index: usize| same.get(index).copied().ok_or(Error::NoSuchPlace(index));
    let from = canonical(probe.from)?;
    let to = probe.to.map(canonical).transpose()?;
    let watched: Vec<usize> = (0..places.len()).filter(|i| same[*i] == *i).collect();

    let mut watch = Watch::open(places, &watched, probe)?;
    let sent = places[from].netns.run(|| send::send(probe)).map_err(Error::Kernel)?.map_err(Error::Send)?;
    let mut signature = sent.signature.clone();
    if sent.error.is_none() {
        watch.run(&mut signature, probe, from)?;
    }
    let dropped = watch.dropped(&signature);
    let (sightings, frames_missed) = watch.sightings()?;
    drop(watch);

    let mut tables = Tables::read_all(places, &watched)?;
    let observations = path::observe(&sightings, &signature);
    let forward = path::select(&observations, |o| o.role == Role::Forward);
    let reply = path::select(&observations, |o| o.role != Role::Forward);
    let exchange =
        verdict::Exchange { places, from, to, probe, forward: &forward, reply: &reply, dropped: &dropped };
    let mut outcome = verdict::judge(&exchange, &mut tables);
    if let (Some(error), Outcome::Lost(lost)) = (&sent.error, &mut outcome) {
        let text = format!("the kernel refused to send it: {error}");
        let place = places[from].name.clone();
        lost.findings.insert(0, Finding { place, kind: FindingKind::NotSent, guess: false, text });
    }
    let start = observations.iter().map(|o: &Observation| o.at).min().unwrap_or(0);
    Ok(Trace {
        from: places[probe.from].name.clone(),
        to: probe.to.map(|to| places[to].name.clone()),
        src: forward.first().map(|o| o.src.0).or(probe.src),
        dst: probe.dst,
        proto: probe.proto,
        port: signature.dport,
        outcome,
        forward: path::hops(&forward, places, &mut tables, start),
        reply: path::hops(&reply, places, &mut tables, start),
        frames_missed,
    })
}

/// For each place the first one with the same namespace: a host-network pod is its node.
fn same_namespaces(places: &[Place]) -> Result<Vec<usize>> {
    let ids = places
        .iter()
        .map(|p| p.netns.id())
        .collect::<weft_kernel::Result<Vec<_>>>()
        .map_err(Error::Kernel)?;
    Ok(ids.iter().enumerate().map(|(i, id)| ids.iter().position(|other| other == id).unwrap_or(i)).collect())
}

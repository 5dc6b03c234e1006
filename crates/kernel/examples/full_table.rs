//! What a full neighbour table does to us. The table is one for the whole machine, so only the
//! virtual machine lane runs this, on a link with the table full of entries that cannot age.
//!
//! usage: `full_table LINK`, where LINK holds at least one of those entries
#![allow(clippy::unwrap_used, reason = "a check fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use weft_kernel::{Neighbour, Netlink, Op};
use weft_model::Mac;

const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 1]);
/// More than any table of the lane holds.
const PERMANENT: u8 = 100;
/// All pauses of the retry together.
const RETRIED: Duration = Duration::from_millis(10 + 20 + 40 + 80);
const ROUNDS: u32 = 20;

fn main() {
    let name = std::env::args().nth(1).unwrap();
    let mut netlink = Netlink::open().unwrap();
    let ifindex = netlink.link(&name).unwrap().unwrap().index;

    let permanent: Vec<Op> = (1..=PERMANENT)
        .map(|n| Op::NeighReplace(Neighbour::permanent(ifindex, address(1, n), MAC)))
        .collect();
    netlink.batch(&permanent).into_iter().for_each(|done| done.unwrap());
    println!("{PERMANENT} permanent entries fit a full table");

    let started = Instant::now();
    let refused = netlink.apply(&learned(ifindex, address(2, 1))).unwrap_err();
    assert_eq!(refused.errno(), Some(libc::ENOBUFS), "{refused}");
    assert!(started.elapsed() >= RETRIED, "given up after {:?}", started.elapsed());
    println!("a learned one is refused after {:?}: {refused}", started.elapsed());

    let round = (1..=ROUNDS).find(|_| fits_once_there_is_room(&mut netlink, ifindex)).unwrap();
    println!("it fits once there is room (round {round})");
}

/// Whether an entry that was refused was there in the end because another one went meanwhile.
fn fits_once_there_is_room(netlink: &mut Netlink, ifindex: u32) -> bool {
    while learn_another(netlink, ifindex) {}
    let victim = of_link(netlink, ifindex).into_iter().find(|n| n.state & libc::NUD_PERMANENT == 0).unwrap();
    let before = times_full();
    let makes_room = thread::spawn(move || {
        while times_full() == before {
            thread::yield_now();
        }
        Netlink::open().unwrap().apply(&Op::NeighDel(victim)).unwrap();
    });
    let fitted = learn_another(netlink, ifindex);
    makes_room.join().unwrap();
    fitted
}

fn learned(ifindex: u32, ip: IpAddr) -> Op {
    Op::NeighReplace(Neighbour { ifindex, ip, mac: Some(MAC), state: libc::NUD_REACHABLE })
}

fn address(third: u8, fourth: u8) -> IpAddr {
    Ipv4Addr::new(198, 18, third, fourth).into()
}

/// Whether an entry for an address without one fits.
fn learn_another(netlink: &mut Netlink, ifindex: u32) -> bool {
    let there = of_link(netlink, ifindex);
    let unused = (1..=254).map(|n| address(2, n)).find(|ip| there.iter().all(|n| n.ip != *ip)).unwrap();
    netlink.apply(&learned(ifindex, unused)).is_ok()
}

fn of_link(netlink: &mut Netlink, ifindex: u32) -> Vec<Neighbour> {
    let mut all = netlink.neighbours().unwrap();
    all.retain(|n| n.ifindex == ifindex);
    all
}

/// How often the kernel found the table full, on all processors.
fn times_full() -> u64 {
    let text = std::fs::read_to_string("/proc/net/stat/arp_cache").unwrap();
    let mut lines = text.lines();
    let at = lines.next().unwrap().split_whitespace().position(|name| name == "table_fulls").unwrap();
    lines.map(|line| u64::from_str_radix(line.split_whitespace().nth(at).unwrap(), 16).unwrap()).sum()
}

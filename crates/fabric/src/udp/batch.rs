//! Packets on their way out, laid into trains: those to one peer of one size and with the same ECN bits, back to back.

use weft_kernel::{Piece, Train};

use super::table::Table;

/// The most packets of one train: the kernel's `UDP_MAX_SEGMENTS` of before 6.9.
const TRAIN_PACKETS: u32 = 64;
/// The most bytes of one train: the payload of one IPv4 datagram.
const TRAIN_BYTES: u32 = 65_507;
/// How many packets a batch has room for.
pub(crate) const PACKETS: usize = 2_048;

/// A packet: headers that were written anew, if any, and the rest of it.
#[derive(Clone, Copy, Debug)]
struct Packet {
    train: u32,
    parts: [Piece; 2],
}

#[derive(Clone, Copy, Debug)]
struct Open {
    peer: u32,
    ecn: u8,
    /// Size of all packets but the last.
    size: u32,
    packets: u32,
    bytes: u32,
    pieces: u32,
    /// Whether a shorter packet ended it.
    ended: bool,
}

/// A batch of packets, first put in one by one and then sealed to be sent.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    packets: Vec<Packet>,
    open: Vec<Open>,
    /// Whether the packets lie in the order of their trains.
    sorted: bool,
    /// Once sealed: the trains' pieces one after another, and the trains.
    pieces: Vec<Piece>,
    trains: Vec<Train>,
    next: Vec<u32>,
}

impl Batch {
    pub(crate) fn new() -> Batch {
        Batch {
            packets: Vec::with_capacity(PACKETS),
            open: Vec::with_capacity(PACKETS),
            pieces: Vec::with_capacity(2 * PACKETS),
            trains: Vec::with_capacity(PACKETS),
            next: Vec::with_capacity(PACKETS),
            sorted: true,
        }
    }

    /// How many more packets it takes.
    pub(crate) fn room(&self) -> usize {
        PACKETS - self.packets.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Adds a packet with these ECN bits for a peer. There must be [`room`](Self::room).
    pub(crate) fn push(&mut self, peer: u32, ecn: u8, parts: [Piece; 2]) {
        let size = parts[0].len + parts[1].len;
        let last = self.open.iter().rposition(|train| train.peer == peer && train.ecn == ecn);
        let fits = |train: &Open| {
            let room = train.packets < TRAIN_PACKETS && train.bytes + size <= TRAIN_BYTES;
            !train.ended && room && size <= train.size
        };
        let at = match last.filter(|at| fits(&self.open[*at])) {
            Some(at) => at,
            None => {
                self.open.push(Open { peer, ecn, size, packets: 0, bytes: 0, pieces: 0, ended: false });
                self.open.len() - 1
            }
        };
        self.sorted &= at + 1 == self.open.len();
        let train = &mut self.open[at];
        train.packets += 1;
        train.bytes += size;
        train.ended = size < train.size;
        train.pieces += parts.iter().map(|part| u32::from(part.len > 0)).sum::<u32>();
        self.packets.push(Packet { train: at as u32, parts });
    }

    /// Makes the trains ready to be sent.
    pub(crate) fn seal(&mut self, table: &Table) {
        self.trains.clear();
        self.next.clear();
        let mut first = 0;
        for open in &self.open {
            self.next.push(first);
            // A peer that is gone by now has no address: its train stays, with no pieces.
            let to = table.peer(open.peer).map(|peer| peer.to);
            let segment = (open.packets > 1).then_some(open.size as u16);
            if let Some(to) = to {
                self.trains.push(Train { to, first, count: open.pieces, segment, ecn: open.ecn });
            }
            first += open.pieces;
        }
        let parts = |packet: &Packet| packet.parts.into_iter().filter(|part| part.len > 0);
        self.pieces.clear();
        if self.sorted {
            self.pieces.extend(self.packets.iter().flat_map(parts));
            return;
        }
        self.pieces.resize(first as usize, Piece::default());
        for packet in &self.packets {
            let next = &mut self.next[packet.train as usize];
            for part in parts(packet) {
                self.pieces[*next as usize] = part;
                *next += 1;
            }
        }
    }

    /// The sealed trains and the pieces they consist of.
    pub(crate) fn sealed(&self) -> (&[Piece], &[Train]) {
        (&self.pieces, &self.trains)
    }

    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        self.open.clear();
        self.sorted = true;
    }
}

//! One caller of the daemon.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::ipam::dhcp::gob::{Decoder, Encoder, Value};
use crate::ipam::dhcp::rpc::{
    Arguments, CONNECT, CONNECTED, EMPTY, LONGEST_HEAD, RESPONSE, TYPES, structure, text,
};

/// More than a call with the largest configuration has.
const LARGEST: usize = 2 << 20;
const PIECE: usize = 16 * 1024;

/// A call that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) number: u64,
    pub(crate) arguments: Arguments,
}

/// A connection with what it has not said and not been told yet.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    encoder: Encoder,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    greeted: bool,
    /// Method and number of a call whose argument is still to come.
    header: Option<(String, u64)>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            decoder: Decoder::new(),
            encoder: Encoder::new(TYPES),
            inbox: Vec::new(),
            outbox: Vec::new(),
            greeted: false,
            header: None,
        })
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Takes in what has come. An error is the end of the connection.
    pub(crate) fn receive(&mut self) -> io::Result<()> {
        let mut piece = [0; PIECE];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.inbox.extend(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.inbox.len() > LARGEST {
                return Err(io::Error::other("it says more than any call has"));
            }
        }
    }

    /// The next call that is whole. An error is the end of the connection.
    pub(crate) fn next_call(&mut self) -> io::Result<Option<Call>> {
        if !self.greeted && !self.greet()? {
            return Ok(None);
        }
        loop {
            let value = self.decoder.next(&mut self.inbox).map_err(io::Error::other)?;
            let Some(value) = value else { return Ok(None) };
            match self.header.take() {
                None => {
                    let number = match value.field("Seq") {
                        Some(Value::Uint(number)) => *number,
                        _ => 0,
                    };
                    self.header = Some((value.text("ServiceMethod").to_owned(), number));
                }
                Some((method, number)) => {
                    return Ok(Some(Call { method, number, arguments: Arguments::of(&value) }));
                }
            }
        }
    }

    fn greet(&mut self) -> io::Result<bool> {
        let ends = |end: &[u8]| self.inbox.windows(end.len()).position(|w| w == end).map(|at| at + end.len());
        let Some(end) = ends(b"\n\n").or_else(|| ends(b"\r\n\r\n")) else {
            let long = self.inbox.len() > LONGEST_HEAD;
            return if long { Err(io::Error::other("its HTTP head does not end")) } else { Ok(false) };
        };
        let line = CONNECT.split(|b| *b == b'\n').next().unwrap_or_default();
        if !self.inbox.starts_with(line) {
            return Err(io::Error::other("it is no client of net/rpc"));
        }
        self.inbox.drain(..end);
        self.outbox.extend(CONNECTED);
        self.greeted = true;
        Ok(true)
    }

    /// Answers a call with a value of this type, or with an error.
    pub(crate) fn answer(&mut self, method: &str, number: u64, answer: Result<(i64, Value), String>) {
        let error = answer.as_ref().err().cloned().unwrap_or_default();
        let head = structure([
            ("ServiceMethod", text(method)),
            ("Seq", Value::Uint(number)),
            ("Error", Value::Text(error)),
        ]);
        self.outbox.extend(self.encoder.encode(RESPONSE, &head));
        let (id, value) = answer.unwrap_or((EMPTY, structure([])));
        self.outbox.extend(self.encoder.encode(id, &value));
    }

    /// Sends what waits, as far as it goes. An error is the end of the connection.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => drop(self.outbox.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

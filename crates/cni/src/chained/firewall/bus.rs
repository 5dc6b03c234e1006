//! As much of D-Bus as a method call with texts needs: the connection to the system bus, a call,
//! its reply (D-Bus specification 0.43, little endian).

use std::env;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOCKETS: [&str; 2] = ["/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket"];
/// How long an answer is waited for: firewalld may reload meanwhile.
const PATIENCE: Duration = Duration::from_secs(25);
/// No answer of ours is larger.
const LARGEST: usize = 1 << 20;
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
/// Header fields.
const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR: u8 = 4;
const FIELD_REPLY: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SIGNATURE: u8 = 8;

/// What a method answered, as far as ours do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// One text.
    Text(String),
    /// One truth value.
    Truth(bool),
    /// Something else.
    Other,
    /// An error: its name and text.
    Error(String),
}

/// A connection to a bus.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// The system's: where DBUS_SYSTEM_BUS_ADDRESS says, or at its usual place.
    pub(super) fn system() -> io::Result<Bus> {
        let named = env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
        let paths = named.split(';').filter_map(|address| {
            let keys = address.strip_prefix("unix:")?;
            keys.split(',').find_map(|pair| pair.strip_prefix("path="))
        });
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let usual = SOCKETS.into_iter().filter(|_| named.is_empty());
        for path in paths.chain(usual) {
            match UnixStream::connect(path).and_then(Bus::greet) {
                Ok(bus) => return Ok(bus),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Authenticates by the socket's credentials and says hello.
    fn greet(mut stream: UnixStream) -> io::Result<Bus> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let uid = std::fs::metadata("/proc/self")?.uid().to_string();
        let digits: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {digits}\r\n").as_bytes())?;
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") && line.len() < 512 {
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            let said = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, said));
        }
        stream.write_all(b"BEGIN\r\n")?;
        let mut bus = Bus { stream, serial: 0 };
        let name = "org.freedesktop.DBus";
        match bus.call(name, "/org/freedesktop/DBus", name, "Hello", &[])? {
            Reply::Error(said) => Err(io::Error::other(said)),
            _ => Ok(bus),
        }
    }

    /// Calls a method with texts and waits for its reply.
    pub(super) fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        arguments: &[&str],
    ) -> io::Result<Reply> {
        self.serial += 1;
        self.stream.write_all(&message(self.serial, destination, path, interface, member, arguments))?;
        loop {
            let message = self.receive()?;
            if let Some(reply) = reply(&message, self.serial) {
                return Ok(reply);
            }
        }
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut out = vec![0; 16];
        self.stream.read_exact(&mut out)?;
        let body = word(&out, 4).unwrap_or(u32::MAX) as usize;
        let fields = word(&out, 12).unwrap_or(u32::MAX) as usize;
        let rest = fields.saturating_add(7) / 8 * 8;
        let rest = rest.checked_add(body).filter(|rest| *rest <= LARGEST && out[0] == b'l');
        let rest = rest.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no message of ours"))?;
        out.resize(16 + rest, 0);
        self.stream.read_exact(&mut out[16..])?;
        Ok(out)
    }
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn text(out: &mut Vec<u8>, value: &str) {
    align(out, 4);
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(value.as_bytes());
    out.push(0);
}

fn signature(out: &mut Vec<u8>, value: &str) {
    out.push(value.len() as u8);
    out.extend(value.as_bytes());
    out.push(0);
}

fn message(
    serial: u32,
    destination: &str,
    path: &str,
    interface: &str,
    member: &str,
    arguments: &[&str],
) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| text(&mut body, argument));
    let mut fields = Vec::new();
    for (field, kind, value) in [
        (FIELD_PATH, "o", path),
        (FIELD_INTERFACE, "s", interface),
        (FIELD_MEMBER, "s", member),
        (FIELD_DESTINATION, "s", destination),
    ] {
        align(&mut fields, 8);
        fields.push(field);
        signature(&mut fields, kind);
        text(&mut fields, value);
    }
    if !arguments.is_empty() {
        align(&mut fields, 8);
        fields.push(FIELD_SIGNATURE);
        signature(&mut fields, "g");
        signature(&mut fields, &"s".repeat(arguments.len()));
    }
    let mut out = vec![b'l', CALL, 0, 1];
    for number in [body.len() as u32, serial, fields.len() as u32] {
        out.extend(number.to_le_bytes());
    }
    out.extend(fields);
    align(&mut out, 8);
    out.extend(body);
    out
}

/// The reply to the call `serial`, if this message is it.
fn reply(message: &[u8], serial: u32) -> Option<Reply> {
    let fields = word(message, 12)? as usize;
    let body = message.get((16 + fields).next_multiple_of(8)..)?;
    let (mut at, mut answers, mut name, mut kind) = (16, None, String::new(), String::new());
    while at < 16 + fields {
        at = at.next_multiple_of(8);
        let field = *message.get(at)?;
        let of = *message.get(at + 2)?;
        at += 4;
        match of {
            b'u' => {
                answers = (field == FIELD_REPLY).then(|| word(message, at)).flatten().or(answers);
                at += 4;
            }
            b'g' => {
                let length = usize::from(*message.get(at)?);
                if field == FIELD_SIGNATURE {
                    kind = String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).into_owned();
                }
                at += length + 2;
            }
            b's' | b'o' => {
                let value = text_at(message, at)?;
                at += 5 + value.len();
                if field == FIELD_ERROR {
                    name = value;
                }
            }
            _ => return None,
        }
    }
    (answers == Some(serial)).then_some(())?;
    match *message.get(1)? {
        RETURN if kind == "s" => Some(Reply::Text(text_at(body, 0)?)),
        RETURN if kind == "b" => Some(Reply::Truth(word(body, 0)? != 0)),
        RETURN => Some(Reply::Other),
        ERROR if kind.starts_with('s') => Some(Reply::Error(format!("{name}: {}", text_at(body, 0)?))),
        ERROR => Some(Reply::Error(name)),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A text; other encodings than UTF-8, which the specification forbids, end the message.
fn text_at(bytes: &[u8], at: usize) -> Option<String> {
    let length = word(bytes, at)? as usize;
    let value = bytes.get(at + 4..at.checked_add(4)?.checked_add(length)?)?;
    String::from_utf8(value.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_is_laid_out_as_the_specification_wants() {
        let out = message(7, "a.b", "/p", "a.i", "M", &["zone", "10.9.0.2/32"]);
        assert_eq!(&out[..4], b"l\x01\x00\x01");
        assert_eq!(word(&out, 8), Some(7));
        let fields = word(&out, 12).unwrap() as usize;
        let body = &out[(16 + fields).next_multiple_of(8)..];
        assert_eq!(word(&out, 4), Some(body.len() as u32));
        assert_eq!(text_at(body, 0).as_deref(), Some("zone"));
        assert_eq!(text_at(body, 12).as_deref(), Some("10.9.0.2/32"));
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = reply(&bytes, 1);
        }

        #[test]
        fn a_damaged_call_is_no_reply_but_harmless(at in 0..100usize, value: u8) {
            let mut out = message(1, "a.b", "/p", "a.i", "M", &["x"]);
            if let Some(byte) = out.get_mut(at) {
                *byte = value;
            }
            let _ = reply(&out, 1);
        }
    }
}

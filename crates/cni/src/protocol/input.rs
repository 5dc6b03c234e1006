//! Standard input, which is not waited for without end.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long nothing may come. A runtime writes the configuration as soon as the plugin is started,
/// and closes the pipe; on a machine where that takes longer nothing else works either.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Reads from a descriptor; an error when it stays open and silent.
#[derive(Debug)]
pub struct Input<F>(pub F);

impl<F: AsFd> Read for Input<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut waited_for = [PollFd::new(&self.0, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut waited_for, Some(&PATIENCE)))? == 0 {
            let silent = format!(
                "nothing came on standard input for {} s: write the configuration and close it",
                PATIENCE.tv_sec
            );
            return Err(io::Error::new(ErrorKind::TimedOut, silent));
        }
        Ok(rustix::io::read(&self.0, buffer)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_comes_is_read_to_its_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"some").unwrap();
        drop(writer);
        let mut text = String::new();
        Input(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "some");
    }
}

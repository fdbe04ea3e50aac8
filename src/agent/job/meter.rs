//! Meter: passes a stream on, counts its bytes, duplicates it into a digest, and keeps to a rate.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::bucket::Bucket;
use super::pipes::{Flow, MOST, MoveError};
use super::report::Counter;

/// Meter of a stream.
#[derive(Debug)]
pub(super) struct Meter {
    /// Stream.
    pub(super) flow: Flow,
    /// Counter of the bytes.
    pub(super) counter: Counter,
    /// Pipe for a duplicate of the stream.
    pub(super) side: Option<OwnedFd>,
    /// Limit of the rate.
    pub(super) bucket: Option<Arc<Bucket>>,
}

impl Meter {
    /// Passes the stream on to its end.
    pub(super) fn run(mut self) -> Result<(), MoveError> {
        loop {
            let granted = self.bucket.as_ref().map_or(MOST, |bucket| bucket.take(MOST));
            let moved = self.pass(granted)?;
            if moved == 0 {
                return Ok(());
            }
            self.counter.add(moved);
            if let Some(bucket) = &self.bucket {
                bucket.give_back(granted - moved);
            }
        }
    }

    /// Moves at most that many bytes, and returns how many; 0 at the end.
    fn pass(&mut self, most: usize) -> Result<usize, MoveError> {
        let Some(side) = &self.side else { return self.flow.forward(most) };
        let ready = self.flow.duplicate(side, most)?;
        // Duplicated bytes are still in the input and must move exactly once.
        self.flow.forward_all(ready)?;
        Ok(ready)
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::StreamDigest;
    use super::super::pipes::pipe;
    use super::*;
    use crate::proto::files::DigestKind;
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::num::NonZeroU64;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn bytes_are_counted_and_digested() {
        let ((input, from), (to, output)) = (pipe().unwrap(), pipe().unwrap());
        let writer = thread::spawn(move || File::from(from).write_all(&vec![0; 3_000_000]).unwrap());
        let (digest, side) = StreamDigest::start(DigestKind::Md5).unwrap();
        let counter = Counter::default();
        let meter = Meter {
            flow: Flow::new(input, output),
            counter: counter.clone(),
            side: Some(side),
            bucket: None,
        };
        let meter = thread::spawn(move || meter.run());
        let mut all = Vec::new();
        File::from(to).read_to_end(&mut all).unwrap();
        writer.join().unwrap();
        meter.join().unwrap().unwrap();
        assert_eq!((all.len(), counter.get()), (3_000_000, 3_000_000));
        assert_eq!(digest.finish().unwrap(), "c9fc2d3dd83ab67a129ac10b09c9ebbb");
    }

    #[test]
    fn stream_keeps_to_the_rate_and_follows_its_changes() {
        let ((input, from), (to, output)) = (pipe().unwrap(), pipe().unwrap());
        thread::spawn(move || File::from(from).write_all(&vec![0; 64 << 20]));
        thread::spawn(move || std::io::copy(&mut File::from(to), &mut std::io::sink()));
        let counter = Counter::default();
        let bucket = Arc::new(Bucket::new(NonZeroU64::new(10 << 20)));
        let meter = Meter {
            flow: Flow::new(input, output),
            counter: counter.clone(),
            side: None,
            bucket: Some(Arc::clone(&bucket)),
        };
        let start = Instant::now();
        let meter = thread::spawn(move || meter.run());
        while counter.get() < 5 << 20 {
            thread::sleep(Duration::from_millis(5));
        }
        let elapsed = start.elapsed().as_secs_f64();
        // Other programs of the machine may delay it.
        assert!(elapsed > 0.47, "5 MiB at 10 MiB/s took {elapsed} s");
        bucket.set_rate(None);
        meter.join().unwrap().unwrap();
        assert_eq!(counter.get(), 64 << 20);
    }
}

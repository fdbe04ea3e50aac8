//! Sorting of more records than fit into memory.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::open::descriptor_path;

/// Size in bytes of the records that are sorted in memory.
const MEMORY: usize = 8 << 20;
/// Number of sorted files that are merged at a time.
const FAN_IN: usize = 64;
/// Size of the buffer of each of them.
const BUFFER: usize = 32 << 10;

/// Sorter of records by their bytes. No record contains NUL. More than fits into memory is kept in unnamed
/// files of a directory.
#[derive(Debug)]
pub(crate) struct Sorter {
    directory: OwnedFd,
    memory: usize,
    fan_in: usize,
    /// Records in memory, one after the other, and where each is.
    bytes: Vec<u8>,
    records: Vec<(u32, u32)>,
    /// Sorted files: each of a level is merged from [`FAN_IN`] of the level below.
    files: Vec<Vec<File>>,
}

impl Sorter {
    /// Creates a sorter that keeps its files in this directory.
    pub(crate) fn new(directory: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            directory: directory.try_clone_to_owned()?,
            memory: MEMORY,
            fan_in: FAN_IN,
            bytes: Vec::new(),
            records: Vec::new(),
            files: Vec::new(),
        })
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: &[u8]) -> io::Result<()> {
        if !self.records.is_empty() && self.bytes.len() + record.len() > self.memory {
            self.spill()?;
        }
        let position = |length: usize| u32::try_from(length).map_err(io::Error::other);
        self.records.push((position(self.bytes.len())?, position(record.len())?));
        self.bytes.extend_from_slice(record);
        Ok(())
    }

    /// Calls a function with each record, in order.
    pub(crate) fn finish(mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if self.files.is_empty() {
            return self.each_in_memory(each);
        }
        self.spill()?;
        self.bytes = Vec::new();
        self.records = Vec::new();
        let mut files: VecDeque<File> = self.files.drain(..).flatten().collect();
        while files.len() > self.fan_in {
            let first = files.drain(..self.fan_in).collect();
            files.push_back(self.merged(first)?);
        }
        merge(files.into(), &mut each)
    }

    fn each_in_memory(&mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let bytes = &self.bytes;
        let record = |&(start, length): &(u32, u32)| &bytes[start as usize..][..length as usize];
        self.records.sort_unstable_by(|one, other| record(one).cmp(record(other)));
        self.records.iter().try_for_each(|position| each(record(position)))
    }

    /// Writes the records in memory to a file.
    fn spill(&mut self) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER, self.file()?);
        self.each_in_memory(|record| write_record(&mut out, record))?;
        let mut file = finished(out)?;
        self.bytes.clear();
        self.records.clear();
        for level in 0.. {
            if self.files.len() == level {
                self.files.push(Vec::new());
            }
            self.files[level].push(file);
            if self.files[level].len() < self.fan_in {
                break;
            }
            let full = std::mem::take(&mut self.files[level]);
            file = self.merged(full)?;
        }
        Ok(())
    }

    fn merged(&self, files: Vec<File>) -> io::Result<File> {
        let mut out = BufWriter::with_capacity(BUFFER, self.file()?);
        merge(files, &mut |record| write_record(&mut out, record))?;
        finished(out)
    }

    fn file(&self) -> io::Result<File> {
        tempfile::tempfile_in(descriptor_path(self.directory.as_fd()))
    }
}

/// Writes a record with the NUL that ends it.
pub(crate) fn write_record(out: &mut impl Write, record: &[u8]) -> io::Result<()> {
    out.write_all(record)?;
    out.write_all(b"\0")
}

fn finished(out: BufWriter<File>) -> io::Result<File> {
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// Calls a function with each record of sorted files, in order.
fn merge(files: Vec<File>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut readers: Vec<BufReader<File>> =
        files.into_iter().map(|file| BufReader::with_capacity(BUFFER, file)).collect();
    let mut heap = BinaryHeap::with_capacity(readers.len());
    for (number, reader) in readers.iter_mut().enumerate() {
        let mut record = Vec::new();
        if read_record(reader, &mut record)? {
            heap.push(Reverse((record, number)));
        }
    }
    while let Some(mut first) = heap.peek_mut() {
        let Reverse((record, number)) = &mut *first;
        each(record)?;
        if !read_record(&mut readers[*number], record)? {
            PeekMut::pop(first);
        }
    }
    Ok(())
}

/// Reads the next record in place of the last one; `false` at the end.
fn read_record(reader: &mut BufReader<File>, record: &mut Vec<u8>) -> io::Result<bool> {
    record.clear();
    reader.read_until(0, record)?;
    Ok(record.pop().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(records: &[Vec<u8>], memory: usize) -> Vec<Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let open = File::open(directory.path()).unwrap();
        let mut sorter = Sorter::new(open.as_fd()).unwrap();
        (sorter.memory, sorter.fan_in) = (memory, 4);
        for record in records {
            sorter.push(record).unwrap();
        }
        let mut sorted = Vec::new();
        sorter
            .finish(|record| {
                sorted.push(record.to_vec());
                Ok(())
            })
            .unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        sorted
    }

    #[test]
    fn records_are_sorted_in_memory_and_on_disk() {
        let mut random = fastrand::Rng::with_seed(7);
        let records: Vec<Vec<u8>> = (0..2000)
            .map(|_| {
                let length = random.usize(..12);
                std::iter::repeat_with(|| random.u8(1..)).take(length).collect()
            })
            .collect();
        let mut expected = records.clone();
        expected.sort();
        // The smallest needs several levels of files.
        for memory in [1 << 20, 1000, 50] {
            assert_eq!(sorted(&records, memory), expected, "{memory}");
        }
    }

    #[test]
    fn empty_and_very_long_records_are_kept() {
        let records = [vec![], vec![b'x'; 100_000], vec![], vec![b'a'; 50]];
        let expected = [vec![], vec![], vec![b'a'; 50], vec![b'x'; 100_000]];
        for memory in [1 << 20, 60] {
            assert_eq!(sorted(&records, memory), expected);
        }
        assert!(sorted(&[], 60).is_empty());
    }
}

//! System calls of a stopped thread: numbers, arguments, and what the arguments name.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;
use transfer::proto::journal::{Record, Undo, decode};

/// Name of a journal.
const JOURNAL: &str = "journal.bin";
/// Descriptor `AT_FDCWD`, as the kernel reads it.
const WORKING_DIRECTORY: u64 = 0xffff_ff9c;
/// Most bytes that are read from the memory of a process.
const MOST: usize = 4096;

/// System calls that open a file. The oldest one, which some C libraries make, takes no directory.
#[cfg(target_arch = "x86_64")]
pub(crate) const OPEN: &[i64] = &[libc::SYS_openat, libc::SYS_openat2, libc::SYS_open];
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const OPEN: &[i64] = &[libc::SYS_openat, libc::SYS_openat2];

/// System call that a stopped thread makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    thread: Pid,
    /// Number of the system call.
    pub(crate) number: i64,
    arguments: [u64; 6],
}

/// Stop of a thread at a system call.
pub(super) enum Stop {
    Entry(Call),
    /// Exit, and whether the call has succeeded.
    Exit(bool),
}

impl Stop {
    /// Returns where a thread has stopped. Fails when it has been killed.
    pub(super) fn of(thread: Pid) -> nix::Result<Option<Self>> {
        let operation = ptrace::syscall_info(thread)?.op;
        let registers = ptrace::getregs(thread)?;
        Ok(match operation {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                let (number, arguments) = entered(&registers);
                Some(Self::Entry(Call { thread, number, arguments }))
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => Some(Self::Exit(returned(&registers) >= 0)),
            _ => None,
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn entered(registers: &libc::user_regs_struct) -> (i64, [u64; 6]) {
    let r = registers;
    (signed(r.orig_rax), [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9])
}

#[cfg(target_arch = "x86_64")]
fn returned(registers: &libc::user_regs_struct) -> i64 {
    signed(registers.rax)
}

#[cfg(target_arch = "aarch64")]
fn entered(registers: &libc::user_regs_struct) -> (i64, [u64; 6]) {
    (signed(registers.regs[8]), std::array::from_fn(|n| registers.regs[n]))
}

#[cfg(target_arch = "aarch64")]
fn returned(registers: &libc::user_regs_struct) -> i64 {
    signed(registers.regs[0])
}

#[cfg(target_arch = "x86_64")]
fn first_argument(registers: &mut libc::user_regs_struct) -> &mut u64 {
    &mut registers.rdi
}

#[cfg(target_arch = "x86_64")]
fn result_of(registers: &mut libc::user_regs_struct) -> &mut u64 {
    &mut registers.rax
}

#[cfg(target_arch = "aarch64")]
fn first_argument(registers: &mut libc::user_regs_struct) -> &mut u64 {
    &mut registers.regs[0]
}

#[cfg(target_arch = "aarch64")]
fn result_of(registers: &mut libc::user_regs_struct) -> &mut u64 {
    &mut registers.regs[0]
}

fn signed(register: u64) -> i64 {
    i64::from_ne_bytes(register.to_ne_bytes())
}

impl Call {
    /// Returns argument `n` as flags.
    pub(crate) fn flags(&self, n: usize) -> u64 {
        // The kernel reads 32 bits of them.
        self.arguments[n] & u64::from(u32::MAX)
    }

    /// Returns the path of the descriptor in argument `n`, and of the working directory for `AT_FDCWD`.
    pub(crate) fn descriptor(&self, n: usize) -> PathBuf {
        fs::read_link(self.descriptor_link(n)).unwrap_or_default()
    }

    fn descriptor_link(&self, n: usize) -> String {
        // Some libraries pass 32 bits of a negative number.
        if self.flags(n) == WORKING_DIRECTORY {
            return format!("/proc/{}/cwd", self.thread);
        }
        format!("/proc/{}/fd/{}", self.thread, self.flags(n))
    }

    /// Returns the number of entries in the directory whose descriptor is argument `n`.
    pub(crate) fn entries(&self, n: usize) -> usize {
        fs::read_dir(self.descriptor_link(n)).map_or(0, Iterator::count)
    }

    /// Returns the text at the address in argument `n`, up to NUL.
    pub(crate) fn text(&self, n: usize) -> OsString {
        let mut text = self.memory(n, MOST);
        text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
        OsString::from_vec(text)
    }

    /// Returns the path that one of [`OPEN`] was given.
    pub(crate) fn opened(&self) -> OsString {
        let takes_directory = OPEN[..2].contains(&self.number);
        self.text(usize::from(takes_directory))
    }

    /// Returns the bytes at the address in argument `n`, as many as argument `length` says, or the first ones.
    pub(crate) fn bytes(&self, n: usize, length: usize) -> Vec<u8> {
        let length = usize::try_from(self.arguments[length]).unwrap_or(usize::MAX);
        self.memory(n, length.min(MOST))
    }

    /// Writes bytes behind the address in argument `n`.
    pub(crate) fn put(&self, n: usize, offset: u64, bytes: &[u8]) {
        let memory = File::options().write(true).open(format!("/proc/{}/mem", self.thread));
        // It may have been killed.
        let _ = memory.and_then(|memory| memory.write_all_at(bytes, self.arguments[n] + offset));
    }

    /// Replaces the descriptor in the first argument by none.
    pub(super) fn make_void(&self) -> nix::Result<()> {
        let mut registers = ptrace::getregs(self.thread)?;
        *first_argument(&mut registers) = u64::from(u32::MAX);
        ptrace::setregs(self.thread, registers)
    }

    /// Sets the result of a call that has just ended.
    pub(super) fn set_result(&self, result: i64) -> nix::Result<()> {
        let mut registers = ptrace::getregs(self.thread)?;
        *result_of(&mut registers) = u64::from_ne_bytes(result.to_ne_bytes());
        ptrace::setregs(self.thread, registers)
    }

    fn memory(&self, n: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = File::open(format!("/proc/{}/mem", self.thread))
            .and_then(|memory| memory.read_at(&mut bytes, self.arguments[n]));
        bytes.truncate(read.unwrap_or_default());
        bytes
    }

    /// Returns the path that a descriptor and a name below it give.
    pub(crate) fn path(&self, directory: usize, name: usize) -> PathBuf {
        self.descriptor(directory).join(self.text(name))
    }

    /// Returns the undo in the last record of a journal, if argument `n` is its descriptor and that record is a
    /// lease.
    pub(crate) fn lease(&self, n: usize) -> Option<Undo> {
        match self.last_record(n)? {
            Record::Lease(undo) => Some(undo),
            _ => None,
        }
    }

    /// Returns the last record of a journal, if argument `n` is its descriptor.
    pub(crate) fn last_record(&self, n: usize) -> Option<Record> {
        if !self.descriptor(n).ends_with(JOURNAL) {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(self.descriptor_link(n)).ok()?.read_to_end(&mut bytes).ok()?;
        decode(&bytes).ok()?.records.pop()
    }
}

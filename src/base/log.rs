//! Destination of the log: standard error, or journald with fields if standard error goes to the systemd
//! journal. Either way a separate thread writes it: lines that cannot be written are dropped and block
//! nothing.
//!
//! The crate for journald sends from the thread that logs, which must not block here. The format is the same
//! (systemd's Native Journal Protocol): one datagram with a line `FIELD=value` for each field.

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::base::printable::printable;
use crate::base::run_id::RunId;
use crate::base::terminal::{has_cursor, now, over_the_bar};

/// Socket of journald.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Priorities of syslog(3).
const ERROR: &str = "3";
const INFO: &str = "6";
/// Maximum time for journald to accept an entry of the report.
const PATIENCE: Duration = Duration::from_secs(5);

/// Handle of the log, to be kept while anything is logged.
#[derive(Debug)]
pub struct Log {
    worker: WorkerGuard,
    /// Connection to journald, if the log goes there.
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Journal {
    /// Socket, shared with the writer of the log.
    socket: Arc<UnixDatagram>,
    /// Device and inode of the stream to the journal.
    stream: (u64, u64),
    /// Fields of the run, part of each entry.
    run: Arc<OnceLock<String>>,
}

impl Log {
    /// Returns whether the log goes to journald.
    #[must_use]
    pub fn is_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Returns whether a stream goes to journald, too.
    #[must_use]
    pub fn takes(&self, stream: impl AsFd) -> bool {
        self.journal.as_ref().is_some_and(|journal| identity(stream) == Some(journal.stream))
    }

    /// Ends the log and sends the report as further entries. Unlike those of the log, these are sent
    /// synchronously.
    ///
    /// # Errors
    /// When journald does not accept them, or is not used.
    pub fn end_with(self, text: &str, is_good: bool) -> io::Result<()> {
        drop(self.worker);
        let Journal { socket, run, .. } = self.journal.ok_or(io::ErrorKind::NotConnected)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        for line in text.lines() {
            let fields = begun(if is_good { INFO } else { ERROR }, &run);
            socket.send(with(fields, "MESSAGE", line).as_bytes())?;
        }
        Ok(())
    }

    /// Sets the run of all further entries.
    pub fn run(&self, id: &RunId, source: &str, targets: &str) {
        if let Some(Journal { run, .. }) = &self.journal {
            let text = with(String::new(), "TRANSFER_RUN", &id.to_string());
            let text = with(text, "TRANSFER_SOURCE", source);
            let _ = run.set(with(text, "TRANSFER_TARGETS", targets));
        }
    }
}

/// Starts the log. Standard error has colours only on a terminal.
#[must_use]
pub fn begin(verbose: bool) -> Log {
    if let Some((socket, stream)) = journal() {
        let socket = Arc::new(socket);
        let (writer, worker) = tracing_appender::non_blocking(Datagrams(Arc::clone(&socket)));
        let run = Arc::new(OnceLock::new());
        tracing_subscriber::fmt()
            .with_writer(writer)
            .with_ansi(false)
            .log_internal_errors(false)
            .with_max_level(if verbose { tracing::Level::DEBUG } else { tracing::Level::INFO })
            .event_format(Entry { run: Arc::clone(&run) })
            .init();
        return Log { worker, journal: Some(Journal { socket, stream, run }) };
    }
    let (writer, worker) = tracing_appender::non_blocking(OverTheBar(std::io::stderr()));
    let level = if verbose { tracing::Level::DEBUG } else { tracing::Level::WARN };
    tracing_subscriber::fmt()
        .with_writer(writer)
        .with_ansi(has_cursor())
        .with_max_level(level)
        // Internal errors would panic if standard error is closed.
        .log_internal_errors(false)
        .event_format(Line { timed: verbose || !has_cursor() })
        .init();
    Log { worker, journal: None }
}

/// Connects to journald if standard error is a stream to it: systemd names that stream in `JOURNAL_STREAM`,
/// `DEVICE:INODE` (systemd.exec(5)).
fn journal() -> Option<(UnixDatagram, (u64, u64))> {
    let value = std::env::var("JOURNAL_STREAM").ok()?;
    let (device, inode) = value.split_once(':')?;
    let stream = (device.parse().ok()?, inode.parse().ok()?);
    if identity(std::io::stderr()) != Some(stream) {
        return None;
    }
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(JOURNAL).ok()?;
    Some((socket, stream))
}

/// Returns device and inode of a stream.
fn identity(stream: impl AsFd) -> Option<(u64, u64)> {
    nix::sys::stat::fstat(stream).ok().map(|file| (file.st_dev, file.st_ino))
}

/// Writer that sends each write as a journal entry.
struct Datagrams(Arc<UnixDatagram>);

impl std::io::Write for Datagrams {
    fn write(&mut self, entry: &[u8]) -> std::io::Result<usize> {
        self.0.send(entry)?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Formatter of events as journal entries.
struct Entry {
    run: Arc<OnceLock<String>>,
}

impl<S, N> FormatEvent<S, N> for Entry
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            tracing::Level::ERROR => ERROR,
            tracing::Level::WARN => "4",
            tracing::Level::INFO => INFO,
            _ => "7",
        };
        let mut fields = Fields(begun(priority, &self.run));
        event.record(&mut fields);
        writer.write_str(&fields.0)
    }
}

/// Returns the first fields of an entry.
fn begun(priority: &str, run: &OnceLock<String>) -> String {
    let fields = with(String::new(), "PRIORITY", priority);
    with(fields, "SYSLOG_IDENTIFIER", "transfer") + run.get().map_or("", String::as_str)
}

/// Appends a field to an entry. `printable` escapes newlines, which would require the binary form of a field.
fn with(mut fields: String, name: &str, value: &str) -> String {
    let _ = writeln!(fields, "{name}={}", printable(value.as_bytes()));
    fields
}

/// Collector of an event's fields.
struct Fields(String);

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        let name = match field.name() {
            "message" => "MESSAGE".to_owned(),
            // Part of each entry already.
            "source" | "targets" => return,
            name => format!("TRANSFER_{}", name.to_ascii_uppercase()),
        };
        self.0 = with(std::mem::take(&mut self.0), &name, value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, &format!("{value:.3}"));
    }
}

/// Formatter of events for people: warnings and, with `--verbose`, steps.
struct Line {
    /// Put the time in front of each line.
    timed: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        if self.timed {
            write!(writer, "{} ", now())?;
        }
        if *event.metadata().level() <= tracing::Level::WARN {
            write!(writer, "transfer: warning: ")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Writer to standard error next to a progress bar: each write is a whole line.
struct OverTheBar(std::io::Stderr);

impl std::io::Write for OverTheBar {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(&[over_the_bar().as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

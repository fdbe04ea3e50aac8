//! Where the log goes: to standard error, and to journald with fields where that is the journal of systemd anyway. Either way
//! through a thread of its own: lines that nobody takes are dropped, and hold up nothing.
//!
//! The crate for journald sends from the thread that logs, which must not wait; what is sent is the same (systemd's Native
//! Journal Protocol): a line `FIELD=value` for each field, in one datagram.

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

use crate::printable::printable;
use crate::run_id::RunId;
use crate::terminal::{has_cursor, over_the_bar};

/// Where journald listens.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Priorities, as syslog(3) counts.
const ERROR: &str = "3";
const INFO: &str = "6";
/// How long journald may take for an entry that is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What must live as long as there is something to log.
#[derive(Debug)]
pub struct Log {
    worker: WorkerGuard,
    /// Of the journal.
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Journal {
    /// Also that of the log, as long as it goes on.
    socket: Arc<UnixDatagram>,
    /// Device and inode of its stream.
    stream: (u64, u64),
    /// What stands in each entry.
    run: Arc<OnceLock<String>>,
}

impl Log {
    /// Whether it goes to journald.
    #[must_use]
    pub fn is_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Whether a stream goes to journald as well.
    #[must_use]
    pub fn takes(&self, stream: impl AsFd) -> bool {
        self.journal.as_ref().is_some_and(|journal| identity(stream) == Some(journal.stream))
    }

    /// Ends the log, and writes what the run came to as further entries of it. Unlike those of the log these are waited for.
    ///
    /// # Errors
    /// When journald does not take them, or there is none.
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

    /// Which run it is of, from now on.
    pub fn run(&self, id: &RunId, source: &str, targets: &str) {
        if let Some(Journal { run, .. }) = &self.journal {
            let text = with(String::new(), "TRANSFER_RUN", &id.to_string());
            let text = with(text, "TRANSFER_SOURCE", source);
            let _ = run.set(with(text, "TRANSFER_TARGETS", targets));
        }
    }
}

/// Begins to log. Lines on standard error are in colour only where that is a terminal.
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
    let log = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_ansi(has_cursor())
        .with_target(false)
        // Which would panic where standard error is closed.
        .log_internal_errors(false);
    if verbose {
        log.with_max_level(tracing::Level::DEBUG).init();
    } else {
        log.with_max_level(tracing::Level::WARN).event_format(Warning).init();
    }
    Log { worker, journal: None }
}

/// journald, where standard error is a stream of it: systemd says of which by `JOURNAL_STREAM`, `DEVICE:INODE`
/// (systemd.exec(5)).
fn journal() -> Option<(UnixDatagram, (u64, u64))> {
    let said = std::env::var("JOURNAL_STREAM").ok()?;
    let (device, inode) = said.split_once(':')?;
    let stream = (device.parse().ok()?, inode.parse().ok()?);
    if identity(std::io::stderr()) != Some(stream) {
        return None;
    }
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(JOURNAL).ok()?;
    Some((socket, stream))
}

/// Device and inode of what a stream goes to.
fn identity(stream: impl AsFd) -> Option<(u64, u64)> {
    nix::sys::stat::fstat(stream).ok().map(|file| (file.st_dev, file.st_ino))
}

/// Each write is an entry of the journal.
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

/// An event as an entry of the journal.
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

/// The beginning of an entry.
fn begun(priority: &str, run: &OnceLock<String>) -> String {
    let fields = with(String::new(), "PRIORITY", priority);
    with(fields, "SYSLOG_IDENTIFIER", "transfer") + run.get().map_or("", String::as_str)
}

/// An entry with one more field. Its value has no new line, which would need another form.
fn with(mut fields: String, name: &str, value: &str) -> String {
    let _ = writeln!(fields, "{name}={}", printable(value.as_bytes()));
    fields
}

/// The fields of an event.
struct Fields(String);

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        let name = match field.name() {
            "message" => "MESSAGE".to_owned(),
            // They are in each entry.
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

/// Warnings as people read them, beside other lines of ours.
struct Warning;

impl<S, N> FormatEvent<S, N> for Warning
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
        write!(writer, "transfer: warning: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Standard error, beside a bar: each write is a whole line.
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

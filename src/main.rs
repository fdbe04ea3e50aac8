//! Parse, log, run, report, exit: nothing else.

use std::io::Write as _;
use std::process::ExitCode;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use transfer::admin::{Verb, admin};
use transfer::cli::{Cli, Command};
use transfer::endpoint::HostName;
use transfer::error::Error;
use transfer::exit::Exit;
use transfer::report::Report;
use transfer::run::{self, Work};
use transfer::settings::{Settings, SettingsError, Sources};
use transfer::signals::Interrupts;
use transfer::terminal::{has_cursor, over_the_bar};

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    // One thread: the work is waiting, and the ssh masters die with the thread that started them.
    let exit = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(start(cli));
            // Nothing that still waits may keep us.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            say(&format!("transfer: no runtime: {error}"));
            Exit::Failed
        }
    };
    exit.into()
}

async fn start(cli: Cli) -> Exit {
    let settings = match settings(&cli) {
        Ok(settings) => settings,
        Err(error) => {
            let report = Report { error: Some(Error::from(error)), ..Report::default() };
            return tell(&report, cli.typed().options.json == Some(true));
        }
    };
    let log = log(settings.verbose);
    let interrupts = match Interrupts::listen() {
        Ok(interrupts) => interrupts,
        Err(error) => {
            say(&format!("transfer: cannot listen for signals: {error}"));
            return Exit::Failed;
        }
    };
    let work = match (&cli.command, &cli.source) {
        (Some(Command::Replica(order)), _) => Work::Replica(order),
        (None, Some(source)) => Work::Copy(source, &cli.targets),
        (Some(Command::Status { hosts }), _) => {
            return look_after(hosts, Verb::Status, &settings, &interrupts).await;
        }
        (Some(Command::Clean { hosts, start_servers }), _) => {
            let verb = Verb::Clean { start_servers: *start_servers };
            return look_after(hosts, verb, &settings, &interrupts).await;
        }
        (None, None) => return Exit::Usage,
    };
    let report = run::run(&settings, work, &interrupts).await;
    // What was logged stands before what it came to.
    drop(log);
    tell(&report, settings.json)
}

/// Shows or cleans hosts.
async fn look_after(hosts: &[HostName], verb: Verb, settings: &Settings, interrupts: &Interrupts) -> Exit {
    tokio::select! {
        (text, exit) = admin(hosts, verb, &settings.login) => {
            let _ = write!(std::io::stdout(), "{text}");
            exit
        }
        signal = interrupts.first() => Exit::Interrupted(signal),
    }
}

fn settings(cli: &Cli) -> Result<Settings, SettingsError> {
    let settings = Settings::load(cli.typed(), &Sources::real())?;
    match &cli.command {
        Some(Command::Replica(order)) => Settings::check_replicas(&order.typed, &order.targets)?,
        Some(_) => {}
        None => settings.check(&cli.typed, &cli.targets)?,
    }
    Ok(settings)
}

/// Prints what a run came to: what is good on standard output, all else on standard error, for programs always on
/// standard output.
fn tell(report: &Report, json: bool) -> Exit {
    let (text, exit) = (report.to_string(), report.exit());
    if json {
        let _ = writeln!(std::io::stdout(), "{}", report.to_json());
    }
    match exit {
        _ if text.is_empty() => {}
        Exit::Done if !json => drop(writeln!(std::io::stdout(), "{text}")),
        _ => say(&text),
    }
    exit
}

/// Logs go to standard error, in colour only where that is a terminal, through a thread of their own: lines that nobody
/// takes are dropped, and hold up nothing. What is returned must live as long as there is something to log.
fn log(verbose: bool) -> tracing_appender::non_blocking::WorkerGuard {
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
    worker
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

/// A closed standard error must not end a run in a panic.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

//! Entry point: parse, log, run, report, exit.

use std::io::Write as _;
use std::process::ExitCode;

use transfer::admin::{Verb, admin};
use transfer::base::endpoint::{Endpoint, HostName};
use transfer::base::exit::Exit;
use transfer::base::log::{self, Log};
use transfer::base::memory::forbid_dumps;
use transfer::base::run_id::RunId;
use transfer::base::signals::Interrupts;
use transfer::cli::{Cli, Command, Fleet, all};
use transfer::config::settings::{Settings, SettingsError, Sources};
use transfer::error::Error;
use transfer::history::{History, HistoryError};
use transfer::host::allow_many_files;
use transfer::report::Report;
use transfer::run::Work;
use transfer::run::recorded::recorded;

fn main() -> ExitCode {
    if let Err(error) = forbid_dumps() {
        say(&format!("transfer: cannot disable core dumps: {}", error.desc()));
        return Exit::Failed.into();
    }
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    allow_many_files();
    // One thread: the work is mostly waiting, and the ssh masters die with the thread that started them.
    let exit = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(start(cli));
            // Pending blocking work must not delay the exit.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            say(&format!("transfer: cannot start the runtime: {error}"));
            Exit::Failed
        }
    };
    exit.into()
}

async fn start(cli: Cli) -> Exit {
    // Needs neither a valid configuration nor signal handling.
    match &cli.command {
        Some(Command::History { last, json }) => {
            return look_back(|history| history.list(last.0 as usize, *json));
        }
        Some(Command::Show { run, json }) => return look_back(|history| history.show(run, *json)),
        _ => {}
    }
    let settings = match settings(&cli) {
        Ok(settings) => settings,
        Err(error) => {
            let report = Report { error: Some(Error::from(error)), ..Report::default() };
            return print(&report, cli.typed().options.json == Some(true), None);
        }
    };
    let log = log::begin(settings.verbose);
    let interrupts = match Interrupts::listen() {
        Ok(interrupts) => interrupts,
        Err(error) => {
            say(&format!("transfer: cannot listen for signals: {error}"));
            return Exit::Failed;
        }
    };
    let targets: Vec<Endpoint> = all(&cli.targets);
    let work = match (&cli.command, &cli.source) {
        (Some(Command::Replica(order)), _) => Work::Replica(order),
        (None, Some(source)) => Work::Copy(source, &targets),
        (Some(Command::Status { hosts }), _) => {
            return look_after(hosts, Verb::Status, &settings, &interrupts).await;
        }
        (Some(Command::Clean { hosts, start_servers, forget_hooks }), _) => {
            let verb = Verb::Clean { start_servers: *start_servers, forget_hooks: *forget_hooks };
            return look_after(hosts, verb, &settings, &interrupts).await;
        }
        (Some(Command::History { .. } | Command::Show { .. }) | None, _) => return Exit::Usage,
    };
    let report = match RunId::new() {
        Ok(id) => recorded(&id, &settings, work, &interrupts, &log).await,
        Err(error) => {
            let error = Error::Failed(format!("cannot name the run, no random numbers: {error}"));
            Report { error: Some(error), ..Report::default() }
        }
    };
    print(&report, settings.json, Some(log))
}

/// Shows or cleans up hosts.
async fn look_after(
    hosts: &[Fleet<HostName>],
    verb: Verb,
    settings: &Settings,
    interrupts: &Interrupts,
) -> Exit {
    let hosts = all(hosts);
    tokio::select! {
        (text, exit) = admin(&hosts, verb, &settings.login) => {
            let _ = write!(std::io::stdout(), "{text}");
            exit
        }
        signal = interrupts.first() => Exit::Interrupted(signal),
    }
}

/// Shows records of past runs.
fn look_back(read: impl FnOnce(&History) -> Result<String, HistoryError>) -> Exit {
    match History::of_this_account().and_then(|history| read(&history)) {
        Ok(text) => {
            let _ = write!(std::io::stdout(), "{text}");
            Exit::Done
        }
        Err(error) => {
            say(&format!("transfer: {error}"));
            error.exit()
        }
    }
}

fn settings(cli: &Cli) -> Result<Settings, SettingsError> {
    let settings = Settings::load(cli.typed(), &Sources::real())?;
    settings.check_files()?;
    match &cli.command {
        Some(Command::Replica(order)) => Settings::check_replicas(&order.typed, &order.hosts())?,
        Some(_) => {}
        None => settings.check(&cli.typed, &all(&cli.targets))?,
    }
    Ok(settings)
}

/// Prints the result of a run: success on standard output, everything else on standard error, JSON always on
/// standard output. If that stream is the journal, the same lines go there as entries of the run.
fn print(report: &Report, json: bool, log: Option<Log>) -> Exit {
    let (text, exit) = (report.to_string(), report.exit());
    let is_good = exit == Exit::Done && !json;
    let takes = |log: &Log| if is_good { log.takes(std::io::stdout()) } else { log.takes(std::io::stderr()) };
    // Log lines must precede the report.
    let is_logged = log.is_some_and(|log| takes(&log) && log.end_with(&text, exit == Exit::Done).is_ok());
    if json {
        let _ = writeln!(std::io::stdout(), "{}", report.to_json());
    }
    if text.is_empty() || is_logged {
        return exit;
    }
    if is_good {
        let _ = writeln!(std::io::stdout(), "{text}");
    } else {
        say(&text);
    }
    exit
}

/// Prints to standard error without a panic if it is closed.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

//! Records for tests.

use proptest::prelude::*;

use super::{Family, Header, Hook, Layer, Record, Undo, VERSION};
use crate::proto::server::{Account, DataDirectory, Login, StartState, Threads};
use crate::proto::{HostBytes, Text};

/// Returns a header.
pub(crate) fn header() -> Header {
    Header {
        version: VERSION,
        program: "0.1.0".to_owned().into(),
        boot: "5f1c".to_owned().into(),
        role: "target".to_owned().into(),
        controller: "ctl (pid 7)".to_owned().into(),
        started: 1_700_000_000,
        path: "/srv".into(),
    }
}

/// Returns the login of the server on a socket.
pub(crate) fn login(socket: &str) -> Login {
    Login { socket: socket.into(), defaults_file: HostBytes::default() }
}

fn bytes() -> impl Strategy<Value = HostBytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(HostBytes::from)
}

fn data() -> impl Strategy<Value = DataDirectory> {
    (bytes(), any::<u64>()).prop_map(|(path, inode)| DataDirectory { path, inode })
}

fn server() -> impl Strategy<Value = Login> {
    (bytes(), bytes()).prop_map(|(socket, defaults_file)| Login { socket, defaults_file })
}

fn threads() -> impl Strategy<Value = Threads> {
    any::<(bool, bool)>().prop_map(|(io, sql)| Threads { io, sql })
}

fn boot_or_disk() -> impl Strategy<Value = Undo> {
    let layer = prop::sample::select(vec![Layer::Nftables, Layer::IptablesNft, Layer::IptablesLegacy]);
    let family = prop::sample::select(vec![Family::V4, Family::V6]);
    prop_oneof![
        bytes().prop_map(|lock| Undo::Job { lock }),
        any::<u16>().prop_map(Undo::Port),
        bytes().prop_map(|lock| Undo::Name { lock }),
        (layer, family, any::<String>()).prop_map(|(layer, family, tag)| Undo::Rules { layer, family, tag }),
        (bytes(), any::<u64>()).prop_map(|(path, inode)| Undo::Unpublished { path, inode }),
        (bytes(), bytes()).prop_map(|(directory, staged)| Undo::Filled { directory, staged }),
        (bytes(), any::<u64>(), any::<u32>()).prop_map(|(path, inode, mode)| Undo::Mode {
            path,
            inode,
            mode
        }),
        (server(), any::<String>(), threads()).prop_map(|(server, connection, threads)| Undo::Replication {
            server,
            connection,
            threads
        }),
    ]
}

fn of_server() -> impl Strategy<Value = Undo> {
    let start =
        prop::sample::select(vec![StartState::Configured, StartState::NoReplication, StartState::Isolated]);
    prop_oneof![
        bytes().prop_map(|lock| Undo::ServerLock { lock }),
        (any::<String>(), server(), start, data()).prop_map(|(unit, server, start, data)| Undo::Server {
            unit,
            server,
            start,
            data
        }),
        (server(), any::<String>(), threads(), data()).prop_map(|(server, connection, threads, data)| {
            Undo::ServerReplication { server, connection, threads, data }
        }),
        (any::<String>(), data(), any::<Option<u64>>(), bytes(), any::<u64>()).prop_map(
            |(unit, data, old, aside, seconds)| Undo::Provisional { unit, data, old, aside, seconds }
        ),
        (server(), any::<String>(), any::<String>())
            .prop_map(|(server, user, host)| Undo::Account(Account { server, user, host })),
    ]
}

/// Returns any undo.
pub(crate) fn undo() -> impl Strategy<Value = Undo> {
    let hook = (any::<String>(), any::<u32>(), any::<String>(), any::<String>(), any::<String>());
    prop_oneof![
        boot_or_disk(),
        of_server(),
        (bytes(), any::<bool>()).prop_map(|(path, keep)| Undo::Staging { path, keep }),
        (bytes(), any::<u64>()).prop_map(|(path, inode)| Undo::RolledBack { path, inode }),
        bytes().prop_map(|path| Undo::Replaced { path }),
        hook.prop_map(|(end, number, command, source, targets)| Undo::Hook(Hook {
            end,
            number,
            command,
            source,
            targets
        })),
    ]
}

/// Returns any record.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    let header = (any::<(String, String, String)>(), any::<u64>(), bytes());
    prop_oneof![
        header.prop_map(|((program, boot, role), started, path)| Record::Header(Header {
            program: Text::new(program),
            boot: Text::new(boot),
            role: Text::new(role),
            started,
            path,
            ..self::header()
        })),
        undo().prop_map(Record::Lease),
        undo().prop_map(Record::Closed),
        Just(Record::Committed),
        any::<bool>().prop_map(|done| Record::Concluded { done }),
    ]
}

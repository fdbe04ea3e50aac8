//! What a host tells of its servers of databases and of archives.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// How many variables of a server are kept, and how many connections and servers.
const MOST: usize = 64;

/// A server that answers behind a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Why it could not be asked.
    pub error: Option<String>,
    /// Its global variables, of those that we need.
    pub variables: BTreeMap<String, String>,
    /// What it replicates, whether it runs or not.
    pub connections: Vec<Connection>,
    /// Whom its data directory belongs to, `USER:GROUP`.
    pub owner: String,
}

/// A connection of a replica to its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Its name; that of the only one is empty, mostly.
    pub name: String,
    /// It fetches.
    pub io: bool,
    /// It applies.
    pub sql: bool,
}

impl Instance {
    /// A global variable; empty where it is not known.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// Its version, such as `10.11.6-MariaDB-0+deb12u1`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.variable("version")
    }

    /// Its data directory.
    #[must_use]
    pub fn datadir(&self) -> PathBuf {
        PathBuf::from(self.variable("datadir"))
    }

    /// Its buffer pool, in bytes.
    #[must_use]
    pub fn buffer_pool(&self) -> u64 {
        self.variable("innodb_buffer_pool_size").parse().unwrap_or_default()
    }

    pub(super) fn add_variable(&mut self, name: String, value: String) {
        if self.variables.len() < MOST {
            self.variables.insert(name, value);
        }
    }

    pub(super) fn add_connection(&mut self, connection: Connection) {
        if self.connections.len() < MOST {
            self.connections.push(connection);
        }
    }
}

/// A server that runs on a host, and whose data a path has to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How the path lies to it.
    pub relation: Relation,
    /// Where it works.
    pub datadir: PathBuf,
    /// The unit of systemd that it runs in; empty where there is none.
    pub unit: String,
    /// The socket that it listens on; empty where that is not known.
    pub socket: String,
    /// Why it does not let us in; empty where it does.
    pub error: String,
}

/// A server that an ordinary account runs by itself, below what is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherServer {
    /// Its data directory.
    pub datadir: PathBuf,
    /// The account.
    pub account: String,
}

/// How a path lies to the data of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is the data directory, or something in it.
    Within,
    /// The data directory is below it.
    Around,
}

impl Relation {
    /// As the probe calls it.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "within" => Some(Self::Within),
            "around" => Some(Self::Around),
            _ => None,
        }
    }
}

/// An archive, by what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    /// How it is compressed.
    pub format: Option<Format>,
    /// What is in it then.
    pub content: Content,
    /// The bytes of that, as far as the format tells.
    pub bytes: Option<u64>,
    /// There may be more.
    pub at_least: bool,
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// gzip, of one or of several processors
    Gzip,
    /// Zstandard
    Zstd,
    /// LZ4
    Lz4,
    /// xz
    Xz,
}

impl Format {
    /// The program that unpacks it, and its Debian package.
    #[must_use]
    pub fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Gzip => ("gzip", "gzip"),
            Self::Zstd => ("zstd", "zstd"),
            Self::Lz4 => ("lz4", "lz4"),
            Self::Xz => ("xz", "xz-utils"),
        }
    }
}

/// What an archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A tar.
    Tar,
    /// A stream of mariadb-backup or xtrabackup.
    Backup,
    /// Neither.
    Other,
    /// The host cannot unpack it.
    Unknown,
}

impl Archive {
    pub(super) fn parse(format: &str, content: &str, bytes: &str, how: &str) -> Self {
        Self {
            format: match format {
                "gzip" => Some(Format::Gzip),
                "zstd" => Some(Format::Zstd),
                "lz4" => Some(Format::Lz4),
                "xz" => Some(Format::Xz),
                _ => None,
            },
            content: match content {
                "tar" => Content::Tar,
                "xbstream" => Content::Backup,
                "other" => Content::Other,
                _ => Content::Unknown,
            },
            bytes: bytes.parse().ok(),
            at_least: how != "exact",
        }
    }
}

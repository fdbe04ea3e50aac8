//! Everything that knows MariaDB and MySQL: facts about servers, backups, replication.

pub(crate) mod backup;
pub(crate) mod client;
pub(crate) mod facts;
pub(crate) mod jobs;
pub(crate) mod plan;
pub(crate) mod preflight;
pub(crate) mod prepare;
pub(crate) mod quiesce;
pub(crate) mod replica;
pub(crate) mod replicate;
pub(crate) mod sql;
pub(crate) mod survey;

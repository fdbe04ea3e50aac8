//! The program on this machine: a sandbox for each test, its runs, and their traces.

pub(crate) mod agents;
pub(crate) mod holds;
pub(crate) mod impostor;
pub(crate) mod processes;
pub(crate) mod runs;
pub(crate) mod sandbox;
pub(crate) mod trees;

//! The program on this machine: a place for each test, its runs, and what they leave there.

pub(crate) mod holds;
pub(crate) mod processes;
pub(crate) mod runs;
pub(crate) mod sandbox;
pub(crate) mod trees;

//! Data path: a list of stages, built from the plan ([`build`]) and written as a script ([`render`]).

pub(crate) mod build;
pub(crate) mod jobs;
pub(crate) mod render;
pub(crate) mod stage;

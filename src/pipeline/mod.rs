//! Data path: a list of stages, built from the plan ([`build`]) and written as a script ([`render`]).

pub mod build;
pub mod jobs;
pub mod render;
pub mod stage;

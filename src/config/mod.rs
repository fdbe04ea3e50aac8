//! Configuration of a run: layers of options, and the settings that they resolve to.

pub(crate) mod options;
pub mod settings;
pub mod typed;
pub mod values;

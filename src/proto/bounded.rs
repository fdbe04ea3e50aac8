//! Collections that are bounded when they are decoded.

use serde::{Deserialize, Deserializer};

/// Decodes a collection, of which the first `N` items are kept: a hostile host fills neither the controller's
/// memory, which the maximum size of a message bounds, nor the screen.
pub(super) fn at_most<'de, const N: usize, C, D>(deserializer: D) -> Result<C, D::Error>
where
    C: Deserialize<'de> + IntoIterator + FromIterator<C::Item>,
    D: Deserializer<'de>,
{
    Ok(C::deserialize(deserializer)?.into_iter().take(N).collect())
}

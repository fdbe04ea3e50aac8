//! Cells: the product of the tables, or a sample of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::cell::Cell;
use super::faults::faults;
use super::moments::MOMENTS;
use super::variants::VARIANTS;

/// Returns all cells in the order of the tables, or a sample of `DAMAGE_CELLS` cells drawn by `DAMAGE_SEED`:
/// with as many faults as possible, at random moments and in random variants.
pub(crate) fn cells() -> Vec<Cell> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let mut cells = product();
    if let Some(count) = number("DAMAGE_CELLS") {
        let seed = number("DAMAGE_SEED").expect("DAMAGE_CELLS needs a DAMAGE_SEED");
        fastrand::Rng::with_seed(seed).shuffle(&mut cells);
        let mut drawn: HashMap<String, usize> = HashMap::new();
        // First one cell of each fault, then a second one of each, and so on.
        cells.sort_by_cached_key(|cell| {
            let rank = drawn.entry(cell.fault.name.clone()).or_default();
            *rank += 1;
            *rank
        });
        cells.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    }
    cells
}

fn product() -> Vec<Cell> {
    let mut cells = Vec::new();
    for fault in faults().into_iter().map(Arc::new) {
        for moment in &MOMENTS {
            for variant in VARIANTS.iter().filter(|variant| fault.happens(moment, variant)) {
                cells.push(Cell { fault: Arc::clone(&fault), moment, variant });
            }
        }
    }
    cells
}

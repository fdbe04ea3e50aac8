//! Parts of the matrix, which can be run one after the other, or on several machines.

/// Returns the tests of the part that `DAMAGE_PART` names as `I/N`, from 1 on; without it all of them.
pub(crate) fn chosen<T>(tests: Vec<(String, T)>) -> Vec<(String, T)> {
    match std::env::var("DAMAGE_PART") {
        Ok(part) => {
            let (index, count) = parse(&part).expect("DAMAGE_PART must be I/N");
            part_of(tests, index, count)
        }
        Err(_) => tests,
    }
}

fn parse(part: &str) -> Option<(usize, usize)> {
    let (index, count) = part.split_once('/')?;
    let (index, count) = (index.parse().ok()?, count.parse().ok()?);
    (1..=count).contains(&index).then_some((index, count))
}

/// Deals the tests out like cards: those of one fault, and of one variant of it, take about equally long.
fn part_of<T>(mut tests: Vec<(String, T)>, index: usize, count: usize) -> Vec<(String, T)> {
    tests.sort_by_cached_key(|(name, _)| {
        let mut words = name.split('/').map(ToOwned::to_owned);
        let (fault, moment) = (words.next(), words.next());
        (fault, words.next(), moment)
    });
    tests.into_iter().skip(index - 1).step_by(count).collect()
}

/// Asserts that parts contain each test once, and a fair share of each fault.
pub(crate) fn parts_are_fair() {
    let names: Vec<String> = (["a", "b", "c"].iter())
        .flat_map(|fault| (0..10).map(move |moment| format!("{fault}/{moment}/plain")))
        .collect();
    let tests = || names.iter().rev().map(|name| (name.clone(), ())).collect::<Vec<_>>();
    let mut all = Vec::new();
    for index in 1..=4 {
        let part = part_of(tests(), index, 4);
        for fault in ["a/", "b/", "c/"] {
            let share = part.iter().filter(|(name, ())| name.starts_with(fault)).count();
            assert!((2..=3).contains(&share), "{share} tests of {fault} in part {index}");
        }
        all.extend(part.into_iter().map(|(name, ())| name));
    }
    all.sort();
    assert_eq!(all, names);
    for wrong in ["", "1", "0/4", "5/4", "a/b", "1/"] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
    assert_eq!(parse("4/4"), Some((4, 4)));
}

//! Waiting for facts.

use std::time::{Duration, Instant};

/// Between two looks. What is waited for here takes many times as long.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until there is an answer. Panics at the deadline, with the reason why the last look found none.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        let seen = match look() {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(begun.elapsed() < limit, "waited {limit:?} for this: {what}\nlast seen: {seen}");
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_handed_over() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(10), || {
            looks += 1;
            if looks == 3 { Ok("here") } else { Err(format!("look {looks}")) }
        });
        assert_eq!((found, looks), ("here", 3));
    }

    #[test]
    #[should_panic(expected = "waited 20ms for this: Godot\nlast seen: an empty road")]
    fn what_does_not_come_is_named() {
        until::<()>("Godot", Duration::from_millis(20), || Err("an empty road".to_owned()));
    }
}

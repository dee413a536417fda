//! Checks of indices and counts that a user gives.

use super::{Error, Result};

/// `index` if it is below `len`, else [`Error::OutOfRange`].
pub(crate) fn check_index(what: &'static str, index: usize, owner: &'static str, len: usize) -> Result<usize> {
    if index < len { Ok(index) } else { Err(Error::OutOfRange { what, index, owner, len }) }
}

/// The index of a position of a prompt, where negative positions count from its end, else [`Error::Position`].
pub(crate) fn check_position(position: isize, prompt: usize, len: usize) -> Result<usize> {
    let index = if position < 0 { len.checked_add_signed(position) } else { usize::try_from(position).ok() };
    index.filter(|&index| index < len).ok_or(Error::Position { position, prompt, len })
}

/// [`Error::Count`] if `found` is less than `min` or more than `max`.
pub(crate) fn check_count(
    function: &'static str,
    what: impl Into<String>,
    found: usize,
    min: usize,
    max: Option<usize>,
) -> Result<()> {
    if found >= min && max.is_none_or(|max| found <= max) {
        return Ok(());
    }
    Err(Error::Count { function, what: what.into(), found, min, max, hint: None })
}

/// [`Error::Setting`] unless `allowed`.
pub(crate) fn check_setting(
    function: &'static str,
    option: &'static str,
    allowed: bool,
    expected: impl Into<String>,
    found: impl std::fmt::Display,
) -> Result<()> {
    if allowed {
        return Ok(());
    }
    Err(Error::Setting { function, option, expected: expected.into(), found: found.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_error_gives_the_allowed_range() {
        let message = |index, len| check_index("head", index, "the model", len).unwrap_err().to_string();
        assert_eq!(message(12, 12), "head 12 out of range: the model has 12, 0 to 11");
        assert_eq!(message(1, 1), "head 1 out of range: the model has 1, number 0");
        assert_eq!(message(0, 0), "head 0 out of range: the model has 0");
        assert_eq!(check_index("head", 11, "the model", 12).unwrap(), 11);
    }

    #[test]
    fn negative_positions_count_from_the_end() {
        let index = |position| check_position(position, 2, 5);
        assert_eq!([index(0).unwrap(), index(4).unwrap(), index(-1).unwrap(), index(-5).unwrap()], [0, 4, 4, 0]);
        for position in [5, -6, isize::MIN, isize::MAX] {
            let message = index(position).unwrap_err().to_string();
            let expected = "out of range: prompt 2 has 5 tokens, positions 0 to 4, or -5 to -1 from the end";
            assert_eq!(message, format!("position {position} {expected}"));
        }
        assert!(check_position(0, 0, 0).is_err());
    }

    #[test]
    fn a_count_error_gives_the_allowed_range() {
        let message = |found, max| check_count("sweep", "max_tokens", found, 1, max).unwrap_err().to_string();
        assert_eq!(message(0, None), "sweep: max_tokens: expected at least 1, found 0");
        assert_eq!(message(257, Some(256)), "sweep: max_tokens: expected 1 to 256, found 257");
        assert!(check_count("sweep", "max_tokens", 256, 1, Some(256)).is_ok());
        assert!(check_count("sweep", "max_tokens", 1, 1, None).is_ok());
    }
}

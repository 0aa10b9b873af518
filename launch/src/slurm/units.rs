//! Times and amounts of memory as Slurm writes them.

use super::SlurmError;

/// Seconds of a time as Slurm writes it; `None` is no limit.
///
/// # Errors
/// [`SlurmError::Time`].
pub fn parse_time(text: &str) -> Result<Option<u64>, SlurmError> {
    if ["infinite", "unlimited"].contains(&text.to_ascii_lowercase().as_str()) {
        return Ok(None);
    }
    let wrong = || SlurmError::Time { text: text.to_owned() };
    let numbers = |text: &str| -> Result<Vec<u64>, SlurmError> {
        let digits = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
        text.split(':')
            .map(|part| if digits(part) { part.parse().map_err(|_| wrong()) } else { Err(wrong()) })
            .collect()
    };
    let seconds = match text.split_once('-') {
        Some((days, rest)) => {
            let days = numbers(days)?;
            match (&days[..], &numbers(rest)?[..]) {
                ([days], [h]) => days * 86_400 + h * 3600,
                ([days], [h, m]) => days * 86_400 + h * 3600 + m * 60,
                ([days], [h, m, s]) => days * 86_400 + h * 3600 + m * 60 + s,
                _ => return Err(wrong()),
            }
        }
        None => match numbers(text)?[..] {
            [m] => m * 60,
            [m, s] => m * 60 + s,
            [h, m, s] => h * 3600 + m * 60 + s,
            _ => return Err(wrong()),
        },
    };
    if seconds == 0 { Err(wrong()) } else { Ok(Some(seconds)) }
}

/// MiB of an amount as Slurm writes it: `64G`, `512M`, `1T`; without a letter MiB.
pub(super) fn parse_mem(text: &str) -> Result<u64, SlurmError> {
    let wrong = || SlurmError::Memory { text: text.to_owned() };
    let (digits, unit) = match text.char_indices().last() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => (&text[..at], letter.to_ascii_uppercase()),
        _ => (text, 'M'),
    };
    let n: u64 = digits.parse().map_err(|_| wrong())?;
    match unit {
        'K' => Ok(n.div_ceil(1024)),
        'M' => Ok(n),
        'G' => n.checked_mul(1024).ok_or_else(wrong),
        'T' => n.checked_mul(1024 * 1024).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_slurm() {
        for (text, seconds) in [
            ("30", Some(1800)),
            ("30:00", Some(1800)),
            ("4:00:00", Some(14_400)),
            ("2-00", Some(172_800)),
            ("1-12:30", Some(131_400)),
            ("1-12:00:05", Some(129_605)),
            ("infinite", None),
            ("UNLIMITED", None),
        ] {
            assert_eq!(parse_time(text), Ok(seconds), "{text}");
        }
        for text in ["", "4h", "1:2:3:4", "-5", "1-", "0", "0:00", "1:-1", "99999999999"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
